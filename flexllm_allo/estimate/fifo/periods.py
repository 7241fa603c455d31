"""Skipping what repeats in a region that is simulated.

After each round of turns the state of the processes is written down relative to their own times.  When
a state comes again and only counters of iterations differ, the run is periodic until one of them ends:
counters and times move on by as many periods as fit.  Processes may drift apart where the later one of
the two at a FIFO never waited for the earlier one: then it never will.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .fifos import Fifo

if TYPE_CHECKING:
    from .simulate import Region, Running, Simulator, Stall

FEW = 4  # rounds before a state is looked at
MOST = 4096  # tokens and places in a state that is written down
SHARE = 1  # tokens that are looked at for one that moves: full FIFOs are not looked at every round


@dataclass(frozen=True, slots=True)
class _Record:
    """A state: what changes from period to period."""

    counters: tuple[tuple[int, ...], ...]
    floors: tuple[int, ...]
    traffic: tuple[tuple[int, int, int], ...]  # of each FIFO: tokens put, cycles lost at its two ends
    stalls: Counter[Stall]


class Periods:
    """The states of a region and those inside it."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.rounds = 0
        self.looked = 0
        self.seen: dict[Any, _Record] = {}
        self.inner: dict[Any, _Record] = {}

    def look(self, simulator: Simulator, place: Region) -> None:
        """Skip periods if the state, after a round of the region `place`, has been met before."""
        self.rounds += 1
        if self.rounds < FEW:
            return
        processes = list(_alive(self.region))
        fifos = list(_fifos(self.region, processes))
        size = sum(len(f.tokens) + len(f.places) for f in fifos)
        if size > MOST or self.looked > SHARE * (simulator.moved + FEW):
            return
        self.looked += size
        floors = [p.floor() for p in processes]
        floor_of = dict(zip(map(id, processes), floors, strict=True))
        state = (
            id(place.region),
            tuple(_shape(p, floor) for p, floor in zip(processes, floors, strict=True)),
            tuple(_contents(f, floor_of) for f in fifos),
        )
        counters = tuple(tuple(_counters(p)) for p in processes)
        traffic = tuple((f.puts, f.full, f.empty) for f in fifos)
        record = _Record(counters, tuple(floors), traffic, Counter(simulator.stalls))
        # Innermost loops repeat first; whole iterations of outermost ones repeat with equal inner counters.
        outer = state, tuple(_without_outermost(c) for c in counters)
        for table, key in ((self.inner, state), (self.seen, outer)):
            before = table.get(key)
            if before is not None and (times := _periods(before, record, processes, fifos)):
                _skip(simulator, before, record, processes, fifos, times)
                self.inner.clear()
                if table is self.seen:
                    self.seen.clear()
                return
        self.inner[state] = self.seen[outer] = record


def _alive(region: Region) -> Iterator[Running]:
    for process in region.running.values():
        yield process
        for level in process.stack:
            if (inner := level.region) is not None:
                yield from _alive(inner)


def _fifos(region: Region, processes: list[Running]) -> Iterator[Fifo]:
    seen: set[int] = set()
    frames = [region.frame, *(level.frame for p in processes for level in p.stack)]
    for frame in frames:
        if id(frame) not in seen:
            seen.add(id(frame))
            for members, _ in frame.values():
                if id(members) not in seen:
                    seen.add(id(members))
                    yield from members


def _shape(process: Running, floor: int) -> tuple[Any, ...]:
    """Where a process is, times relative to `floor`, counters left out."""
    out: list[Any] = []
    for level in process.stack:
        begin = None if level.begin is None else level.begin[0] - floor
        out.append((id(level.steps), level.index, begin))
        if (pipe := level.pipe) is not None:
            times = tuple(t - floor for t in (*pipe.before, *pipe.times))
            out.append((id(pipe.pipe), pipe.run, len(pipe.times), times))
        elif (region := level.region) is not None:
            ended = tuple((i, t - floor) for i, t in region.ended.items())
            out.append((id(region.region), region.begin - floor, ended, tuple(region.running)))
        elif level is process.stack[-1]:
            out.append(process.now - floor)
    return tuple(out)


def _counters(process: Running) -> Iterator[int]:
    for level in process.stack:
        yield level.remaining
        if (pipe := level.pipe) is not None:
            yield pipe.repeat
            yield pipe.remaining


def _contents(fifo: Fifo, floors: dict[int, int]) -> tuple[Any, ...]:
    """Tokens relative to the reader's time, places to the writer's; those that wait are all alike."""
    read, written = floors.get(id(fifo.reader), 0), floors.get(id(fifo.writer), 0)
    got, put = max(read, fifo.got_at), max(written, fifo.put_at)
    tokens = tuple(None if t < got else t - read for t in fifo.tokens)
    places = tuple(None if t < put else t - written for t in fifo.places)
    return fifo.fresh, tokens, places


def _without_outermost(counters: tuple[int, ...]) -> tuple[int | None, ...]:
    place = next((i for i, n in enumerate(counters) if n > 1), len(counters))
    return (*counters[:place], None, *counters[place + 1 :])


def _periods(before: _Record, now: _Record, processes: list[Running], fifos: list[Fifo]) -> int:
    """How many times the part between two states comes again; 0 if that is not certain."""
    fits: list[int] = []
    for old, new in zip(before.counters, now.counters, strict=True):
        changed = [(was, left) for was, left in zip(old, new, strict=True) if was != left]
        if len(changed) > 1 or any(left > was for was, left in changed):
            return 0
        fits += [(left - 1) // (was - left) for was, left in changed]
    moved = _moved(before, now, processes)
    for fifo, old, new in zip(fifos, before.traffic, now.traffic, strict=True):
        write, read = moved.get(id(fifo.writer), 0), moved.get(id(fifo.reader), 0)
        drifts = old != new and write != read
        if drifts and (fifo.depth is not None or write > read or new[2] > old[2]):
            return 0
    return min(fits, default=0)


def _moved(before: _Record, now: _Record, processes: list[Running]) -> dict[int, int]:
    """The cycles that each process has gone on in one period."""
    both = zip(before.floors, now.floors, strict=True)
    return {id(p): b - a for p, (a, b) in zip(processes, both, strict=True)}


def _skip(
    simulator: Simulator,
    before: _Record,
    now: _Record,
    processes: list[Running],
    fifos: list[Fifo],
    times: int,
) -> None:
    moved = _moved(before, now, processes)
    for process, old, new in zip(processes, before.counters, now.counters, strict=True):
        counters = [left - times * (was - left) for was, left in zip(old, new, strict=True)]
        _move(process, moved[id(process)] * times, iter(counters))
    for fifo, old, new in zip(fifos, before.traffic, now.traffic, strict=True):
        if old == new:
            continue
        write, read = (moved.get(id(end), 0) * times for end in (fifo.writer, fifo.reader))
        fifo.tokens = deque(t + write for t in fifo.tokens)
        fifo.places = deque(t + read for t in fifo.places)
        fifo.new_puts = deque(t + write for t in fifo.new_puts)
        fifo.new_gets = deque(t + read for t in fifo.new_gets)
        fifo.put_at += write
        fifo.got_at += read
        fifo.puts, fifo.full, fifo.empty = (b + (b - a) * times for a, b in zip(old, new, strict=True))
    for stall, cycles in now.stalls.items():
        simulator.stalls[stall] += (cycles - before.stalls[stall]) * times


def _move(process: Running, cycles: int, counters: Iterator[int]) -> None:
    process.now += cycles
    for level in process.stack:
        level.remaining = next(counters)
        if level.begin is not None:
            level.begin = level.begin[0] + cycles, level.begin[1]
        if (pipe := level.pipe) is not None:
            pipe.before = [t + cycles for t in pipe.before]
            pipe.times = [t + cycles for t in pipe.times]
            pipe.repeat, pipe.remaining = next(counters), next(counters)
        elif (region := level.region) is not None:
            region.begin += cycles
            region.ended = {i: t + cycles for i, t in region.ended.items()}
