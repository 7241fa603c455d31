"""Decode: one token, output channels in parallel.

Each weight is used once, so what counts is how many arrive per cycle.  Layers of one shape share
one engine: the model calls the same kernel instance for all of them.
"""

from __future__ import annotations

from flexllm_allo.schedule.stage import Stage

from . import attention, hadamard, linear
from .common import elementwise


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
    kernels = {
        **linear.engines(weight_parallel, block_parallel),
        **linear.streams(),
        **elementwise,
        **attention.engines(dot_parallel, head_parallel),
        **hadamard.temporal(),
    }
    return Stage("decode", 1, kernels)


def spatial(
    weight_parallel: int = 64, block_parallel: int = 1, dot_parallel: int = 64, head_parallel: int = 4
) -> Stage:
    """Decode whose Hadamard stages are processes of their own; the arguments are those of `temporal`."""
    kernels = {
        **linear.engines(weight_parallel, block_parallel),
        **linear.streams(),
        **elementwise,
        **attention.engines(dot_parallel, head_parallel),
        **hadamard.streamed(),
    }
    return Stage("decode", 1, kernels)
