"""How much a stage does per cycle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parallelism:
    """What is done per cycle. The numbers fit prefill.

    Attributes:
        token_parallel: tokens in a block, all of which meet a weight at once.
        weight_parallel: output channels of a linear layer.
        block_parallel: input channels of a linear layer.
        dot_parallel: elements of a head that meet all queries of a token in attention; a block takes whole
            heads.
        head_parallel: query heads of a group, in softmax; for a block, in the products of attention, whose
            softmax, which reads all scores twice, takes two times as many.
        macs_per_dsp: products of narrow integers that share a multiplier, at most: 1, 2 or 4.
        lanes: elements of what works element by element: scales, norms, quantizers, activations.
        cycles: that a linear layer may take for a block: one that needs fewer output channels at once to
            keep to it has no more, so that layers of all shapes take the same time; 0 for as few as may be.
    """

    token_parallel: int = 8
    weight_parallel: int = 16
    block_parallel: int = 1
    dot_parallel: int = 8
    head_parallel: int = 1
    macs_per_dsp: int = 1
    lanes: int = 1
    cycles: int = 0
