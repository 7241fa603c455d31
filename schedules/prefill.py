"""Prefill: a block of tokens times a group of output channels in parallel.

Every weight read meets all tokens of the block, so the linear layers become `token_parallel` x
`weight_parallel` multiply-accumulate arrays.
"""

from __future__ import annotations

from .common import Parallelism, stage


def numbers(
    token_parallel: int = 8,
    weight_parallel: int = 16,
    block_parallel: int = 1,
    dot_parallel: int = 8,
    head_parallel: int = 1,
    macs_per_dsp: int = 1,
    lanes: int = 1,
    cycles: int = 0,
) -> Parallelism:
    """What prefill does per cycle.

    Args:
        token_parallel: tokens in a block, at least 2.
        weight_parallel: output channels per cycle.
        block_parallel: input channels per cycle.
        dot_parallel: elements of a head per cycle, in attention.
        head_parallel: query heads of a group per cycle, in softmax.
        macs_per_dsp: products of narrow integers that share a multiplier, at most: 1, 2 or 4.
        lanes: elements per cycle of what works element by element.
        cycles: that a linear layer may take for a block, if fewer output channels keep to it; 0: no matter.
    """
    sizes = (token_parallel, weight_parallel, block_parallel, dot_parallel, head_parallel)
    return Parallelism(*sizes, macs_per_dsp, lanes, cycles)


spatial = stage("prefill", numbers, streams=True, spatial_hadamard=True, overlapped=True)
"""Operators, and stages of the Hadamard transform, that work at the same time, each on another block."""

temporal = stage("prefill", numbers, streams=False, spatial_hadamard=False)
"""Operators, and stages of the Hadamard transform, that take turns."""

overlapped = stage("prefill", numbers, streams=True, spatial_hadamard=False, overlapped=True)
"""As `spatial`, with one engine for all stages of a Hadamard transform."""
