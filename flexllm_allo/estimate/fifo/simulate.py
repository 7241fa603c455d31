"""Cycles of processes that talk through FIFOs, without a clock.

The time of every access is the latest of a few others: the access before it, the token it takes, the
place it fills.  Such times do not depend on the order in which they are computed, so processes run one
after the other until they wait, as they do on the CPU, and each access is looked at once.  A run
deadlocks exactly if the CPU's run does.  What repeats is skipped (`periods`).

A process that waits at one FIFO holds back what comes after it, not the iterations of its pipeline that
are further ahead: a flushing pipeline, Vitis' ``style=flp``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...backend.deadlock import Blocked
from .fifos import DECLARED, Depths, Fifo, Key, create
from .periods import Periods
from .steps import Access, Behaviour, Create, Invoke, Parallel, Pipe, Repeat, Step, Wait, outside

Frame = dict[str, tuple[list[Fifo], int]]
"""The FIFOs of a function by name, and where the members of a parameter start."""

Stall = tuple[str, str, str]
"""A process, a FIFO, and "full" or "empty"."""

SOFT = 64  # tokens in a FIFO without a limit before its writer lets others go first


@dataclass(frozen=True)
class Simulated:
    """What a run does.

    Attributes:
        cycles: from its begin to its end.
        stalls: the cycles that processes lost at FIFOs.
        peaks: the most tokens that were in one FIFO of a stream; not for those without a limit.
    """

    cycles: int
    stalls: Counter[Stall]
    peaks: dict[Key, int]


class Deadlock(Exception):
    """All processes of `function` that have not ended wait; `full` are the streams without a place."""

    def __init__(self, function: str, blocked: Sequence[Blocked], full: frozenset[Key]) -> None:
        super().__init__(function)
        self.function, self.blocked, self.full = function, tuple(blocked), full


def simulate(behaviour: Behaviour, depths: Depths = DECLARED, *, skip: bool = True) -> Simulated:
    """Run a function that has no FIFO parameters.

    Args:
        depths: of streams, in place of the declared ones.
        skip: go over what repeats without looking at every token; the result is the same.

    Raises:
        Deadlock: with these depths it does not end.
    """
    return Simulator(depths, skip).run(behaviour)


class Simulator:
    """What the processes of a run share."""

    def __init__(self, depths: Depths, skip: bool) -> None:
        self.depths = depths
        self.skip = skip
        self.moved = 0
        self.fifos: list[Fifo] = []
        self.soft = SOFT
        self.paused = False
        self.stalls: Counter[Stall] = Counter()
        self.periods: Periods | None = None
        self.ended: dict[Behaviour, Simulated] = {}
        self._closed: dict[int, tuple[bool, tuple[Step, ...]]] = {}

    def run(self, behaviour: Behaviour) -> Simulated:
        """Run a function by itself, from cycle 0; the second time it is known."""
        if behaviour not in self.ended:
            outer, self.stalls, self.periods = (self.stalls, self.periods), Counter(), None
            process = Running(self, behaviour.function, behaviour.steps, {}, behaviour.function, 0)
            while not process.advance():
                if not self.paused:  # nobody has room left that a deeper FIFO would not need
                    waits = process.waits()
                    full = frozenset(f.key for _, f in waits if f is not None)
                    raise Deadlock(behaviour.function, [b for b, _ in waits], full)
                self.paused = False
                self.soft *= 2
            self.ended[behaviour] = Simulated(process.now, self.stalls, self._peaks())
            self.stalls, self.periods = outer
        return self.ended[behaviour]

    def _peaks(self) -> dict[Key, int]:
        peaks: dict[Key, int] = {}
        for fifo in self.fifos:
            if fifo.depth is not None:
                peaks[fifo.key] = max(fifo.highest(), peaks.get(fifo.key, 0))
        return peaks

    def closed(self, steps: tuple[Step, ...]) -> bool:
        """Whether steps use no FIFOs but those they make."""
        if id(steps) not in self._closed:
            self._closed[id(steps)] = not outside(steps), steps
        return self._closed[id(steps)][0]


Wait_ = tuple[Blocked, Fifo | None]


class Running:
    """A process: a stack of the steps it is in, and the cycle it has come to."""

    def __init__(
        self, simulator: Simulator, label: str, steps: tuple[Step, ...], frame: Frame, owner: str, now: int
    ) -> None:
        self.simulator = simulator
        self.label = label
        self.now = now
        self.stack: list[Level] = [Level(steps, frame, owner)]
        self.wait: tuple[Access, Fifo] | None = None

    def advance(self) -> bool:
        """Go on until the process has ended (True) or waits (False)."""
        stack = self.stack
        while stack:
            level = stack[-1]
            if (work := level.pipe or level.region) is not None:
                if not work.advance(self):
                    return False
                level.pipe = level.region = None
            elif level.index < len(level.steps):
                if not self.step(level.steps[level.index], level):
                    return False
                level.index += 1
            elif level.remaining > 1:
                self.again(level)
            else:
                stack.pop()
        return True

    def again(self, level: Level) -> None:
        """The next iteration; those of a loop without FIFOs from outside all take the same time."""
        if level.begin is not None:
            begin, before = level.begin
            times, stalls = level.remaining - 1, self.simulator.stalls
            self.now += (self.now - begin) * times
            for stall, cycles in list(stalls.items()):
                stalls[stall] += (cycles - before[stall]) * times
            level.remaining = 1
        else:
            level.remaining -= 1
            level.index = 0

    def step(self, step: Step, level: Level) -> bool:
        match step:
            case Wait(cycles):
                self.now += cycles
            case Access():
                at = self.access(step, level.frame, self.now)
                if at is None:
                    return False
                self.now = at + 1
            case Create(buffer):
                made = create(level.owner, buffer, self.simulator.depths)
                self.simulator.fifos += made
                level.frame[buffer.name] = made, 0
            case Repeat(trips, steps):
                inner = Level(steps, level.frame, level.owner, trips)
                if trips > 1 and self.simulator.closed(steps):
                    inner.begin = self.now, Counter(self.simulator.stalls)
                self.stack.append(inner)
            case Pipe():
                level.pipe = Iterations(step, level.frame, self.now)
            case Parallel():
                begun = Level(step.first, level.frame, level.owner)
                level.region = Region(step, level.frame, level.owner)
                self.stack.append(begun)
            case Invoke(behaviour, fifos):
                self.invoke(behaviour, fifos, level)
        return True

    def invoke(self, behaviour: Behaviour, fifos: tuple[tuple[str, str, int], ...], level: Level) -> None:
        if not fifos:
            done = self.simulator.run(behaviour)
            self.now += done.cycles
            self.simulator.stalls.update(done.stalls)
            return
        frame: Frame = {}
        for param, arg, first in fifos:
            members, base = level.frame[arg]
            frame[param] = members, base + first
        self.stack.append(Level(behaviour.steps, frame, behaviour.function))

    def access(self, access: Access, frame: Frame, now: int) -> int | None:
        """The cycle of an access that could happen at `now`; None: it waits for another process."""
        members, base = frame[access.fifo]
        fifo = members[base + access.member]
        simulator = self.simulator
        if access.put:
            if fifo.depth is None and len(fifo.tokens) >= simulator.soft:
                at, simulator.paused = None, True
            else:
                at = fifo.put(now)
            fifo.writer = self
        else:
            at = fifo.get(now)
            fifo.reader = self
        if at is None:
            self.wait = access, fifo
            return None
        if at > now:
            self.stalled(access, fifo, at - now)
        simulator.moved += 1
        return at

    def stalled(self, access: Access, fifo: Fifo, cycles: int) -> None:
        if access.put:
            fifo.full += cycles
        else:
            fifo.empty += cycles
        self.simulator.stalls[self.label, fifo.name, "full" if access.put else "empty"] += cycles

    def floor(self) -> int:
        """No access to come can be earlier than this."""
        pipe = self.stack[-1].pipe
        if pipe is None:
            return self.now
        return pipe.times[-1] if pipe.times else pipe.passed(pipe.pipe.ii)

    def waits(self) -> list[Wait_]:
        """What the process, or those of the region it is in, wait for."""
        if (region := self.stack[-1].region) is not None:
            return region.waits()
        assert self.wait is not None
        access, fifo = self.wait
        kind = "write" if access.put else "read"
        blocked = Blocked(self.label, kind, fifo.name, fifo.depth or 0, access.span)
        return [(blocked, fifo if access.put else None)]


@dataclass(slots=True, eq=False)
class Level:
    """Steps that a process is in. `begin`: when the first iteration began, and the stalls until then."""

    steps: tuple[Step, ...]
    frame: Frame
    owner: str
    remaining: int = 1
    index: int = 0
    begin: tuple[int, Counter[Stall]] | None = None
    pipe: Iterations | None = None
    region: Region | None = None


class Iterations:
    """A pipelined loop that is running.

    An iteration passes stage s when the one before it has passed stage s + ii, later if it waits.
    `times` are the cycles at which the current one began and made its accesses, `before` those of the
    one before, with the offsets `stages`.
    """

    def __init__(self, pipe: Pipe, frame: Frame, now: int) -> None:
        self.pipe, self.frame = pipe, frame
        self.repeat = pipe.repeat
        self.run = 0
        self.remaining = pipe.runs[0][0]
        # As if an iteration had begun `ii` cycles ago and met nothing to wait for.
        self.before, self.stages = [now - pipe.ii], [0]
        self.times: list[int] = []

    def advance(self, process: Running) -> bool:
        pipe = self.pipe
        while True:
            if not self.iteration(process, pipe.runs[self.run][1]):
                return False
            self.remaining -= 1
            if self.remaining:
                continue
            self.run += 1
            if self.run == len(pipe.runs):
                self.repeat -= 1
                if not self.repeat:
                    process.now = self.before[-1] + pipe.depth - self.stages[-1]
                    return True
                self.run = 0
            self.remaining = pipe.runs[self.run][0]

    def iteration(self, process: Running, accesses: tuple[Access, ...]) -> bool:
        times, ii = self.times, self.pipe.ii
        if not times:
            times.append(self.passed(ii))
        stage = accesses[len(times) - 2].offset if len(times) > 1 else 0
        for i in range(len(times) - 1, len(accesses)):
            access = accesses[i]
            now = max(times[-1] + access.offset - stage, self.passed(access.offset + ii))
            at = process.access(access, self.frame, now)
            if at is None:
                return False
            times.append(at)
            stage = access.offset
        self.before, self.times = times, []
        self.stages = [0, *(a.offset for a in accesses)]
        return True

    def passed(self, stage: int) -> int:
        """When the iteration before passed a stage."""
        stages, i = self.stages, len(self.stages) - 1
        while stages[i] > stage:
            i -= 1
        return self.before[i] + stage - stages[i]


class Region:
    """A dataflow region that is running; the process that holds it goes on when all its own have ended."""

    def __init__(self, region: Parallel, frame: Frame, owner: str) -> None:
        self.region, self.frame, self.owner = region, frame, owner
        self.running: dict[int, Running] = {}
        self.ended: dict[int, int] = {}
        self.begin = -1

    def advance(self, process: Running) -> bool:
        """Let every process go on in turn until all have ended or none moves."""
        simulator = process.simulator
        if self.begin < 0:
            self.begin = process.now
            if simulator.skip and simulator.periods is None:
                simulator.periods = Periods(self)
        processes = self.region.processes
        while len(self.ended) < len(processes):
            before = simulator.moved
            for i, one in enumerate(processes):
                if i in self.ended or any(j not in self.ended for j in one.after):
                    continue
                if i not in self.running:
                    start = max([self.begin, *(self.ended[j] for j in one.after)])
                    self.running[i] = Running(simulator, one.label, one.steps, self.frame, self.owner, start)
                if self.running[i].advance():
                    self.ended[i] = self.running.pop(i).now
                    simulator.moved += 1
            if simulator.moved == before:
                return False
            if simulator.periods is not None:
                simulator.periods.look(simulator, self)
        if simulator.periods is not None and simulator.periods.region is self:
            simulator.periods = None
        process.now = max([self.begin, *self.ended.values()])
        return True

    def waits(self) -> list[Wait_]:
        out: list[Wait_] = []
        for i, one in enumerate(self.region.processes):
            if i in self.ended:
                continue
            waiting = [self.region.processes[j].label for j in one.after if j not in self.ended]
            if waiting:
                out.append((Blocked(one.label, "start", ", ".join(waiting), 0, one.span), None))
            else:
                out += self.running[i].waits()
        return out
