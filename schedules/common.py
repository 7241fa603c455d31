"""What the hardware stages share: the schedule of every kernel, as numbers shape it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from typing import ParamSpec

from flexllm_allo import Schedule
from flexllm_allo.errors import StreamError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Stage

from . import attention, hadamard, linear

P = ParamSpec("P")
GROUPED = ("linear_group", "linear_zero", "linear_progressive")
ELEMENTWISE = {
    **dict.fromkeys(("quantize", "quantize_minimum", "quantize_zero", "quantize_static"), "k_code"),
    **dict.fromkeys(("swiglu", "gelu", "residual"), "i"),
    "rms_norm": "e_out",
    "layer_norm": "e_out",
}
"""The loop of every such kernel whose iterations may run side by side."""
PAIRS = 8
"""Butterflies of the engine that all stages of a Hadamard transform take in turn."""


@dataclass(frozen=True)
class Parallelism:
    """What is done per cycle.

    Attributes:
        token: tokens in a block, all of which meet a weight at once.
        weight: output channels of a linear layer.
        block: input channels of a linear layer.
        dot: elements of a head, in attention.
        head: query heads of a group, in softmax.
        macs_per_dsp: products of narrow integers that share a multiplier, at most: 1, 2 or 4.
        lanes: elements of what works element by element: scales, norms, quantizers, activations.
        cycles: that a linear layer may take for a block: one that needs fewer output channels at once to
            keep to it has no more, so that layers of all shapes take the same time; 0 for as few as may be.
    """

    token: int
    weight: int
    block: int
    dot: int
    head: int
    macs_per_dsp: int = 1
    lanes: int = 1
    cycles: int = 0


def stage(
    name: str,
    numbers: Callable[P, Parallelism],
    *,
    streams: bool,
    spatial_hadamard: bool,
    overlapped: bool = False,
) -> Callable[P, Stage]:
    """A stage of inference as a function of what `numbers` takes.

    Args:
        name: how reports call it.
        numbers: gives how much of everything is done at once.
        streams: whether operators work at the same time, joined by FIFOs, or take turns.
        spatial_hadamard: the same for the stages of the Hadamard transform.
        overlapped: whether a layer takes in the next block while it works on those before.
    """

    @wraps(numbers)
    def shaped(*args: P.args, **named: P.kwargs) -> Stage:
        p = numbers(*args, **named)
        made = kernels(p, streams, spatial_hadamard)
        if overlapped:
            made |= {"self_attention": processes, "mlp": processes, "prefill": blocks}
        return Stage(name, p.token, made, Schedule.pipeline)

    return shaped


def kernels(p: Parallelism, streams: bool, spatial_hadamard: bool) -> dict[str, Callable[[Schedule], None]]:
    """The schedule of every kernel that has one of its own."""
    along = p.weight * p.block  # weights with scales per group are read along rows of W
    made = {
        "linear": partial(
            linear.linear,
            rows=p.weight,
            columns=p.block,
            macs_per_dsp=p.macs_per_dsp,
            lanes=p.lanes,
            cycles=p.cycles,
        ),
        **dict.fromkeys(GROUPED, partial(linear.grouped, columns=along)),
        "linear_sparse": partial(linear.grouped, columns=max(1, along // 4), loop="q"),
        "scores": partial(attention.products, elements=p.dot, once=("t_s", "j_s"), lanes=p.lanes),
        "weigh": partial(attention.weigh, heads=p.head),
        "mix": partial(attention.products, elements=p.dot, once=("t_c", "j_c"), lanes=p.lanes),
        **dict.fromkeys(("append_cache", "append_codes"), attention.append),
        "candidates": candidates,
        "butterfly": hadamard.streamed
        if spatial_hadamard
        else partial(hadamard.butterfly, pairs=max(PAIRS, p.lanes)),
        "hadamard_finish": partial(hadamard.finish, lanes=1 if spatial_hadamard else 2 * PAIRS),
    }
    if spatial_hadamard:
        made |= {"hadamard_stages": partial(stream, buffer="half")}
    for kernel, loop in ELEMENTWISE.items() if p.lanes > 1 else ():
        if not (spatial_hadamard and loop == "i"):  # its stages take an element per cycle
            made[kernel] = partial(elementwise, loop=loop, lanes=p.lanes)
    if streams:
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


def blocks(s: Schedule) -> None:
    """The next block enters a layer as soon as the first operator is done with the one before."""
    s.dataflow("b")
    s.pipeline()


def candidates(s: Schedule) -> None:
    """A logit per cycle, compared with all that are kept at once."""
    s.vectorize("i")
    s.pipeline()


def elementwise(s: Schedule, loop: str, lanes: int) -> None:
    """So many elements per cycle."""
    s.vectorize(loop, lanes)
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
