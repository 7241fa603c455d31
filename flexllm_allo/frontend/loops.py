"""``for`` over range, grid and reduction."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from ..ir import nodes as ir
from ..ir.dtypes import BOOL, INDEX
from ..ir.walk import walk
from .context import Context, LoopSymbol
from .names import NotConstant

LowerBody = Callable[[Context, list[ast.stmt]], None]
Bounds = tuple[ir.Expr, ir.Expr, int]
_OPTIONS = ("name", "pipeline", "unroll")


def lower_for(ctx: Context, node: ast.For, lower_body: LowerBody) -> None:
    """One loop statement: a nest of one loop per extent.

    Raises:
        FrontendError: FX110 the header is no range, grid or reduction; FX111 the iterator's name
            is in use.
    """
    if node.orelse:
        raise ctx.error("FX101", "for ... else is not supported", node)
    kind, call = _header(ctx, node)
    options = _options(ctx, call)
    bounds, run_time_step = _bounds(ctx, kind, call)
    names = _iterators(ctx, node, len(bounds))
    statement = ctx.loop_statements
    band = options.get("name") or "_".join(["S", *names, str(statement)])
    with ctx.block() as body:
        for name, target in zip(names, _targets(node), strict=True):
            ctx.bind(name, LoopSymbol(name), target)
        if run_time_step is not None:
            _stride(ctx, names[0], *run_time_step, node)
        lower_body(ctx, node.body)
    bounds = [(_kept(ctx, lo, body, node), _kept(ctx, hi, body, node), step) for lo, hi, step in bounds]
    ctx.loop_statements += 1
    attrs = _attributes(ctx, options, len(names), kind == "reduction", call)
    stmts: tuple[ir.Stmt, ...] = tuple(body)
    for level in reversed(range(len(names))):
        lower, upper, step = bounds[level]
        loop = ir.For(names[level], lower, upper, stmts, step, None, attrs[level], ctx.span(node))
        stmts = (replace(loop, band=str(band)) if level == 0 else loop,)
    ctx.emit(stmts[0])


def _header(ctx: Context, node: ast.For) -> tuple[str, ast.Call]:
    hint = "loops run over range(...), grid(...) or reduction(...)"
    call = node.iter
    if not isinstance(call, ast.Call):
        raise ctx.error("FX110", f"cannot loop over `{ast.unparse(call)}`", call, hint)
    try:
        callee = ctx.constant(call.func)
    except NotConstant:
        callee = None
    kind = "range" if callee is range else getattr(callee, "__intrinsic__", None)
    if kind not in ("range", "grid", "reduction"):
        raise ctx.error("FX110", f"cannot loop over `{ast.unparse(call)}`", call, hint)
    return kind, call


def _options(ctx: Context, call: ast.Call) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg not in _OPTIONS:
            hint = "known options: " + ", ".join(_OPTIONS)
            raise ctx.error("FX110", f"unknown loop option {keyword.arg}", keyword.value, hint)
        options[keyword.arg] = ctx.require_constant(keyword.value, keyword.arg)
    return options


Step = tuple[ir.Expr, ir.Expr]
"""Start and step of a loop whose step is known at run time only."""


def _bounds(ctx: Context, kind: str, call: ast.Call) -> tuple[list[Bounds], Step | None]:
    if not call.args:
        raise ctx.error("FX110", f"{kind} needs at least one extent", call)
    zero = ir.Const(0, INDEX, ctx.span(call))
    if kind != "range":
        return [(zero, ctx.lower_index(a), 1) for a in call.args], None
    if len(call.args) > 3:
        raise ctx.error("FX110", "range takes at most three arguments", call)
    values = [ctx.lower_index(a) for a in call.args]
    lower, upper = (zero, values[0]) if len(values) == 1 else (values[0], values[1])
    if len(values) < 3:
        return [(lower, upper, 1)], None
    step = values[2]
    if not isinstance(step, ir.Const):
        return _counted(ctx, lower, upper, step, call)
    if step.value < 1:
        message = f"Step in for loop range should be positive, got: {step.value}"
        raise ctx.error("FX110", message, call.args[2])
    return [(lower, upper, int(step.value))], None


def _counted(
    ctx: Context, lower: ir.Expr, upper: ir.Expr, step: ir.Expr, call: ast.Call
) -> tuple[list[Bounds], Step]:
    """A loop over the number of steps, ceil((upper - lower) / step); a step below 1 gives none."""
    span = ctx.span(call)

    def op(name: str, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        return ir.Binary(name, a, b, INDEX, span)

    zero, one = ir.Const(0, INDEX, span), ir.Const(1, INDEX, span)
    lower, step = _held(ctx, "start", lower, call), _held(ctx, "step", step, call)
    divisor = op("max", step, one)
    count = op("//", op("-", op("+", op("-", upper, lower), divisor), one), divisor)
    steps = ir.Select(ir.Binary("<", step, one, BOOL, span), zero, count, INDEX, span)
    return [(zero, _held(ctx, "steps", steps, call), 1)], (lower, step)


def _stride(ctx: Context, name: str, lower: ir.Expr, step: ir.Expr, node: ast.For) -> None:
    """Inside the loop the iterator's name stands for ``lower + n * step``."""
    span = ctx.span(node)
    done = ir.Binary("*", ir.LoopVar(name, INDEX, span), step, INDEX, span)
    value = ctx.temporary(f"{name}_value", INDEX, node)
    ctx.emit(ir.Store(value.name, (), ir.Binary("+", lower, done, INDEX, span), span))
    ctx.bind(name, value, node)


def _held(ctx: Context, stem: str, value: ir.Expr, node: ast.AST) -> ir.Expr:
    """The value as it is before the loop."""
    if isinstance(value, ir.Const):
        return value
    kept = ctx.temporary(stem, value.type, node)
    ctx.emit(ir.Store(kept.name, (), value, ctx.span(node)))
    return ir.Load(kept.name, (), value.type, ctx.span(node))


def _kept(ctx: Context, bound: ir.Expr, body: list[ir.Stmt], node: ast.AST) -> ir.Expr:
    """A bound, held if the body changes a variable in it: Python evaluates bounds once, C++ does not."""
    read = {n.buffer for n in walk(bound) if isinstance(n, ir.Load)}
    if not read:
        return bound
    for n in walk(tuple(body)):
        written = n.buffer if isinstance(n, ir.Store | ir.View) else getattr(n, "target", None)
        if written in read:
            return _held(ctx, "bound", bound, node)
    return bound


def _targets(node: ast.For) -> list[ast.expr]:
    return list(node.target.elts) if isinstance(node.target, ast.Tuple) else [node.target]


def _iterators(ctx: Context, node: ast.For, count: int) -> list[str]:
    targets = _targets(node)
    if len(targets) != count:
        message = f"{len(targets)} iterators for {count} extents"
        raise ctx.error("FX110", message, node.target)
    names: list[str] = []
    for target in targets:
        if not isinstance(target, ast.Name):
            raise ctx.error("FX110", "an iterator must be a name", target)
        if ctx.find(target.id) is not None or target.id in names:
            hint = "Please choose a different name for the loop iterator."
            raise ctx.error("FX111", f"{target.id} is already in use here", target, hint)
        names.append(target.id)
    return names


def _attributes(
    ctx: Context, options: dict[str, Any], count: int, reduction: bool, call: ast.Call
) -> list[ir.LoopAttrs]:
    """``pipeline=True`` is II 1 on the innermost loop; a list speaks of every loop."""
    attrs = [ir.LoopAttrs(reduction=reduction) for _ in range(count)]
    for key in ("pipeline", "unroll"):
        given = options.get(key)
        if given is None:
            continue
        values: list[Any] = [*[False] * (count - 1), given]
        if isinstance(given, list | tuple):
            values = list(cast(Sequence[Any], given))
        if len(values) != count:
            raise ctx.error("FX110", f"{key} has {len(values)} entries for {count} loops", call)
        for level, value in enumerate(values):
            if value:  # False and 0 say nothing of a loop
                default = 1 if key == "pipeline" else 0
                attrs[level] = replace(attrs[level], **{key: default if value is True else int(value)})
    return attrs
