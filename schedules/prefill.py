"""Prefill: a block of tokens times a group of output channels in parallel.

Every weight read meets all tokens of the block, so the linear layers become `token_parallel` x
`weight_parallel` multiply-accumulate arrays.
"""

from __future__ import annotations

from functools import partial

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.stage import Stage

from . import hadamard
from .common import banks, innermost, lanes, shared


def linear(s: Schedule, weight_parallel: int = 16) -> None:
    """One column of inputs meets `weight_parallel` rows of W for all tokens in every cycle."""
    wide = lanes(buffers(s.top_func)["w_terms"].shape[0], weight_parallel)
    s.split("mac.n", wide)
    s.reorder("n.outer", "k", "mac.t", "n.inner")
    s.pipeline("k")
    s.unroll("mac.t")
    s.unroll("n.inner")
    s.partition(s.acc, Partition.Complete, dim=1)
    s.partition(s.X, Partition.Complete, dim=1)
    banks(s, "acc", 2, wide)
    s.pipeline("scale.n")


def spatial(token_parallel: int = 8, weight_parallel: int = 16) -> Stage:
    """Prefill in blocks of `token_parallel` tokens (at least 2), operators joined by FIFOs."""
    kernels = {
        "linear": partial(linear, weight_parallel=weight_parallel),
        **shared(weight_parallel),
        **hadamard.streamed(),
    }
    return Stage("prefill", token_parallel, kernels, innermost)
