"""Assignment to whole arrays and parts of them."""

from __future__ import annotations

import ast

from ..errors import FrontendError, Place
from ..ir import nodes as ir
from .array_expressions import lower_array, lower_value
from .axes import Region, whole
from .context import Context, ViewSymbol
from .slices import region_of
from .tensors import Pending, Tensor, Value, assign, fill, steady, stored


def assign_value(ctx: Context, region: Region, value: Value, node: ast.AST, at: ast.AST) -> None:
    """``region = value``; `at` is where the value stands. A scalar goes to every element."""
    if isinstance(value, Tensor | Pending):
        assign(ctx, region, value, node, at)
    else:
        fill(ctx, region, value, node)


def assign_whole(ctx: Context, target: ast.Name, symbol: ir.Buffer | None, value: ast.expr) -> None:
    """``name = array``. The first assignment makes the array, later ones convert to its type.

    The first assignment of a part, ``T = A[i]``, makes the name a view: stores to it go to the array.
    """
    part = region_of(ctx, value) if symbol is None and isinstance(value, ast.Subscript) else None
    if part is not None:
        ctx.bind(target.id, ViewSymbol(steady(ctx, part, value)), target)
        return
    array = lower_array(ctx, value)
    if symbol is None:
        symbol = ctx.declare(target.id, array.dtype, array.shape, target)
        ctx.emit(ir.Alloc(symbol, span=ctx.span(target)))
    assign(ctx, whole(symbol), array, target, value)


def unbound(ctx: Context, target: ast.Name) -> None:
    """A name of a view may be bound again in its own block; elsewhere that would depend on the run."""
    if target.id not in ctx.scopes[-1].symbols:
        hint = f"declare {target.id} with a type to make it an array of its own, or use another name"
        message = f"{target.id} is a view and cannot be bound again in an inner block"
        raise FrontendError("FX104", message, [ctx.span(target), *_bound_at(ctx, target.id)], hint)


def _bound_at(ctx: Context, name: str) -> list[Place]:
    at = ctx.where(name)
    return [Place(at, "bound here")] if at else []


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
