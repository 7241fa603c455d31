"""Number formats as data: how many bits, which codes, what shares a scale, what all of it costs in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Granularity = Literal["per_tensor", "per_channel", "per_group", "per_head", "per_token", "per_token_and_head"]
Zero = Literal["none", "integer", "float"]
ScaleType = Literal["float32", "float16"]
IndexCode = Literal["2bit", "3bit"]

SCALE_BITS = {"float32": 32, "float16": 16}


@dataclass(frozen=True)
class NM:
    """N:M sparsity: of every `m` weights in a row, aligned, at most `n` are kept.

    Attributes:
        index: ``2bit`` stores a position per kept weight; ``3bit`` one code per group of four, which is
            enough for the C(4, 2) = 6 patterns of 2:4.
    """

    n: int = 2
    m: int = 4
    index: IndexCode = "2bit"

    @property
    def density(self) -> float:
        """The part of the weights that is kept."""
        return self.n / self.m

    def index_bits(self) -> float:
        """Bits of position data per original weight."""
        return 3 / self.m if self.index == "3bit" else self.density * math.ceil(math.log2(self.m))


@dataclass(frozen=True)
class BlockNM:
    """Block sparsity (FlightLLM): 16 x 16 blocks, each with a density of its own out of `choices` : 16.

    A kept value has a 4-bit position in its row of 16; a block has one byte that says its density.
    """

    block: int = 16
    choices: tuple[int, ...] = (2, 4, 8, 16)


@dataclass(frozen=True)
class IntFormat:
    """Integers with a scale: value = (code - zero) * scale, or code * scale + offset for a float zero.

    Attributes:
        bits: width of a code, 2 to 8.
        granularity: what shares a scale. Weights [N, K]: ``per_tensor``, ``per_channel`` (a row, which is
            an output channel) or ``per_group`` (`group` neighbours in a row). Activations: ``per_token``
            (a row). Queries, keys, values and probabilities: ``per_head``, or ``per_token_and_head``.
        full_range: whether a symmetric format uses the lowest two's complement code. int8 leaves -128 out, so
            that codes can be negated and two products fit one DSP multiplication; int4 uses -8, which costs
            nothing in a weight and, at equal scale, can only lower the error.
        dynamic: the scale is computed at run time from the values at hand (activations), not stored.
        zero: ``none`` is symmetric with signed codes. The others are asymmetric with unsigned codes:
            ``integer`` forces the range to contain 0 and clamps (SpinQuant, GPTQ), ``float`` keeps the
            minimum as an offset and never clamps (FlexLLM). The two give different codes for one tensor.
        group: weights that share a scale, for ``per_group``.
        scale: type in which scales are stored; computations are in float32 either way.
        sparsity: 2:4 for weights, or None.
    """

    bits: int
    granularity: Granularity
    full_range: bool = False
    dynamic: bool = False
    zero: Zero = "none"
    group: int = 0
    scale: ScaleType = "float32"
    sparsity: NM | None = None

    @property
    def signed(self) -> bool:
        """Symmetric formats have signed codes, asymmetric ones unsigned."""
        return self.zero == "none"

    @property
    def high(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def low(self) -> int:
        """The lowest code."""
        if not self.signed:
            return 0
        return -self.high - (1 if self.full_range else 0)

    def groups(self, reduction: int) -> int:
        """Scales per row of `reduction` weights."""
        return reduction // self.group if self.granularity == "per_group" else 1

    def bits_per_weight(self, reduction: int) -> float:
        """Stored bits per weight of a matrix [N, reduction]: codes, positions, scales and zero points.

        With sparsity this is per original weight; groups count original weights too.
        """
        kept = self.sparsity.density if self.sparsity else 1.0
        index = self.sparsity.index_bits() if self.sparsity else 0.0
        zero = {"none": 0, "integer": self.bits, "float": SCALE_BITS[self.scale]}[self.zero]
        return self.bits * kept + index + (SCALE_BITS[self.scale] + zero) * self.groups(reduction) / reduction


@dataclass(frozen=True)
class ProgressiveFormat:
    """Two levels of integers (QoQ): 4-bit codes become int8 weights by integer arithmetic alone.

    Level 1 is int8 per output channel within +-`limit`; level 2, per group of `group` weights, is
    ``w8 = (code - zero) * step`` with an 8-bit step and a `bits`-bit zero. The protective range of 119 keeps
    ``w8`` inside int8, because level 2 errs by at most step / 2 <= 8.
    """

    bits: int = 4
    group: int = 64
    limit: int = 119
    scale: ScaleType = "float32"

    @property
    def high(self) -> int:
        """The highest code of level 2."""
        return 2**self.bits - 1

    @property
    def low(self) -> int:
        return 0

    @property
    def signed(self) -> bool:
        return False

    @property
    def largest(self) -> int:
        """No integer weight exceeds it: `limit` and half of the widest step."""
        step = (2 * self.limit + self.high // 2) // self.high
        return self.limit + -(-step // 2)

    def groups(self, reduction: int) -> int:
        """Steps and zeros per row of `reduction` weights."""
        return reduction // self.group

    def bits_per_weight(self, reduction: int) -> float:
        """Stored bits per weight: code, step and zero of its group, scale of its channel."""
        return self.bits + (8 + self.bits) / self.group + SCALE_BITS[self.scale] / reduction


@dataclass(frozen=True)
class NestedFormat:
    """Bit planes (Any-Precision): the top m bits of a code are a code of m bits, m from `low` to `bits`.

    A code of m bits names one of 2**m float centroids of its row. Whoever reads the first m planes reads the
    model at m bits; precision is chosen at run time.
    """

    bits: int = 4
    low: int = 2
    scale: ScaleType = "float16"

    @property
    def precisions(self) -> range:
        """The widths that can be read."""
        return range(self.low, self.bits + 1)

    def bits_per_weight(self, reduction: int) -> float:
        """Stored bits per weight: all planes, the centroids of all precisions."""
        return self.bits + SCALE_BITS[self.scale] * sum(2**m for m in self.precisions) / reduction

    def bits_read(self, precision: int, reduction: int) -> float:
        """Bits per weight that a pass at `precision` bits reads: its planes, its centroids."""
        return precision + SCALE_BITS[self.scale] * 2**precision / reduction


@dataclass(frozen=True)
class FloatFormat:
    """Floating point of `bits` bits: 32, or 16 for half precision."""

    bits: int = 32

    def bits_per_weight(self, reduction: int) -> float:
        """Stored bits per weight."""
        del reduction
        return self.bits


WeightFormat = IntFormat | ProgressiveFormat
ActivationFormat = IntFormat | FloatFormat

INT8_WEIGHT = IntFormat(8, "per_channel")
INT4_WEIGHT = IntFormat(4, "per_channel", full_range=True)
INT8_ACTIVATION = IntFormat(8, "per_token", dynamic=True)
INT8_KV = IntFormat(8, "per_token_and_head", dynamic=True)
