"""Parts of arrays: what ``A``, ``A[i]``, ``A[0:4, j]`` and ``A[0:4][1]`` denote."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from ..errors import FrontendError
from ..ir import nodes as ir
from ..ir.dtypes import INDEX, DType
from ..ir.simplify import binary
from .broadcast import Indices, Shape
from .context import Context
from .names import NotConstant


@dataclass(frozen=True)
class Axis:
    """One dimension of a buffer: `extent` elements from `start`, `step` apart; None is one index."""

    start: ir.Expr
    step: int = 1
    extent: int | None = None

    def at(self, index: ir.Expr) -> ir.Expr:
        return binary("+", binary("*", index, self.step), self.start)

    def spans(self, size: int) -> bool:
        """Whether it is the whole dimension."""
        return self.extent == size


@dataclass(frozen=True)
class Region:
    """The elements of a buffer that a subscript selects, one axis per dimension of the buffer."""

    buffer: ir.Buffer
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> Shape:
        return tuple(a.extent for a in self.axes if a.extent is not None)

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    def at(self, indices: Indices) -> Indices:
        """Where an element of the region lies in the buffer."""
        rest = iter(indices)
        return tuple(a.start if a.extent is None else a.at(next(rest)) for a in self.axes)

    def view(self, node: ast.AST, ctx: Context) -> tuple[ir.View, ir.Buffer] | None:
        """The region as a view: leading indices, then whole dimensions. None when it is no view."""
        fixed = [a.start for a in self.axes if a.extent is None]
        sizes = self.buffer.shape[len(fixed) :]
        rest = self.axes[len(fixed) :]
        if not all(a.spans(size) for a, size in zip(rest, sizes, strict=True)):
            return None
        return ir.View(self.buffer.name, tuple(fixed), ctx.span(node)), replace(self.buffer, shape=sizes)


def whole(buffer: ir.Buffer) -> Region:
    """All elements of an array."""
    zero = ir.Const(0, INDEX, buffer.span)
    return Region(buffer, tuple(Axis(zero, 1, size) for size in buffer.shape))


def region_of(ctx: Context, node: ast.expr) -> Region | None:
    """The part of a local array or parameter an expression names, None when it names none.

    Raises:
        FrontendError: FX106 an index out of range, a slice that is not supported.
    """
    if isinstance(node, ast.Name):
        symbol = ctx.find(node.id)
        plain = isinstance(symbol, ir.Buffer) and not symbol.is_stream and symbol.shape
        return whole(symbol) if isinstance(symbol, ir.Buffer) and plain else None
    if not isinstance(node, ast.Subscript):
        return None
    base = region_of(ctx, node.value)
    items = subscripts(node)
    return None if base is None or len(items) > len(base.shape) else select(ctx, base, items)


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
    if isinstance(index, ir.Const) and not 0 <= index.value < axis.extent:
        where = f"in dimension {dim + 1} of {buffer.name}, which has {axis.extent} elements"
        raise ctx.error("FX106", f"{_complaint(int(index.value))}: {index.value} {where}", item)
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
        raise ctx.error("FX106", f"Index out of range: the slice {text} is empty", item)
    if step > upper - lower:
        raise ctx.error("FX106", f"Step larger than range: {text}", item)
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
    return ctx.error("FX106", f"Unsupported slice type: `{ast.unparse(node)}`", node)
