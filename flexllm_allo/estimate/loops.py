"""Cycles of a function for given values of its scalars: the walk over its statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import EstimateError
from ..ir import nodes as ir
from ..ir.walk import walk
from .demand import Demand
from .evaluate import names_in, value_of
from .instance import Instance, LoopPlan
from .operators import Operators

LOOP_OVERHEAD = 2
"""A rolled loop takes a cycle to enter and one to leave (UG1399)."""

CALL_OVERHEAD = 2
"""Start and done of a function instance are a cycle each (ap_ctrl handshake, UG1399)."""

Key = tuple[str, frozenset[str], int]
"""A function, its off-chip parameters, and the position of a loop in it; -1 for all of it."""


@dataclass(slots=True)
class Count:
    """What was counted of a loop or of a function: runs, iterations, cycles."""

    runs: int = 0
    trips: int = 0
    cycles: int = 0


@dataclass(slots=True)
class Cost:
    """Cycles, and where they went."""

    cycles: int = 0
    counts: dict[Any, Count] = field(default_factory=lambda: dict[Any, Count]())
    words: dict[str, tuple[int, int]] = field(default_factory=lambda: dict[str, tuple[int, int]]())

    def add(self, other: Cost, times: int = 1, wait: bool = True) -> None:
        """Another piece, `times` times; without `wait` it takes no time of its own."""
        if wait:
            self.cycles += other.cycles * times
        for key, count in other.counts.items():
            mine = self.counts.setdefault(key, Count())
            mine.runs += count.runs * times
            mine.trips += count.trips * times
            mine.cycles += count.cycles * times
        for name, (read, written) in other.words.items():
            before = self.words.get(name, (0, 0))
            self.words[name] = before[0] + read * times, before[1] + written * times


class Timing:
    """Cycles of the functions of a scheduled program.

    Args:
        program: the program.
        operators: what operations cost on the device, at the clock.
        trips: iterations of loops whose length only the run tells, by ``loop`` or ``function.loop``.
    """

    def __init__(
        self, program: ir.Program, operators: Operators, trips: Mapping[str, int] | None = None
    ) -> None:
        self.program, self.operators, self.trips = program, operators, dict(trips or {})
        self.instances: dict[tuple[str, frozenset[str]], Instance] = {}
        self.demand = Demand(program)
        self._costs: dict[Any, Cost] = {}

    def instance(self, name: str, off_chip: frozenset[str]) -> Instance:
        key = (name, off_chip)
        if key not in self.instances:
            self.instances[key] = Instance(self.program.function(name), off_chip, self.operators)
        return self.instances[key]

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
            count = cost.counts.setdefault((name, off_chip, -1), Count())
            count.runs, count.cycles = 1, cost.cycles
            self._costs[key] = cost
        return self._costs[key]


class _Walker:
    def __init__(self, timing: Timing, instance: Instance, known: dict[str, Any]) -> None:
        self.timing, self.instance, self.known = timing, instance, known

    def run(self) -> Cost:
        function = self.instance.function
        if function.extern is not None:
            return Cost()
        if function.dataflow or function.concurrent:
            return self._dataflow(function.body)
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
        cost.cycles += found.depth
        cost.add(Cost(words=dict(found.words)))
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
                    self._forget((*stmt.then, *stmt.otherwise))
            case _:
                pass

    def _forget(self, body: tuple[ir.Stmt, ...]) -> None:
        """Scalars that are written in a body are not known behind it."""
        for node in walk(body):
            match node:
                case ir.Store(buffer, ()) | ir.Get(buffer):
                    self.known[buffer] = None
                case ir.Call():
                    self._forget_results(node)
                case _:
                    pass

    def _forget_results(self, call: ir.Call) -> None:
        for arg in call.args:
            if isinstance(arg, ir.View) and not arg.indices:
                self.known.pop(arg.buffer, None)

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
        scalars = {b.name for b in function.params if not b.shape}
        missing = sorted(n for n in names_in(loop.lower, loop.upper) if self.known.get(n) is None)
        asked = [n for n in missing if n in scalars]
        what = f"it depends on {', '.join(missing)}" if missing else "it depends on data"
        way = f"give {asked[0]}=..., or " if asked else ""
        return EstimateError(
            "FX901",
            f'the length of loop "{loop.var}" of {function.name} is not known: {what}',
            at=loop.span,
            hint=f'{way}trips={{"{loop.var}": ...}}',
        )

    def loop(self, loop: ir.For) -> Cost:
        plan = self.instance.plan(loop)
        match plan.kind:
            case "pipelined":
                cost = self._pipelined(plan)
            case "plain":
                cost = self._plain(plan)
            case "unrolled" if plan.body is not None:
                cost = Cost(plan.body.depth, words=dict(plan.body.words))
                self._count(loop, cost, 1, cost.cycles)
            case "dataflow":
                cost = self._dataflow_loop(loop)
            case _:
                cost = self._outer(loop, unrolled=plan.kind == "unrolled")
        self._forget(loop.body)
        return cost

    def _count(self, loop: ir.For, cost: Cost, trips: int, cycles: int) -> None:
        instance = self.instance
        key = (instance.function.name, instance.off_chip, id(loop))
        count = cost.counts.setdefault(key, Count())
        count.runs, count.trips, count.cycles = count.runs + 1, count.trips + trips, count.cycles + cycles

    def _trips(self, plan: LoopPlan) -> int:
        total = 1
        for loop in plan.nest:
            total *= self.length(loop)
        return total

    def _pipelined(self, plan: LoopPlan) -> Cost:
        body, trips = plan.body, self._trips(plan)
        assert body is not None
        cycles = body.depth + (trips - 1) * body.interval + LOOP_OVERHEAD if trips else LOOP_OVERHEAD
        cost = Cost(cycles, words={n: (r * trips, w * trips) for n, (r, w) in body.words.items()})
        self._count(plan.nest[0], cost, trips, cycles)
        return cost

    def _plain(self, plan: LoopPlan) -> Cost:
        body, trips = plan.body, self._trips(plan)
        assert body is not None
        cycles = trips * max(1, body.depth) + LOOP_OVERHEAD
        cost = Cost(cycles, words={n: (r * trips, w * trips) for n, (r, w) in body.words.items()})
        self._count(plan.nest[0], cost, trips, cycles)
        return cost

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
        self._count(loop, cost, trips, cost.cycles)
        return cost

    def _iterations(self, loop: ir.For, trips: int) -> list[tuple[int, int | None]]:
        """How many iterations cost the same, and the loop variable of one of them."""
        if trips == 0:
            return []
        self._forget(loop.body)  # what iterations hand on
        first = value_of(loop.lower, self.known)
        if (
            loop.var not in self.timing.demand.of_body(self.instance.function.name, loop.body)
            or first is None
        ):
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
            self._forget((*stmt.then, *stmt.otherwise))
            cost = max(sides, key=lambda side: side.cycles)
        out = Cost(1)
        out.add(cost)
        return out

    # ------------------------------------------------------------------------------ calls

    def call(self, call: ir.Call) -> Cost:
        callee = self.timing.program.function(call.func)
        scalars: dict[str, Any] = {}
        off_chip: set[str] = set()
        names: dict[str, str] = {}
        for param, arg in zip(callee.params, call.args, strict=True):
            if not isinstance(arg, ir.View):
                scalars[param.name] = value_of(arg, self.known)
            elif arg.buffer in self.instance.off_chip and param.shape:
                off_chip.add(param.name)
                names[param.name] = arg.buffer
        inner = self.timing.function(call.func, frozenset(off_chip), scalars)
        cost = Cost(CALL_OVERHEAD)
        cost.add(inner)
        cost.words = {}
        for name, (read, written) in inner.words.items():
            before = cost.words.get(names[name], (0, 0))
            cost.words[names[name]] = before[0] + read, before[1] + written
        self._forget_results(call)
        return cost

    # ------------------------------------------------------------------------------ dataflow

    def _dataflow(self, body: tuple[ir.Stmt, ...]) -> Cost:
        cost = Cost()
        longest = 0
        for stmt in body:
            if isinstance(stmt, ir.Alloc):
                continue
            inner = self.body((stmt,))
            longest = max(longest, inner.cycles)
            cost.add(inner, wait=False)
        cost.cycles = longest
        return cost

    def _dataflow_loop(self, loop: ir.For) -> Cost:
        return self._outer(loop)


def _regular(stmt: ir.If) -> bool:
    return not any(isinstance(n, ir.For | ir.While | ir.Call) for n in walk((*stmt.then, *stmt.otherwise)))


__all__ = ["Cost", "Count", "Timing"]
