"""Data dependences between iterations of loops, with direction vectors.

Two accesses to one buffer depend on each other when at least one writes and they may touch the
same element.  Whether they do in iterations of a given direction is a question to an integer
`System`: bounds of both iterations, equal subscripts, and the direction.  What is not affine adds
no constraint, which is the safe side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from ..ir import nodes as ir
from .accesses import Access
from .affine import Affine, Quotient, Symbol, Term, affine, lower_bounds, upper_bounds
from .integer import ONE, Row, System, Var, combine

Direction = str  # "<": the source's iteration is the earlier one; "=" the same; ">" the later one
_DIRECTIONS: tuple[Direction, ...] = ("<", "=", ">")


@dataclass(frozen=True)
class Dependence:
    """`source` happens before `sink`, they touch one element; one direction per common loop."""

    source: Access
    sink: Access
    directions: tuple[Direction, ...]


def conflicts(a: Access, b: Access) -> bool:
    """Whether two accesses could depend on each other at all."""
    return a.buffer == b.buffer and (a.write or b.write)


def dependences(
    source: Access,
    sink: Access,
    common: Sequence[ir.For],
    written: Collection[str] = (),
    fixed: int = 0,
    wanted: Callable[[tuple[Direction, ...]], bool] = lambda _: True,
) -> Iterator[Dependence]:
    """Dependences carried by the loops `common` from `source` to `sink`.

    Args:
        common: loops around both accesses, outermost first.
        written: buffers whose scalars may not be taken as symbols.
        fixed: that many outer loops are in the same iteration.
        wanted: filter on complete direction vectors, applied before the costly test.
    """
    system = _pair_system(source, sink, written)

    def search(system: System, chosen: tuple[Direction, ...]) -> Iterator[tuple[Direction, ...]]:
        depth = len(chosen)
        if depth == len(common):
            if "<" in chosen and wanted(chosen):
                yield chosen
            return
        for direction in _DIRECTIONS:
            if depth < fixed and direction != "=":
                continue
            if direction == ">" and "<" not in chosen:
                continue  # lexicographically negative: the sink would come first
            narrowed = system.copy()
            _add_direction(narrowed, common[depth].var, direction)
            if narrowed.feasible():
                yield from search(narrowed, (*chosen, direction))

    for directions in search(system, ()):
        yield Dependence(source, sink, directions)


def carried(
    found: Sequence[Access], common: Sequence[ir.For], level: int, written: Collection[str] = ()
) -> Iterator[Dependence]:
    """Dependences carried by ``common[level]`` (outer loops in the same iteration)."""
    loops = common[: level + 1]
    for source in found:
        for sink in found:
            if conflicts(source, sink):
                yield from dependences(source, sink, loops, written, fixed=level)


def same_element_twice(
    access: Access, fixed: Sequence[ir.For], varying: Sequence[ir.For], written: Collection[str] = ()
) -> bool:
    """Whether two iterations that differ in a loop of `varying` may touch one element.

    Loops of `fixed` are in the same iteration; other loops around the access are free.
    """
    system = _pair_system(access, access, written)
    for loop in fixed:
        _add_direction(system, loop.var, "=")
    for i, loop in enumerate(varying):
        differs = system.copy()
        for before in varying[:i]:
            _add_direction(differs, before.var, "=")
        _add_direction(differs, loop.var, "<")  # ">" is the same question with the sides exchanged
        if differs.feasible():
            return True
    return False


def largest_delay(
    source: Access,
    sink: Access,
    producer: Sequence[ir.For],
    consumer: Sequence[ir.For],
    outer: Sequence[int],
    limit: int,
    written: Collection[str] = (),
) -> int:
    """How many iterations after one of the consumer's the producer may still touch the same element.

    Loops of the two nests are compared position by position; the outer ones are taken to be apart
    by `outer`, and the next one is asked about.

    Args:
        source, sink: accesses in the producer and in the consumer.
        limit: the answer when it is this or more.

    Returns:
        The largest difference of the two loop variables, 0 if there is none above.
    """
    system = _pair_system(source, sink, written)
    pairs = list(zip(producer, consumer, strict=False))
    for (p, c), delay in zip(pairs, outer, strict=False):
        system.add_equal({(p.var, 0): 1, (c.var, 1): -1, ONE: -delay})
    p, c = pairs[len(outer)]

    def reaches(delay: int) -> bool:
        further = system.copy()
        further.add_positive({(p.var, 0): 1, (c.var, 1): -1, ONE: -delay})
        return further.feasible()

    low, high = 0, limit
    if not reaches(1):
        return 0
    if reaches(limit):
        return limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low


def _add_direction(system: System, name: str, direction: Direction) -> None:
    a, b = (name, 0), (name, 1)
    match direction:
        case "<":
            system.add_positive({b: 1, a: -1, ONE: -1})
        case ">":
            system.add_positive({a: 1, b: -1, ONE: -1})
        case _:
            system.add_equal({a: 1, b: -1})


def _pair_system(source: Access, sink: Access, written: Collection[str]) -> System:
    system = System()
    sides = [_Side(system, i, written) for i in (0, 1)]
    for side, access in zip(sides, (source, sink), strict=True):
        for loop in access.loops:
            side.bounds(loop)
    for a, b in zip(source.indices, sink.indices, strict=False):
        left, right = sides[0].index(a), sides[1].index(b)
        if left is not None and right is not None:
            system.add_equal(combine(left, right, 1, -1))
    return system


class _Side:
    """Adds constraints with the variables of one of the two iterations (0 source, 1 sink)."""

    def __init__(self, system: System, number: int, written: Collection[str]) -> None:
        self.system = system
        self.number = number
        self.written = written

    def index(self, expr: ir.Expr) -> Row | None:
        form = affine(expr, self.written)
        return None if form is None else self.row(form)

    def row(self, form: Affine) -> Row:
        out: Row = {ONE: form.constant} if form.constant else {}
        for term, c in form.terms:
            name = self.term(term)
            out[name] = out.get(name, 0) + c
        return out

    def term(self, term: Term) -> Var:
        match term:
            case Symbol():
                return term
            case Quotient(value, divisor):
                name = (term, self.number)
                rest = combine(self.row(value), {name: 1}, 1, -divisor)
                self.system.add_positive(rest)
                self.system.add_positive(combine({ONE: divisor - 1}, rest, 1, -1))
                return name
            case _:
                return (term, self.number)

    def bounds(self, loop: ir.For) -> None:
        name: Var = (loop.var, self.number)
        for form in lower_bounds(loop.lower, self.written):
            self.system.add_positive(combine({name: 1}, self.row(form), 1, -1))
        for form in upper_bounds(loop.upper, self.written):
            self.system.add_positive(combine(combine(self.row(form), {name: 1}, 1, -1), {ONE: -1}))
        lower = affine(loop.lower, self.written)
        if loop.step > 1 and lower is not None:
            count: Var = (loop.var, "step", self.number)
            self.system.add_equal(
                combine(combine({name: 1}, self.row(lower), 1, -1), {count: loop.step}, 1, -1)
            )
