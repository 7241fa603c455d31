"""Cycles of a function for given values of its scalars: the walk over its statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf, prod
from typing import Any

from ..analysis.spatial import expanded
from ..errors import EstimateError
from ..ir import nodes as ir
from ..ir.walk import walk
from .cost import Cost, Key
from .dataflow import Process, region, repeated
from .demand import Demand
from .evaluate import names_in, value_of
from .instance import Instance, LoopPlan
from .operators import Operators
from .pace import Pace, Stretch, together
from .ports import bank_counts
from .turns import Turns, turns
from .uses import Use, Uses

LOOP_OVERHEAD = 2
"""A rolled loop takes a cycle to enter and one to leave (UG1399)."""

CALL_OVERHEAD = 2
"""Start and done of a function instance are a cycle each (ap_ctrl handshake, UG1399)."""


class Timing:
    """Cycles of the functions of a scheduled program.

    Args:
        program: the program.
        operators: what operations cost on the device, at the clock.
        trips: iterations of loops whose length only the run tells, by ``loop`` or ``function.loop``.
        port_bytes: that a port to off-chip memory moves per cycle at most, each way.
    """

    def __init__(
        self,
        program: ir.Program,
        operators: Operators,
        trips: Mapping[str, int] | None = None,
        port_bytes: float = inf,
    ) -> None:
        self.program, self.operators, self.trips = program, operators, dict(trips or {})
        self.port_bytes = port_bytes
        self.instances: dict[tuple[str, frozenset[str]], Instance] = {}
        self.demand, self.uses = Demand(program), Uses(program)
        self._costs: dict[Any, Cost] = {}
        self._copies: dict[int, tuple[object, tuple[ir.Stmt, ...]]] = {}
        self._alone: dict[int, tuple[ir.Stmt]] = {}
        self.processes: dict[Any, list[Process]] = {}
        self.turns: dict[Any, Mapping[str, Turns | None]] = {}
        self._changed: dict[int, tuple[object, frozenset[str]]] = {}

    def instance(self, name: str, off_chip: frozenset[str]) -> Instance:
        key = (name, off_chip)
        if key not in self.instances:
            self.instances[key] = Instance(self.program.function(name), off_chip, self.operators)
        return self.instances[key]

    def copies(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """The statements of a region with a copy for every iteration of its spatial loops."""
        found = self._copies.get(id(body))
        if found is None:
            found = self._copies[id(body)] = (body, expanded(body))
        return found[1]

    def alone(self, stmt: ir.Stmt) -> tuple[ir.Stmt]:
        """The statement as a body of its own, the same one every time."""
        return self._alone.setdefault(id(stmt), (stmt,))

    def changed(self, body: tuple[ir.Stmt, ...]) -> frozenset[str]:
        """Buffers whose values statements may change, as far as they are scalars."""
        found = self._changed.get(id(body))
        if found is None:
            names: set[str] = set()
            for node in walk(body):
                match node:
                    case ir.Store(buffer, ()) | ir.Get(buffer):
                        names.add(buffer)
                    case ir.Call():
                        names |= _passed(node)
                    case _:
                        pass
            found = self._changed[id(body)] = (body, frozenset(names))  # the body lives on, so does its id
        return found[1]

    def function(self, name: str, off_chip: frozenset[str], scalars: Mapping[str, Any]) -> Cost:
        """One call.

        Args:
            name: the function.
            off_chip: its parameters that lie in memory.
            scalars: values of scalar parameters that are known.

        Raises:
            EstimateError: FX901, the length of a loop is not known.
        """
        needed = self.demand.of_function(name)
        key = (name, off_chip, tuple(sorted((n, scalars.get(n)) for n in needed)))
        if key not in self._costs:
            walker = _Walker(self, self.instance(name, off_chip), dict(scalars))
            cost = walker.run()
            cost.key = Key(name, off_chip)
            self._costs[key] = cost
        return self._costs[key]


def cycles_of(timing: Timing, instance: Instance, stmt: ir.Stmt, known: Mapping[str, Any]) -> float:
    """Cycles of one statement of a function, for values of scalars and loop variables around it."""
    return _Walker(timing, instance, dict(known)).body(timing.alone(stmt)).cycles


class _Walker:
    def __init__(self, timing: Timing, instance: Instance, known: dict[str, Any]) -> None:
        self.timing, self.instance, self.known = timing, instance, known
        self.running: ir.For

    def run(self) -> Cost:
        function = self.instance.function
        if function.extern is not None:
            return Cost()
        if function.dataflow or function.concurrent:
            return region(self._processes(function.body))
        return self.body(function.body)

    def body(self, body: Iterable[ir.Stmt]) -> Cost:
        cost = Cost()
        block: list[ir.Stmt] = []

        def flush() -> None:
            if block:
                self._block(tuple(block), cost)
                block.clear()

        for stmt in body:
            match stmt:
                case ir.For():
                    flush()
                    cost.add(self.loop(stmt))
                case ir.Call():
                    flush()
                    cost.add(self.call(stmt))
                case ir.While():
                    flush()
                    cost.add(self.loop_while(stmt))
                case ir.If() if _regular(stmt):
                    block.append(stmt)
                case ir.If():
                    flush()
                    cost.add(self.branch(stmt))
                case _:
                    block.append(stmt)
        flush()
        return cost

    def _block(self, block: tuple[ir.Stmt, ...], cost: Cost) -> None:
        found = self.instance.block(block)
        tokens = {name: (stretch,) for name, stretch in found.tokens.items()}
        cost.add(Cost(found.depth, found.operations, words=dict(found.words), tokens=tokens))
        for stmt in block:
            self.learn(stmt)

    def learn(self, stmt: ir.Stmt) -> None:
        """Keep the values of scalars that are known."""
        match stmt:
            case ir.Store(buffer, ()):
                self.known[buffer] = value_of(stmt.value, self.known)
            case ir.Get(target):
                self.known[target] = None
            case ir.If():
                chosen = value_of(stmt.condition, self.known)
                if chosen is not None:
                    for inner in stmt.then if chosen else stmt.otherwise:
                        self.learn(inner)
                else:
                    self._forget(stmt.then)
                    self._forget(stmt.otherwise)
            case _:
                pass

    def _forget(self, body: tuple[ir.Stmt, ...]) -> None:
        """Scalars that are written in a body are not known behind it."""
        for name in self.timing.changed(body):
            self.known[name] = None

    # ------------------------------------------------------------------------------ loops

    def length(self, loop: ir.For) -> int:
        """Iterations of a loop, by the values that are known."""
        for key in (f"{self.instance.function.name}.{loop.var}", loop.var, loop.band or ""):
            if key in self.timing.trips:
                return self.timing.trips[key]
        lower, upper = value_of(loop.lower, self.known), value_of(loop.upper, self.known)
        if lower is None or upper is None:
            raise self._unknown(loop)
        return max(0, -(-(int(upper) - int(lower)) // loop.step))

    def _unknown(self, loop: ir.For) -> EstimateError:
        function = self.instance.function
        missing = sorted(n for n in names_in(loop.lower, loop.upper) if self.known.get(n) is None)
        asked = sorted(n for n in self.timing.demand.of_function(function.name) if self.known.get(n) is None)
        what = f"it depends on {', '.join(missing)}" if missing else "it depends on data"
        way = f"give {'=..., '.join(asked)}=..., or " if asked else ""
        return EstimateError(
            "FX901",
            f'the length of loop "{loop.var}" of {function.name} is not known: {what}',
            at=loop.span,
            hint=f'{way}trips={{"{loop.var}": ...}}',
        )

    def loop(self, loop: ir.For) -> Cost:
        plan = self.instance.plan(loop)
        self.running = loop
        match plan.kind:
            case "pipelined":
                cost = self._pipelined(plan)
            case "unrolled" if plan.body is not None:
                cost = Cost(
                    plan.body.depth, plan.body.operations,
                    words=dict(plan.body.words), tokens={n: (s,) for n, s in plan.body.tokens.items()},
                )  # fmt: skip
                self._count(loop, cost, 1)
            case "dataflow":
                cost = self._dataflow_loop(loop)
            case _:
                cost = self._outer(loop, unrolled=plan.kind == "unrolled")
        self._forget(loop.body)
        return cost

    def _count(self, loop: ir.For, cost: Cost, trips: int) -> None:
        cost.key = Key(self.instance.function.name, self.instance.off_chip, id(loop))
        cost.trips = trips

    def _trips(self, nest: tuple[ir.For, ...]) -> int:
        total = 1
        for loop in nest:
            total *= self.length(loop)
        return total

    def _pipelined(self, plan: LoopPlan) -> Cost:
        body, trips = plan.body, self._trips(plan.nest)
        assert body is not None
        interval: float = body.interval
        bound: dict[str, float] = {}
        moved = {name: self._per_iteration(name, plan) for name in body.words}
        for name, words in moved.items():
            ports = prod(bank_counts(self.instance.buffers[name]))
            least = max(words) * self._word_bytes(name) / self.timing.port_bytes / ports
            if least > interval:
                bound[name] = (least - body.interval) * trips
                interval = least
        again = max(0, trips - 1) * interval + body.entry * self._trips(plan.nest[:-1])
        cost = Cost(
            (body.depth + again if trips else 0) + LOOP_OVERHEAD,
            body.operations * trips,
            words=_words(moved, body.once, trips),
            tokens=self._tokens(plan, trips, again),
            bound=bound,
        )
        self._count(self.running, cost, trips)
        return cost

    def _tokens(self, plan: LoopPlan, trips: int, again: float) -> dict[str, Pace]:
        """When a nest accesses FIFOs; the last iteration begins `again` cycles after the first one."""
        assert plan.body is not None
        if not trips:
            return dict.fromkeys(plan.body.tokens, ())
        always, found = Turns(0, trips - 1, 1.0), dict[str, Pace]()
        held: Mapping[str, Turns | None] = self._turns(plan) if plan.body.tokens else {}
        interval = again / max(1, trips - 1)
        for name, (first, last, number) in plan.body.tokens.items():
            turn = held.get(name, always)
            if turn is None:
                found[name] = ()
                continue
            begin, end = turn.first * interval, turn.last * interval
            found[name] = (Stretch(begin + first + 1, end + last + 1, number * trips * turn.share),)
        return found

    def _turns(self, plan: LoopPlan) -> Mapping[str, Turns | None]:
        ranges = tuple(self._values(loop) for loop in plan.nest)
        key = (id(plan.nest[-1]), ranges)  # the plan lives on, so does its loop
        if key not in self.timing.turns:
            self.timing.turns[key] = turns(plan.nest, ranges)
        return self.timing.turns[key]

    def _values(self, loop: ir.For) -> range | None:
        """The values of a loop variable, if they are known."""
        first = value_of(loop.lower, self.known)
        return (
            None
            if first is None
            else range(int(first), int(first) + self.length(loop) * loop.step, loop.step)
        )

    def _per_iteration(self, name: str, plan: LoopPlan) -> tuple[float, float]:
        """Words of a buffer that an iteration reads and writes on average."""
        assert plan.body is not None
        (read, written), pinned = plan.body.words[name], plan.body.pinned[name]
        often = max(1, self._trips(tuple(loop for loop in plan.nest if loop.var in pinned)))
        return read / often, written / often

    def _word_bytes(self, name: str) -> float:
        return self.instance.buffers[name].dtype.bits / 8

    def _outer(self, loop: ir.For, unrolled: bool = False) -> Cost:
        trips = self.length(loop)
        overhead = 0 if unrolled else LOOP_OVERHEAD
        cost = Cost(overhead)
        for times, value in self._iterations(loop, trips):
            self.known[loop.var] = value
            inner = self.body(loop.body)
            inner.cycles += 0 if unrolled else 1  # the state that tests and counts
            cost.add(inner, times)
        self.known.pop(loop.var, None)
        self._count(loop, cost, trips)
        return cost

    def _iterations(self, loop: ir.For, trips: int) -> list[tuple[int, int | None]]:
        """How many iterations cost the same, and the loop variable of one of them."""
        if trips == 0:
            return []
        self._forget(loop.body)  # what iterations hand on
        first = value_of(loop.lower, self.known)
        if loop.var not in self.timing.demand.of_body(loop.body) or first is None:
            return [(trips, first)]
        return [(1, int(first) + i * loop.step) for i in range(trips)]

    def loop_while(self, loop: ir.While) -> Cost:
        function = self.instance.function.name
        for key in (f"{function}.while", "while"):
            if key in self.timing.trips:
                self._forget(loop.body)
                cost = Cost(LOOP_OVERHEAD)
                inner = self.body(loop.body)
                inner.cycles += 1
                cost.add(inner, self.timing.trips[key])
                return cost
        raise EstimateError(
            "FX901",
            f"how often the while loop of {function} runs is not known",
            at=loop.span,
            hint=f'trips={{"{function}.while": ...}}',
        )

    def branch(self, stmt: ir.If) -> Cost:
        chosen = value_of(stmt.condition, self.known)
        if chosen is not None:
            cost = self.body(stmt.then if chosen else stmt.otherwise)
        else:
            before = dict(self.known)
            sides: list[Cost] = []
            for body in (stmt.then, stmt.otherwise):
                self.known = dict(before)
                sides.append(self.body(body))
            self.known = before
            self._forget(stmt.then)
            self._forget(stmt.otherwise)
            cost = max(sides, key=lambda side: side.cycles)
        out = Cost(1)
        out.add(cost)
        return out

    # ------------------------------------------------------------------------------ calls

    def call(self, call: ir.Call) -> Cost:
        off_chip, scalars = self._arguments(call)
        inner = self.timing.function(call.func, off_chip, scalars)
        cost = Cost(CALL_OVERHEAD - 1)  # the last cycle is the one in which the caller sees it is done
        names = self._names(call)
        cost.add(_renamed(inner, lambda name: names.get(name, name)))
        cost.cycles += 1
        self.known.update(dict.fromkeys(_passed(call)))
        return cost

    def _arguments(self, call: ir.Call) -> tuple[frozenset[str], dict[str, Any]]:
        """The parameters that lie in memory, and the values of those that are numbers."""
        scalars: dict[str, Any] = {}
        off_chip: set[str] = set()
        for param, arg in zip(self.timing.program.function(call.func).params, call.args, strict=True):
            if not isinstance(arg, ir.View):
                scalars[param.name] = value_of(arg, self.known)
            elif arg.buffer in self.instance.off_chip and param.shape:
                off_chip.add(param.name)
        return frozenset(off_chip), scalars

    def _names(self, call: ir.Call) -> dict[str, str]:
        """The caller's names of what a call is passed; one of an array of FIFOs has a name of its own."""
        names: dict[str, str] = {}
        for param, arg in zip(self.timing.program.function(call.func).params, call.args, strict=True):
            if isinstance(arg, ir.View):
                member = [value_of(i, self.known) for i in arg.indices] if param.is_stream else []
                names[param.name] = f"{arg.buffer}{member}" if member and None not in member else arg.buffer
        return names

    # ------------------------------------------------------------------------------ dataflow

    def _processes(self, body: tuple[ir.Stmt, ...]) -> list[Process]:
        """The processes of a region; those of regions that it calls are its own too."""
        found: list[Process] = []
        for stmt in self.timing.copies(body):
            if not isinstance(stmt, ir.Alloc):
                found += self._process(stmt)
        return found

    def _process(self, stmt: ir.Stmt) -> list[Process]:
        """What a statement is in a region; where the scalars it depends on are as before, as it was."""
        timing, alone = self.timing, self.timing.alone(stmt)
        needed = timing.demand.of_body(alone)
        values = tuple((name, self.known.get(name)) for name in sorted(needed))
        key = (self.instance.function.name, self.instance.off_chip, id(stmt), values)
        if not isinstance(stmt, ir.Call | ir.For):
            use = timing.uses.of(alone)
            return [Process(self.body(alone), use.reads, use.writes)]
        if key not in timing.processes:
            if isinstance(stmt, ir.Call) and self._is_region(stmt):
                timing.processes[key] = self._inner(stmt)
            else:
                use = self._use(stmt)
                cost = self.body(alone)
                cost.tokens |= self._silent(cost, use)
                timing.processes[key] = [Process(cost, use.reads, use.writes)]
        self._forget(alone)
        return timing.processes[key]

    def _silent(self, cost: Cost, use: Use) -> dict[str, Pace]:
        """FIFOs that a process is given, and does not access for the values of its scalars."""
        accessed = {name.partition("[")[0] for name in cost.tokens}
        names = ((name, name.partition("[")[0]) for name in use.reads | use.writes)
        return {name: () for name, fifo in names if fifo not in accessed and self._is_fifo(fifo)}

    def _is_fifo(self, name: str) -> bool:
        return name in self.instance.buffers and self.instance.buffers[name].is_stream

    def _use(self, stmt: ir.Stmt) -> Use:
        if not isinstance(stmt, ir.Call):
            return self.timing.uses.of((stmt,))
        use, names = self.timing.uses.of_function(stmt.func), self._names(stmt)
        sides = (frozenset(names[n] for n in side if n in names) for side in (use.reads, use.writes))
        return Use(*sides)

    def _is_region(self, call: ir.Call) -> bool:
        """Whether a call is of a region, or of a function that does nothing but call one (it is inlined)."""
        callee = self.timing.program.function(call.func)
        if callee.dataflow or callee.concurrent:
            return True
        inner = callee.body[0] if len(callee.body) == 1 else None
        return isinstance(inner, ir.Call) and self._is_region(inner)

    def _inner(self, call: ir.Call) -> list[Process]:
        off_chip, scalars = self._arguments(call)
        walker = _Walker(self.timing, self.timing.instance(call.func, off_chip), scalars)
        names = self._names(call)

        def known(name: str) -> str:
            """What is not passed is of this call alone."""
            return names.get(name, f"{call.func}.{id(call)}.{name}")

        processes = walker._processes(walker.instance.function.body)
        return [
            Process(_renamed(p.cost, known), frozenset(map(known, p.reads)), frozenset(map(known, p.writes)))
            for p in processes
        ]

    def _dataflow_loop(self, loop: ir.For) -> Cost:
        trips = self.length(loop)
        runs: list[tuple[int, list[Process]]] = []
        for times, value in self._iterations(loop, trips):
            self.known[loop.var] = value
            runs.append((times, self._processes(loop.body)))
        self.known.pop(loop.var, None)
        cost = repeated(runs)
        cost.cycles += LOOP_OVERHEAD
        self._count(loop, cost, trips)
        return cost


def _passed(call: ir.Call) -> set[str]:
    """Buffers that a call may write as a whole."""
    return {a.buffer for a in call.args if isinstance(a, ir.View) and not a.indices}


def _words(
    moved: Mapping[str, tuple[float, float]], once: Mapping[str, tuple[int, int]], trips: int
) -> dict[str, tuple[float, float]]:
    found = {name: (read * trips, written * trips) for name, (read, written) in moved.items()}
    for name, (read, written) in once.items() if trips else ():
        before = found.get(name, (0, 0))
        found[name] = before[0] + read, before[1] + written
    return found


def _renamed(cost: Cost, name_of: Callable[[str], str]) -> Cost:
    """The cost of a call with the caller's names for what was passed."""
    out = Cost(cost.cycles, cost.operations, parts=[(cost, 1, 0)])
    for name, (read, written) in cost.words.items():
        before = out.words.get(name_of(name), (0, 0))
        out.words[name_of(name)] = before[0] + read, before[1] + written
    for name, pace in cost.tokens.items():
        out.tokens[name_of(name)] = together(out.tokens.get(name_of(name), ()), pace)
    for name, lost in cost.bound.items():
        out.bound[name_of(name)] = out.bound.get(name_of(name), 0) + lost
    return out


def _regular(stmt: ir.If) -> bool:
    return not any(isinstance(n, ir.For | ir.While | ir.Call) for n in walk((*stmt.then, *stmt.otherwise)))


__all__ = ["Timing", "cycles_of"]
