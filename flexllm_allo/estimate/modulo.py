"""Iterative modulo scheduling: the smallest initiation interval of a loop, and its pipeline.

After B. R. Rau, "Iterative Modulo Scheduling", 1996.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Use = tuple[tuple[str, int], ...]
"""What an operation takes of every resource in the cycle it starts in: (resource, units)."""

MAX_TRIES = 12
"""Placements per operation before the next interval is tried."""


@dataclass(frozen=True, slots=True)
class Edge:
    """`sink` starts at least `delay` cycles after `source` of `distance` iterations before."""

    source: int
    sink: int
    delay: int
    distance: int = 0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A modulo schedule: when every operation of the first iteration starts."""

    interval: int
    starts: tuple[int, ...]


def resource_interval(uses: Sequence[Use], capacity: Mapping[str, int]) -> tuple[int, str]:
    """The least interval that resources allow, and the busiest of them."""
    total: dict[str, int] = {}
    for use in uses:
        for name, units in use:
            total[name] = total.get(name, 0) + units
    bounds = [(-(-units // capacity[name]), name) for name, units in total.items()]
    return max(bounds, default=(1, ""), key=lambda b: b[0])


def recurrence_interval(count: int, edges: Sequence[Edge]) -> tuple[int, tuple[Edge, ...]]:
    """The least interval that cycles of dependences allow, and the cycle that asks for it.

    The interval of a cycle is its delay over its distance, rounded up.
    """
    interval, cycle = 1, ()
    for component in _components(count, edges):
        while found := _positive_cycle(component, interval):
            delay, distance = sum(e.delay for e in found), sum(e.distance for e in found)
            if distance == 0:
                raise ValueError("a dependence cycle within one iteration")
            interval, cycle = max(interval + 1, -(-delay // distance)), found
    return interval, tuple(cycle)


def modulo_schedule(
    uses: Sequence[Use], edges: Sequence[Edge], capacity: Mapping[str, int], least: int = 1
) -> Pipeline:
    """A schedule with the smallest interval that is found, at least `least`.

    Args:
        uses: of every operation.
        edges: dependences between operations, by their positions.
        capacity: units of every resource per cycle.
    """
    interval = max(least, resource_interval(uses, capacity)[0], recurrence_interval(len(uses), edges)[0])
    while True:
        starts = _try(uses, edges, capacity, interval)
        if starts is not None:
            return Pipeline(interval, starts)
        interval += 1


class _Table:
    """Which operation takes what, in every slot of an interval."""

    def __init__(self, uses: Sequence[Use], capacity: Mapping[str, int], interval: int) -> None:
        self.interval, self.capacity = interval, capacity
        self.slots = [
            [(name, shift, part) for name, units in use for shift, part in _spread(units, capacity[name])]
            for use in uses
        ]
        self.taken: dict[tuple[str, int], int] = {}
        self.owners: dict[tuple[str, int], set[int]] = {}

    def wanted(self, node: int, when: int) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        for name, shift, part in self.slots[node]:
            slot = (name, (when + shift) % self.interval)
            found[slot] = found.get(slot, 0) + part
        return found

    def fits(self, node: int, when: int) -> bool:
        wanted = self.wanted(node, when).items()
        return all(self.taken.get(slot, 0) + part <= self.capacity[slot[0]] for slot, part in wanted)

    def put(self, node: int, when: int) -> None:
        for slot, part in self.wanted(node, when).items():
            self.taken[slot] = self.taken.get(slot, 0) + part
            self.owners.setdefault(slot, set()).add(node)

    def take(self, node: int, when: int) -> None:
        for slot, part in self.wanted(node, when).items():
            self.taken[slot] -= part
            self.owners[slot].discard(node)

    def rivals(self, node: int, when: int) -> set[int]:
        """Who is where an operation would be."""
        return {other for slot in self.wanted(node, when) for other in self.owners.get(slot, ())}


def _try(
    uses: Sequence[Use], edges: Sequence[Edge], capacity: Mapping[str, int], interval: int
) -> tuple[int, ...] | None:
    """Place operations, the most urgent first; one that finds no place drives out those in its way."""
    count = len(uses)
    into: list[list[Edge]] = [[] for _ in range(count)]
    out: list[list[Edge]] = [[] for _ in range(count)]
    for e in edges:
        if e.source != e.sink:
            into[e.sink].append(e)
            out[e.source].append(e)
    height = _heights(count, edges, interval)
    table = _Table(uses, capacity, interval)
    start: dict[int, int] = {}
    last = [-1] * count
    queue = [(-height[n], n) for n in range(count)]
    heapq.heapify(queue)

    def evict(node: int) -> None:
        table.take(node, start.pop(node))
        heapq.heappush(queue, (-height[node], node))

    budget = MAX_TRIES * count + 64
    while queue and budget:
        _, node = heapq.heappop(queue)
        if node in start:
            continue
        budget -= 1
        waits = (start[e.source] + e.delay - interval * e.distance for e in into[node] if e.source in start)
        early = max(0, max(waits, default=0))
        options = range(early, early + (interval if uses[node] else 1))
        when = next((t for t in options if table.fits(node, t)), None)
        if when is None:
            when = max(early, last[node] + 1)
            for other in table.rivals(node, when):
                evict(other)
        start[node] = last[node] = when
        table.put(node, when)
        for e in out[node]:
            if e.sink in start and start[e.sink] < when + e.delay - interval * e.distance:
                evict(e.sink)
    if len(start) < count:
        return None
    first = min(start.values(), default=0)
    return tuple(start[n] - first for n in range(count))


def _spread(units: int, capacity: int) -> Iterator[tuple[int, int]]:
    """More units than there are take the next cycles too."""
    shift = 0
    while units > 0:
        yield shift, min(units, capacity)
        units -= capacity
        shift += 1


def _heights(count: int, edges: Sequence[Edge], interval: int) -> list[int]:
    """The longest way from every operation to the end, at an interval that allows all cycles."""
    height = [0] * count
    changed = True
    ordered = sorted(edges, key=lambda e: -e.source)
    while changed:
        changed = False
        for e in ordered:
            longer = height[e.sink] + e.delay - interval * e.distance
            if longer > height[e.source]:
                height[e.source], changed = longer, True
    return height


def _components(count: int, edges: Sequence[Edge]) -> list[list[Edge]]:
    """The edges of every strongly connected part of the graph (Tarjan, without recursion)."""
    out: list[list[int]] = [[] for _ in range(count)]
    for e in edges:
        out[e.source].append(e.sink)
    number, low, of = [-1] * count, [0] * count, [-1] * count
    stack: list[int] = []
    counter = parts = 0
    for root in range(count):
        if number[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            node, position = work.pop()
            if position == 0:
                number[node] = low[node] = counter
                counter += 1
                stack.append(node)
            for i in range(position, len(out[node])):
                other = out[node][i]
                if number[other] < 0:
                    work += [(node, i + 1), (other, 0)]
                    break
                if of[other] < 0:
                    low[node] = min(low[node], low[other], number[other])
            else:
                if low[node] == number[node]:
                    while True:
                        member = stack.pop()
                        of[member] = parts
                        if member == node:
                            break
                    parts += 1
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
    groups: dict[int, list[Edge]] = {}
    for e in edges:
        if of[e.source] == of[e.sink]:
            groups.setdefault(of[e.source], []).append(e)
    return list(groups.values())


def _positive_cycle(edges: Sequence[Edge], interval: int) -> list[Edge]:
    """A cycle whose delay exceeds interval * distance, if there is one (Bellman-Ford)."""
    length: dict[int, int] = {n: 0 for e in edges for n in (e.source, e.sink)}
    via: dict[int, Edge] = {}
    last = None
    for _ in range(len(length)):
        last = None
        for e in edges:
            longer = length[e.source] + e.delay - interval * e.distance
            if longer > length[e.sink]:
                length[e.sink], via[e.sink], last = longer, e, e.sink
        if last is None:
            return []
    node = last
    assert node is not None
    for _ in range(len(length)):  # back onto the cycle
        node = via[node].source
    cycle, here = [via[node]], via[node].source
    while here != node:
        cycle.append(via[here])
        here = via[here].source
    return cycle[::-1]


__all__ = ["Edge", "Pipeline", "Use", "modulo_schedule", "recurrence_interval", "resource_interval"]
