"""Parts of arrays: what ``A``, ``A[i]``, ``A[0:4, j]`` and ``A[0:4][1]`` denote."""

from __future__ import annotations

import ast
import math

from ..errors import FrontendError
from ..ir import nodes as ir
from ..ir.dtypes import INDEX, RUN_TIME
from .axes import Axis, Region, whole
from .context import Context, ViewSymbol
from .names import NotConstant

_RANGE = "indices run from 0 to the extent - 1; slices are lower:upper with the upper bound excluded"


def region_of(ctx: Context, node: ast.expr) -> Region | None:
    """The part of a local array or parameter an expression names, None when it names none.

    Raises:
        FrontendError: FX106 an index out of range, a slice that is not supported.
    """
    if isinstance(node, ast.Name):
        symbol = ctx.find(node.id)
        if isinstance(symbol, ViewSymbol):
            return symbol.region
        plain = isinstance(symbol, ir.Buffer) and not symbol.is_stream and symbol.shape
        return whole(symbol) if isinstance(symbol, ir.Buffer) and plain else None
    if not isinstance(node, ast.Subscript):
        return None
    base = region_of(ctx, node.value)
    items = subscripts(node)
    return None if base is None or len(items) > len(base.shape) else select(ctx, base, items)


def element_of(ctx: Context, node: ast.expr) -> tuple[Region, list[ast.expr]] | None:
    """The element of an array (or the scalar) that is subscripted, and the items behind it.

    None when the expression is no element: an array, a FIFO, no name. The items behind select bits.
    """
    levels: list[list[ast.expr]] = []
    base = node
    while isinstance(base, ast.Subscript):
        levels.insert(0, subscripts(base))
        base = base.value
    symbol = ctx.find(base.id) if isinstance(base, ast.Name) else None
    if isinstance(symbol, ir.Buffer) and not symbol.is_stream:
        region = whole(symbol)
    elif isinstance(symbol, ViewSymbol):
        region = symbol.region
    else:
        return None
    for i, items in enumerate(levels):
        rank = len(region.shape)
        if rank == 0:
            return region, [item for level in levels[i:] for item in level]
        region = select(ctx, region, items[:rank])
        if items[rank:]:
            hint = f"`{ast.unparse(node)}` has more indices than dimensions; bits take brackets of their own"
            raise ctx.error("FX106", f"too many indices for {region.buffer.name}", items[rank], hint)
    return None if region.shape else (region, [])


def subscripts(node: ast.Subscript) -> list[ast.expr]:
    """The items of one pair of brackets."""
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def select(ctx: Context, region: Region, items: list[ast.expr]) -> Region:
    """`region` subscripted: items apply to its dimensions in order, those left over stay whole."""
    axes = list(region.axes)
    free = [d for d, a in enumerate(axes) if a.extent is not None]
    for d, item in zip(free, items, strict=False):
        axes[d] = _subscripted(ctx, region.buffer, d, axes[d], item)
    return Region(region.buffer, tuple(axes))


def _subscripted(ctx: Context, buffer: ir.Buffer, dim: int, axis: Axis, item: ast.expr) -> Axis:
    assert axis.extent is not None
    if isinstance(item, ast.Slice):
        lower, step, extent = _bounds(ctx, axis.extent, item)
        return Axis(axis.at(ir.Const(lower, INDEX, ctx.span(item))), axis.step * step, extent)
    if isinstance(item, ast.Constant) and not isinstance(item.value, int):
        hint = "dimensions take an index or a slice lower:upper:step"
        raise ctx.error("FX106", f"Unsupported slice type {type(item.value).__name__}", item, hint)
    index = ctx.lower_index(item)
    extent = math.inf if axis.extent == RUN_TIME else axis.extent
    if isinstance(index, ir.Const) and not 0 <= index.value < extent:
        where = f"in dimension {dim + 1} of {buffer.name}, which has {axis.extent} elements"
        raise ctx.error("FX106", f"{_complaint(int(index.value))}: {index.value} {where}", item, _RANGE)
    return Axis(axis.at(index))


def _complaint(value: int) -> str:
    return "Unsupported negative index" if value < 0 else "Index out of range"


def _bounds(ctx: Context, size: int, item: ast.Slice) -> tuple[int, int, int]:
    """First element, step and number of elements of a slice."""
    lower = _constant(ctx, item.lower, 0)
    upper = _constant(ctx, item.upper, size)
    step = _constant(ctx, item.step, 1)
    text = f"{lower}:{upper}:{step}"
    if step <= 0:
        raise ctx.error("FX106", f"Unsupported negative step: {text}", item, "a step is at least 1")
    for bound in (lower, upper):
        if not 0 <= bound <= size:
            hint = f"the dimension has {size} elements"
            raise ctx.error("FX106", f"{_complaint(bound)}: the slice {text}", item, hint)
    if lower >= upper:
        raise ctx.error("FX106", f"Index out of range: the slice {text} is empty", item, _RANGE)
    if step > upper - lower:
        raise ctx.error("FX106", f"Step larger than range: {text}", item, "the step is at most upper - lower")
    return lower, step, -(-(upper - lower) // step)


def _constant(ctx: Context, node: ast.expr | None, default: int) -> int:
    if node is None:
        return default
    try:
        value = ctx.constant(node)
    except NotConstant:
        hint = "copy the elements in a loop, or make the bound a compile-time value"
        text = f"Dynamic offset is incompatible with a slice: `{ast.unparse(node)}`"
        raise ctx.error("FX106", text, node, hint) from None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise _slice_type(ctx, node)
    return int(value)


def _slice_type(ctx: Context, node: ast.expr) -> FrontendError:
    hint = "bounds are integers that are known at compile time"
    return ctx.error("FX106", f"Unsupported slice type: `{ast.unparse(node)}`", node, hint)
