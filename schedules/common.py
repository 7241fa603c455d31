"""What the hardware stages share."""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.nests import extent

BANKS = 64
"""Most banks of the inputs of a row, when neighbours are read together."""


def lanes(extent: int, wanted: int) -> int:
    """The most lanes, at most `wanted`, that divide an extent evenly."""
    return max(n for n in range(1, wanted + 1) if extent % n == 0)


def parallel(s: Schedule, loop: str, wanted: int) -> int:
    """Run a loop on as many lanes as divide it, at most `wanted`, a group every cycle; returns how many."""
    trips = next(extent(n) for n in walk(s.top_func.body) if isinstance(n, ir.For) and n.var == loop)
    wide = lanes(trips or 1, wanted)
    if wide > 1:
        s.split(loop, wide)
        s.unroll(f"{loop}.inner")
    s.pipeline(f"{loop}.outer" if wide > 1 else loop)
    return wide


def banks(s: Schedule, buffer: str, dim: int, factor: int) -> None:
    """Neighbours in different banks, so that `factor` of them are there in one cycle."""
    if factor > 1:
        s.partition(getattr(s, buffer), Partition.Cyclic, dim=dim, factor=factor)


def innermost(s: Schedule) -> None:
    """Every loop that holds no other one takes one element per cycle; those that fill arrays have no name."""
    for loop in walk(s.top_func.body):
        if isinstance(loop, ir.For) and not loop.var.startswith("_"):
            if not any(isinstance(n, ir.For | ir.While | ir.Call) for n in walk(loop.body)):
                s.pipeline(loop.var)


def users(s: Schedule, buffer: str) -> list[ir.Function]:
    """The functions that are passed a buffer, in the order of their calls."""
    return [
        s.program.function(n.func)
        for n in walk(s.top_func.body)
        if isinstance(n, ir.Call) and any(isinstance(a, ir.View) and a.buffer == buffer for a in n.args)
    ]


def stream(s: Schedule, buffer: str, producer: str = "", depth: int = 16) -> None:
    """Join the calls that write and read a buffer by a FIFO, so that they run at the same time.

    Only where one kernel reads it, which every kernel that calls no other does once and in order.

    Args:
        producer: the only kernel that writes in that order too, if others may stand in its place.
    """
    writer, *readers = users(s, buffer)
    in_order = not producer or writer.origin == producer
    if in_order and len(readers) == 1 and not any(isinstance(n, ir.Call) for n in readers[0].body):
        s.to(getattr(s, buffer), readers[0].name, depth=depth)


def grouped(s: Schedule, loop: str, weight_parallel: int) -> None:
    """Weights with scales per group: `weight_parallel` neighbours of a row meet the inputs of all tokens."""
    parallel(s, loop, weight_parallel)
    s.unroll("t")
    s.partition(s.X, Partition.Complete, dim=1)
    # Of the input's width alone: several weights may read it.
    banks(s, "X", 2, lanes(buffers(s.top_func)["X"].shape[1], BANKS))
    s.pipeline("t_y")


def candidates(s: Schedule) -> None:
    """A logit per cycle, compared with all that are kept at once."""
    for buffer in (s.value, s.index):
        s.partition(buffer, Partition.Complete, dim=1)
    s.pipeline("v")
    s.unroll("i")
