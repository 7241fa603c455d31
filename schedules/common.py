"""What the hardware stages share: the schedule of every kernel, as numbers shape it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import ParamSpec

from flexllm_allo import Schedule
from flexllm_allo.errors import StreamError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Lanes, Schedules, Stage
from flexllm_allo.schedule.tiles import in_tiles, wide

from . import attention, hadamard, linear
from .parallelism import Parallelism

P = ParamSpec("P")
GROUPED = ("linear_group", "linear_zero", "linear_progressive")
"""Linear layers whose weights have scales per group: they are read along rows of W."""
ELEMENTWISE = {
    **dict.fromkeys(("quantize", "quantize_minimum", "quantize_zero", "quantize_static"), "k_code"),
    **dict.fromkeys(("swiglu", "gelu", "residual"), "i"),
    **dict.fromkeys(("rms_norm", "layer_norm"), "e_out"),
}
"""The loop of every such kernel whose iterations may run side by side."""
PROCESSES = "self_attention mlp attend attend_static norm_quantize swiglu_quantize linear_add".split()
"""Functions whose calls are processes where blocks overlap."""


def stage(
    name: str, numbers: Callable[P, Parallelism], *, streams: bool, spatial: bool, overlapped: bool = False
) -> Callable[P, Stage]:
    """A stage of inference as a function of what `numbers` takes.

    Args:
        name: how reports call it.
        numbers: gives how much of everything is done at once.
        streams: whether operators work at the same time, joined by FIFOs, or take turns.
        spatial: the same for the rows of a Hadamard transform.
        overlapped: whether a layer takes in the next block while it works on those before.
    """

    @wraps(numbers)
    def shaped(*args: P.args, **named: P.kwargs) -> Stage:
        p = numbers(*args, **named)
        made = kernels(p, streams, spatial)
        if overlapped:
            joined = ("gate up first x o again y z " if p.lanes > 1 else "") + "normed hidden Y"
            made |= dict.fromkeys(PROCESSES, partial(processes, joined=joined))
            made["prefill"] = partial(overlap, loops="e b", joined=joined)
        return Stage(name, p.token_parallel, made, Schedule.pipeline)

    return shaped


def kernels(p: Parallelism, streams: bool, spatial: bool) -> dict[str, Lanes | Schedules]:
    """The schedule of every kernel that has one of its own, most as lanes of loops (0: all iterations)."""
    along, pairs = p.weight_parallel * p.block_parallel, max(8, 2 * p.lanes)
    heads = p.head_parallel * (2 if p.token_parallel > 1 else 1)
    made: dict[str, Lanes | Schedules] = {
        "linear": partial(linear.linear, p=p),
        **{kernel: {"k": along, "t": 0} for kernel in GROUPED},
        "linear_sparse": {"q": max(1, along // 4), "t": 0},
        "scores": partial(attention.products, p=p, once="t_s j_s", lanes={"p": 0, "d_q": p.lanes}),
        "weigh": {"t_e j_e": heads, "t j": heads},
        "mix": partial(attention.products, p=p, once="t_c j_c", lanes={"d_y": p.lanes}),
        "append_codes": attention.append,
        "candidates": {"i": 0},
        "swiglu": partial(in_tiles, outer="t", along="i", size=p.weight_parallel * (p.lanes > 1)),
        "butterfly": {"i": pairs},
        "base_product": hadamard.base,
        "hadamard": partial(hadamard.rows, lanes=(min(2, p.lanes), 1) if spatial else (2 * pairs, 2 * pairs)),
    }
    streamed = ("i", "e_out") if spatial else ()  # loops of stages that take an element per cycle
    wider = {k: loop for k, loop in ELEMENTWISE.items() if p.lanes > 1 and loop not in streamed}
    made |= {kernel: partial(wide, loop=loop, lanes=p.lanes) for kernel, loop in wider.items()}
    if streams:
        made |= dict.fromkeys(("attention", "attention_static"), partial(overlap, loops="g"))
        joined = {"norm_quantize": "normed", "swiglu_quantize": "hidden", "gelu_quantize": "hidden"}
        joined |= {"rotate_quantize": "rotated", "linear_add": "Y"}
        made |= {kernel: partial(stream, names=name) for kernel, name in joined.items()}
    return made


def processes(s: Schedule, joined: str) -> None:
    """The calls of a function as processes, unless one changes an array in place: they take turns then."""
    with suppress(StreamError):
        s.duplicate()
        s.dataflow()
    stream(s, joined)
    s.pipeline()


def overlap(s: Schedule, loops: str, joined: str = "") -> None:
    """The next iteration begins as soon as the first process of a loop is done with the one before."""
    for loop in loops.split():
        s.dataflow(loop)
    stream(s, joined)
    s.pipeline()


def stream(s: Schedule, names: str) -> None:
    """Join the calls that write and read an array by a FIFO, so that they run at the same time.

    A token holds what the lanes of a call put, or get, together. An array stays one where it is read in
    another order than it is written or more than once. (Not all functions have all of them.)
    """
    for name in names.split():
        if name in buffers(s.top_func):
            with suppress(StreamError):
                s.to(name, depth=16, lanes=0)
