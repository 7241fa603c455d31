"""One FIFO while it is simulated: who waits for what until when."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...backend.deadlock import fifo_name
from ...ir import nodes as ir

Key = tuple[str, str]
"""A stream: the function that declares it, and its name there."""


@dataclass(frozen=True, slots=True)
class Depths:
    """Depths of streams in place of the declared ones; the others are as declared, or without limit."""

    given: Mapping[Key, int]
    unlimited: bool = False

    def of(self, key: Key, declared: int | None) -> int | None:
        """The depth of a stream; None: as deep as needed."""
        return self.given.get(key, None if self.unlimited else declared)


DECLARED = Depths({})
UNLIMITED = Depths({}, unlimited=True)


@dataclass(slots=True, eq=False)
class Fifo:
    """Times of the tokens in a FIFO, and of the places that have become free.

    A token that is put in cycle t can be got from cycle t + 1 on, and so can a place be used that a
    `get` in cycle t has freed.  `fresh` places were never used.
    `full` and `empty` are the cycles that were lost here by the `writer` and the `reader`.

    `peak` is the most tokens at the end of a cycle. Puts and gets are computed in another order than
    they happen; `level` is the number of tokens up to where both are known, the rest is in `new_puts`
    and `new_gets`.
    """

    key: Key
    name: str
    depth: int | None
    fresh: int
    tokens: deque[int] = field(default_factory=lambda: deque[int]())
    places: deque[int] = field(default_factory=lambda: deque[int]())
    put_at: int = -1
    got_at: int = -1
    puts: int = 0
    full: int = 0
    empty: int = 0
    writer: object = None
    reader: object = None
    peak: int = 0
    level: int = 0
    new_puts: deque[int] = field(default_factory=lambda: deque[int]())
    new_gets: deque[int] = field(default_factory=lambda: deque[int]())

    def put(self, now: int) -> int | None:
        """The cycle of the next `put` that could happen at `now`; None: there is no place (yet)."""
        at = now
        if self.depth is not None:
            if self.fresh:
                self.fresh -= 1
            elif self.places:
                at = max(now, self.places.popleft() + 1)
            else:
                return None
            self.new_puts.append(at)
            self._count()
        self.tokens.append(at)
        self.put_at = at
        self.puts += 1
        return at

    def get(self, now: int) -> int | None:
        """The cycle of the next `get` that could happen at `now`; None: there is no token (yet)."""
        if not self.tokens:
            return None
        at = max(now, self.tokens.popleft() + 1)
        if self.depth is not None:
            self.places.append(at)
            self.new_gets.append(at)
            self._count()
        self.got_at = at
        return at

    def _count(self) -> None:
        puts, gets = self.new_puts, self.new_gets
        while puts and gets:
            if puts[0] < gets[0]:
                puts.popleft()
                self.level += 1
                self.peak = max(self.peak, self.level)
            else:
                gets.popleft()
                self.level -= 1

    def highest(self) -> int:
        """The most tokens in the whole run, which has ended."""
        return max(self.peak, self.level + len(self.new_puts))


def create(function: str, buffer: ir.Buffer, depths: Depths) -> list[Fifo]:
    """The FIFOs of one declaration."""
    key = function, buffer.name
    depth = depths.of(key, buffer.depth)
    count = 1
    for extent in buffer.shape:
        count *= extent
    plain = buffer.name.partition(".")[0]
    return [Fifo(key, fifo_name(plain, buffer.shape, i), depth, depth or 0) for i in range(count)]


__all__ = ["DECLARED", "UNLIMITED", "Depths", "Fifo", "Key", "create"]
