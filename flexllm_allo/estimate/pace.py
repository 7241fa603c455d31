"""When the tokens of a FIFO pass, as a line of few pieces, and how a reader is held back by it.

A process that gives its tokens in bursts holds its reader back in the middle of a run, where neither the
first nor the last token shows it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple

MOST = 16
"""Pieces that are told apart; of more, neighbours are taken together."""
STRAIGHT = 1.0
"""Cycles by which two pieces may differ from one."""

Point = tuple[float, float]


class Stretch(NamedTuple):
    """Tokens that pass at an even pace.

    Attributes:
        first, last: cycles of the first and of the last.
        tokens: how many there are, of those of the process.
    """

    first: float
    last: float
    tokens: float = 1


Pace = tuple[Stretch, ...]
"""Stretches one after the other."""


def shifted(pace: Pace, cycles: float) -> Pace:
    """The same later."""
    return tuple(Stretch(s.first + cycles, s.last + cycles, s.tokens) for s in pace)


def repeated(pace: Pace, times: float, period: float) -> Pace:
    """The same `times` times, every `period` cycles."""
    if not pace:
        return ()
    count = int(times)
    if count != times or count * len(pace) <= 1:
        return (_joined([*pace, *shifted(pace, max(0.0, times - 1) * period)], times / 2),)
    if count * len(pace) <= MOST:
        return tuple(s for n in range(count) for s in shifted(pace, n * period))
    groups = min(MOST, count)
    edges = [n * count // groups for n in range(groups + 1)]
    whole = _joined(pace)
    return tuple(
        Stretch(whole.first + a * period, whole.last + (b - 1) * period, whole.tokens * (b - a))
        for a, b in pairwise(edges)
    )


def together(*paces: Pace) -> Pace:
    """Several, of which those that pass at the same time are one."""
    found: list[Stretch] = []
    for stretch in sorted(s for pace in paces for s in pace):
        if found and stretch.first < found[-1].last:
            found[-1] = _joined([found[-1], stretch])
        else:
            found.append(stretch)
    bends = [_bend(a, b) for a, b in pairwise(found)]
    while bends and (len(found) > MOST or min(bends) <= STRAIGHT):
        n = bends.index(min(bends))
        found[n : n + 2] = [_joined(found[n : n + 2])]
        around = range(max(0, n - 1), min(n + 1, len(found) - 1))
        bends[max(0, n - 1) : n + 2] = [_bend(found[i], found[i + 1]) for i in around]
    return tuple(found)


def _bend(a: Stretch, b: Stretch) -> float:
    """How far, in cycles, the end of one stretch or the begin of the next is from the line through both."""
    middle = a.first + (b.last - a.first) * a.tokens / (a.tokens + b.tokens)
    return max(abs(a.last - middle), abs(b.first - middle))


def _joined(stretches: Sequence[Stretch], share: float = 1) -> Stretch:
    first, last = min(s.first for s in stretches), max(s.last for s in stretches)
    return Stretch(first, last, sum(s.tokens for s in stretches) * share)


# ------------------------------------------------------------------------------- readers and writers


def limits(given: Pace, taken: Pace, latency: float) -> list[Point]:
    """The cycles of a reader's own, and when a writer allows them at the earliest.

    Args:
        given: when the tokens come.
        taken: when the reader would take them if it never waited.
        latency: from one to the other.
    """
    came, wanted = _line(given), _line(taken)
    shares = sorted({share for share, _ in (*came, *wanted)})
    found: list[Point] = []
    for share in shares:
        ends, begins = _at(wanted, share, 0), _at(wanted, share, 1)
        held = _at(came, share, 0) + latency
        found.append((ends, held))
        if begins > ends:  # in a pause it is not held back any more than before
            found.append((begins, held + begins - ends))
        found.append((begins, _at(came, share, 1) + latency))
    return found


@dataclass(frozen=True, slots=True)
class Delayed:
    """A run that begins at a cycle and waits on the way.

    Attributes:
        begin: its first cycle.
        waits: by its own cycles, how much later than without any wait it is; never less than before.
    """

    begin: float
    waits: Sequence[Point]

    @staticmethod
    def run(begin: float, held: Iterable[Sequence[Point]]) -> Delayed:
        """A run that is held back by each of several FIFOs, as `limits` gives them."""
        lines = [_rising([(own, at - own - begin) for own, at in points]) for points in held]
        waits: list[Point] = []
        for own in sorted({own for line in lines for own, _ in line}):
            for side in (0, 1):
                waits.append((own, max(max(0.0, _before(line, own, side)) for line in lines)))
        return Delayed(begin, _rising(waits))

    def at(self, own: float) -> float:
        """When it reaches a cycle of its own."""
        return self.begin + own + max(0.0, _before(self.waits, own, 1))

    def pace(self, own: Pace) -> Pace:
        """When it really passes tokens."""
        stops = sorted({at for at, _ in self.waits})
        found: list[Stretch] = []
        for stretch in own:
            cuts = [at for at in stops if stretch.first < at < stretch.last]
            edges, length = [stretch.first, *cuts, stretch.last], stretch.last - stretch.first
            for a, b in pairwise(edges):
                share = (b - a) / length if length else 1.0
                before = self.begin + b + max(0.0, _before(self.waits, b, 0 if b < stretch.last else 1))
                found.append(Stretch(self.at(a), before, stretch.tokens * share))
        return together(tuple(found))


def _line(pace: Pace) -> list[Point]:
    """Shares of all tokens, and when they have passed; two points at a share where there is a pause."""
    total, done, found = sum(s.tokens for s in pace) or 1, 0.0, list[Point]()
    for stretch in pace:
        found.append((round(done / total, 9), stretch.first))
        done += stretch.tokens
        found.append((round(done / total, 9), stretch.last))
    return found


def _at(line: Sequence[Point], x: float, side: int) -> float:
    """The value of a line in front of (0) or behind (1) a place; at an end there is only one."""
    here, after = bisect_left(line, (x, -inf)), bisect_right(line, (x, inf))
    if here < after:
        return line[here][1] if side == 0 else line[after - 1][1]
    (a, low), (b, high) = line[after - 1], line[after]
    return low + (high - low) * (x - a) / (b - a)


def _before(line: Sequence[Point], x: float, side: int) -> float:
    """The same of a line of waits: none in front of it, as long as its end behind it."""
    if not line or x < line[0][0] or (x == line[0][0] and side == 0):
        return -inf
    return line[-1][1] if x > line[-1][0] else _at(line, x, side)


def _rising(line: Iterable[Point]) -> list[Point]:
    """The largest so far."""
    most, found = -inf, list[Point]()
    for x, y in line:
        most = max(most, y)
        found.append((x, most))
    return found


__all__ = ["Delayed", "Pace", "Stretch", "limits", "repeated", "shifted", "together"]
