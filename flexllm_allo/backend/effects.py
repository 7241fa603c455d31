"""Which buffers a piece of a program reads and writes, and how a dataflow region splits into processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir import nodes as ir
from ..ir.walk import walk


@dataclass(slots=True)
class Access:
    """Names of the arrays and scalars read and written, and of the FIFOs used."""

    reads: set[str] = field(default_factory=lambda: set[str]())
    writes: set[str] = field(default_factory=lambda: set[str]())
    streams: set[str] = field(default_factory=lambda: set[str]())

    def conflicts(self, later: Access) -> bool:
        """Whether `later` must wait for this one to end."""
        return bool(self.writes & (later.reads | later.writes) or self.reads & later.writes)


class Effects:
    """Accesses of the functions and statements of one program, through calls."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self._functions: dict[str, Access] = {}

    def of_function(self, name: str) -> Access:
        """The parameters the function reads, writes and streams through, by name."""
        if name not in self._functions:
            function = self.program.function(name)
            self._functions[name] = self.of_body(function.body)
        return self._functions[name]

    def stored(self, function: ir.Function) -> frozenset[str]:
        """The parameters that the function stores to (results included)."""
        writes = self.of_function(function.name).writes
        arrays = {b.name for b in function.inputs if b.shape and b.name in writes}
        return frozenset(arrays | {b.name for b in function.outputs})

    def of_body(self, body: tuple[ir.Stmt, ...]) -> Access:
        """Accesses of statements; buffers they allocate themselves are left out."""
        out = Access()
        local: set[str] = set()
        for node in walk(body):
            match node:
                case ir.Load():
                    out.reads.add(node.buffer)
                case ir.Store():
                    out.writes.add(node.buffer)
                case ir.Get():
                    out.writes.add(node.target)
                    out.streams.add(node.stream)
                case ir.Put():
                    out.streams.add(node.stream)
                case ir.Alloc():
                    local.add(node.buffer.name)
                case ir.Call():
                    self._add_call(node, out)
                case _:
                    pass
        out.reads -= local
        out.writes -= local
        return out

    def _add_call(self, call: ir.Call, out: Access) -> None:
        callee = self.program.function(call.func)
        inner = self.of_function(call.func)
        results = {b.name for b in callee.outputs}
        for param, arg in zip(callee.params, call.args, strict=True):
            if not isinstance(arg, ir.View):
                continue
            if param.is_stream:
                out.streams.add(arg.buffer)
            if param.name in inner.reads:
                out.reads.add(arg.buffer)
            if param.name in inner.writes or param.name in results:
                out.writes.add(arg.buffer)


@dataclass(frozen=True, slots=True)
class Process:
    """One statement of a dataflow region. `after` are the processes it must wait for to end."""

    label: str
    statement: ir.Stmt
    after: tuple[int, ...] = ()


def split_processes(
    body: tuple[ir.Stmt, ...], effects: Effects
) -> tuple[tuple[ir.Stmt, ...], tuple[Process, ...]]:
    """What runs first, and the concurrent processes, of a dataflow region.

    Allocations, and the plain statements before the first loop, branch or call, run first.
    FIFOs synchronise processes; through an array or a scalar a later process sees what the
    earlier one left at its end, so it starts after that.
    """
    first: list[ir.Stmt] = []
    rest: list[ir.Stmt] = []
    for stmt in body:
        plain = isinstance(stmt, ir.Store | ir.Put | ir.Get) and not rest
        (first if plain or isinstance(stmt, ir.Alloc) else rest).append(stmt)
    accesses = [effects.of_body((stmt,)) for stmt in rest]
    processes: list[Process] = []
    for j, stmt in enumerate(rest):
        after = tuple(i for i in range(j) if accesses[i].conflicts(accesses[j]))
        processes.append(Process(process_label(stmt), stmt, after))
    return tuple(first), tuple(processes)


def process_label(stmt: ir.Stmt) -> str:
    """What people call a process."""
    match stmt:
        case ir.Call():
            return stmt.func
        case ir.For():
            return stmt.band or f"loop {stmt.var}"
        case _:
            return type(stmt).__name__.lower()


def uses_streams(body: tuple[ir.Stmt, ...], program: ir.Program) -> bool:
    """Whether the statements touch FIFOs, themselves or by handing one to a callee."""
    for node in walk(body):
        if isinstance(node, ir.Get | ir.Put):
            return True
        if isinstance(node, ir.Call) and any(p.is_stream for p in program.function(node.func).params):
            return True
    return False
