"""One body as a pipeline: its initiation interval, why, and its depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil

from .modulo import Edge, Pipeline, Use, modulo_schedule, recurrence_interval, resource_interval
from .ops import Graph, Link, Op
from .pace import Stretch
from .ports import Storage

NEVER = 1 << 20
"""An interval of straight-line code: longer than any, so that iterations do not meet."""


@dataclass(frozen=True, slots=True)
class Body:
    """How a body runs.

    Attributes:
        interval: cycles from one iteration to the next.
        depth: cycles of one iteration.
        reason: why the interval is what it is.
        words: accesses to off-chip memory in an iteration, by buffer: (read, written).
        pinned: loops around of which only one iteration has them, by buffer.
        once: the same for elements that wait in a register while the loop runs, in all of a run.
        tokens: when in an iteration each FIFO is accessed, and how often.
        operations: arithmetic on data in an iteration.
        entry: cycles that a run needs to fetch and put back elements that wait in registers, where ports
            are too few to do that along the way.
        ops: what it is made of.
    """

    interval: int
    depth: int
    reason: str
    words: Mapping[str, tuple[int, int]]
    pinned: Mapping[str, frozenset[str]]
    once: Mapping[str, tuple[int, int]]
    tokens: Mapping[str, Stretch]
    operations: int
    entry: int
    ops: tuple[Op, ...]


def pipelined(graph: Graph, places: Mapping[str, Storage], requested: int) -> Body:
    """The schedule of the body of a pipelined loop, an iteration every `requested` cycles at best."""
    uses, capacity = _uses(graph.ops, places)
    edges = _edges(graph)
    by_ports, port = resource_interval(uses, capacity)
    by_data, cycle = recurrence_interval(len(uses), edges)
    found = modulo_schedule(uses, edges, capacity, requested)
    if found.interval == requested:
        reason = "as scheduled"
    elif by_data >= by_ports:
        reason = _of_cycle(graph.ops, cycle)
    else:
        reason = _of_port(graph.ops, uses, capacity, port)
    return _body(graph, places, found, reason)


def straight(graph: Graph, places: Mapping[str, Storage]) -> Body:
    """The schedule of statements that run once."""
    uses, capacity = _uses(graph.ops, places)
    found = modulo_schedule(uses, _edges(graph), capacity, NEVER)
    depth = max(1, _depth(graph.ops, found.starts))
    return replace(_body(graph, places, found, "not pipelined"), interval=depth)


def _body(graph: Graph, places: Mapping[str, Storage], found: Pipeline, reason: str) -> Body:
    ops, starts = graph.ops, found.starts
    operations = sum(op.copies for op in ops if op.operator.arithmetic)
    return Body(
        found.interval,
        _depth(ops, starts),
        reason,
        words=_words(ops, places, held=False),
        pinned=_pinned(ops, places),
        once=_words(ops, places, held=True),
        tokens=_tokens(ops, places, starts),
        operations=operations,
        entry=_entry(ops, places),
        ops=tuple(ops),
    )


def _tokens(ops: Iterable[Op], places: Mapping[str, Storage], starts: Iterable[int]) -> dict[str, Stretch]:
    found: dict[str, Stretch] = {}
    for op, start in zip(ops, starts, strict=True):
        name = op.access.buffer.partition("[")[0] if op.access else ""
        if name in places and places[name].kind == "fifo":
            first, last, number = found.get(name, Stretch(start, start, 0))
            found[name] = Stretch(min(first, start), max(last, start), number + op.copies)
    return found


def _edges(graph: Graph) -> list[Edge]:
    latency = [op.latency for op in graph.ops]
    return [Edge(k.source, k.sink, _delay(k, latency), k.distance) for k in graph.links]


def _delay(link: Link, latency: list[int]) -> int:
    # A value that waits in a register is used when it is made, not when it would have been read.
    return latency[link.source] + link.extra - (latency[link.sink] if link.forwarded else 0)


def _depth(ops: Iterable[Op], starts: Iterable[int]) -> int:
    ends = [
        s + max(op.latency, 1 if op.operator.delay_ns or op.access else 0)
        for op, s in zip(ops, starts, strict=True)
    ]
    return max(ends, default=0)


def _uses(ops: list[Op], places: Mapping[str, Storage]) -> tuple[list[Use], dict[str, int]]:
    """The ports every operation takes; banks that are used alike are one resource."""
    uses: list[list[tuple[str, int]]] = [[] for _ in ops]
    capacity: dict[str, int] = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for n, op in enumerate(ops):
        access = op.access
        if access is None or access.held:
            continue
        place = places.get(access.buffer.partition("[")[0])
        if place is None or place.kind == "registers":
            continue
        ports = place.writes if access.write else place.reads
        if ports == 0:
            continue
        side = "" if place.shared else "write" if access.write else "read"
        groups.setdefault((access.buffer, side), []).append(n)
        capacity[f"{access.buffer} {side}"] = ports
    for (buffer, side), members in groups.items():
        ports = capacity.pop(f"{buffer} {side}")
        for number, column in enumerate(_columns([ops[n] for n in members])):
            name = f"{buffer} {side} {number}"
            capacity[name] = ports
            for n, units in zip(members, column, strict=True):
                if units:
                    uses[n].append((name, units))
    return [tuple(u) for u in uses], capacity


def _entry(ops: Iterable[Op], places: Mapping[str, Storage]) -> int:
    longest = 0
    groups: dict[str, list[Op]] = {}
    for op in ops:
        if op.access and op.access.held and places[op.access.buffer].kind == "ram":
            groups.setdefault(op.access.buffer, []).append(op)
    for buffer, members in groups.items():
        ports = max(1, places[buffer].reads)
        most = max(map(sum, _columns(members)), default=0)
        longest = max(longest, -(-most // ports) - 1)
    return longest


def _columns(ops: list[Op]) -> list[tuple[int, ...]]:
    """For every kind of bank, how many elements of it each operation touches."""
    tables = [op.access.banks if op.access else None for op in ops]
    if any(t is None for t in tables):
        worst = tuple(
            max((max(b.values(), default=0) for b in t), default=0)
            if t
            else op.access.copies
            if op.access
            else 0
            for t, op in zip(tables, ops, strict=True)
        )
        return [worst]
    best: list[tuple[int, ...]] = []
    for sample in range(len(tables[0] or [])):
        rows = [t[sample] for t in tables if t is not None]
        numbers: set[int] = {bank for row in rows for bank in row}
        columns = {tuple(int(row.get(bank, 0)) for row in rows) for bank in numbers}
        if max(map(sum, columns), default=0) > max(map(sum, best), default=0):
            best = sorted(columns)
    return best


def _words(ops: Iterable[Op], places: Mapping[str, Storage], held: bool) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for op in ops:
        access = op.access
        if access is None or access.held != held or access.buffer not in places:
            continue
        if places[access.buffer].kind == "memory":
            read, written = found.get(access.buffer, (0, 0))
            more = (0, access.copies) if access.write else (access.copies, 0)
            found[access.buffer] = read + more[0], written + more[1]
    return found


def _pinned(ops: Iterable[Op], places: Mapping[str, Storage]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for access in (op.access for op in ops if op.access):
        if access.buffer in places and places[access.buffer].kind == "memory":
            found[access.buffer] = found.get(access.buffer, access.pinned) & access.pinned
    return found


def _of_cycle(ops: list[Op], cycle: Iterable[Edge]) -> str:
    edges = list(cycle)
    slow = sorted((ops[e.source] for e in edges if not _held(ops[e.source])), key=lambda op: -op.latency)
    names: list[str] = []
    for op in slow:
        if op.latency and op.operator.name not in names:
            times = f"{ceil(op.chain)} x " if op.chain > 1 else ""
            names.append(f"{times}{op.operator.name} ({op.latency} cycles)")
    wait = sum(e.distance for e in edges)
    return f"an iteration waits for that of {wait} before: {', '.join(names) or 'logic'}"


def _held(op: Op) -> bool:
    return op.access is not None and op.access.held


def _of_port(ops: list[Op], uses: list[Use], capacity: Mapping[str, int], port: str) -> str:
    total = sum(units for use in uses for name, units in use if name == port)
    buffer = port.split(" ")[0]
    places = sum(op.access.copies for op in ops if op.access and op.access.buffer == buffer)
    where = "one bank of it" if places > total else "it"
    return f'"{buffer}": {total} accesses to {where} per iteration, {capacity[port]} per cycle'


__all__ = ["Body", "pipelined", "straight"]
