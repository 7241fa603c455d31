"""Assignment to whole arrays and parts of them."""

from __future__ import annotations

import ast

from ..ir import nodes as ir
from .array_expressions import lower_array, lower_value
from .context import Context
from .slices import Region, region_of, whole
from .tensors import Pending, Tensor, Value, assign, fill, stored


def assign_value(ctx: Context, region: Region, value: Value, node: ast.AST, at: ast.AST) -> None:
    """``region = value``; `at` is where the value stands. A scalar goes to every element."""
    if isinstance(value, Tensor | Pending):
        assign(ctx, region, value, node, at)
    else:
        fill(ctx, region, value, node)


def assign_whole(ctx: Context, target: ast.Name, symbol: ir.Buffer | None, value: ast.expr) -> None:
    """``name = array``: the first assignment makes the array, later ones convert to its type."""
    array = lower_array(ctx, value)
    if symbol is None:
        symbol = ctx.declare(target.id, array.dtype, array.shape, target)
        ctx.emit(ir.Alloc(symbol, span=ctx.span(target)))
    assign(ctx, whole(symbol), array, target, value)


def assign_region(ctx: Context, target: ast.expr, value: ast.expr) -> None:
    """``A[0:2, j] = value``."""
    lowered = lower_value(ctx, value)
    region = region_of(ctx, target)
    if region is None:
        raise ctx.error("FX101", f"cannot assign to `{ast.unparse(target)}`", target)
    assign_value(ctx, region, lowered, target, value)


def augment_region(ctx: Context, node: ast.AugAssign) -> None:
    """``A += value`` on an array or part of one."""
    result = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
    assign_region(ctx, node.target, result)


def stored_array(ctx: Context, node: ast.expr) -> ir.Buffer:
    """An array expression in a buffer of its own."""
    return stored(ctx, lower_array(ctx, node), node).buffer
