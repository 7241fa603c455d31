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
PAIRS = 8
"""Butterflies of the engine that all stages of a Hadamard transform take in turn."""


def stage(
    name: str, numbers: Callable[P, Parallelism], *, streams: bool, spatial: bool, overlapped: bool = False
) -> Callable[P, Stage]:
    """A stage of inference as a function of what `numbers` takes.

    Args:
        name: how reports call it.
        numbers: gives how much of everything is done at once.
        streams: whether operators work at the same time, joined by FIFOs, or take turns.
        spatial: the same for the stages of the Hadamard transform.
        overlapped: whether a layer takes in the next block while it works on those before.
    """

    @wraps(numbers)
    def shaped(*args: P.args, **named: P.kwargs) -> Stage:
        p = numbers(*args, **named)
        made = kernels(p, streams, spatial)
        if overlapped:
            made |= dict.fromkeys(("self_attention", "mlp", "attend", "attend_static"), processes)
            made |= {"prefill": partial(overlap, loop="b")}
        return Stage(name, p.token_parallel, made, Schedule.pipeline)

    return shaped


def kernels(p: Parallelism, streams: bool, spatial: bool) -> dict[str, Lanes | Schedules]:
    """The schedule of every kernel that has one of its own, most as lanes of loops (0: all iterations)."""
    along, pairs = p.weight_parallel * p.block_parallel, max(PAIRS, p.lanes)
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
        "butterfly": hadamard.streamed if spatial else {"i": pairs, "i_late": pairs},
        "hadamard_stages": partial(stream, buffer="half") if spatial else Schedule.pipeline,
        "hadamard_finish": partial(hadamard.finish, lanes=1 if spatial else 2 * PAIRS),
    }
    for kernel, loop in ELEMENTWISE.items() if p.lanes > 1 else ():
        if not (spatial and loop == "i"):  # its stages take an element per cycle
            made[kernel] = {loop: p.lanes}
    if streams:
        made |= dict.fromkeys(("attention", "attention_static"), partial(overlap, loop="g"))
        joined = {"norm_quantize": "normed", "swiglu_quantize": "hidden", "gelu_quantize": "hidden"}
        joined |= {"rotate_quantize": "rotated", "linear_add": "Y"}
        made |= {kernel: partial(stream, buffer=buffer) for kernel, buffer in joined.items()}
    return made


def processes(s: Schedule) -> None:
    """The calls of a function as processes, unless one changes an array in place: they take turns then."""
    with suppress(StreamError):
        s.duplicate()
        s.dataflow()
    s.pipeline()


def overlap(s: Schedule, loop: str) -> None:
    """The next iteration begins as soon as the first process of the loop is done with the one before."""
    s.dataflow(loop)
    s.pipeline()


def stream(s: Schedule, buffer: str) -> None:
    """Join the calls that write and read a buffer by a FIFO, so that they run at the same time.

    A buffer stays an array where lanes share it, or where it is read in another order than it is written or
    more than once. (The last of the Hadamard stages has none behind it.)
    """
    found = buffers(s.top_func).get(buffer)
    if found and not found.banks:
        with suppress(StreamError):
            s.to(getattr(s, buffer), depth=16)
