"""Linear layers: one array of multipliers, tokens x output channels x columns, which stages shape by numbers.

With many tokens it is prefill's two-dimensional array, a column of inputs against rows of W for all tokens in
every cycle; with one token and several columns decode's dot products, trees of adders over a piece of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.memory import Partition

from .common import BANKS, grouped, lanes, stream


def linear(s: Schedule, weight_parallel: int, block_parallel: int = 1) -> None:
    """All tokens meet `block_parallel` columns of `weight_parallel` rows of W in every cycle."""
    tokens, width = buffers(s.top_func)["X"].shape
    wide = lanes(buffers(s.top_func)["w_terms"].shape[0], weight_parallel)
    deep = lanes(width, min(block_parallel, BANKS))
    s.split("mac.n", wide)
    if deep > 1:
        s.split("k", deep)
        s.reorder("n.outer", "k.outer", "mac.t", "n.inner", "k.inner")
        s.unroll("k.inner")
    else:
        s.reorder("n.outer", "k", "mac.t", "n.inner")
    s.pipeline("k.outer" if deep > 1 else "k")
    s.unroll("mac.t")
    s.unroll("n.inner")
    if tokens > 1:
        s.partition(s.acc, Partition.Complete, dim=1)
        s.partition(s.X, Partition.Complete, dim=1)
    if wide > 1:
        s.partition(s.acc, Partition.Cyclic, dim=2, factor=wide)
    if deep > 1:
        s.partition(s.X, Partition.Cyclic, dim=2, factor=lanes(width, BANKS))  # as `grouped` has it
    s.pipeline("scale.n")


def engines(weight_parallel: int, block_parallel: int = 1) -> dict[str, Callable[[Schedule], None]]:
    """Kernels of all linear layers, for a stage; those with scales per group read along rows of W."""
    along = weight_parallel * block_parallel
    return {
        "linear": partial(linear, weight_parallel=weight_parallel, block_parallel=block_parallel),
        "linear_group": partial(grouped, loop="k", parallel=along),
        "linear_zero": partial(grouped, loop="k", parallel=along),
        "linear_progressive": partial(grouped, loop="k", parallel=along),
        "linear_sparse": partial(grouped, loop="q", parallel=max(1, along // 4)),
    }


def streams() -> dict[str, Callable[[Schedule], None]]:
    """FIFOs between operators, so that they work at the same time."""
    return {
        "norm_quantize": partial(stream, buffer="normed"),
        "swiglu_quantize": partial(stream, buffer="hidden"),
        "rotate_quantize": partial(stream, buffer="rotated"),
        "linear_add": partial(stream, buffer="Y", producer="linear"),
    }
