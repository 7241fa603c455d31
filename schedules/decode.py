"""Decode: one token, output channels in parallel.

Each weight is used once, so what counts is how many arrive per cycle.  Layers of one shape share
one engine: the model calls the same kernel instance for all of them.
"""

from __future__ import annotations

from flexllm_allo.schedule.stage import Stage

from .common import Parallelism, stage


def temporal(
    weight_parallel: int = 64, block_parallel: int = 1, dot_parallel: int = 64, head_parallel: int = 4
) -> Stage:
    """Decode with one engine per layer shape, reused by all layers, and one for all Hadamard stages.

    Args:
        weight_parallel: output channels per cycle.
        block_parallel: input channels per cycle.
        dot_parallel: elements of a head per cycle, in attention.
        head_parallel: query heads of a group per cycle, in softmax.
    """
    p = Parallelism(1, weight_parallel, block_parallel, dot_parallel, head_parallel)
    return stage("decode", p, streams=True, spatial_hadamard=False)


def spatial(
    weight_parallel: int = 64, block_parallel: int = 1, dot_parallel: int = 64, head_parallel: int = 4
) -> Stage:
    """Decode whose Hadamard stages are processes of their own; the arguments are those of `temporal`."""
    p = Parallelism(1, weight_parallel, block_parallel, dot_parallel, head_parallel)
    return stage("decode", p, streams=True, spatial_hadamard=True)
