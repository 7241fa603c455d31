"""Cycles, and where they went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


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


@dataclass(slots=True)
class Cost:
    """A piece of a run.

    Attributes:
        cycles: it takes.
        operations: arithmetic on data.
        counts: by function and loop.
        words: of off-chip memory by parameter of the function: read, written.
        tokens: the cycles of the first and the last access to every FIFO that is not its own.
        bound: cycles that loops lose because memory gives no more, by parameter.
    """

    cycles: float = 0
    operations: float = 0
    counts: dict[Key, Count] = field(default_factory=lambda: dict[Key, Count]())
    words: dict[str, tuple[float, float]] = field(default_factory=lambda: dict[str, tuple[float, float]]())
    tokens: dict[str, Span] = field(default_factory=lambda: dict[str, Span]())
    bound: dict[str, float] = field(default_factory=lambda: dict[str, float]())

    def add(self, other: Cost, times: float = 1, at: float | None = None) -> None:
        """Another piece, `times` times in turn.

        Args:
            at: when it begins, if it runs beside what is here; the cycles then stay as they are.
        """
        begin = self.cycles if at is None else at
        again = max(0.0, times - 1) * other.cycles
        if at is None:
            self.cycles += other.cycles * times
        self.operations += other.operations * times
        for key, count in other.counts.items():
            mine = self.counts.get(key)
            first, last = begin + count.first, begin + again + count.last
            if mine is None:
                mine = self.counts[key] = Count(first=first)
            mine.runs += count.runs * times
            mine.trips += count.trips * times
            mine.cycles += count.cycles * times
            mine.first, mine.last = min(mine.first, first), max(mine.last, last)
        for name, (read, written) in other.words.items():
            before = self.words.get(name, (0, 0))
            self.words[name] = before[0] + read * times, before[1] + written * times
        for name, (first, last) in other.tokens.items():
            mine_ = self.tokens.get(name, (begin + first, 0.0))
            self.tokens[name] = min(mine_[0], begin + first), max(mine_[1], begin + again + last)
        for name, lost in other.bound.items():
            self.bound[name] = self.bound.get(name, 0) + lost * times


__all__ = ["Cost", "Count", "Key"]
