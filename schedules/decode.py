"""Decode: one token, output channels in parallel.

Each weight is used once, so what counts is how many arrive per cycle.  Layers of one shape share
one engine: the model calls the same kernel instance for all of them.
"""

from __future__ import annotations

from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Stage

from . import hadamard
from .common import banks, innermost, lanes, shared


def linear(s: Schedule, weight_parallel: int = 64) -> None:
    """One input element meets `weight_parallel` rows of W in every cycle."""
    wide = lanes(buffers(s.top_func)["w_terms"].shape[0], weight_parallel)
    s.split("mac.n", wide)
    s.reorder("n.outer", "k", "n.inner")
    s.pipeline("k")
    s.unroll("n.inner")
    banks(s, "acc", 2, wide)
    s.pipeline("scale.n")


def temporal(weight_parallel: int = 64) -> Stage:
    """Decode with one engine per layer shape, reused by all layers."""
    kernels = {
        "linear": partial(linear, weight_parallel=weight_parallel),
        **shared(weight_parallel),
        **hadamard.temporal(),
    }
    return Stage("decode", 1, kernels, innermost)
