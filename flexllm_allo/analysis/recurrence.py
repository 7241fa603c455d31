"""Recurrences of flattened nests: how many iterations later an element that was written is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil, floor, prod

from ..ir import nodes as ir
from ..ir.simplify import value_of
from ..ir.walk import walk
from .accesses import accesses, allocated
from .affine import Affine, Quotient, affine

Range = tuple[int, int]


def recurrences(nest: tuple[ir.For, ...]) -> dict[str, int]:
    """Arrays that the body of a flattened nest reads and writes again, and after how many iterations it does.

    Those alone for which that is certain: the number is a lower bound for every pair of accesses.
    """
    body = nest[-1].body
    found = [a for a in accesses(body) if a.buffer not in allocated(body)]
    scalars = {a.buffer for a in found if a.write and not a.indices} | allocated(body)
    unrolled = unrolled_ranges(body)
    out: dict[str, int] = {}
    for name in sorted({a.buffer for a in found if a.write and a.indices}):
        writes, reads = ([a for a in found if a.buffer == name and a.write is w] for w in (True, False))
        apart = [flattened(w.indices, r.indices, nest, unrolled, scalars) for w in writes for r in reads]
        certain = [n for n in apart if n is not None]
        if certain and min(certain) > 0:
            out[name] = min(certain)
    return out


def unrolled_ranges(body: tuple[ir.Stmt, ...]) -> dict[str, Range]:
    """Least and greatest value of every variable of a loop inside."""
    found: dict[str, Range] = {}
    for node in walk(body):
        if isinstance(node, ir.For):
            lower, upper = value_of(node.lower), value_of(node.upper)
            if lower is not None and upper is not None:
                low, high = found.get(node.var, (lower, upper - 1))
                found[node.var] = min(low, lower), max(high, upper - 1)
    return found


def flattened(
    write: tuple[ir.Expr, ...],
    read: tuple[ir.Expr, ...],
    nest: tuple[ir.For, ...],
    unrolled: Mapping[str, Range],
    written: Collection[str] = (),
) -> int | None:
    """The least number of iterations of a flattened nest between a write and a read of one element.

    None if there is none, 0 if an index does not tell.

    Args:
        write, read: the indices.
        nest: the loops, the innermost last; all but the first have constant bounds.
        unrolled: ranges of the variables that differ between copies of the body.
        written: scalars that change within the nest.
    """
    trips = [trips_of(loop) for loop in nest]
    strides = [prod(n or 1 for n in trips[i + 1 :]) for i in range(len(nest))]
    apart = {loop.var: (1 - (n or _MANY), (n or _MANY) - 1) for loop, n in zip(nest, trips, strict=True)}
    for w, r in zip(write, read, strict=False):
        a, b = affine(w, written), affine(r, written)
        found = None if a is None or b is None else _apart(a, b, nest, unrolled)
        if found is None:
            return 0
        for name, (low, high) in found.items():
            apart[name] = max(apart[name][0], low), min(apart[name][1], high)
    ranges = list(apart.values())
    return None if any(low > high for low, high in ranges) else _least(ranges, strides)


_MANY = 1 << 30
"""Iterations of a loop whose length only the run tells."""


def trips_of(loop: ir.For) -> int | None:
    """Iterations of a loop, if its bounds are constants."""
    lower, upper = value_of(loop.lower), value_of(loop.upper)
    return None if lower is None or upper is None else max(1, -(-(upper - lower) // loop.step))


def _apart(
    write: Affine, read: Affine, nest: tuple[ir.For, ...], unrolled: Mapping[str, Range]
) -> dict[str, Range] | None:
    """How many iterations of each loop apart one dimension allows; None if it does not say that."""
    here = [loop for loop in nest if loop.var in write.variables() | read.variables()]
    if not here:
        ends = gaps(write, read, nest[-1], unrolled)
        if ends is None:
            return None
        return {} if ends[0] <= 0 <= ends[1] else {nest[-1].var: (1, 0)}
    bounds = differences(write, read, here[0], unrolled) if len(here) == 1 else None
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


def differences(write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]) -> Range | None:
    """By how many iterations a read of what was written may come later, from the least to the most."""
    step, ends = dict(write.terms).get(loop.var, 0), gaps(write, read, loop, unrolled)
    if step == 0 or dict(read.terms).get(loop.var, 0) != step or ends is None:
        return None
    low, high = sorted(end / (step * loop.step) for end in ends)
    return ceil(low), floor(high)


def gaps(write: Affine, read: Affine, loop: ir.For, unrolled: Mapping[str, Range]) -> Range | None:
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


__all__ = ["Range", "differences", "flattened", "gaps", "recurrences", "trips_of", "unrolled_ranges"]
