"""FIFO analysis of a program: which depths deadlock, and which are needed.

Every function that has no FIFO parameters is analysed once, however often it is called: the layers of a
model share their functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ...backend.deadlock import deadlock
from ...errors import DeadlockError, EstimateError, Place, Span
from ...ir import nodes as ir
from ...ir.walk import buffers, calls
from .behaviour import UNTIMED, Behaviours, Timing
from .depths import blocked_at, fast_depths, freeing_depths, safe_depths
from .fifos import DECLARED, Key
from .network import network
from .plain import plain_timing
from .simulate import Deadlock
from .steps import Behaviour


@dataclass(frozen=True)
class StreamDepth:
    """The depth of one stream, in tokens.

    Attributes:
        function, stream: where it is declared, and its name.
        depth: the declared one.
        safe: the least that does not deadlock.
        fast: one with which the design takes no longer than with FIFOs without limit (estimated: every
            initiation interval met); None if that was not asked for.
        span: the declaration.
    """

    function: str
    stream: str
    depth: int
    safe: int
    fast: int | None
    span: Span


@dataclass(frozen=True)
class FifoReport:
    """All streams of a program; ``print`` shows a table."""

    streams: tuple[StreamDepth, ...]

    def depths(self) -> dict[Key, int]:
        """The depth that each stream needs, by function and name."""
        return {(s.function, s.stream): s.safe if s.fast is None else s.fast for s in self.streams}

    def __str__(self) -> str:
        head = ("function", "stream", "depth", "no deadlock", "full speed")
        rows = [
            (s.function, s.stream, str(s.depth), str(s.safe), "-" if s.fast is None else str(s.fast))
            for s in self.streams
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(both)).rstrip()
            for both in (list(zip(row, widths, strict=True)) for row in (head, *rows))
        ]
        return "\n".join(lines)


def check_streams(program: ir.Program, scalars: Mapping[str, int] | None = None) -> None:
    """Make sure that no FIFO is so shallow that the design stops.

    Args:
        scalars: values of scalar parameters that loop bounds depend on, by name.

    Raises:
        DeadlockError: FX303, with the processes and FIFOs that wait for each other, and the depth that
            frees them.
        EstimateError: FX921, what a process does to its FIFOs depends on data.
    """
    behaviours = Behaviours(program, UNTIMED)
    for behaviour in _regions(behaviours, scalars or {}):
        if network(behaviour).cyclic() and (stuck := blocked_at(behaviour, DECLARED)) is not None:
            raise _refusal(program, behaviour, stuck)


def fifo_depths(
    program: ir.Program,
    full_speed: bool = True,
    scalars: Mapping[str, int] | None = None,
    timing: Timing | None = None,
) -> FifoReport:
    """The depths that the streams of a program need.

    Args:
        full_speed: also find the depths that do not slow the design.
        scalars: as for `check_streams`.
        timing: where cycles come from; by default every initiation interval is met.

    Raises:
        DeadlockError: FX303, no depths help.
        EstimateError: FX921, as `check_streams`.
    """
    safe: dict[Key, int] = {}
    fast: dict[Key, int] = {}
    for behaviour in _regions(Behaviours(program, UNTIMED), scalars or {}):
        _deepen(safe, _found(program, behaviour, safe_depths))
    if full_speed:
        for behaviour in _regions(Behaviours(program, timing or plain_timing(program)), scalars or {}):
            _deepen(fast, _found(program, behaviour, fast_depths))
    streams: list[StreamDepth] = []
    for function in program.functions:
        for name, buffer in buffers(function).items():
            if (key := (function.name, name)) in safe:
                found = max(fast[key], safe[key]) if full_speed else None
                streams.append(
                    StreamDepth(function.name, name, buffer.depth or 0, safe[key], found, buffer.span)
                )
    return FifoReport(tuple(streams))


def _regions(behaviours: Behaviours, scalars: Mapping[str, int]) -> Iterator[Behaviour]:
    """What every function does that uses FIFOs and is given none; the unknown is raised behind the rest."""
    program = behaviours.program
    unknown: EstimateError | None = None
    for name in _reached(program):
        function = program.function(name)
        if any(p.is_stream for p in function.params) or not _own(behaviours, function):
            continue
        known = {p.name: scalars[p.name] for p in function.inputs if p.name in scalars}
        try:
            made = behaviours.of(name, known)
        except EstimateError as error:
            unknown = unknown or error
        else:
            yield made
    if unknown:
        raise unknown


def _own(behaviours: Behaviours, function: ir.Function) -> bool:
    """Whether a function makes FIFOs itself."""
    return any(b.is_stream for b in buffers(function).values()) or any(
        any(p.is_stream for p in behaviours.program.function(call.func).params) for call in calls(function)
    )


def _reached(program: ir.Program) -> list[str]:
    """The functions that the top one calls, directly or not, in the order of the program."""
    seen: set[str] = set()
    todo = [program.top]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [call.func for call in calls(program.function(name))]
    return [f.name for f in program.functions if f.name in seen]


def _deepen(table: dict[Key, int], found: Mapping[Key, int]) -> None:
    for key, depth in found.items():
        table[key] = max(depth, table.get(key, 0))


def _found(
    program: ir.Program, behaviour: Behaviour, analysis: Callable[[Behaviour], dict[Key, int]]
) -> dict[Key, int]:
    try:
        return analysis(behaviour)
    except Deadlock as stuck:
        raise deadlock(program, stuck.function, stuck.blocked) from None


def _refusal(program: ir.Program, behaviour: Behaviour, stuck: Deadlock) -> DeadlockError:
    error = deadlock(program, stuck.function, stuck.blocked)
    declared = {
        (name, stream): buffers(program.function(name))[stream].depth or 0
        for name, stream in network(behaviour).declared
    }
    try:
        freed = freeing_depths(behaviour, declared)
    except Deadlock:
        return error
    needs = [f"'{stream}' depth {depth}" for (_, stream), depth in freed.items()]
    error.hint = f"give {' and '.join(needs)}, which frees it; s.size_fifos() finds depths for all FIFOs"
    for (name, stream), depth in freed.items():
        span = buffers(program.function(name))[stream].span
        error.places = (*error.places, Place(span, f"depth {declared[name, stream]}, {depth} are needed"))
    return error


__all__ = ["FifoReport", "StreamDepth", "check_streams", "fifo_depths"]
