"""Integer formats: how many bits, which codes, and what shares a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Granularity = Literal["per_channel", "per_token", "per_token_and_head"]


@dataclass(frozen=True)
class IntFormat:
    """Symmetric integers: value = code * scale, with one float32 scale per unit of `granularity`.

    Attributes:
        bits: width of a code in memory.
        granularity: ``per_channel`` is one scale per output channel of a weight [N, K]; ``per_token``
            one per row of activations; ``per_token_and_head`` one per head of a row (queries, keys, values).
        full_range: whether the lowest two's complement code is used. int8 leaves -128 out, so that codes
            can be negated and two products fit one DSP multiplication; int4 uses -8, which costs
            nothing in a weight and, at equal scale, can only lower the error.
        dynamic: the scale is computed at run time from the values at hand (activations), not stored.
    """

    bits: int
    granularity: Granularity
    full_range: bool = False
    dynamic: bool = False

    @property
    def high(self) -> int:
        """The highest code; the scale maps the largest magnitude to it."""
        return 2 ** (self.bits - 1) - 1

    @property
    def low(self) -> int:
        """The lowest code."""
        return -self.high - (1 if self.full_range else 0)

    def bits_per_weight(self, reduction: int) -> float:
        """Stored bits per weight of a matrix [N, reduction], its float32 scales included."""
        return self.bits + 32 / reduction


INT8_WEIGHT = IntFormat(8, "per_channel")
INT4_WEIGHT = IntFormat(4, "per_channel", full_range=True)
INT8_ACTIVATION = IntFormat(8, "per_token", dynamic=True)
INT8_KV = IntFormat(8, "per_token_and_head", dynamic=True)
