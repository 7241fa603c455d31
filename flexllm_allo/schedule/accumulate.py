"""The transformation behind `buffer_at`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..analysis.accesses import Access, accesses, allocated, written
from ..analysis.affine import affine
from ..analysis.dependence import same_element_twice
from ..analysis.syntax import same_expr
from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.simplify import binary
from ..ir.walk import Node, buffers, rewrite, substitute, walk
from .buffers import shared_parameters
from .initial import whole_fill
from .names import LoopSite, fresh
from .nests import band_written, bound_reads, largest_extent, loop_vars


@dataclass(frozen=True)
class _Plan:
    """What the buffer covers: `kept` are the inner loops that index the target."""

    site: LoopSite
    target: ir.Buffer
    indices: tuple[ir.Expr, ...]
    kept: tuple[ir.For, ...]
    local: ir.Buffer
    first: Access

    @property
    def position(self) -> tuple[ir.Expr, ...]:
        """The index of the current element in the local buffer."""
        out: list[ir.Expr] = []
        for loop in self.kept:
            distance = binary("-", ir.LoopVar(loop.var, span=loop.span), loop.lower)
            out.append(binary("//", distance, loop.step))
        return tuple(out)


def accumulator(program: ir.Program, site: LoopSite, target: ir.Buffer) -> ir.For:
    """The loop of `site` with `target` held in a local buffer in each iteration.

    Raises:
        ScheduleError: FX205, see `memory.buffer_at`.
    """
    plan = _plan(program, site, target)
    loop = site.loop
    start = _start_value(program, plan)
    body: tuple[ir.Stmt, ...] = (ir.Alloc(plan.local, span=target.span),)
    if start is not None:
        body += _nest(plan, "init", ir.Store(plan.local.name, plan.position, start, loop.span))
    body += rewrite(loop.body, lambda node: _redirect(plan, node))
    held = ir.Load(plan.local.name, plan.position, target.dtype, loop.span)
    body += _nest(plan, "back", ir.Store(target.name, plan.indices, held, loop.span))
    return replace(loop, body=body)


def _refuse(message: str, site: LoopSite, places: Sequence[Place] = (), hint: str = "") -> ScheduleError:
    return ScheduleError("FX205", message, [*places, Place(site.loop.span, f'loop "{site.name}"')], hint)


def _plan(program: ir.Program, site: LoopSite, target: ir.Buffer) -> _Plan:
    loop = site.loop
    uses = [a for a in accesses(loop.body, program, (*site.outer, loop)) if a.buffer == target.name]
    if target.is_stream or target.name in allocated(loop.body):
        what = "is a FIFO" if target.is_stream else "lives in one iteration only"
        hint = "buffer an array that outlives the loop"
        raise _refuse(f'"{target.name}" {what} and cannot be buffered at "{site.name}"', site, hint=hint)
    if target.name in shared_parameters(program, site.function):
        hint = "pass different arrays, or copy one first"
        message = f'"{target.name}" is the same array as another parameter in some call'
        raise _refuse(message, site, [Place(target.span)], hint)
    if not any(a.write for a in uses):
        hint = "name the loop nest that accumulates into it"
        raise _refuse(f'loop "{site.name}" does not write "{target.name}"', site, hint=hint)
    if not any(isinstance(n, ir.For) for n in walk(loop.body)):
        raise _refuse("Cannot buffer at the inner-most loop", site, hint="name a loop further out")
    first = uses[0]
    for use in uses:
        same = len(use.indices) == len(first.indices) == len(target.shape) and all(
            same_expr(a, b) for a, b in zip(use.indices, first.indices, strict=True)
        )
        if not same or use.guarded:
            why = "this access is conditional" if same else "this access goes to another element"
            where = [Place(use.span, why), Place(first.span, "than this one" if not same else "")]
            raise _refuse(
                f'accesses to "{target.name}" in loop "{site.name}" differ', site, where[: 2 - same]
            )
    return _checked_plan(program, site, target, uses)


def _checked_plan(program: ir.Program, site: LoopSite, target: ir.Buffer, uses: list[Access]) -> _Plan:
    loop, first = site.loop, uses[0]
    changing = band_written(site, program)
    used = set[str]().union(*(loop_vars(i) for i in first.indices)) if first.indices else set[str]()
    if any(affine(i, changing) is None for i in first.indices):
        message = f'the index of "{target.name}" is not a linear form of loop variables'
        raise _refuse(message, site, [Place(first.span)])
    if loop.var not in used:
        hint = f'"{site.name}" does not index "{target.name}": buffer further out'
        raise _refuse("Cannot buffer inside the reduction loops", site, [Place(first.span)], hint)
    inner = list(first.loops[len(site.outer) + 1 :])
    kept = tuple(p for p in inner if p.var in used)
    for use in uses[1:]:
        _require_same_loops(site, target, kept, use)
    shape: list[int] = []
    for p in kept:
        size = largest_extent(p)
        outside = {q.var for q in inner} - {k.var for k in kept}
        steady = not bound_reads(p.lower, p.upper) & changing
        if size is None or not steady or (loop_vars(p.lower) | loop_vars(p.upper)) & outside:
            raise _refuse(f'loop "{p.var}" has no constant extent', site, [Place(p.span)])
        shape.append(size)
    if same_element_twice(first, (*site.outer, loop), kept, changing):
        message = f'different iterations inside loop "{site.name}" update one element of "{target.name}"'
        raise _refuse(message, site, [Place(first.span)])
    name = fresh(f"{target.name}_buf", set(buffers(site.function)))
    local = ir.Buffer(name, target.dtype, tuple(shape), span=target.span)
    return _Plan(site, target, first.indices, kept, local, first)


def _require_same_loops(site: LoopSite, target: ir.Buffer, kept: tuple[ir.For, ...], use: Access) -> None:
    mine = {p.var: p for p in use.loops[len(site.outer) + 1 :]}
    for p in kept:
        q = mine.get(p.var)
        if q is None or q.step != p.step or not (same_expr(q.lower, p.lower) and same_expr(q.upper, p.upper)):
            message = f'accesses to "{target.name}" run over different ranges of "{p.var}"'
            raise _refuse(message, site, [Place(use.span), Place(p.span, f'loop "{p.var}"')])


def _redirect(plan: _Plan, node: Node) -> Node | None:
    name = plan.target.name
    match node:
        case ir.Load() if node.buffer == name:
            return replace(node, buffer=plan.local.name, indices=plan.position)
        case ir.Store() if node.buffer == name:
            return replace(node, buffer=plan.local.name, indices=plan.position)
        case _:
            return None


def _nest(plan: _Plan, suffix: str, inner: ir.Store) -> tuple[ir.Stmt, ...]:
    """`inner` under copies of the kept loops; only the outermost can be named by schedules."""
    if not plan.kept:
        return (inner,)
    taken = {n.var for n in walk(plan.site.loop) if isinstance(n, ir.For)}
    names: dict[str, ir.Expr] = {}
    for depth, loop in enumerate(plan.kept):
        name = fresh(f"{f'_{depth}' if depth else ''}{loop.var}_{suffix}", taken)
        names[loop.var] = ir.LoopVar(name, span=loop.span)
    body: tuple[ir.Stmt, ...] = (substitute(inner, names),)
    for depth, loop in reversed(list(enumerate(plan.kept))):
        new = names[loop.var]
        assert isinstance(new, ir.LoopVar)
        attrs = ir.LoopAttrs(pipeline=1) if depth == len(plan.kept) - 1 else ir.LoopAttrs()
        lower, upper = substitute(loop.lower, names), substitute(loop.upper, names)
        body = (ir.For(new.name, lower, upper, body, loop.step, attrs=attrs, span=loop.span),)
    return body


def _start_value(program: ir.Program, plan: _Plan) -> ir.Expr | None:
    """What a buffer element starts from; None when the first use overwrites every element."""
    inner = plan.first.loops[len(plan.site.outer) + 1 :]
    if plan.first.write and [p.var for p in inner] == [p.var for p in plan.kept]:
        return None
    constant = _known_content(program, plan)
    if constant is not None:
        return constant
    return ir.Load(plan.target.name, plan.indices, plan.target.dtype, plan.first.span)


def _known_content(program: ir.Program, plan: _Plan) -> ir.Const | None:
    """The constant the target was filled with before its band, if each element is visited once."""
    around = (*plan.site.outer, plan.site.loop)
    changing = band_written(plan.site, program)
    if same_element_twice(plan.first, (), (*around, *plan.kept), changing):
        return None
    (field, position), *_ = plan.site.path
    assert field == "body"
    band = plan.site.function.body[position]
    if not isinstance(band, ir.For):
        return None
    others = [a for a in accesses((band,), program) if a.buffer == plan.target.name]
    if len(others) != len(_inside(program, plan)):
        return None
    for stmt in reversed(plan.site.function.body[:position]):
        if isinstance(stmt, ir.Alloc) and stmt.buffer.name == plan.target.name and stmt.init is not None:
            return ir.Const(stmt.init[0], plan.target.dtype) if len(set(stmt.init)) == 1 else None
        if plan.target.name in written((stmt,), program):
            return whole_fill(stmt, plan.target)
    return None


def _inside(program: ir.Program, plan: _Plan) -> list[Access]:
    return [a for a in accesses(plan.site.loop.body, program) if a.buffer == plan.target.name]


__all__ = ["accumulator"]
