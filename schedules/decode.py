"""Decode: one token, output channels in parallel.

Each weight is used once, so what counts is how many arrive per cycle.  Layers of one shape share
one engine: the model calls the same kernel instance for all of them.
"""

from __future__ import annotations

from .common import Parallelism, stage


def numbers(
    weight_parallel: int = 64,
    block_parallel: int = 1,
    dot_parallel: int = 64,
    head_parallel: int = 4,
    macs_per_dsp: int = 1,
    lanes: int = 1,
    cycles: int = 0,
) -> Parallelism:
    """What decode does per cycle, for its one token.

    Args:
        weight_parallel: output channels per cycle.
        block_parallel: input channels per cycle.
        dot_parallel: elements of a head per cycle, in attention.
        head_parallel: query heads of a group per cycle, in softmax.
        macs_per_dsp: products of narrow integers that share a multiplier, at most: 1 or 2.
        lanes: elements per cycle of what works element by element.
        cycles: that a linear layer may take, if fewer output channels keep to it; 0: no matter.
    """
    return Parallelism(
        1, weight_parallel, block_parallel, dot_parallel, head_parallel, macs_per_dsp, lanes, cycles
    )


temporal = stage("decode", numbers, streams=True, spatial_hadamard=False)
"""One engine per layer shape, reused by all layers, and one for all stages of a Hadamard transform."""

spatial = stage("decode", numbers, streams=True, spatial_hadamard=True)
"""The same, with the stages of a Hadamard transform as processes of their own."""

overlapped = stage("decode", numbers, streams=True, spatial_hadamard=False, overlapped=True)
"""Projections of one input that work at the same time: of queries, keys and values, of gate and up."""
