"""From the IR of a function to what it does to its FIFOs over time.

Control must follow from values that are known before a run (constants, loop variables, scalars that
are given).  A loop whose accesses do not depend on its variable becomes one `Repeat` or `Pipe`; others
are gone through iteration by iteration, and equal neighbours are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod

from ...backend.effects import Effects, split_processes
from ...errors import EstimateError, Place
from ...ir import nodes as ir
from ...ir.walk import buffers, walk
from .pipelines import merged, pipe
from .steps import Access, Behaviour, Create, Invoke, Parallel, Process, Repeat, Step, Wait
from .values import Known, Unknown, evaluate

LIMIT = 1 << 17  # iterations of one loop that is gone through one by one


@dataclass(frozen=True)
class Timing:
    """Where cycles come from.

    Attributes:
        pipeline: initiation interval and depth of a pipelined loop.
        cycles: how long a statement without FIFOs takes; may raise `Unknown`.
    """

    pipeline: Callable[[ir.For], tuple[int, int]]
    cycles: Callable[[ir.Stmt, Known], int]


UNTIMED = Timing(pipeline=lambda loop: (1, 1), cycles=lambda stmt, known: 0)
"""No work takes time: for questions about order alone, such as deadlock."""


class Behaviours:
    """The behaviours of the functions of one program, each read once per set of known scalars.

    Without timing, calls of functions without FIFO parameters are left out: FIFOs are theirs alone.
    """

    def __init__(self, program: ir.Program, timing: Timing) -> None:
        self.program = program
        self.timing = timing
        self.effects = Effects(program)
        self._made: dict[tuple[str, tuple[tuple[str, int], ...]], Behaviour] = {}
        self._equal: dict[tuple[str, tuple[Step, ...]], Behaviour] = {}
        self._fifos: dict[str, bool] = {}

    def of(self, name: str, scalars: Mapping[str, int] | None = None) -> Behaviour:
        """What the function `name` does when its scalar parameters have these values.

        Raises:
            EstimateError: FX921, what is put or got depends on data.
        """
        function = self.program.function(name)
        try:
            return self.read(function, dict(scalars or {}))
        except Unknown as unknown:
            params = [p.name for p in function.inputs if not p.shape and not p.is_stream]
            hint = "FIFOs can be analysed where loop bounds and conditions follow from scalars"
            if params:
                hint = f"give the scalars of '{name}' that decide it: {', '.join(params)}"
            raise EstimateError(
                "FX921", f"what '{name}' does to its FIFOs depends on {unknown.name}",
                Place(unknown.span, "known only at run time"), hint,
            ) from None  # fmt: skip

    def read(self, function: ir.Function, scalars: dict[str, int]) -> Behaviour:
        """As `of`, but raises `Unknown`."""
        key = function.name, tuple(sorted(scalars.items()))
        if key not in self._made:
            steps = _Reader(self, function).function(Known(scalars=scalars))
            made = Behaviour(function.name, steps)
            # Calls that differ in scalars only by name do the same, and count as equal.
            self._made[key] = self._equal.setdefault((function.name, steps), made)
        return self._made[key]

    def has_fifos(self, name: str) -> bool:
        """Whether a function, or one that it calls, touches FIFOs."""
        if name not in self._fifos:
            self._fifos[name] = self.uses(self.program.function(name).body)
        return self._fifos[name]

    def matters(self, name: str) -> bool:
        """Whether a call of the function is a part of what its caller does to FIFOs."""
        streams = any(p.is_stream for p in self.program.function(name).params)
        return streams or (self.timing is not UNTIMED and self.has_fifos(name))

    def uses(self, body: Iterable[ir.Stmt]) -> bool:
        """Whether statements touch FIFOs, or call what does."""
        for node in walk(tuple(body)):
            match node:
                case ir.Get() | ir.Put():
                    return True
                case ir.Alloc() if node.buffer.is_stream:
                    return True
                case ir.Call() if self.matters(node.func):
                    return True
                case _:
                    pass
        return False


class _Reader:
    """Reads the statements of one function."""

    def __init__(self, behaviours: Behaviours, function: ir.Function) -> None:
        self.all = behaviours
        self.timing = behaviours.timing
        self.source = function
        self.table = buffers(function)

    def function(self, known: Known) -> tuple[Step, ...]:
        source = self.source
        if source.extern is not None:
            raise Unknown(f'"{source.name}", which is written in C++', source.span)
        if source.dataflow:
            return (self.region(source.body, known, source.concurrent),)
        return self.steps(source.body, known)

    def steps(self, body: tuple[ir.Stmt, ...], known: Known) -> tuple[Step, ...]:
        out: list[Step] = []
        for stmt in body:
            for step in self.stmt(stmt, known):
                if isinstance(step, Wait) and out and isinstance(before := out[-1], Wait):
                    out[-1] = Wait(before.cycles + step.cycles)
                elif step != Wait(0):
                    out.append(step)
        return tuple(out)

    def stmt(self, stmt: ir.Stmt, known: Known) -> tuple[Step, ...]:
        match stmt:
            case ir.Alloc():
                return self.alloc(stmt, known)
            case ir.Store(name, ()):
                cycles = self.timing.cycles(stmt, known)
                known.store(name, stmt.value)
                return (Wait(cycles),)
            case ir.Put() | ir.Get():
                return (self.access(stmt, known),)
            case _ if not self.all.uses((stmt,)):
                cycles = self.timing.cycles(stmt, known)
                known.forget(written((stmt,)))
                return (Wait(cycles),)
            case ir.For():
                return self.loop(stmt, known)
            case ir.If():
                return self.branch(stmt, known)
            case ir.Call():
                return (self.call(stmt, known),)
            case ir.While():
                raise Unknown("the condition of a while loop", stmt.condition.span)
            case _:
                raise AssertionError(stmt)

    def alloc(self, stmt: ir.Alloc, known: Known) -> tuple[Step, ...]:
        buffer = stmt.buffer
        known.scalars.pop(buffer.name, None)
        if buffer.is_stream:
            return (Create(buffer),)
        if stmt.init is not None and not buffer.shape and not stmt.static and buffer.dtype.is_integer:
            known.scalars[buffer.name] = int(stmt.init[0])
        return ()

    def access(self, stmt: ir.Put | ir.Get, known: Known) -> Access:
        if isinstance(stmt, ir.Get):
            known.scalars.pop(stmt.target, None)
        member = self.member(stmt.stream, stmt.indices, known)
        return Access(stmt.stream, member, isinstance(stmt, ir.Put), stmt.span)

    def member(self, fifo: str, indices: tuple[ir.Expr, ...], known: Known) -> int:
        """The flat number of the first FIFO at these leading indices."""
        shape = self.table[fifo].shape
        return sum(evaluate(index, known) * prod(shape[dim + 1 :]) for dim, index in enumerate(indices))

    def branch(self, stmt: ir.If, known: Known) -> tuple[Step, ...]:
        try:
            taken = evaluate(stmt.condition, known)
        except Unknown:
            then, otherwise = (self.steps(b, known.copy()) for b in (stmt.then, stmt.otherwise))
            if then != otherwise:
                raise
            known.forget(written((stmt,)))
            return then
        return self.steps(stmt.then if taken else stmt.otherwise, known)

    def call(self, call: ir.Call, known: Known) -> Invoke:
        callee = self.all.program.function(call.func)
        scalars: dict[str, int] = {}
        fifos: list[tuple[str, str, int]] = []
        for param, arg in zip(callee.params, call.args, strict=True):
            if isinstance(arg, ir.View):
                if param.is_stream:
                    fifos.append((param.name, arg.buffer, self.member(arg.buffer, arg.indices, known)))
                continue
            try:
                scalars[param.name] = evaluate(arg, known)
            except Unknown:
                continue  # matters only if control depends on it
        known.forget(written((call,)))
        return Invoke(self.all.read(callee, scalars), tuple(fifos))

    def region(self, body: tuple[ir.Stmt, ...], known: Known, concurrent: bool = False) -> Parallel:
        first, processes = split_processes(body, self.all.effects, concurrent)
        begun = self.steps(first, known)
        made: list[Process] = []
        for process in processes:
            mine = known.copy()
            # What other processes write is known only as far as order says, which is not looked into.
            mine.forget(written(p.statement for p in processes if p is not process))
            steps = self.steps((process.statement,), mine)
            made.append(Process(process.label, steps, process.after, process.statement.span))
        known.forget(written(p.statement for p in processes))
        return Parallel(begun, tuple(made))

    # ---- loops

    def loop(self, loop: ir.For, known: Known) -> tuple[Step, ...]:
        lower, upper = evaluate(loop.lower, known), evaluate(loop.upper, known)
        values = range(lower, upper, loop.step)
        if not values:
            return ()
        runs = self.iterations(loop, values, known)
        known.loops.pop(loop.var, None)
        known.forget(written(loop.body))
        if loop.attrs.pipeline is not None:
            ii, depth = self.timing.pipeline(loop)
            if (made := pipe(runs, ii, depth)) is not None:
                return (made,)
        inner = [s for s in loop.body if not isinstance(s, ir.Alloc)]
        if len(inner) == 1 and isinstance(inner[0], ir.For) and (flat := merged(runs)) is not None:
            return (flat,)
        return tuple(Repeat(trips, steps) for trips, steps in runs if steps)

    def iterations(self, loop: ir.For, values: range, known: Known) -> list[tuple[int, tuple[Step, ...]]]:
        """What the iterations do, equal neighbours together."""
        try:
            inner = known.copy()
            inner.loops.pop(loop.var, None)
            inner.forget(written(loop.body))
            return [(len(values), self.iteration(loop, inner))]
        except Unknown as unknown:
            if len(values) > LIMIT:
                raise
            inner = known.copy()
            bodies: list[tuple[Step, ...]] = []
            for value in values:
                inner.loops[loop.var] = value
                bodies.append(self.iteration(loop, inner))
            del unknown
            return [(len(list(equal)), steps) for steps, equal in groupby(bodies)]

    def iteration(self, loop: ir.For, known: Known) -> tuple[Step, ...]:
        if loop.attrs.dataflow:
            return (self.region(loop.body, known),)
        return self.steps(loop.body, known)


def written(body: Iterable[ir.Stmt]) -> set[str]:
    """The names that statements store to, or hand to a call that may."""
    names: set[str] = set()
    for node in walk(tuple(body)):
        match node:
            case ir.Store(name, ()):
                names.add(name)
            case ir.Get(name):
                names.add(name)
            case ir.Call():
                names |= {arg.buffer for arg in node.args if isinstance(arg, ir.View)}
            case _:
                pass
    return names


__all__ = ["UNTIMED", "Behaviours", "Timing", "written"]
