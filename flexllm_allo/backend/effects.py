"""Which buffers a piece of a program reads and writes, and how a dataflow region splits into processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..analysis.regions import apart, touched
from ..analysis.spatial import expanded
from ..ir import nodes as ir
from ..ir.channels import channel_name
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
        # By the identity of the body; the body is kept, so that nothing else can have it.
        self.regions: dict[int, tuple[tuple[ir.Stmt, ...], Region]] = {}
        self._functions: dict[str, Access] = {}

    def of_function(self, name: str) -> Access:
        """The parameters the function reads, writes and streams through, by name."""
        if name not in self._functions:
            function = self.program.function(name)
            self._functions[name] = self.of_body(function.body)
            if function.extern is not None:
                self._functions[name].reads |= {b.name for b in function.params}
                self._functions[name].writes |= set(function.extern.writes)
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
                    if isinstance(node.value, ir.View):
                        out.reads.add(node.value.buffer)
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


Region = tuple[tuple[ir.Stmt, ...], tuple[Process, ...]]
"""What runs first in a dataflow region, and its concurrent processes."""


def split_processes(body: tuple[ir.Stmt, ...], effects: Effects, concurrent: bool = False) -> Region:
    """What runs first, and the concurrent processes, of a dataflow region.

    Allocations, and the plain statements before the first loop, branch or call, run first.
    FIFOs synchronise processes; through an array or a scalar a later process sees what the
    earlier one left at its end, so it starts after that.  In a `concurrent` region this holds only
    between processes that no FIFOs connect: those that are connected may work on one array at once.
    """
    if id(body) not in effects.regions:
        effects.regions[id(body)] = body, _split(body, effects, concurrent)
    return effects.regions[id(body)][1]


def _split(body: tuple[ir.Stmt, ...], effects: Effects, concurrent: bool) -> Region:
    first: list[ir.Stmt] = []
    rest: list[ir.Stmt] = []
    for stmt in expanded(body):
        plain = isinstance(stmt, ir.Store | ir.Put | ir.Get) and not rest
        (first if plain or isinstance(stmt, ir.Alloc) else rest).append(stmt)
    accesses = [effects.of_body((stmt,)) for stmt in rest]
    if concurrent:
        after = _after_groups(rest, accesses)
    else:
        after = _after_conflicts(rest, accesses, effects.program)
    return tuple(first), tuple(
        Process(process_label(stmt), stmt, earlier) for stmt, earlier in zip(rest, after, strict=True)
    )


def _after_conflicts(
    statements: list[ir.Stmt], accesses: list[Access], program: ir.Program
) -> list[tuple[int, ...]]:
    """For each process the earlier ones whose arrays it needs; parts that are apart do not count."""
    parts = [touched(program, stmt) for stmt in statements]
    return [
        tuple(i for i in range(j) if accesses[i].conflicts(accesses[j]) and not apart(parts[i], parts[j]))
        for j in range(len(statements))
    ]


def _after_groups(statements: list[ir.Stmt], accesses: list[Access]) -> list[tuple[int, ...]]:
    """For each process those it waits for: of groups declared wholly before its own.

    A group is what FIFOs connect.  Order between whole groups cannot make a cycle.
    """
    groups = _groups([_channels(s, a) for s, a in zip(statements, accesses, strict=True)])
    of = {member: group for group in groups for member in group}
    out: list[tuple[int, ...]] = []
    for j, access in enumerate(accesses):
        start = of[j][0]
        earlier = [i for i in range(start) if of[i][-1] < start and accesses[i].conflicts(access)]
        out.append(tuple(earlier))
    return out


def _channels(stmt: ir.Stmt, access: Access) -> set[str]:
    """The single FIFOs that a process of a concurrent region is given."""
    if not isinstance(stmt, ir.Call):
        return set()
    views = [arg for arg in stmt.args if isinstance(arg, ir.View)]
    return {channel_name(view) for view in views if view.buffer in access.streams}


def _groups(channels: list[set[str]]) -> list[list[int]]:
    """The connected components of processes, as sorted lists."""
    owner = list(range(len(channels)))

    def root(i: int) -> int:
        while owner[i] != i:
            owner[i] = owner[owner[i]]
            i = owner[i]
        return i

    first: dict[str, int] = {}
    for i, names in enumerate(channels):
        for name in names:
            owner[root(i)] = root(first.setdefault(name, i))
    found: dict[int, list[int]] = {}
    for i in range(len(channels)):
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def process_label(stmt: ir.Stmt) -> str:
    """What people call a process."""
    match stmt:
        case ir.Call():
            return stmt.label or stmt.func
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
