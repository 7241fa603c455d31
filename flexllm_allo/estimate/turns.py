"""In which iterations of a nest FIFOs are accessed: some are under conditions on loop variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..ir import nodes as ir
from .evaluate import names_in, value_of

LIMIT = 1 << 16
"""Iterations that are looked at; a condition on more is taken to hold now and then in all of them."""


class Turns(NamedTuple):
    """The iterations with an access.

    Attributes:
        first, last: of them, counted from the first one of the nest.
        share: of the iterations in which an access happens.
    """

    first: int
    last: int
    share: float


Conditions = tuple[tuple[ir.Expr, bool], ...]


def turns(nest: Sequence[ir.For], ranges: Sequence[range | None]) -> dict[str, Turns | None]:
    """For every FIFO under a condition: its iterations, or None if there is no access at all.

    Args:
        nest: perfectly nested loops, the innermost last.
        ranges: the values of their variables, where these are known.
    """
    found: dict[str, list[Conditions]] = {}
    for name, conditions in _accesses(nest[-1].body, ()):
        found.setdefault(name, []).append(conditions)
    return {
        name: _turns([loop.var for loop in nest], ranges, accesses)
        for name, accesses in found.items()
        if all(accesses) and None not in ranges
    }


def _accesses(body: Sequence[ir.Stmt], around: Conditions) -> Iterator[tuple[str, Conditions]]:
    for stmt in body:
        match stmt:
            case ir.Put() | ir.Get():
                yield stmt.stream, around
            case ir.If(condition):
                yield from _accesses(stmt.then, (*around, (condition, True)))
                yield from _accesses(stmt.otherwise, (*around, (condition, False)))
            case ir.For():
                yield from _accesses(stmt.body, around)
            case _:
                pass


def _turns(
    names: Sequence[str], ranges: Sequence[range | None], accesses: Sequence[Conditions]
) -> Turns | None:
    sizes = [len(r) if r is not None else 1 for r in ranges]
    asked = names_in(*(condition for access in accesses for condition, _ in access))
    shape = [size if name in asked else 1 for name, size in zip(names, sizes, strict=True)]
    everywhere = Turns(0, int(np.prod(sizes)) - 1, 1.0)
    if np.prod(shape) > LIMIT:
        return everywhere
    known = {
        name: np.asarray(values).reshape([-1 if n == axis else 1 for n in range(len(names))])
        for axis, (name, values) in enumerate(zip(names, ranges, strict=True))
        if name in asked
    }
    each = [_holds(access, known, shape) for access in accesses]
    places = np.argwhere(np.logical_or.reduce(each))
    if not len(places):
        return None
    # In the order of the nest the others are at their begin in the first one, and at their end in the last.
    ends = [int(p) if n in asked else s - 1 for p, n, s in zip(places[-1], names, sizes, strict=True)]
    share = float(np.mean([np.mean(holds) for holds in each]))
    first, last = (int(np.ravel_multi_index(place, sizes)) for place in (tuple(places[0]), ends))
    return Turns(first, last, share)


def _holds(access: Conditions, known: Mapping[str, Any], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Where an access may happen; conditions on anything but loop variables may hold always."""
    holds = np.ones(shape, np.bool_)
    for condition, wanted in access:
        value = value_of(condition, known)
        if value is not None:
            holds = np.logical_and(holds, np.equal(np.not_equal(value, 0), wanted))
    return holds


__all__ = ["Turns", "turns"]
