"""What the hardware stages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.nests import extent


def lanes(extent: int, wanted: int) -> int:
    """The most lanes, at most `wanted`, that divide an extent evenly."""
    return max(n for n in range(1, wanted + 1) if extent % n == 0)


def is_float(s: Schedule, buffer: str) -> bool:
    """Whether a buffer of the function holds floats."""
    return buffers(s.top_func)[buffer].dtype.is_float


def pipeline(s: Schedule, loops: tuple[str, ...]) -> None:
    """Pipeline those of the named loops that this instance of the kernel has."""
    present = {n.var for n in walk(s.top_func.body) if isinstance(n, ir.For)}
    for loop in loops:
        if loop in present:
            s.pipeline(loop)


def stream(s: Schedule, buffer: str, producer: str = "", depth: int = 16) -> None:
    """Join the calls that write and read a buffer by a FIFO, so that they run at the same time.

    Only where one kernel reads it, which every kernel that calls no other does once and in order.

    Args:
        producer: the only kernel that writes in that order too, if others may stand in its place.
    """
    writer, *readers = (
        s.program.function(n.func)
        for n in s.top_func.body
        if isinstance(n, ir.Call) and any(isinstance(a, ir.View) and a.buffer == buffer for a in n.args)
    )
    in_order = not producer or writer.origin == producer
    if in_order and len(readers) == 1 and not any(isinstance(n, ir.Call) for n in readers[0].body):
        s.to(getattr(s, buffer), readers[0].name, depth=depth)


BANKS = 64
"""Most banks of the inputs of a row, when neighbours are read together."""


def grouped(s: Schedule, loop: str, parallel: int) -> None:
    """Weights with scales per group: `parallel` neighbours of a row meet the inputs of all tokens."""
    width = buffers(s.top_func)["X"].shape[1]
    trips = next(extent(n) for n in walk(s.top_func.body) if isinstance(n, ir.For) and n.var == loop)
    wide = lanes(trips or 1, parallel)
    inner = f"{loop}.inner" if wide > 1 else loop
    if wide > 1:
        s.split(loop, wide)
        s.unroll(inner)
    s.pipeline(f"{loop}.outer" if wide > 1 else loop)
    s.unroll("t")
    s.partition(s.X, Partition.Complete, dim=1)
    banks = lanes(width, BANKS)  # of the input's width alone: several weights may read it
    if banks > 1:
        s.partition(s.X, Partition.Cyclic, dim=2, factor=banks)
    s.pipeline("t_y")


def candidates(s: Schedule) -> None:
    """A logit per cycle, compared with all that are kept at once."""
    for buffer in (s.value, s.index):
        s.partition(buffer, Partition.Complete, dim=1)
    s.pipeline("v")
    s.unroll("i")


elementwise: dict[str, Callable[[Schedule], None]] = {
    "rms_norm": partial(pipeline, loops=("e_sum", "e_out")),
    "keep": partial(pipeline, loops=("k_copy",)),
    "quantize": partial(pipeline, loops=("k_peak", "k_code")),
    "quantize_minimum": partial(pipeline, loops=("k_peak", "k_code")),
    "quantize_zero": partial(pipeline, loops=("k_peak", "k_code")),
    "quantize_static": partial(pipeline, loops=("k_code",)),
    "take_columns": partial(pipeline, loops=("k_rest", "c", "c_zero")),
    "project": partial(pipeline, loops=("k_dot",)),
    "join_terms": partial(pipeline, loops=("p", "c")),
    "swiglu": partial(pipeline, loops=("i",)),
    "residual": partial(pipeline, loops=("i",)),
    "rope": partial(pipeline, loops=("i",)),
    "split_heads": partial(pipeline, loops=("d",)),
    "append_cache": partial(pipeline, loops=("d",)),
    "append_codes": partial(pipeline, loops=("d",)),
    "embedding": partial(pipeline, loops=("e",)),
    "take_row": partial(pipeline, loops=("e",)),
    "candidates": candidates,
    "sample": partial(pipeline, loops=("i_sum", "i_mass", "i_pick")),
}
"""Kernels whose innermost loops take one element per cycle."""
