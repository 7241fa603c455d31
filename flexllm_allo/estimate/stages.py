"""Where the cycles of a phase go: one row per function that does work of its own, with its loops."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Span
from ..ir import nodes as ir
from ..ir.walk import calls
from ..schedule.trace import Primitive
from .cost import Cost, Count, Key
from .hardware_copies import Instances
from .instance import Instance, LoopPlan
from .loops import Timing
from .result import LoopTiming, StageTiming

_SHAPES_LOOPS = ("pipeline", "unroll", "split", "reorder", "fuse", "vectorize")


class ScheduleLines:
    """Which line of a schedule made a loop what it is."""

    def __init__(self, program: ir.Program, trace: Iterable[Primitive]) -> None:
        self._loops: dict[tuple[str, str], Span] = {}
        self._functions: dict[str, Span] = {}
        self._all_loops: dict[str, Span] = {}  # of primitives that name none, and mean those left
        for step in trace:
            if not step.span.line:
                continue
            function = step.func or program.top
            self._functions.setdefault(function, step.span)
            if step.name in _SHAPES_LOOPS and not step.args:
                self._all_loops[function] = step.span
            elif step.name in _SHAPES_LOOPS:
                self._loops[function, str(step.args[0]).rpartition(":")[2]] = step.span

    def of_loop(self, function: str, loop: ir.For) -> Span | None:
        """The last primitive that names the loop, or one that is about all loops."""
        found = [
            span
            for (name, axis), span in self._loops.items()
            if name == function and f".{axis}".endswith(f".{loop.var}")
        ]
        return found[-1] if found else self._all_loops.get(function)

    def of_function(self, function: str) -> Span | None:
        return self._functions.get(function)


def stages(
    timing: Timing, phase: str, cost: Cost, lines: ScheduleLines, copies: Instances
) -> list[StageTiming]:
    """The rows of a phase, by when they begin.

    A function that mostly calls others is not a row: those others are. Where several `copies` of an instance
    work at the same time, the cycles are those of one of them.
    """
    loops: dict[Key, list[tuple[LoopPlan, Count]]] = {}
    functions: dict[Key, Count] = {}
    for key, count in cost.counts().items():
        if key.loop:
            plan = timing.instance(key.function, key.off_chip).plan_of(key.loop)
            loops.setdefault(key._replace(loop=0), []).append((plan, count))
        else:
            functions[key] = count
    rows: list[StageTiming] = []
    for key, count in functions.items():
        instance = timing.instance(key.function, key.off_chip)
        own = _own_cycles(instance, loops.get(key, ()), count)
        if own is None:
            continue
        function = instance.function
        share = 1 / copies.get((key.function, key.off_chip), 1)
        rows.append(
            StageTiming(
                name=function.name,
                phase=phase,
                start=round(count.first),
                end=round(count.last),
                cycles=round(own * share),
                kernel=function.span,
                schedule=lines.of_function(function.name),
                loops=tuple(_row(instance, plan, n, lines, share) for plan, n in loops.get(key, ())),
            )
        )
    return sorted(rows, key=lambda row: (row.start, row.end))


def _own_cycles(instance: Instance, loops: Iterable[tuple[LoopPlan, Count]], count: Count) -> float | None:
    """Cycles spent in the function itself, at most all; None for one that only hands on to others."""
    if not calls(instance.function):
        return count.cycles
    own = sum(n.cycles for plan, n in loops if plan.body is not None)
    return min(own, count.cycles) if own > 0 and not instance.function.dataflow else None


def _row(instance: Instance, plan: LoopPlan, count: Count, lines: ScheduleLines, share: float) -> LoopTiming:
    body = plan.body
    inner = plan.nest[-1]
    reason = plan.note or (body.reason if body else "loops and calls inside, in turn")
    return LoopTiming(
        loop="/".join(loop.var for loop in plan.nest),
        trips=round(count.trips / max(1, count.runs)),
        ii=body.interval if body and plan.kind == "pipelined" else None,
        depth=body.depth if body else round(count.cycles / max(1, count.trips)),
        cycles=round(count.cycles * share),
        reason=reason,
        kernel=inner.span,
        schedule=lines.of_loop(instance.function.name, inner),
    )


def binding(rows: Iterable[StageTiming], cost: Cost) -> str:
    """What most of the time goes into, in words: the slowest loop of the slowest function."""
    if cost.bound and sum(cost.bound.values()) > 0.2 * cost.cycles:
        port = max(cost.bound, key=lambda name: cost.bound[name])
        return f'bandwidth of the memory port "{port}"'
    pipelined = [row for row in rows if any(loop.ii is not None for loop in row.loops)]
    if not pipelined:
        return "straight-line code"
    stage = max(pipelined, key=lambda row: row.cycles)
    loop = max((loop for loop in stage.loops if loop.ii is not None), key=lambda loop: loop.cycles)
    share = f"{loop.cycles / max(1, cost.cycles):.0%} of {stage.phase}"
    if loop.reason == "as scheduled":
        why = f"II={loop.ii} as scheduled, {loop.trips:,} iterations"
    else:
        why = f"II={loop.ii}: {loop.reason}"
    return f"loop {loop.loop} of {stage.name} ({share}), {why}"


__all__ = ["ScheduleLines", "binding", "stages"]
