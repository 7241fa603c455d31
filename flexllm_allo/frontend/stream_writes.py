"""Writing FIFOs in a kernel: ``fifo.put(value)`` and ``df.scatter(array, fifos)``."""

from __future__ import annotations

import ast
from dataclasses import replace

from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import INDEX, ArrayType
from .arrays import copy_array, fill_array
from .calls import view_of
from .context import Channel, Context
from .names import NotConstant
from .streams import channels, stream_operand, temporary


def lower_write(ctx: Context, node: ast.Call) -> bool:
    """Lower a call that writes streams; False for any other call."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "put":
        channel = stream_operand(ctx, node.func.value)
        if channel is not None:
            _put(ctx, node, channel)
            return True
    try:
        callee = ctx.constant(node.func)
    except NotConstant:
        return False
    if getattr(callee, "__intrinsic__", None) != "df.scatter":
        return False
    _scatter(ctx, node)
    return True


def _put(ctx: Context, node: ast.Call, channel: Channel) -> None:
    """``fifo.put(value)``; for a stream of blocks the value is an array of the block's shape."""
    if len(node.args) != 1 or node.keywords:
        raise ctx.error("FX107", "put takes one value", node)
    stream, indices = channel
    if stream.token:
        token: ir.Expr | ir.View = _block(ctx, node.args[0], stream)
    else:
        token = cast(ctx.lower_expr(node.args[0]), stream.dtype)
    ctx.emit(ir.Put(stream.name, indices, token, ctx.span(node)))


def _scatter(ctx: Context, node: ast.Call) -> None:
    """``df.scatter(buf, [f0, f1])``: one slice of the array to each."""
    if len(node.args) != 2 or node.keywords:
        raise ctx.error("FX107", "scatter takes an array and a list of streams", node)
    targets = channels(ctx, node.args[1])
    made = _array(ctx, node.args[0])
    if made is None:
        raise ctx.error("FX107", f"`{ast.unparse(node.args[0])}` is not an array", node.args[0])
    view, rest = made
    wanted = (len(targets), *targets[0][0].token)
    if rest.shape != wanted:
        raise ctx.error("FX105", f"Shape mismatch, got {rest.shape} and {wanted}", node)
    for position, (stream, indices) in enumerate(targets):
        at = (*view.indices, ir.Const(position, INDEX, ctx.span(node)))
        if not stream.token:
            value: ir.Expr | ir.View = ir.Load(view.buffer, at, rest.dtype, ctx.span(node))
            value = cast(value, stream.dtype)
        elif rest.dtype == stream.dtype:
            value = ir.View(view.buffer, at, ctx.span(node))
        else:
            buffer = temporary(ctx, "block", stream.token, stream, node)
            part = ir.View(view.buffer, at, ctx.span(node))
            copy_array(ctx, buffer, (), part, replace(rest, shape=stream.token), node)
            value = ir.View(buffer.name, (), ctx.span(node))
        ctx.emit(ir.Put(stream.name, indices, value, ctx.span(node)))


def _block(ctx: Context, node: ast.expr, stream: ir.Buffer) -> ir.View:
    """An array of the shape and type of a token: the one named, or a converted copy."""
    made = _array(ctx, node)
    if made is None:
        buffer = temporary(ctx, "block", stream.token, stream, node)
        fill_array(ctx, buffer, cast(ctx.lower_expr(node), stream.dtype), node)
        return ir.View(buffer.name, (), ctx.span(node))
    view, rest = made
    if rest.shape != stream.token:
        given, wanted = ArrayType(rest.dtype, rest.shape), ArrayType(stream.dtype, stream.token)
        raise ctx.error("FX105", f"stream {stream.name} carries {wanted}, got {given}", node)
    if rest.dtype == stream.dtype:
        return view
    buffer = temporary(ctx, "block", stream.token, stream, node)
    copy_array(ctx, buffer, (), view, rest, node)
    return ir.View(buffer.name, (), ctx.span(node))


def _array(ctx: Context, node: ast.expr) -> tuple[ir.View, ir.Buffer] | None:
    """The array an expression names or makes, or None for scalars."""
    view = view_of(ctx, node)
    if view is not None and view[1].shape:
        return view
    if not ctx.lowering.is_array(ctx, node):
        return None
    buffer = ctx.lowering.stored_array(ctx, node)
    return ir.View(buffer.name, (), ctx.span(node)), buffer


__all__ = ["lower_write"]
