"""Statements on whole arrays, lowered to loops that schedules cannot name (`_0`, `_1`, ...)."""

from __future__ import annotations

import ast

from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import INDEX, ArrayType
from .context import Context

Indices = tuple[ir.Expr, ...]


def _nest(ctx: Context, shape: tuple[int, ...], node: ast.AST) -> tuple[list[str], Indices]:
    names = [f"_{d}" for d in range(len(shape))]
    return names, tuple(ir.LoopVar(n, INDEX, ctx.span(node)) for n in names)


def _emit(ctx: Context, shape: tuple[int, ...], names: list[str], inner: ir.Stmt) -> None:
    body: ir.Stmt = inner
    for name, size in zip(reversed(names), reversed(shape), strict=True):
        lower, upper = ir.Const(0, INDEX, inner.span), ir.Const(size, INDEX, inner.span)
        body = ir.For(name, lower, upper, (body,), span=inner.span)
    ctx.emit(body)


def fill_array(ctx: Context, target: ir.Buffer, value: ir.Expr, node: ast.AST, prefix: Indices = ()) -> None:
    """``target[prefix] = value``: every element gets the scalar."""
    names, indices = _nest(ctx, target.shape, node)
    if not isinstance(value, ir.Const):  # evaluate once, as Python would
        held = ctx.temporary("fill", value.type, node)
        ctx.emit(ir.Store(held.name, (), value, ctx.span(node)))
        value = ir.Load(held.name, (), value.type, ctx.span(node))
    store = ir.Store(target.name, (*prefix, *indices), value, ctx.span(node))
    _emit(ctx, target.shape, names, store)


def copy_array(
    ctx: Context,
    target: ir.Buffer,
    prefix: Indices,
    view: ir.View,
    source: ir.Buffer,
    node: ast.AST,
) -> None:
    """``target[prefix] = source``: element by element, converted to the target's type."""
    if source.shape != target.shape:
        given, wanted = ArrayType(source.dtype, source.shape), ArrayType(target.dtype, target.shape)
        raise ctx.error("FX105", f"Shape mismatch, got {given} and {wanted}", node)
    names, indices = _nest(ctx, target.shape, node)
    load = ir.Load(view.buffer, (*view.indices, *indices), source.dtype, view.span)
    value = cast(load, target.dtype)
    store = ir.Store(target.name, (*prefix, *indices), value, ctx.span(node))
    _emit(ctx, target.shape, names, store)
