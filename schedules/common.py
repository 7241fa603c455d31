"""What the hardware stages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk


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


def stream(s: Schedule, buffer: str, consumer: str, depth: int = 16) -> None:
    """Join the calls that write and read a buffer by a FIFO, so that they run at the same time."""
    called = [f for f in s.program.functions if f.origin == consumer]
    names = {n.func for n in s.top_func.body if isinstance(n, ir.Call)}
    target = next(f.name for f in called if f.name in names)
    s.to(getattr(s, buffer), target, depth=depth)


elementwise: dict[str, Callable[[Schedule], None]] = {
    "rms_norm": partial(pipeline, loops=("e_sum", "e_out")),
    "quantize": partial(pipeline, loops=("k_copy", "k_peak", "k_code")),
    "swiglu": partial(pipeline, loops=("i",)),
    "residual": partial(pipeline, loops=("i",)),
    "rope": partial(pipeline, loops=("i",)),
    "split_heads": partial(pipeline, loops=("d",)),
    "append_cache": partial(pipeline, loops=("d",)),
    "attention": partial(pipeline, loops=("d_qk", "s_exp", "s_w", "d_av", "d_out")),
    "embedding": partial(pipeline, loops=("e",)),
    "take_row": partial(pipeline, loops=("e",)),
    "greedy": partial(pipeline, loops=("v",)),
}
"""Kernels whose innermost loops take one element per cycle."""
