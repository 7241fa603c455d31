"""How many iterations later a pipelined loop reads what it wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..analysis.affine import Affine, affine
from ..analysis.recurrence import Range, differences, gaps
from ..ir import nodes as ir
from .evaluate import names_in, value_of

TRIED = 16
"""Iterations that an index without a linear form is followed over: more apart, a dependence costs little."""

MOST_COPIES = 4096


def distance(
    write: tuple[ir.Expr, ...],
    read: tuple[ir.Expr, ...],
    loop: ir.For,
    unrolled: Mapping[str, Range],
    written: Collection[str] = (),
) -> tuple[int | None, bool]:
    """The least number of iterations between a write and a read of one element; None if there is none.

    What is not affine is taken to depend on the iteration before. The second value says whether both
    addresses are the same in every iteration.

    Args:
        write, read: the indices.
        loop: the pipelined loop.
        unrolled: ranges of the variables that differ between copies of the body.
        written: scalars that change within the loop.
    """
    low, high = 1, None
    fixed = True
    for w, r in zip(write, read, strict=False):
        a, b = affine(w, written), affine(r, written)
        if a is None or b is None:
            fixed = False
            continue
        fixed = fixed and not any(loop.var in form.variables() for form in (a, b))
        bounds = _bounds(a, b, loop, unrolled) or _by_values(w, r, loop, unrolled)
        if bounds is None:
            continue
        least, most = bounds
        low = max(low, least)
        high = most if high is None or (most is not None and most < high) else high
    if high is not None and low > high:
        return None, fixed
    return low, fixed


def _bounds(
    write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]
) -> tuple[int, int | None] | None:
    """Distances that one dimension allows: (least, most); None if it says nothing."""
    if dict(write.terms).get(loop.var, 0) == dict(read.terms).get(loop.var, 0) == 0:
        ends = gaps(write, read, loop, unrolled)
        return None if ends is None else (1, None) if ends[0] <= 0 <= ends[1] else (1, 0)
    found = differences(write, read, loop, unrolled)
    return None if found is None else (max(1, found[0]), found[1])


def _by_values(
    write: ir.Expr, read: ir.Expr, loop: ir.For, unrolled: Mapping[str, Range]
) -> tuple[int, None] | None:
    """The least distance at which values of an index meet, found by trying: for ``s % 4`` it is 4."""
    names = names_in(write, read)
    if not names <= {loop.var, *unrolled}:
        return None
    grid = _grid(names - {loop.var}, unrolled)
    if grid is None:
        return None

    def values(expr: ir.Expr, position: int) -> set[int]:
        found = value_of(expr, {**grid, loop.var: position})
        return set() if found is None else set(np.unique(found).tolist())

    written = [values(write, i * loop.step) for i in range(TRIED)]
    if not all(written):
        return None
    for apart in range(1, TRIED):
        later = [values(read, (i + apart) * loop.step) for i in range(TRIED)]
        if any(w & r for w, r in zip(written, later, strict=True)):
            return apart, None
    return TRIED, None


def _grid(names: Collection[str], unrolled: Mapping[str, Range]) -> dict[str, Any] | None:
    """All combinations of the values of unrolled variables, an axis each."""
    grid: dict[str, Any] = {}
    count = 1
    for axis, name in enumerate(sorted(names)):
        low, high = unrolled[name]
        count *= high - low + 1
        shape = [1] * len(names)
        shape[axis] = high - low + 1
        grid[name] = np.arange(low, high + 1).reshape(shape)
    return grid if count <= MOST_COPIES else None


__all__ = ["distance"]
