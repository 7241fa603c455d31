"""Long runs by compiled code: the same times as `simulate`, some hundred times as fast.

A behaviour becomes a table of instructions, once; a run takes it with the depths.  What the table cannot
say (regions within sequences, FIFOs made in loops, processes that wait for others to end, pipelined
loops whose iterations differ) is left to `simulate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ...backend.llvm import LLVMModule
from ...lowering import lower
from .compiled_kernel import run_processes
from .fifos import Depths, Key
from .steps import Access, Behaviour, Create, Invoke, Parallel, Pipe, Repeat, Step, Wait

END, WAIT, ACCESS, SET, NEXT, BEGIN, START, PIPED, STOP, LEAVE = range(10)
WIDTH = 8
MOST = 1 << 25  # tokens in FIFOs without limit

Names = dict[str, int]
"""The number of the first FIFO that a name stands for."""


class Unsupported(Exception):
    """The table cannot say this."""


@dataclass
class Table:
    """Instructions and constants of a function, and its FIFOs."""

    code: list[tuple[int, ...]] = field(default_factory=lambda: [(END,)])
    starts: list[int] = field(default_factory=lambda: list[int]())
    constants: list[int] = field(default_factory=lambda: list[int]())
    stages: int = 0
    begin: int = 0
    streams: list[tuple[Key, int]] = field(default_factory=lambda: list[tuple[Key, int]]())
    tokens: list[int] = field(default_factory=lambda: list[int]())

    def cycles(self, depths: Depths) -> int | None:
        """The cycles of a run; None: it deadlocks."""
        limits = [depths.of(key, declared) for key, declared in self.streams]
        sizes = [max(1, n if d is None else min(n, d)) for n, d in zip(self.tokens, limits, strict=True)]
        if sum(sizes) > MOST:
            raise Unsupported
        fifos = len(sizes)
        code = np.zeros((len(self.code), WIDTH), np.int32)
        for row, values in zip(code, self.code, strict=True):
            row[: len(values)] = values
        now = np.full(len(self.starts), self.begin, np.int64)
        state = [
            code.reshape(-1), np.array(self.starts, np.int32), now, _longs([*self.constants, 0]),
            _zeros(self.stages), _zeros(self.stages), _longs([d or 0 for d in limits]),
            _longs(np.cumsum([0, *sizes[:-1]])), _longs(sizes),
            _zeros(sum(sizes)), _zeros(fifos), _zeros(fifos),
            _zeros(sum(sizes)), _zeros(fifos), _zeros(fifos),
            _longs([n if d is None else d for n, d in zip(self.tokens, limits, strict=True)]),
        ]  # fmt: skip
        left = _machine()(*state, len(self.starts))
        return None if left else max(self.begin, *now.tolist())

    # ---- from a behaviour

    def region(self, region: Parallel, names: Names, owner: str, outermost: bool) -> None:
        for step in region.first:
            match step:
                case Create(buffer):
                    names[buffer.name] = len(self.streams)
                    members = int(np.prod(buffer.shape)) if buffer.shape else 1
                    self.streams += [((owner, buffer.name), buffer.depth or 0)] * members
                    self.tokens += [0] * members
                case Wait(cycles) if outermost:
                    self.begin += cycles
                case _:
                    raise Unsupported
        for process in region.processes:
            if process.after:
                raise Unsupported
            steps, bound, function = process.steps, names, owner
            while len(steps) == 1 and isinstance(call := steps[0], Invoke) and call.fifos:
                bound = {p: bound[a] + n for p, a, n in call.fifos}
                steps, function = call.behaviour.steps, call.behaviour.function
            if len(steps) == 1 and isinstance(inner := steps[0], Parallel):
                self.region(inner, bound, function, outermost=False)
            else:
                self.starts.append(len(self.code))
                self.steps(steps, bound, 1)
                self.code.append((END,))

    def steps(self, steps: Sequence[Step], names: Names, times: int) -> None:
        for step in steps:
            match step:
                case Wait(cycles):
                    self.code.append((WAIT, self.constant(cycles)))
                case Access(fifo, member, put):
                    self.count(names[fifo] + member, put, times)
                    self.code.append((ACCESS, names[fifo] + member, int(put)))
                case Repeat(trips, inner):
                    counter, begin = self.loop(trips)
                    self.steps(inner, names, times * trips)
                    self.code.append((NEXT, counter, 0, begin))
                case Pipe(runs=(_,)):
                    self.pipe(step, names, times)
                case Invoke(behaviour, fifos) if fifos:
                    self.steps(behaviour.steps, {p: names[a] + n for p, a, n in fifos}, times)
                case _:
                    raise Unsupported

    def pipe(self, pipe: Pipe, names: Names, times: int) -> None:
        ((trips, accesses),) = pipe.runs
        offsets = [0, *(a.offset for a in accesses)]
        base, stages = self.stages, len(offsets)
        self.stages += stages
        where = self.constant(*offsets)
        self.code.append((BEGIN, base, pipe.ii, stages, where))
        counter, begin = self.loop(trips * pipe.repeat)

        def passed(offset: int) -> tuple[int, int]:
            last = max(i for i, o in enumerate(offsets) if o <= offset + pipe.ii)
            return base + last, offset + pipe.ii - offsets[last]

        self.code.append((START, base, *passed(0)))
        for i, access in enumerate(accesses):
            fifo = names[access.fifo] + access.member
            self.count(fifo, access.put, times * trips * pipe.repeat)
            gap = offsets[i + 1] - offsets[i]
            self.code.append((PIPED, fifo, int(access.put), base + i, gap, *passed(access.offset)))
        self.code.append((STOP, base, stages))
        self.code.append((NEXT, counter, 0, begin))
        self.code.append((LEAVE, base + stages - 1, pipe.depth - offsets[-1]))

    def loop(self, trips: int) -> tuple[int, int]:
        counter, limit = self.constant(0), self.constant(trips)
        self.code.append((SET, counter, limit))
        return counter, len(self.code)

    def constant(self, *values: int) -> int:
        self.constants += values
        return len(self.constants) - len(values)

    def count(self, fifo: int, put: bool, times: int) -> None:
        self.tokens[fifo] += times * put


def table(behaviour: Behaviour) -> Table | None:
    """The table of a function without FIFO parameters, or None."""
    made = Table()
    try:
        match behaviour.steps:
            case (Parallel() as region,):
                made.region(region, {}, behaviour.function, outermost=True)
            case _:
                return None
    except Unsupported:
        return None
    return made


@cache
def _machine() -> Any:
    return LLVMModule(lower(run_processes))


def _zeros(n: int) -> Any:
    return np.zeros(max(1, n), np.int64)


def _longs(values: Any) -> Any:
    return np.array(values if len(values) else [0], np.int64)


__all__ = ["Table", "table"]
