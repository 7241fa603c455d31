"""Which FIFOs a deadlock can go through.

Processes that wait for each other form a cycle, and of a graph's edges only those on cycles can be in
one.  A FIFO that is the only link between two parts of a network, and that gives as many tokens as it
takes, is therefore safe with any depth: full and empty at once it cannot be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .fifos import Key
from .steps import Access, Behaviour, Create, Invoke, Parallel, Pipe, Repeat, Step, Wait, outside

Channel = tuple[Key, int, int]
"""A stream, which time it is made, and the member of an array of FIFOs."""

Names = dict[str, tuple[Key, int, int]]
"""What the names of a function stand for: the first member of a stream made at some time."""


@dataclass
class Network:
    """Processes as numbers, what they do to each FIFO, and who waits for whom otherwise."""

    puts: dict[Channel, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    gets: dict[Channel, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    order: list[tuple[int, int]] = field(default_factory=lambda: list[tuple[int, int]]())
    processes: int = 1
    made: int = 0
    declared: set[Key] = field(default_factory=lambda: set[Key]())
    waited_for: set[int] = field(default_factory=lambda: set[int]())

    def cyclic(self) -> set[Key]:
        """The streams that may take part in a deadlock."""
        edges: list[tuple[int, int, Key | None]] = [(a, b, None) for a, b in self.order]
        found: set[Key] = set()
        for channel in self.puts.keys() | self.gets.keys():
            put, got = self.puts[channel], self.gets[channel]
            if len(put) != 1 or len(got) != 1 or put.total() != got.total():
                found.add(channel[0])
                edges += [(a, b, channel[0]) for a in put for b in got]
            else:
                edges.append((next(iter(put)), next(iter(got)), channel[0]))
        bridges = _bridges(self.processes, [(a, b) for a, b, _ in edges])
        return found | {key for i, (_, _, key) in enumerate(edges) if key is not None and i not in bridges}


def network(behaviour: Behaviour) -> Network:
    """The network of a function without FIFO parameters."""
    out = Network()
    if _several(behaviour.steps):
        out.waited_for.add(0)
    _walk(behaviour.steps, {}, behaviour.function, 0, 1, out)
    return out


def _walk(steps: Sequence[Step], names: Names, owner: str, process: int, times: int, out: Network) -> None:
    for step in steps:
        match step:
            case Access(fifo, member, put):
                key, made, first = names[fifo]
                (out.puts if put else out.gets)[key, made, first + member][process] += times
            case Pipe(_, _, runs, repeat):
                for trips, run in runs:
                    _walk(run, names, owner, process, times * trips * repeat, out)
            case Repeat(trips, inner):
                _walk(inner, names, owner, process, times * trips, out)
            case Create(buffer):
                names[buffer.name] = (owner, buffer.name), out.made, 0
                out.made += 1
                out.declared.add((owner, buffer.name))
            case Invoke(behaviour, fifos) if fifos:
                inner_names = {p: (*names[a][:2], names[a][2] + first) for p, a, first in fifos}
                _walk(behaviour.steps, inner_names, behaviour.function, process, times, out)
            case Parallel(first, processes):
                _walk(first, names, owner, process, times, out)
                begin = out.processes
                out.processes += len(processes)
                if process in out.waited_for:
                    out.order += [(process, begin + i) for i in range(len(processes))]
                links = [(j, i) for i, one in enumerate(processes) for j in one.after]
                out.order += [(begin + j, begin + i) for j, i in links]
                linked = {begin + i for link in links for i in link}
                for i, one in enumerate(processes):
                    if begin + i in linked or _several(one.steps):
                        out.waited_for.add(begin + i)
                    _walk(one.steps, names, owner, begin + i, times, out)
            case Invoke() | Wait():
                pass


def _several(steps: Sequence[Step]) -> bool:
    """Whether a process holds a region with FIFOs from outside, and more than that.

    Then others may wait for it, and it for the ends of the region's processes.
    """
    accesses, regions = _parts(steps)
    return regions > 1 or (regions == 1 and accesses)


def _parts(steps: Sequence[Step]) -> tuple[bool, int]:
    accesses, regions = False, 0
    for step in steps:
        match step:
            case Access() | Pipe():
                accesses = True
            case Repeat(_, inner) | Invoke(Behaviour(_, inner)) if outside((step,)):
                inside = _parts(inner)
                accesses = accesses or inside[0]
                regions += inside[1] * (2 if isinstance(step, Repeat) else 1)
            case Parallel(first, _) if outside((step,)):
                accesses = accesses or _parts(first)[0]
                regions += 1
            case _:
                pass
    return accesses, regions


def _bridges(nodes: int, edges: Sequence[tuple[int, int]]) -> set[int]:
    """The edges, by number, without which more parts hang apart."""
    near: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
    for i, (a, b) in enumerate(edges):
        near[a].append((b, i))
        near[b].append((a, i))
    seen = [-1] * nodes
    low = [0] * nodes
    found: set[int] = set()
    clock = 0
    for root in range(nodes):
        if seen[root] >= 0:
            continue
        stack = [(root, -1, iter(near[root]))]
        seen[root] = low[root] = clock
        clock += 1
        while stack:
            here, came, rest = stack[-1]
            for other, edge in rest:
                if edge == came:
                    continue
                if seen[other] < 0:
                    seen[other] = low[other] = clock
                    clock += 1
                    stack.append((other, edge, iter(near[other])))
                    break
                low[here] = min(low[here], seen[other])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[here])
                    if low[here] == seen[here]:
                        found.add(came)
    return found


__all__ = ["Network", "network"]
