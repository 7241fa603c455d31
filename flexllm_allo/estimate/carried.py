"""How many iterations later a pipelined loop reads what it wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil, floor, prod
from typing import Any

import numpy as np

from ..analysis.affine import Affine, Quotient, affine
from ..ir import nodes as ir
from .evaluate import names_in, value_of

Range = tuple[int, int]

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


def flattened(
    write: tuple[ir.Expr, ...],
    read: tuple[ir.Expr, ...],
    nest: tuple[ir.For, ...],
    unrolled: Mapping[str, Range],
    written: Collection[str] = (),
) -> int | None:
    """The least number of iterations of a flattened nest between a write and a read of one element.

    The loops around the innermost one carry what it does not; None where none does, or where an index does
    not tell.

    Args:
        write, read: the indices.
        nest: the loops, the innermost last; all but the first have constant bounds.
        unrolled: ranges of the variables that differ between copies of the body.
        written: scalars that change within the nest.
    """
    trips = [_trips(loop) for loop in nest]
    strides = [prod(n or 1 for n in trips[i + 1 :]) for i in range(len(nest))]
    apart = {loop.var: (1 - (n or _MANY), (n or _MANY) - 1) for loop, n in zip(nest, trips, strict=True)}
    for w, r in zip(write, read, strict=False):
        a, b = affine(w, written), affine(r, written)
        found = None if a is None or b is None else _apart(a, b, nest, unrolled)
        if found is None:
            return None
        for name, (low, high) in found.items():
            apart[name] = max(apart[name][0], low), min(apart[name][1], high)
    return _least(list(apart.values()), strides)


_MANY = 1 << 30
"""Iterations of a loop whose length only the run tells."""


def _trips(loop: ir.For) -> int | None:
    lower, upper = value_of(loop.lower, {}), value_of(loop.upper, {})
    return None if lower is None or upper is None else max(1, -(-(int(upper) - int(lower)) // loop.step))


def _apart(
    write: Affine, read: Affine, nest: tuple[ir.For, ...], unrolled: Mapping[str, Range]
) -> dict[str, Range] | None:
    """How many iterations of each loop apart one dimension allows; None if it does not say, or never."""
    here = [loop for loop in nest if loop.var in write.variables() | read.variables()]
    if not here:
        ends = _ends(write, read, nest[-1], unrolled)
        return {} if ends is not None and ends[0] <= 0 <= ends[1] else None
    bounds = _differences(write, read, here[0], unrolled) if len(here) == 1 else None
    return None if bounds is None else {here[0].var: bounds}


def _least(apart: list[Range], strides: list[int]) -> int | None:
    """The least positive sum of distances times strides, outer loops first."""
    least: int | None = None
    for level, (low, high) in enumerate(apart):
        first = max(1, low)
        if first <= high:
            inner = sum(a * n for (a, _), n in zip(apart[level + 1 :], strides[level + 1 :], strict=True))
            found = max(1, first * strides[level] + inner)
            least = found if least is None else min(least, found)
        if low > 0 or high < 0:
            break
    return least


def _bounds(
    write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]
) -> tuple[int, int | None] | None:
    """Distances that one dimension allows: (least, most); None if it says nothing."""
    if dict(write.terms).get(loop.var, 0) == dict(read.terms).get(loop.var, 0) == 0:
        ends = _ends(write, read, loop, unrolled)
        return None if ends is None else (1, None) if ends[0] <= 0 <= ends[1] else (1, 0)
    found = _differences(write, read, loop, unrolled)
    return None if found is None else (max(1, found[0]), found[1])


def _differences(write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]) -> Range | None:
    """By how many iterations a read of what was written may come later, from the least to the most."""
    step, ends = dict(write.terms).get(loop.var, 0), _ends(write, read, loop, unrolled)
    if step == 0 or dict(read.terms).get(loop.var, 0) != step or ends is None:
        return None
    low, high = sorted(end / (step * loop.step) for end in ends)
    return ceil(low), floor(high)


def _ends(write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]) -> Range | None:
    """The range of what two indices differ by in an iteration; None where more than copies decide it."""
    low = high = write.constant - read.constant
    fixed = Affine.of({}, 0)
    for form, sign in ((write, 1), (read, -1)):
        for term, c in form.terms:
            if term == loop.var:
                continue
            inside = term.value.variables() if isinstance(term, Quotient) else {term}
            if isinstance(term, str) and term in unrolled:
                ends = [sign * c * v for v in unrolled[term]]
                low, high = low + min(ends), high + max(ends)
            elif inside & {loop.var, *unrolled}:
                return None
            else:
                fixed = fixed + Affine.of({term: c * sign}, 0)
    return (low, high) if fixed.is_constant else None


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


__all__ = ["distance", "flattened"]
