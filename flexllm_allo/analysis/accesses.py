"""Who reads and writes which element: the accesses of a piece of a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Span
from ..ir import nodes as ir
from ..ir.memo import remembered
from ..ir.walk import calls, statements, walk
from .reductions import Reduction, reduction


@dataclass(frozen=True, eq=False, slots=True)
class Access:
    """One read or write of a buffer in the source text.

    `indices` may cover leading dimensions only (a view) or, for a FIFO, nothing: every `Get` and
    `Put` changes the state of the whole FIFO.  `loops` are the loops around it, outermost first.
    """

    buffer: str
    indices: tuple[ir.Expr, ...]
    write: bool
    loops: tuple[ir.For, ...]
    span: Span
    order: int
    reduction: Reduction | None = None
    guarded: bool = False

    @property
    def verb(self) -> str:
        return "written" if self.write else "read"


def written(body: tuple[ir.Stmt, ...], program: ir.Program | None = None) -> set[str]:
    """Names of the buffers that statements write or whose FIFO they use."""
    return {a.buffer for a in accesses(body, program) if a.write}


def allocated(body: tuple[ir.Stmt, ...]) -> set[str]:
    """Names of the buffers that come into being in these statements, and are gone after them."""
    return {n.buffer.name for n in statements(body) if isinstance(n, ir.Alloc) and not n.static}


def accesses(
    body: tuple[ir.Stmt, ...], program: ir.Program | None = None, loops: tuple[ir.For, ...] = ()
) -> list[Access]:
    """All accesses of the statements, in program order. `program` tells what calls write."""
    collector = _Collector(program)
    collector.body(body, loops, guarded=False)
    return collector.found


def call_effects(program: ir.Program | None, call: ir.Call) -> Iterator[tuple[ir.View, bool, bool]]:
    """For each view passed to a call: whether the callee reads it and whether it writes it."""
    if program is not None:
        yield from _effects(program).of_call(call)
        return
    for arg in call.args:
        if isinstance(arg, ir.View):
            yield arg, True, True


_Names = tuple[frozenset[str], frozenset[str]]
"""Of buffers: those that are read, and those that are written."""


class _Effects:
    """What the functions of a program do to their buffers, through all they call; each is looked at once."""

    def __init__(self, program: ir.Program) -> None:
        self.functions = {f.name: f for f in program.functions}
        self.known: dict[str, _Names] = {}

    def of_call(self, call: ir.Call) -> Iterator[tuple[ir.View, bool, bool]]:
        callee = self.functions.get(call.func)
        if callee is None:
            yield from call_effects(None, call)
            return
        read, wrote = self.of(callee)
        for param, arg in zip(callee.params, call.args, strict=False):
            if isinstance(arg, ir.View):
                yield arg, param.name in read, param.name in wrote

    def of(self, function: ir.Function) -> _Names:
        if function.extern is not None:
            return frozenset(p.name for p in function.params), frozenset(function.extern.writes)
        if function.name not in self.known:
            own = _own(function)
            passed = [effect for call in calls(function) for effect in self.of_call(call)]
            read = own[0].union(view.buffer for view, reads, _ in passed if reads)
            wrote = own[1].union(view.buffer for view, _, writes in passed if writes)
            self.known[function.name] = read, wrote
        return self.known[function.name]


_effects = remembered(_Effects)


@remembered
def _own(node: ir.Function | ir.For) -> _Names:
    """What a body does by itself: all but what the functions that it calls do."""
    collector = _Own(None)
    collector.body(node.body, (), guarded=False)
    found = collector.found
    return frozenset(a.buffer for a in found if not a.write), frozenset(a.buffer for a in found if a.write)


class _Collector:
    def __init__(self, program: ir.Program | None) -> None:
        self.program = program
        self.found: list[Access] = []

    def add(
        self,
        buffer: str,
        indices: tuple[ir.Expr, ...],
        write: bool,
        span: Span,
        loops: tuple[ir.For, ...],
        guarded: bool,
        red: Reduction | None = None,
    ) -> None:
        self.found.append(Access(buffer, indices, write, loops, span, len(self.found), red, guarded))

    def expr(
        self, node: ir.Expr, loops: tuple[ir.For, ...], guarded: bool, red: Reduction | None = None
    ) -> None:
        for load in walk(node):
            if isinstance(load, ir.Load):
                # Indices hold loads of their own, which `walk` reaches by itself.
                own = red if red is not None and load is red.load else None
                self.add(load.buffer, load.indices, False, load.span, loops, guarded, own)

    def body(self, body: tuple[ir.Stmt, ...], loops: tuple[ir.For, ...], guarded: bool) -> None:
        for stmt in body:
            self.stmt(stmt, loops, guarded)

    def stmt(self, stmt: ir.Stmt, loops: tuple[ir.For, ...], guarded: bool) -> None:
        match stmt:
            case ir.Alloc(buffer, init):
                if init is not None and not stmt.static:
                    self.add(buffer.name, (), True, stmt.span, loops, guarded)
            case ir.Store():
                red = reduction(stmt)
                self.expr(stmt.value, loops, guarded, red)
                for index in stmt.indices:
                    self.expr(index, loops, guarded)
                self.add(stmt.buffer, stmt.indices, True, stmt.span, loops, guarded, red)
            case ir.Put():
                if isinstance(stmt.value, ir.View):
                    view = stmt.value
                    self.add(view.buffer, view.indices, False, stmt.span, loops, guarded)
                else:
                    self.expr(stmt.value, loops, guarded)
                self.add(stmt.stream, stmt.indices, True, stmt.span, loops, guarded)
            case ir.Get():
                self.add(stmt.stream, stmt.indices, True, stmt.span, loops, guarded)
                self.add(stmt.target, (), True, stmt.span, loops, guarded)
            case ir.For():
                self.expr(stmt.lower, loops, guarded)
                self.expr(stmt.upper, loops, guarded)
                self.body(stmt.body, (*loops, stmt), guarded)
            case ir.While():
                self.expr(stmt.condition, loops, guarded)
                self.body(stmt.body, loops, True)
            case ir.If():
                self.expr(stmt.condition, loops, guarded)
                self.body(stmt.then, loops, True)
                self.body(stmt.otherwise, loops, True)
            case ir.Call():
                self.call(stmt, loops, guarded)

    def call(self, call: ir.Call, loops: tuple[ir.For, ...], guarded: bool) -> None:
        self.arguments(call, loops, guarded)
        for view, reads, writes in call_effects(self.program, call):
            span = view.span if view.span.line else call.span
            if reads:
                self.add(view.buffer, view.indices, False, span, loops, guarded)
            if writes:
                self.add(view.buffer, view.indices, True, span, loops, guarded)

    def arguments(self, call: ir.Call, loops: tuple[ir.For, ...], guarded: bool) -> None:
        for arg in call.args:
            for index in arg.indices if isinstance(arg, ir.View) else (arg,):
                self.expr(index, loops, guarded)


class _Own(_Collector):
    """Without what calls do to the arrays they are given."""

    def call(self, call: ir.Call, loops: tuple[ir.For, ...], guarded: bool) -> None:
        self.arguments(call, loops, guarded)
