"""How many blocks of an array are on their way at once in a dataflow region whose iterations overlap.

A process hands its array on when it has ended, and takes up the next block at once. So an array that goes to
the next process needs two buffers, one written and one read; an array that passes by other processes on its
way (a residual, say) has to wait until these are through, one buffer more for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import nodes as ir
from ..ir.walk import walk
from .accesses import accesses

Body = tuple[ir.Stmt, ...]


def in_flight(program: ir.Program, function: ir.Function) -> dict[str, int]:
    """Buffers that each local array of the function's dataflow regions needs, at least 2, by name."""
    found: dict[str, int] = {}
    for body in _regions(function):
        found.update(_of_region(program, body))
    return found


def stages(program: ir.Program, stmt: ir.Stmt) -> int:
    """How many processes one after the other a process consists of: 1, or those of a dataflow function."""
    callee = program.function(stmt.func) if isinstance(stmt, ir.Call) else None
    if callee is None or not callee.dataflow:
        return 1
    chains = _Chains(program, callee.body)
    return max((way + own for way, own in zip(chains.ways(), chains.weights, strict=True)), default=1)


def _regions(function: ir.Function) -> Iterator[Body]:
    if function.dataflow:
        yield function.body
    for node in walk(function.body):
        if isinstance(node, ir.For) and node.attrs.dataflow:
            yield node.body


def _of_region(program: ir.Program, body: Body) -> dict[str, int]:
    chains = _Chains(program, body)
    found: dict[str, int] = {}
    for stmt in body:
        if not (isinstance(stmt, ir.Alloc) and stmt.buffer.shape and not stmt.buffer.is_stream):
            continue
        name = stmt.buffer.name
        writers = [i for i, w in enumerate(chains.writes) if name in w]
        readers = [i for i, r in enumerate(chains.reads) if name in r and i not in writers]
        if writers and readers:
            last = chains.processes[max(readers)]
            found[name] = 2 + chains.between(max(writers), max(readers)) + _behind_first(program, last, name)
    return found


def _behind_first(program: ir.Program, stmt: ir.Stmt, name: str) -> int:
    """Stages of a process that are done with a block before one reads an array."""
    callee = program.function(stmt.func) if isinstance(stmt, ir.Call) else None
    if not isinstance(stmt, ir.Call) or callee is None or not callee.dataflow:
        return 0
    passed = zip(callee.params, stmt.args, strict=True)
    inside = {p.name for p, arg in passed if isinstance(arg, ir.View) and arg.buffer == name}
    chains = _Chains(program, callee.body)
    return max(
        (way for way, read in zip(chains.ways(), chains.reads, strict=True) if read & inside), default=0
    )


class _Chains:
    """The processes of a region and which of them feed which."""

    def __init__(self, program: ir.Program, body: Body) -> None:
        self.processes = [s for s in body if not isinstance(s, ir.Alloc)]
        self.reads: list[set[str]] = []
        self.writes: list[set[str]] = []
        self.fifos: list[set[str]] = []
        self.weights: list[int] = []
        streams = {s.buffer.name for s in body if isinstance(s, ir.Alloc) and s.buffer.is_stream}
        for stmt in self.processes:
            uses = list(accesses((stmt,), program))
            self.reads.append({a.buffer for a in uses if not a.write} - streams)
            self.writes.append({a.buffer for a in uses if a.write} - streams)
            self.fifos.append({a.buffer for a in uses} & streams)
            self.weights.append(stages(program, stmt))

    def _behind(self, i: int, j: int) -> int | None:
        """How many stages process j begins behind process i; None if it needs nothing of it.

        Who reads an array waits for the end of its writer, who reads a FIFO is at work with the last of its
        writer's stages.
        """
        if self.writes[i] & self.reads[j]:
            return self.weights[i]
        return self.weights[i] - 1 if self.fifos[i] & self.fifos[j] else None

    def ways(self) -> list[int]:
        """Stages on the longest way into each process, without its own."""
        found: list[int] = []
        for j in range(len(self.weights)):
            behind = [(found[i], self._behind(i, j)) for i in range(j)]
            found.append(max((way + own for way, own in behind if own is not None), default=0))
        return found

    def between(self, producer: int, consumer: int) -> int:
        """Stages on the longest way from the one to the other, both left out."""
        ways: dict[int, int] = {producer: 0}
        for j in range(producer + 1, consumer + 1):
            behind = [(i, way, self._behind(i, j)) for i, way in ways.items()]
            found = [way + (own if i != producer else 0) for i, way, own in behind if own is not None]
            if found:
                ways[j] = max(found)
        return ways.get(consumer, 0)
