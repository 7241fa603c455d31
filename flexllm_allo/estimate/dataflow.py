"""Processes that work at the same time: one run of a region, and many runs of a loop.

The steady state: FIFOs are taken to be deep enough not to slow anybody down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cost import Cost


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


def region(processes: Sequence[Process], fifos: frozenset[str]) -> Cost:
    """One run of processes in the order of the program.

    Who reads an array waits until its writer is done. Who reads a FIFO begins when the first token comes, and
    has the work left that it does behind its last token when the writer is done.

    Args:
        processes: the processes.
        fifos: the names among what they share that are FIFOs.
    """
    total = Cost()
    ends: list[float] = []
    begins: list[float] = []
    for number, process in enumerate(processes):
        begin, least = 0.0, 0.0
        for other in range(number):
            for name in processes[other].writes & (process.reads | process.writes):
                if name not in fifos:
                    begin = max(begin, ends[other])
                    continue
                first = processes[other].cost.tokens.get(name, (0.0, 0.0))[0]
                taken, last = process.cost.tokens.get(name, (0.0, process.cost.cycles))
                begin = max(begin, begins[other] + first + 1 - taken)
                least = max(least, ends[other] + process.cost.cycles - last)
        begins.append(begin)
        ends.append(max(begin + process.cost.cycles, least))
        total.add(process.cost, at=begin)
    total.cycles = max(ends, default=0)
    return total


def repeated(runs: Sequence[tuple[int, Sequence[Process]]]) -> Cost:
    """A loop whose iterations overlap: each process goes on to the next one while others work on this one.

    Arrays between processes are double buffers: a process begins an iteration when it is done with the one
    before, when those it reads from have written this one, and when those that read from it have left the
    buffer of two before.

    Args:
        runs: iterations in order: how many in turn are alike, and their processes.
    """
    total = Cost()
    history: list[list[float]] = []
    sources: list[list[int]] = []
    readers: list[list[int]] = []
    for times, processes in runs:
        if not sources:
            sources, readers = _joined(processes)
        for _ in range(times):
            done = _iteration(processes, sources, readers, history, total)
            history = [*history[-1:], done]
    total.cycles = max(history[-1], default=0) if history else 0
    return total


def _iteration(
    processes: Sequence[Process],
    sources: Sequence[Sequence[int]],
    readers: Sequence[Sequence[int]],
    history: Sequence[Sequence[float]],
    total: Cost,
) -> list[float]:
    done: list[float] = []
    for number, process in enumerate(processes):
        begin = history[-1][number] if history else 0.0
        begin = max([begin, *(done[s] for s in sources[number])])
        if len(history) > 1:
            begin = max([begin, *(history[-2][r] for r in readers[number])])
        done.append(begin + process.cost.cycles)
        total.add(process.cost, at=begin)
    return done


def _joined(processes: Sequence[Process]) -> tuple[list[list[int]], list[list[int]]]:
    """For every process, those it reads from and those that read from it."""
    numbers = range(len(processes))
    feeds = [[bool(a.writes & (b.reads | b.writes)) for b in processes] for a in processes]
    sources = [[a for a in numbers if a < b and feeds[a][b]] for b in numbers]
    readers = [[b for b in numbers if a < b and feeds[a][b]] for a in numbers]
    return sources, readers


__all__ = ["Process", "region", "repeated"]
