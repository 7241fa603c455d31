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
PAIRS = 8
"""Butterflies of the engine that all stages of a Hadamard transform take in turn."""


@dataclass(frozen=True)
class Parallelism:
    """What is done per cycle. The numbers fit prefill.

    Attributes:
        token_parallel: tokens in a block, all of which meet a weight at once.
        weight_parallel: output channels of a linear layer.
        block_parallel: input channels of a linear layer.
        dot_parallel: elements of a head, in attention.
        head_parallel: query heads of a group, in softmax.
        macs_per_dsp: products of narrow integers that share a multiplier, at most: 1, 2 or 4.
    """

    token_parallel: int = 8
    weight_parallel: int = 16
    block_parallel: int = 1
    dot_parallel: int = 8
    head_parallel: int = 1
    macs_per_dsp: int = 1


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
            made |= dict.fromkeys(("self_attention", "mlp", "attend", "attend_static"), processes)
            made |= {"prefill": partial(overlap, loop="b")}
        return Stage(name, p.token_parallel, made, Schedule.pipeline)

    return shaped


def kernels(p: Parallelism, streams: bool, spatial_hadamard: bool) -> dict[str, Callable[[Schedule], None]]:
    """The schedule of every kernel that has one of its own."""
    rows, columns = p.weight_parallel, p.block_parallel
    along = rows * columns  # weights with scales per group are read along rows of W
    made = {
        "linear": partial(linear.linear, rows=rows, columns=columns, macs_per_dsp=p.macs_per_dsp),
        **dict.fromkeys(GROUPED, partial(linear.grouped, columns=along)),
        "linear_sparse": partial(linear.grouped, columns=max(1, along // 4), loop="q"),
        "scores": partial(attention.products, elements=p.dot_parallel, once=("t_s", "j_s")),
        "weigh": partial(attention.weigh, heads=p.head_parallel),
        "mix": partial(attention.products, elements=p.dot_parallel, once=("t_c", "j_c")),
        "append_codes": attention.append,
        "candidates": candidates,
        "butterfly": hadamard.streamed if spatial_hadamard else partial(hadamard.butterfly, pairs=PAIRS),
        "hadamard_finish": partial(hadamard.finish, lanes=1 if spatial_hadamard else 2 * PAIRS),
    }
    if spatial_hadamard:
        made |= {"hadamard_stages": partial(stream, buffer="half")}
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


def candidates(s: Schedule) -> None:
    """A logit per cycle, compared with all that are kept at once."""
    s.vectorize("i")
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
