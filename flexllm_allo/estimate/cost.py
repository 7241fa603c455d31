"""Cycles, and where they went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .pace import Pace, repeated, shifted, together


class Key(NamedTuple):
    """A function with its off-chip parameters, or a loop of it by its identity; `loop` 0: all of it."""

    function: str
    off_chip: frozenset[str]
    loop: int = 0


@dataclass(slots=True)
class Count:
    """What was counted of a loop or of a function.

    Attributes:
        runs, trips, cycles: of all runs together.
        first: the cycle in which the first run begins.
        last: the cycle in which the last one ends.
    """

    runs: float = 0
    trips: float = 0
    cycles: float = 0
    first: float = 0
    last: float = 0


Span = tuple[float, float]


@dataclass(slots=True, eq=False)
class Cost:
    """A piece of a run. Pieces are shared, so what happens in a run is counted only when it is asked for.

    Attributes:
        cycles: it takes.
        operations: arithmetic on data.
        words: of off-chip memory by parameter of the function: read, written.
        tokens: when it accesses every FIFO that is not its own.
        bound: cycles that loops lose because memory gives no more, by parameter.
        key, trips: the function or loop that it is a run of, if it is one.
        parts: the pieces in it: how often in turn, and when the first begins.
    """

    cycles: float = 0
    operations: float = 0
    words: dict[str, tuple[float, float]] = field(default_factory=lambda: dict[str, tuple[float, float]]())
    tokens: dict[str, Pace] = field(default_factory=lambda: dict[str, Pace]())
    bound: dict[str, float] = field(default_factory=lambda: dict[str, float]())
    key: Key | None = None
    trips: float = 0
    parts: list[tuple[Cost, float, float]] = field(
        default_factory=lambda: list[tuple["Cost", float, float]]()
    )

    def add(
        self,
        other: Cost,
        times: float = 1,
        at: float | None = None,
        tokens: Mapping[str, Pace] | None = None,
    ) -> None:
        """Another piece, `times` times in turn.

        Args:
            at: when it begins, if it runs beside what is here; the cycles then stay as they are.
            tokens: when it accesses FIFOs, if others hold it back.
        """
        begin = self.cycles if at is None else at
        if at is None:
            self.cycles += other.cycles * times
        self.operations += other.operations * times
        if other.key is not None or other.parts:
            self.parts.append((other, times, begin))
        for name, (read, written) in other.words.items():
            before = self.words.get(name, (0, 0))
            self.words[name] = before[0] + read * times, before[1] + written * times
        if tokens is None:
            tokens = {n: shifted(repeated(p, times, other.cycles), begin) for n, p in other.tokens.items()}
        for name, pace in tokens.items():
            self.tokens[name] = together(self.tokens.get(name, ()), pace)
        if at is None:
            self.wait(other, times)

    def wait(self, other: Cost, times: float = 1) -> None:
        """Lose the cycles that another piece loses because memory gives no more."""
        for name, lost in other.bound.items():
            self.bound[name] = self.bound.get(name, 0) + lost * times

    def counts(self) -> dict[Key, Count]:
        """What was run how often, for how long, and when."""
        found: dict[Key, Count] = {}
        runs: dict[int, float] = {id(self): 1.0}
        begins: dict[int, Span] = {id(self): (0.0, 0.0)}
        for cost in self._outer_first():
            number, (early, late) = runs[id(cost)], begins[id(cost)]
            if cost.key is not None:
                mine = found.setdefault(cost.key, Count(first=early))
                mine.runs += number
                mine.trips += cost.trips * number
                mine.cycles += cost.cycles * number
                mine.first, mine.last = min(mine.first, early), max(mine.last, late + cost.cycles)
            for part, times, at in cost.parts:
                runs[id(part)] = runs.get(id(part), 0) + number * times
                last = late + at + max(0.0, times - 1) * part.cycles
                first, before = begins.get(id(part), (early + at, last))
                begins[id(part)] = min(first, early + at), max(before, last)
        return found

    def _outer_first(self) -> list[Cost]:
        """All pieces, each before those in it."""
        order: list[Cost] = []
        seen: set[int] = set()
        stack: list[tuple[Cost, bool]] = [(self, False)]
        while stack:
            cost, done = stack.pop()
            if done:
                order.append(cost)
            elif id(cost) not in seen:
                seen.add(id(cost))
                stack.append((cost, True))
                stack += [(part, False) for part, _, _ in cost.parts if id(part) not in seen]
        return order[::-1]


__all__ = ["Cost", "Count", "Key"]
