"""Tokens that are arrays: an ``hls::vector`` in the FIFO, packed and unpacked by small loops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from math import prod

from ...ir import nodes as ir
from .expressions import emit
from .scope import Scope, block_type, flat_index
from .types import Range, storage_type
from .values import Value
from .writer import Writer


def block_comment(buffer: ir.Buffer) -> str:
    """What Allo writes above the declaration of such a FIFO."""
    ctype, dims = storage_type(buffer.dtype, buffer.span), "".join(f"[{n}]" for n in buffer.token)
    packed = f"hls::vector<{ctype}, {prod(buffer.token)}>"
    return f"// Stream of vectors: each vector packs {ctype} array{dims} into {packed}"


def write_block(stmt: ir.Put, view: ir.View, scope: Scope, out: Writer) -> None:
    """Pack the array into a vector and write that."""
    fifo = scope.variable(stmt.stream).buffer
    name = scope.unused(f"{fifo.name}_block")
    with out.block(""):
        out.line(f"{block_type(fifo)} {name};")
        fixed = [emit(i, scope) for i in view.indices]
        _each(name, view.buffer, fixed, fifo.token, scope, out, packs=True)
        place = scope.element(stmt.stream, [emit(i, scope) for i in stmt.indices])
        out.line(f"{place}.write({name});")


def read_block(stmt: ir.Get, scope: Scope, out: Writer) -> None:
    """Read a vector and unpack it into the array."""
    fifo = scope.variable(stmt.stream).buffer
    name = scope.unused(f"{fifo.name}_block")
    with out.block(""):
        place = scope.element(stmt.stream, [emit(i, scope) for i in stmt.indices])
        out.line(f"{block_type(fifo)} {name} = {place}.read();")
        _each(name, stmt.target, [], fifo.token, scope, out, packs=False)


def _each(
    name: str,
    array: str,
    fixed: Sequence[Value],
    shape: tuple[int, ...],
    scope: Scope,
    out: Writer,
    *,
    packs: bool,
) -> None:
    """Loops over the elements of a block."""
    counters: list[Value] = []
    entered: list[tuple[str, Value | None]] = []
    with ExitStack() as nest:
        for axis, extent in enumerate(shape):
            var = f"b{axis}"
            counter, outer = scope.enter(var, Range(0, extent - 1))
            entered.append((var, outer))
            counters.append(scope.loop(var))
            head = f"for (int {counter} = 0; {counter} < {extent}; {counter}++)"
            nest.enter_context(out.block(head))
        out.pragma("unroll")
        lane = f"{name}[{flat_index(shape, counters).text}]"
        element = scope.element(array, [*fixed, *counters])
        out.line(f"{lane} = {element};" if packs else f"{element} = {lane};")
    for var, outer in reversed(entered):
        scope.leave(var, outer)


__all__ = ["block_comment", "read_block", "write_block"]
