"""Decode: one token, output channels in parallel.

Each weight is used once, so what counts is how many arrive per cycle.  Layers of one shape share
one engine: the model calls the same kernel instance for all of them.
"""

from __future__ import annotations

from .common import Parallelism, stage


def numbers(
    weight_parallel: int = 64, block_parallel: int = 1, dot_parallel: int = 64, head_parallel: int = 4,
    macs_per_dsp: int = 1, lanes: int = 1, cycles: int = 0,
) -> Parallelism:  # fmt: skip
    """What decode does per cycle for its one token: a `Parallelism` with other numbers."""
    wide = (weight_parallel, block_parallel, dot_parallel, head_parallel, macs_per_dsp, lanes, cycles)
    return Parallelism(1, *wide)


temporal = stage("decode", numbers, streams=True, spatial=False)
"""One engine per layer shape, reused by all layers, and one for all stages of a Hadamard transform."""

spatial = stage("decode", numbers, streams=True, spatial=True)
"""The same, with a Hadamard transform that takes an element per cycle, as they come."""

overlapped = stage("decode", numbers, streams=True, spatial=False, overlapped=True)
"""Projections of one input that work at the same time: of queries, keys and values, of gate and up."""
