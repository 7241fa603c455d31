"""Parts of buffers, dimension by dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import Span
from ..ir import nodes as ir
from ..ir.dtypes import INDEX, DType
from ..ir.simplify import binary

Shape = tuple[int, ...]
Indices = tuple[ir.Expr, ...]


@dataclass(frozen=True)
class Axis:
    """One dimension of a buffer: `extent` elements from `start`, `step` apart; None is one index."""

    start: ir.Expr
    step: int = 1
    extent: int | None = None

    def at(self, index: ir.Expr) -> ir.Expr:
        if self.step == 1 and isinstance(self.start, ir.Const) and self.start.value == 0:
            return index
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

    def view(self, span: Span) -> tuple[ir.View, ir.Buffer] | None:
        """The region as a view: leading indices, then whole dimensions. None when it is no view."""
        fixed = [a.start for a in self.axes if a.extent is None]
        sizes = self.buffer.shape[len(fixed) :]
        rest = self.axes[len(fixed) :]
        if not all(a.spans(size) for a, size in zip(rest, sizes, strict=True)):
            return None
        return ir.View(self.buffer.name, tuple(fixed), span), replace(self.buffer, shape=sizes)


def whole(buffer: ir.Buffer) -> Region:
    """All elements of an array."""
    zero = ir.Const(0, INDEX, buffer.span)
    return Region(buffer, tuple(Axis(zero, 1, size) for size in buffer.shape))
