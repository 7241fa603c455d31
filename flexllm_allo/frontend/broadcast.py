"""NumPy's broadcasting on shapes that are known at compile time."""

from __future__ import annotations

from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from .axes import Indices, Shape


def common_shape(left: Shape, right: Shape) -> Shape | None:
    """The shape both stretch to, aligned at the trailing dimension; None when there is none."""
    rank = max(len(left), len(right))
    shape: list[int] = []
    for a, b in zip(_padded(left, rank), _padded(right, rank), strict=True):
        if a != b and 1 not in (a, b):
            return None
        shape.append(b if a == 1 else a)
    return tuple(shape)


def fits(source: Shape, target: Shape) -> bool:
    """Whether `source` stretches to `target`, which itself never stretches."""
    return common_shape(source, target) == target


def stretched(indices: Indices, source: Shape) -> Indices:
    """Where an element of the broadcast result comes from in an operand of shape `source`."""
    own = indices[len(indices) - len(source) :]
    zero = ir.Const(0, INDEX)
    return tuple(zero if size == 1 else index for index, size in zip(own, source, strict=True))


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape
