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


def _try(
    uses: Sequence[Use], edges: Sequence[Edge], capacity: Mapping[str, int], interval: int
) -> tuple[int, ...] | None:
    count = len(uses)
    into: list[list[Edge]] = [[] for _ in range(count)]
    out: list[list[Edge]] = [[] for _ in range(count)]
    for e in edges:
        into[e.sink].append(e)
        out[e.source].append(e)
    height = _heights(count, edges, interval)
    start: list[int | None] = [None] * count
    last = [-1] * count
    table: dict[tuple[str, int], int] = {}
    owners: dict[tuple[str, int], set[int]] = {}
    queue = [(-height[n], n) for n in range(count)]
    heapq.heapify(queue)
    budget = MAX_TRIES * count + 64

    def place(node: int, when: int, sign: int) -> None:
        for name, units in uses[node]:
            for shift, part in _spread(units, capacity[name]):
                slot = (name, (when + shift) % interval)
                table[slot] = table.get(slot, 0) + sign * part
                (owners.setdefault(slot, set()).add if sign > 0 else owners[slot].discard)(node)

    def free(node: int, when: int) -> bool:
        wanted: dict[tuple[str, int], int] = {}
        for name, units in uses[node]:
            for shift, part in _spread(units, capacity[name]):
                slot = (name, (when + shift) % interval)
                wanted[slot] = wanted.get(slot, 0) + part
        return all(table.get(slot, 0) + part <= capacity[slot[0]] for slot, part in wanted.items())

    def evict(node: int) -> None:
        when = start[node]
        assert when is not None
        place(node, when, -1)
        start[node] = None
        heapq.heappush(queue, (-height[node], node))

    while queue:
        _, node = heapq.heappop(queue)
        if start[node] is not None:
            continue
        budget -= 1
        if budget < 0:
            return None
        early = 0
        for e in into[node]:
            before = start[e.source]
            if before is not None and e.source != node:
                early = max(early, before + e.delay - interval * e.distance)
        options = range(early, early + interval) if uses[node] else range(early, early + 1)
        when = next((t for t in options if free(node, t)), None)
        if when is None:
            when = early if early > last[node] else last[node] + 1
            for name, units in uses[node]:
                for shift, _ in _spread(units, capacity[name]):
                    for other in list(owners.get((name, (when + shift) % interval), ())):
                        if start[other] is not None:
                            evict(other)
        start[node], last[node] = when, when
        place(node, when, 1)
        for e in out[node]:
            after = start[e.sink]
            if after is not None and e.sink != node and after < when + e.delay - interval * e.distance:
                evict(e.sink)
    first = min((s for s in start if s is not None), default=0)
    return tuple((s or 0) - first for s in start)


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
