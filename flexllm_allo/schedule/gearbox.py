"""A gearbox: a process between two FIFOs whose tokens have other widths."""

from __future__ import annotations

from dataclasses import replace

from ..analysis.streams import NotEnumerable, sequence
from ..errors import Place, StreamError
from ..ir import nodes as ir
from ..ir.walk import buffers
from ..lowering import lower
from . import loops, memory
from .gears import Gear, collect, deal
from .names import fresh


def geared(
    program: ir.Program,
    function: ir.Function,
    array: ir.Buffer,
    producer: ir.Stmt,
    fifo: ir.Buffer,
    read: int,
) -> tuple[ir.Program, ir.Buffer, tuple[ir.Stmt, ...]]:
    """A FIFO with `read` elements per token for those that come by another one, and the process in between.

    Args:
        array: what the producer writes, and a FIFO is made of.

    Returns:
        The program with the process as a function before the given one; the FIFO; the call. Where tokens
        are what the reader takes already, what was given and no call.

    Raises:
        StreamError: FX304, how many elements there are depends on the run.
    """
    written = fifo.token[0] if fifo.token else 1
    if written == read:
        return program, fifo, ()
    gear = Gear(fifo.dtype, min(written, read), max(written, read))
    name = fresh(f"{fifo.name}_{read}", {*buffers(function), fifo.name})
    taken = replace(fifo, name=name, depth=2, token=(read,) if read > 1 else ())
    process = _process(gear, written < read, _passing(program, array, producer) // gear.many)
    taker, giver = process.params
    process = replace(process, params=(replace(taker, depth=fifo.depth), giver))
    known = {f.name: f for f in program.functions}
    if known.get(process.name) != process:
        process = replace(process, name=fresh(process.name, set(known)))
        at = next(i for i, f in enumerate(program.functions) if f.name == function.name)
        functions = (*program.functions[:at], process, *program.functions[at:])
        program = replace(program, functions=functions)
    call = ir.Call(process.name, tuple(ir.View(f.name, (), fifo.span) for f in (fifo, taken)), fifo.span)
    return program, taken, (call,)


def _passing(program: ir.Program, array: ir.Buffer, producer: ir.Stmt) -> int:
    """How many elements the producer writes."""
    try:
        return len(sequence(program, producer, array, write=True).elements)
    except NotEnumerable as error:
        raise StreamError(
            "FX304", f'how many elements of "{array.name}" a gearbox takes is not known: {error.reason}',
            at=[Place(error.span), Place(producer.span, "written in this statement")],
            hint="the same number of lanes on both sides needs no gearbox",
        ) from None  # fmt: skip


def _process(gear: Gear, wider: bool, tokens: int) -> ir.Function:
    """`collect` or `deal`, which takes or gives a narrow token per cycle and keeps one wide token."""
    program = lower(collect if wider else deal, [gear, tokens])
    name = program.top
    program = loops.pipeline(program, name, "k", gear.ratio)
    for loop in ("part", "u") if gear.few > 1 else ("part",):
        program = loops.unroll(program, name, loop)
    for buffer in buffers(program.function(name)).values():
        if buffer.shape:
            program = memory.partition(program, name, buffer.name)
    return replace(program.function(name), name=f"{name}_{gear.few}_{gear.many}")


__all__ = ["geared"]
