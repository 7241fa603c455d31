"""A second simulator of the same behaviours: every process and every iteration, cycle by cycle.

Plain and slow, written from the rules and not from `estimate.fifo.simulate`:

- a token can be got, and a freed place be used, one cycle after it was put, or freed;
- an access outside of pipelined loops takes a cycle;
- an iteration of a pipelined loop is in one stage per cycle; it leaves stage s once all accesses of s
  are done and the iteration before it has left stage s + ii.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from flexllm_allo.estimate.fifo.steps import Access, Create, Invoke, Parallel, Pipe, Repeat, Wait

IDLE = 500  # cycles without an access after which nothing will move


class Stuck(Exception):
    pass


class Fifo:
    def __init__(self, depth):
        self.depth, self.tokens, self.freed, self.held = depth, [], [], 0

    def access(self, put: bool, now: int) -> bool:
        if put:
            if self.depth is not None:
                self.held -= sum(t < now for t in self.freed)
                self.freed = [t for t in self.freed if t >= now]
                if self.held >= self.depth:
                    return False
            self.held += 1
            self.tokens.append(now)
            return True
        if not self.tokens or self.tokens[0] >= now:
            return False
        self.tokens.pop(0)
        self.freed.append(now)
        return True


class Clock:
    def __init__(self, depths):
        self.now, self.last, self.depths = 0, 0, depths
        self.fifos, self.peaks = {}, {}

    def tick(self) -> None:
        for key, members in self.fifos.items():
            self.peaks[key] = max(self.peaks.get(key, 0), *(len(f.tokens) for f in members))
        self.now += 1


def run(behaviour, depths=None) -> tuple[int, dict]:
    """Cycles, and the most tokens in each stream at the end of a cycle."""
    clock = Clock(depths or {})
    process = _steps(behaviour.steps, {}, behaviour.function, clock)
    while next(process, "ended") != "ended":
        clock.tick()
        if clock.now - clock.last > IDLE:
            raise Stuck
    return clock.now, clock.peaks


def _steps(steps, frame, owner, clock) -> Iterator[None]:
    """The process; it yields where a cycle ends."""
    for step in steps:
        match step:
            case Wait(cycles):
                for _ in range(cycles):
                    clock.last = clock.now
                    yield
            case Access():
                while not _access(step, frame, clock):
                    yield
                yield
            case Create(buffer):
                depth = clock.depths.get((owner, buffer.name), buffer.depth)
                frame[buffer.name] = [Fifo(depth) for _ in range(prod(buffer.shape))], 0
                clock.fifos[owner, buffer.name] = frame[buffer.name][0]
            case Repeat(trips, inner):
                for _ in range(trips):
                    yield from _steps(inner, frame, owner, clock)
            case Pipe():
                yield from _pipe(step, frame, clock)
            case Invoke(callee, fifos):
                inner = {p: (frame[a][0], frame[a][1] + first) for p, a, first in fifos}
                yield from _steps(callee.steps, inner, callee.function, clock)
            case Parallel(first, processes):
                yield from _steps(first, frame, owner, clock)
                yield from _region(processes, frame, owner, clock)


def _region(processes, frame, owner, clock) -> Iterator[None]:
    running, ended = {}, set()
    while True:
        for i, one in enumerate(processes):
            if i in ended or any(j not in ended for j in one.after):
                continue
            mine = running.setdefault(i, _steps(one.steps, frame, owner, clock))
            if next(mine, "ended") == "ended":
                ended.add(i)
        if len(ended) == len(processes):
            return
        yield


class Iteration:
    def __init__(self, accesses, ahead):
        self.accesses, self.ahead, self.left, self.todo = accesses, ahead, -1, list(accesses)

    def advance(self, ii, frame, clock) -> None:
        stage = self.left + 1
        if self.ahead is not None and self.ahead.left < stage + ii:
            return
        while self.todo and self.todo[0].offset == stage:
            if not _access(self.todo[0], frame, clock):
                return
            self.todo.pop(0)
        self.left = stage


def _pipe(pipe: Pipe, frame, clock) -> Iterator[None]:
    bodies = [run for _ in range(pipe.repeat) for trips, run in pipe.runs for _ in range(trips)]
    flight: list[Iteration] = []
    last = None
    while True:
        for one in flight:
            one.advance(pipe.ii, frame, clock)
        while bodies and (last is None or last.left >= pipe.ii):
            last = Iteration(bodies.pop(0), last)
            flight.append(last)
            last.advance(pipe.ii, frame, clock)
        if not bodies and last.left >= pipe.depth:
            return
        # An iteration that has ended goes on through stages without accesses, for those behind it.
        for one in flight:
            if one.ahead is not None and one.ahead.left > pipe.depth + 2 * pipe.ii:
                one.ahead = None
        flight = [f for f in flight if f is last or f.left <= pipe.depth + 2 * pipe.ii]
        yield


def _access(access: Access, frame, clock) -> bool:
    members, base = frame[access.fifo]
    done = members[base + access.member].access(access.put, clock.now)
    if done:
        clock.last = clock.now
    return done
