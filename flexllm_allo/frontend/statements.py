"""Statements of the kernel language -> IR statements. `_LOWER` lists what is supported."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from typing import cast as cast_any

import numpy as np

from ..errors import FrontendError, Place
from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import BOOL, INDEX, ArrayType, DType, StreamType, Struct, UInt
from .annotations import annotated_type
from .array_expressions import is_array, is_numpy_call, lower_value, makes_buffer
from .array_statements import (
    assign_region,
    assign_value,
    assign_whole,
    augment_region,
    stored_array,
    unbound,
)
from .arrays import copy_array, fill_array
from .axes import whole
from .calls import Target, lower_call, resolve_callee
from .context import ConstSymbol, Context, LoopSymbol, StreamsSymbol, ViewSymbol
from .declarations import constant_array, declare_constant, declare_stateful, flat_contents
from .expressions import binary, lower_condition, operator_name
from .loops import lower_for
from .meta import lower_with
from .names import NotConstant
from .places import place_of, raw_bits, read, store
from .processes import bind_pids, is_get_pid
from .source import local_kernel
from .stream_writes import lower_write
from .streams import stream_operand


def lower_body(ctx: Context, body: list[ast.stmt]) -> None:
    """Append the IR of the statements to the current block."""
    i = 0
    while i < len(body) and ctx.outputs is None:  # what follows a return is never reached
        node = body[i]
        if isinstance(node, ast.With):
            i += lower_with(ctx, body, i, lower_body)
            continue
        handler = _LOWER.get(type(node))
        if handler is None:
            name = type(node).__name__
            hint = "docs/language.md lists the statements a kernel may use"
            raise ctx.error("FX101", f'Unsupported node "{name}" in a kernel', node, hint)
        handler(ctx, node)
        i += 1


# ----------------------------------------------------------------------------------- assignment


def _ann_assign(ctx: Context, node: ast.AnnAssign) -> None:
    if not isinstance(node.target, ast.Name):
        raise ctx.error("FX103", "only a name can be declared with a type", node.target)
    name = node.target.id
    declared = annotated_type(ctx, node.annotation)
    if node.value is not None and is_get_pid(node.value):
        bind_pids(ctx, node.target, node.value)
        return
    if isinstance(declared, ArrayType) and declared.constexpr:
        declare_constant(ctx, name, declared, node)
        return
    existing = ctx.find(name)
    if isinstance(existing, ConstSymbol):
        raise ctx.error("FX104", f"{name} is a compile-time constant and cannot be assigned to", node)
    if isinstance(existing, ir.Buffer) and node.value is not None:
        same = (existing.dtype, existing.shape) == (declared.dtype, declared.shape)
        if not same:
            places = [Place(ctx.span(node)), Place(existing.span, "declared here")]
            raise FrontendError("FX104", f"Invalid assignment to {name}, type mismatch.", places)
        _assign_name(ctx, node.target, node.value)
        return
    if existing is not None and name in ctx.scopes[-1].symbols:
        places = [Place(ctx.span(node)), Place(ctx.where(name) or ctx.span(node), "first")]
        raise FrontendError("FX111", f"{name} is declared twice", places)
    if isinstance(declared, StreamType):
        fifo = {"depth": declared.depth, "token": declared.token}
        buffer = ctx.declare(name, declared.dtype, declared.shape, node, **fifo)
        ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
        return
    if declared.stateful:
        declare_stateful(ctx, name, declared, node)
    else:
        _declare_array(ctx, name, declared, node)


def _declare_array(ctx: Context, name: str, declared: ArrayType, node: ast.AnnAssign) -> None:
    value = node.value
    if value is None:
        buffer = ctx.declare(name, declared.dtype, declared.shape, node, memory=declared.memory)
        ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
        return
    contents = _constant_array(ctx, value, declared)
    if contents is not None:
        buffer = ctx.declare(name, declared.dtype, declared.shape, node, memory=declared.memory)
        ctx.emit(ir.Alloc(buffer, contents, ctx.span(node)))
        return
    if declared.shape and makes_buffer(ctx, value):
        assert isinstance(value, ast.Call)
        made = lower_call(ctx, value, [name])
        if isinstance(made, list) and made[0].shape:
            _bind_result(ctx, name, made[0], declared, node)
            return
    if declared.shape:
        lowered = lower_value(ctx, value)
        assign_value(ctx, whole(_declared(ctx, name, declared, node)), lowered, node, value)
        return
    scalar = _converted(ctx, value, declared.dtype)
    buffer = _declared(ctx, name, declared, node)
    ctx.emit(ir.Store(buffer.name, (), scalar, ctx.span(node)))


def _declared(ctx: Context, name: str, declared: ArrayType, node: ast.AST) -> ir.Buffer:
    buffer = ctx.declare(name, declared.dtype, declared.shape, node, memory=declared.memory)
    ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
    return buffer


def _bind_result(ctx: Context, name: str, made: ir.Buffer, declared: ArrayType, node: ast.AST) -> None:
    given = ArrayType(made.dtype, made.shape)
    if given != ArrayType(declared.dtype, declared.shape):
        raise ctx.error("FX104", f"{name} is declared as {declared}, the call gives {given}", node)
    ctx.bind(name, made, node)


def _constant_array(ctx: Context, value: ast.expr, declared: ArrayType) -> tuple[int | float, ...] | None:
    """Flat raw contents of a list or NumPy constant, or None when it is no array constant."""
    if not declared.shape or (isinstance(value, ast.Call) and not is_numpy_call(ctx, value)):
        return None
    try:
        known = ctx.constant(value)
    except NotConstant:
        return None
    if not isinstance(known, list | tuple | np.ndarray):
        return None
    array = constant_array(ctx, cast_any(Any, known), value)
    if array.shape != declared.shape:
        message = f"Shape mismatch, got {array.shape} and {declared.shape}"
        raise ctx.error("FX105", message, value)
    return flat_contents(array, declared)


def _assign(ctx: Context, node: ast.Assign) -> None:
    if len(node.targets) != 1:
        raise ctx.error("FX101", "chained assignment not supported", node)
    target = node.targets[0]
    if is_get_pid(node.value):
        bind_pids(ctx, target, node.value)
    elif isinstance(target, ast.Tuple):
        _assign_tuple(ctx, target, node.value)
    elif isinstance(target, ast.Name):
        _assign_name(ctx, target, node.value)
    elif isinstance(target, ast.Subscript):
        _assign_element(ctx, target, node.value)
    else:
        raise ctx.error("FX101", f"cannot assign to `{ast.unparse(target)}`", target)


def _assign_name(ctx: Context, target: ast.Name, value: ast.expr) -> None:
    symbol = ctx.find(target.id)
    if isinstance(symbol, LoopSymbol | ConstSymbol | StreamsSymbol):
        raise ctx.error("FX104", f"{target.id} cannot be assigned to", target)
    if isinstance(symbol, ViewSymbol):
        symbol = unbound(ctx, target)
    if is_array(ctx, value) and not makes_buffer(ctx, value):
        assign_whole(ctx, target, symbol if isinstance(symbol, ir.Buffer) else None, value)
        return
    assert symbol is None or isinstance(symbol, ir.Buffer)
    if isinstance(value, ast.Call):
        made = lower_call(ctx, value, [symbol or target.id] if _is_kernel(ctx, value) else None)
        if isinstance(made, list):
            _take(ctx, target, symbol, made[0])
        else:
            _store_scalar(ctx, target, symbol, made)
        return
    if symbol is not None and symbol.shape:
        fill_array(ctx, symbol, cast(ctx.lower_expr(value), symbol.dtype), target)
    else:
        scalar = _converted(ctx, value, symbol.dtype) if symbol else ctx.lower_expr(value)
        _store_scalar(ctx, target, symbol, scalar)


def _converted(ctx: Context, value: ast.expr, dtype: DType) -> ir.Expr:
    """A value as it is assigned to a scalar of this type; structs are written as dictionaries."""
    if isinstance(dtype, Struct) and isinstance(value, ast.Dict):
        return _struct(ctx, value, dtype)
    scalar = ctx.lower_expr(value)
    if scalar.type != dtype and isinstance(scalar.type, Struct) | isinstance(dtype, Struct):
        raise ctx.error("FX104", f"{scalar.type} cannot be assigned to {dtype}", value)
    return cast(scalar, dtype, ctx.span(value))


def _struct(ctx: Context, node: ast.Dict, dtype: Struct) -> ir.Expr:
    """``{"x": a, "y": b}``: the fields side by side in one word."""
    given: dict[str, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise ctx.error("FX106", "Struct field access must use string literal", key or node)
        given[key.value] = value
    names = [name for name, _ in dtype.fields]
    if set(given) != set(names):
        raise ctx.error("FX104", f"the fields of the struct are {', '.join(names)}", node)
    word = UInt(dtype.bits)
    whole: ir.Expr = ir.Const(0, word, ctx.span(node))
    for name, t in dtype.fields:
        low, _ = dtype.field(name)
        part = cast(raw_bits(_converted(ctx, given[name], t)), word)
        at = ir.Const(low, INDEX)
        placed = ir.Binary("<<", part, at, word, ctx.span(node)) if low else part
        whole = ir.Binary("|", whole, placed, word, ctx.span(node)) if low else part
    return cast(whole, dtype)


def _is_kernel(ctx: Context, node: ast.Call) -> bool:
    if isinstance(node.func, ast.Attribute) and stream_operand(ctx, node.func.value):
        return False
    callee, _ = resolve_callee(ctx, node.func)
    return callable(callee) and not hasattr(callee, "__intrinsic__") and hasattr(callee, "__code__")


def _store_scalar(ctx: Context, target: ast.Name, symbol: ir.Buffer | None, value: ir.Expr) -> None:
    if symbol is None:
        symbol = ctx.declare(target.id, value.type, (), target)
        ctx.emit(ir.Alloc(symbol, span=ctx.span(target)))
    if symbol.shape:
        fill_array(ctx, symbol, cast(value, symbol.dtype), target)
        return
    ctx.emit(ir.Store(symbol.name, (), cast(value, symbol.dtype), ctx.span(target)))


def _take(ctx: Context, target: ast.Name, symbol: ir.Buffer | None, made: ir.Buffer) -> None:
    """Give the result of a call its Python name, or copy it into what has that name."""
    if symbol is None:
        ctx.bind(target.id, made, target)
    elif made.name == symbol.name:
        return
    elif not symbol.shape:
        load = ir.Load(made.name, (), made.dtype, ctx.span(target))
        _store_scalar(ctx, target, symbol, load)
    else:
        view = ir.View(made.name, (), ctx.span(target))
        copy_array(ctx, symbol, (), view, made, target)


def _assign_tuple(ctx: Context, target: ast.Tuple, value: ast.expr) -> None:
    names = [t for t in target.elts if isinstance(t, ast.Name)]
    if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
        held: list[ast.expr] = []
        for item in value.elts:  # all right sides first: x, y = y, x swaps
            if is_array(ctx, item):
                temp = stored_array(ctx, item)
            else:
                scalar = ctx.lower_expr(item)
                temp = ctx.temporary("held", scalar.type, item)
                ctx.emit(ir.Store(temp.name, (), scalar, ctx.span(item)))
            ctx.bind(temp.name, temp, item)
            held.append(ast.copy_location(ast.Name(temp.name, ast.Load()), item))
        for t, h in zip(target.elts, held, strict=True):
            _assign(ctx, ast.copy_location(ast.Assign([t], h), t))
        return
    if len(names) != len(target.elts) or not isinstance(value, ast.Call):
        raise ctx.error("FX101", "only calls and tuples can be unpacked into names", target)
    symbols = [ctx.find(n.id) if n.id != "_" else None for n in names]
    targets: list[Target] = [
        s if isinstance(s, ir.Buffer) else n.id for s, n in zip(symbols, names, strict=True)
    ]
    made = lower_call(ctx, value, targets)
    if not isinstance(made, list):
        raise ctx.error("FX107", f"`{ast.unparse(value.func)}` returns one value", value)
    for name, symbol, buffer in zip(names, symbols, made, strict=True):
        if name.id != "_":
            _take(ctx, name, symbol if isinstance(symbol, ir.Buffer) else None, buffer)


def _assign_element(ctx: Context, target: ast.Subscript, value: ast.expr) -> None:
    if is_array(ctx, target):
        assign_region(ctx, target, value)
        return
    place = place_of(ctx, target)
    if place is None:
        raise _not_assignable(ctx, target)
    store(ctx, place, _converted(ctx, value, place.type), target)


def _not_assignable(ctx: Context, target: ast.expr) -> FrontendError:
    base = target
    while isinstance(base, ast.Subscript):
        base = base.value
    if isinstance(base, ast.Name) and ctx.find(base.id) is None:
        return ctx.unknown_name(base)
    symbol = ctx.find(base.id) if isinstance(base, ast.Name) else None
    hint = "write a stream with .put(value)" if isinstance(symbol, StreamsSymbol) else ""
    return ctx.error("FX101", f"cannot assign to `{ast.unparse(target)}`", target, hint)


def _aug_assign(ctx: Context, node: ast.AugAssign) -> None:
    op = operator_name(node.op)
    if op is None or op == "**":
        raise ctx.error("FX101", f'Unsupported node "{type(node.op).__name__}"', node)
    if is_array(ctx, node.target):
        augment_region(ctx, node)
        return
    place = place_of(ctx, node.target)
    if place is None:
        raise _not_assignable(ctx, node.target)
    old = read(ctx, place, node.target)
    store(ctx, place, binary(ctx, op, old, ctx.lower_expr(node.value), node), node)


# --------------------------------------------------------------------------------- control flow


def _for(ctx: Context, node: ast.For) -> None:
    lower_for(ctx, node, lower_body)


def _while(ctx: Context, node: ast.While) -> None:
    if node.orelse:
        raise ctx.error("FX101", "while ... else is not supported", node)
    with ctx.block() as before:
        condition = lower_condition(ctx, node.test)
    with ctx.block() as body:
        lower_body(ctx, node.body)
    if before:
        condition = _evaluated_before(ctx, node.test, condition, before, body)
    ctx.emit(ir.While(condition, tuple(body), ctx.span(node)))


def _evaluated_before(
    ctx: Context, test: ast.expr, condition: ir.Expr, before: list[ir.Stmt], body: list[ir.Stmt]
) -> ir.Expr:
    """A condition that needs statements (a call, a read of a stream): run them before every iteration."""
    held = ctx.temporary("going", BOOL, test)
    for stmt in before:
        ctx.emit(stmt)
    ctx.emit(ir.Store(held.name, (), condition, ctx.span(test)))
    with ctx.block() as again:
        repeated = lower_condition(ctx, test)
    body += [*again, ir.Store(held.name, (), repeated, ctx.span(test))]
    return ir.Load(held.name, (), BOOL, ctx.span(test))


def _if(ctx: Context, node: ast.If) -> None:
    condition = lower_condition(ctx, node.test)
    with ctx.block() as then:
        lower_body(ctx, node.body)
    with ctx.block() as otherwise:
        lower_body(ctx, node.orelse)
    ctx.emit(ir.If(condition, tuple(then), tuple(otherwise), ctx.span(node)))


def _expr(ctx: Context, node: ast.Expr) -> None:
    value = node.value
    if isinstance(value, ast.Constant):
        return  # a docstring or comment
    if not isinstance(value, ast.Call):
        raise ctx.error("FX101", "only a call can stand alone", node)
    if lower_write(ctx, value):
        return
    lower_call(ctx, value)


def _pass(ctx: Context, node: ast.Pass) -> None:
    del ctx, node


def _return(ctx: Context, node: ast.Return) -> None:
    if len(ctx.blocks) > 1 or ctx.finish is None:
        hint = "compute the value into a variable and return it at the end"
        raise ctx.error("FX112", "return is only supported as the last statement", node, hint)
    ctx.outputs = ctx.finish(node)


def _function(ctx: Context, node: ast.FunctionDef) -> None:
    """A kernel inside a kernel; of the outer one it sees what is known at compile time."""
    for arg in node.args.args:
        if ctx.find(arg.arg) is not None:
            message = f"Argument name '{arg.arg}' conflicts with an existing symbol."
            hint = "Please choose a different name to avoid the conflict."
            raise ctx.error("FX111", message, arg, hint)
    names = dict(ctx.values())
    names[node.name] = local_kernel(replace(ctx.source, tree=node), names)
    ctx.bind(node.name, ConstSymbol(names[node.name]), node)


_LOWER: dict[type, Callable[[Context, Any], None]] = {
    ast.AnnAssign: _ann_assign,
    ast.Assign: _assign,
    ast.AugAssign: _aug_assign,
    ast.For: _for,
    ast.While: _while,
    ast.If: _if,
    ast.Expr: _expr,
    ast.Pass: _pass,
    ast.Return: _return,
    ast.FunctionDef: _function,
}

__all__ = ["lower_body"]
