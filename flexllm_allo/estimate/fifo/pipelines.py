"""When, in an iteration of a pipelined loop, each FIFO is accessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from .steps import Access, Invoke, Pipe, Repeat, Run, Step, Wait

Iterations = Sequence[tuple[int, tuple[Step, ...]]]
"""Numbers of iterations that do the same, and what they do."""

MOST = 1 << 14  # accesses in one iteration


def pipe(iterations: Iterations, ii: int, depth: int) -> Pipe | None:
    """The pipelined loop, or None where its body holds more than accesses (a region, a FIFO of its own).

    Reads happen as early, writes as late in the iteration as the order of the program lets them, and
    a FIFO is accessed once per cycle.  An iteration may start when all its predecessors' accesses to a
    FIFO come first, so `ii` and `depth` grow where they must.
    """
    runs: list[Run] = []
    for trips, steps in iterations:
        accesses = _flat(steps, {})
        if accesses is None:
            return None
        placed = _placed(accesses, depth)
        ii = max(ii, _spread(placed))
        runs.append((trips, placed))
    depth = max([depth, *(a.offset + 1 for _, run in runs for a in run)])
    return Pipe(ii, depth, tuple(runs))


def merged(iterations: Iterations) -> Pipe | None:
    """A loop around nothing but a pipelined loop, flattened into it as Vitis does; or None."""
    pipes = [steps[0] if len(steps) == 1 else None for _, steps in iterations]
    first = pipes[0]
    if not isinstance(first, Pipe):
        return None
    runs: list[Run] = []
    for (trips, _), each in zip(iterations, pipes, strict=True):
        if not isinstance(each, Pipe) or (each.ii, each.depth) != (first.ii, first.depth):
            return None
        if len(pipes) == 1:
            return _repeated(each, trips)
        if each.repeat > 1 or trips * len(each.runs) > MOST:
            return None
        runs += each.runs * trips
    joined = [(sum(n for n, _ in equal), run) for run, equal in _grouped(runs)]
    return Pipe(first.ii, first.depth, tuple(joined))


def _repeated(inner: Pipe, trips: int) -> Pipe:
    if len(inner.runs) == 1 and inner.repeat == 1:
        ((n, run),) = inner.runs
        return replace(inner, runs=((n * trips, run),))
    return replace(inner, repeat=inner.repeat * trips)


def _grouped(runs: list[Run]) -> list[tuple[tuple[Access, ...], list[Run]]]:
    return [(run, list(equal)) for run, equal in groupby(runs, key=lambda item: item[1])]


def _flat(steps: Sequence[Step], names: dict[str, tuple[str, int]]) -> list[Access] | None:
    """All accesses of an iteration in order, loops unrolled and calls inlined; None if it is more."""
    out: list[Access] = []
    for step in steps:
        match step:
            case Wait():
                continue
            case Access():
                fifo, first = names.get(step.fifo, (step.fifo, 0))
                out.append(replace(step, fifo=fifo, member=first + step.member))
            case Repeat(trips, inner):
                body = _flat(inner, names)
                if body is None or len(body) * trips > MOST:
                    return None
                out += body * trips
            case Pipe():
                for trips, run in step.runs * step.repeat:
                    out += (_flat(run, names) or []) * trips
            case Invoke(behaviour, fifos):
                bound: dict[str, tuple[str, int]] = {}
                for param, arg, first in fifos:
                    fifo, base = names.get(arg, (arg, 0))
                    bound[param] = fifo, base + first
                body = _flat(behaviour.steps, bound)
                if body is None:
                    return None
                out += body
            case _:
                return None
    return out


def _placed(accesses: Sequence[Access], depth: int) -> tuple[Access, ...]:
    last: dict[tuple[str, int, bool], int] = {}
    now = 0
    out: list[Access] = []
    for access in accesses:
        port = access.fifo, access.member, access.put
        now = max(now, last.get(port, -1) + 1, depth - 1 if access.put else 0)
        last[port] = now
        out.append(replace(access, offset=now))
    return tuple(out)


def _spread(accesses: Sequence[Access]) -> int:
    """The cycles from the first to the last access of one FIFO: the next iteration must not come between."""
    first: dict[tuple[str, int, bool], int] = {}
    spread = 1
    for access in accesses:
        begin = first.setdefault((access.fifo, access.member, access.put), access.offset)
        spread = max(spread, access.offset - begin + 1)
    return spread


__all__ = ["Iterations", "merged", "pipe"]
