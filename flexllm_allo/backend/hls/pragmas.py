"""Our own check of HLS directives, before the text is written: compilers other than Vitis' ignore them.

What is checked: the dimension of a partition exists and its factor divides the extent; intervals, unroll
factors and depths are possible numbers; a dataflow function has the canonical form (declarations, then calls
and loops); a FIFO in it joins two of its processes; a directive of the text names a variable of its function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...errors import BackendError, Place, Span
from ...ir import nodes as ir
from ...ir.dtypes import RUN_TIME
from ...ir.walk import buffers, walk
from ...schedule.trace import Primitive
from ..effects import Effects, split_processes

_DIRECTIVE = re.compile(
    r"^\s*#pragma HLS (?:array_partition|bind_storage|dependence|stream|interface).*?(?:variable|port)=(\w+)"
)
_FUNCTION = re.compile(r"^(?:void|static void) (\w+)\($")


def check_directives(program: ir.Program, trace: Sequence[Primitive] = ()) -> None:
    """Refuse directives that Vitis would refuse or ignore.

    Args:
        program: the scheduled IR.
        trace: what was applied; the primitive that speaks of the place is shown with the kernel's line.

    Raises:
        BackendError: FX403, with the kernel's line and, if it is known, the schedule's.
    """
    effects = Effects(program)
    for function in program.functions:
        if function.extern is not None:
            continue
        for span, name, message in _problems(function, effects):
            places = [Place(span, "here"), *_scheduled(trace, function.name, name)]
            raise BackendError(
                "FX403", f"{message} (function '{function.name}')", places, hint="change the schedule"
            )


def _problems(function: ir.Function, effects: Effects) -> Iterator[tuple[Span, str, str]]:
    for name, buffer in buffers(function).items():
        for message in _buffer_problems(buffer):
            yield buffer.span, name, message
    for node in walk(function.body):
        if isinstance(node, ir.For):
            for message in _loop_problems(node):
                yield node.span, node.var, message
    if function.dataflow or function.concurrent:
        yield from _region_problems(function, effects)


def _buffer_problems(buffer: ir.Buffer) -> Iterator[str]:
    if buffer.depth is not None and buffer.depth < 1:
        yield f"FIFO '{buffer.name}' has depth {buffer.depth}"
    for bank in buffer.banks:
        if not 0 <= bank.dim <= len(buffer.shape):
            yield f"'{buffer.name}' has {len(buffer.shape)} dimensions, not {bank.dim}"
        elif bank.kind != "complete":
            extents = buffer.shape if bank.dim == 0 else buffer.shape[bank.dim - 1 : bank.dim]
            for extent in extents:
                if extent != RUN_TIME and (bank.factor < 1 or extent % bank.factor):
                    yield f"'{buffer.name}' of {extent} elements cannot be in {bank.factor} {bank.kind} banks"


def _loop_problems(loop: ir.For) -> Iterator[str]:
    attrs = loop.attrs
    if attrs.pipeline is not None and attrs.pipeline < 1:
        yield f"loop '{loop.var}' has initiation interval {attrs.pipeline}"
    if attrs.unroll is not None and attrs.unroll < 0:
        yield f"loop '{loop.var}' is unrolled by {attrs.unroll}"


def _region_problems(function: ir.Function, effects: Effects) -> Iterator[tuple[Span, str, str]]:
    _, processes = split_processes(function.body, effects, function.concurrent)
    for process in processes:
        if isinstance(process.statement, ir.While):
            yield process.statement.span, process.label, "a dataflow region has a while loop as a process"
    uses = [effects.of_body((process.statement,)).streams for process in processes]
    for stmt in function.body:
        if isinstance(stmt, ir.Alloc) and stmt.buffer.is_stream and not stmt.buffer.shape:
            name = stmt.buffer.name
            count = sum(name in streams for streams in uses)
            if count > 2:
                yield stmt.buffer.span, name, f"FIFO '{name}' joins {count} processes"


def _scheduled(trace: Sequence[Primitive], function: str, name: str) -> list[Place]:
    """The last primitive that speaks of a buffer or loop of a function."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    for step in reversed(trace):
        own = step.func in (None, function) or f"{function}:" in str(step)
        if own and word.search(str(step)) and step.span.line:
            return [Place(step.span, "scheduled here")]
    return []


def check_text(code: str) -> None:
    """Refuse a directive whose variable its function does not have: Vitis would ignore it or stop.

    Raises:
        BackendError: FX403, with the line of the text.
    """
    function = ""
    seen: set[str] = set()
    for number, line in enumerate(code.splitlines(), 1):
        if started := _FUNCTION.match(line):
            function = started[1]
            seen = set()
        found = _DIRECTIVE.match(line)
        if found is None:
            words: list[str] = re.findall(r"\w+", line.split("//")[0]) if "#pragma" not in line else []
            seen.update(words)
        elif found[1] not in seen and found[1] != "return":
            raise BackendError(
                "FX403",
                f"line {number} of the C++ has a directive for '{found[1]}', which '{function}' lacks",
                hint=line.strip(),
            )


def check_ports(bundles: int, ports: int | None, card: str) -> None:
    """Refuse more AXI ports than a card's memory takes.

    Raises:
        BackendError: FX403.
    """
    if ports is not None and bundles > ports:
        raise BackendError(
            "FX403",
            f"the top has {bundles} memory ports, {bundles - ports} more than {card} takes ({ports})",
            hint="put arguments into one bundle: configs={'bundles': {'A': 'gmem0', 'B': 'gmem0'}}",
        )
