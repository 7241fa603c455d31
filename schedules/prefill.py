"""Prefill: a block of tokens times a group of output channels in parallel.

Every weight read meets all tokens of the block, so the linear layers become `token_parallel` x
`weight_parallel` multiply-accumulate arrays.
"""

from __future__ import annotations

from flexllm_allo.schedule.stage import Stage

from .common import Parallelism, stage


def spatial(
    token_parallel: int = 8,
    weight_parallel: int = 16,
    block_parallel: int = 1,
    dot_parallel: int = 8,
    head_parallel: int = 1,
) -> Stage:
    """Prefill with operators that work at the same time, joined by FIFOs.

    Args:
        token_parallel: tokens in a block, at least 2.
        weight_parallel: output channels per cycle.
        block_parallel: input channels per cycle.
        dot_parallel: elements of a head per cycle, in attention.
        head_parallel: query heads of a group per cycle, in softmax.
    """
    p = Parallelism(token_parallel, weight_parallel, block_parallel, dot_parallel, head_parallel)
    return stage("prefill", p, streams=True, spatial_hadamard=True)


def temporal(
    token_parallel: int = 8,
    weight_parallel: int = 16,
    block_parallel: int = 1,
    dot_parallel: int = 8,
    head_parallel: int = 1,
) -> Stage:
    """Prefill with operators, and stages of the Hadamard transform, that take turns; arguments as above."""
    p = Parallelism(token_parallel, weight_parallel, block_parallel, dot_parallel, head_parallel)
    return stage("prefill", p, streams=False, spatial_hadamard=False)
