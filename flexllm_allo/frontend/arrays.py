"""Copies and fills of buffers whose places are known already."""

from __future__ import annotations

import ast

from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from .axes import Axis, Indices, Region
from .context import Context
from .tensors import assign, fill, loaded


def fill_array(ctx: Context, target: ir.Buffer, value: ir.Expr, node: ast.AST, prefix: Indices = ()) -> None:
    """``target[prefix] = value``: every element gets the scalar. `target` has the shape that is left."""
    fill(ctx, _behind(target, prefix), value, node)


def copy_array(
    ctx: Context,
    target: ir.Buffer,
    prefix: Indices,
    view: ir.View,
    source: ir.Buffer,
    node: ast.AST,
) -> None:
    """``target[prefix] = view``, where `source` has the shape that the view leaves."""
    value = loaded(_behind(source, view.indices, view.buffer), node, ctx)
    assign(ctx, _behind(target, prefix), value, node)


def _behind(buffer: ir.Buffer, prefix: Indices, name: str | None = None) -> Region:
    """What is left of a buffer behind leading indices; `buffer` has the shape of that."""
    zero = ir.Const(0, INDEX)
    axes = (*(Axis(i) for i in prefix), *(Axis(zero, 1, size) for size in buffer.shape))
    named = ir.Buffer(name or buffer.name, buffer.dtype, buffer.shape, span=buffer.span)
    return Region(named, axes)
