"""Processes that work at the same time: one run of a region, and many runs of a loop.

The steady state: FIFOs are taken to be deep enough not to slow anybody down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cost import Cost
from .pace import Delayed, Pace, limits

FIFO_LATENCY = 1
"""Cycles until a token that was put can be taken."""


@dataclass(frozen=True, slots=True)
class Process:
    """A statement of a region.

    Attributes:
        cost: of one run.
        reads, writes: arrays and FIFOs it shares with others.
    """

    cost: Cost
    reads: frozenset[str]
    writes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Times:
    """When the processes of an iteration begin, end and access FIFOs."""

    begins: list[float] = field(default_factory=lambda: list[float]())
    ends: list[float] = field(default_factory=lambda: list[float]())
    tokens: list[Mapping[str, Pace]] = field(default_factory=lambda: list[Mapping[str, Pace]]())


class _Region:
    """Who waits for whom.

    Who reads an array begins when its writer is done. Who reads a FIFO before anything else begins when the
    first token comes; it waits for the others, and for those of FIFOs that it reads later, as they come.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        numbers = range(len(processes))
        self.arrays: list[list[int]] = [[] for _ in numbers]
        self.readers: list[list[int]] = [[] for _ in numbers]
        self.fifos: list[list[tuple[int, str, str]]] = [[] for _ in numbers]
        for b in numbers:
            used = processes[b].reads
            whole = {_whole(name) for name in used}
            for a in range(b):
                for name in processes[a].writes:
                    if name in used or name in whole or (_whole(name) in used and name != _whole(name)):
                        self._join(processes, a, b, name)
        self.buffers = [self._buffers(a, len(processes)) for a in numbers]
        self.longest = max((n for found in self.buffers for n in found.values()), default=2)

    def _join(self, processes: Sequence[Process], a: int, b: int, name: str) -> None:
        sides = [p.cost.tokens.keys() for p in (processes[a], processes[b])]
        mine = next((n for n in sides[1] if _whole(n) == _whole(name) and _meet(n, name)), None)
        if name in sides[0] and mine is not None:
            self.fifos[b].append((a, name, mine))
        else:
            self.arrays[b].append(a)
            self.readers[a].append(b)

    def _buffers(self, writer: int, count: int) -> dict[int, int]:
        """How many buffers lie between a process and each reader: 2, and one for each stage passed by.

        As `analysis.overlap` has it: an array that waits while its block goes through other processes.
        """
        stages = {writer: 0}
        for b in range(writer + 1, count):
            ways = [stages[a] + 1 for a in self.arrays[b] if a in stages]
            ways += [stages[a] for a, _, _ in self.fifos[b] if a in stages and a != writer]
            if ways:
                stages[b] = max(ways)
        return {reader: 1 + stages[reader] for reader in self.readers[writer]}

    def iteration(self, processes: Sequence[Process], history: Sequence[_Times]) -> _Times:
        """When each process begins and ends, after the iterations before.

        A writer waits until the reader has left the buffer that comes next.
        """
        now = _Times()
        for number, process in enumerate(processes):
            begin = history[-1].ends[number] if history else 0.0
            for reader, buffers in self.buffers[number].items():
                if len(history) >= buffers:
                    begin = max(begin, history[-buffers].ends[reader])
            begin = max([begin, *(now.ends[s] for s in self.arrays[number])])
            held = [
                limits(now.tokens[source][name], process.cost.tokens[mine], FIFO_LATENCY)
                for source, name, mine in self.fifos[number]
                if now.tokens[source][name] and process.cost.tokens[mine]
            ]
            first = min((pace[0].first for pace in process.cost.tokens.values() if pace), default=0.0)
            begin = max([begin, *(came - own for (own, came), *_ in held if own <= first)])
            run = Delayed.run(begin, held)
            now.begins.append(begin)
            now.ends.append(run.at(process.cost.cycles))
            now.tokens.append({name: run.pace(pace) for name, pace in process.cost.tokens.items()})
        return now


def _whole(name: str) -> str:
    """The array of FIFOs that ``A[0, 1]`` is of."""
    return name.partition("[")[0]


def _meet(a: str, b: str) -> bool:
    return a == b or a == _whole(b) or b == _whole(a)


def region(processes: Sequence[Process]) -> Cost:
    """One run of processes, in the order of the program."""
    return repeated([(1, processes)])


def repeated(runs: Sequence[tuple[int, Sequence[Process]]]) -> Cost:
    """A loop whose iterations overlap: each process goes on to the next one while others work on this one.

    Args:
        runs: iterations in order: how many in turn are alike, and their processes.
    """
    total = Cost()
    history: list[_Times] = []
    shape: _Region | None = None
    for times, processes in runs:
        shape = shape or _Region(processes)
        for _ in range(times):
            now = shape.iteration(processes, history)
            for process, begin, tokens in zip(processes, now.begins, now.tokens, strict=True):
                total.add(process.cost, at=begin, tokens=tokens)
            total.wait(max((p.cost for p in processes), key=lambda cost: cost.cycles))
            history = [*history[1 - shape.longest :], now]
    total.cycles = max(history[-1].ends, default=0) if history else 0
    return total


__all__ = ["Process", "region", "repeated"]
