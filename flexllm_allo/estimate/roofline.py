"""Rooflines: bytes a token moves, what memory and multipliers allow at most, and where the two meet.

Ceilings, not predictions: a design reaches them only if it overlaps everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ..errors import EstimateError
from ..hardware.devices import Device
from ..hardware.packing import dsp_family


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """What one token of one sequence reads and writes off chip while it is decoded.

    Attributes:
        weights: all matrices it is multiplied with, the vocabulary head among them.
        scales: and zero points, of the weights.
        kv_per_position: keys and values of one earlier position.
        other: what else moves, such as a row of the embedding.
    """

    weights: float
    scales: float = 0.0
    kv_per_position: float = 0.0
    other: float = 0.0

    def at(self, length: int) -> float:
        """With `length` positions in the context."""
        return self.weights + self.scales + self.other + self.kv_per_position * length


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How many bits a weight takes off chip.

    Attributes:
        bits: of a code.
        kept: share of the weights that is stored, 0.5 under 2:4.
        index_bits: for the position of a kept weight.
        group: weights that share a scale; None where scales are too few to count.
        scale_bits: of a scale and its zero point together.
    """

    bits: float
    kept: float = 1.0
    index_bits: float = 0.0
    group: int | None = None
    scale_bits: float = 16.0

    def token_bytes(self, parameters: int, kv_per_position: float = 0.0) -> TokenBytes:
        """Of a model with so many weights in its matrices."""
        scales = parameters / self.group * self.scale_bits / 8 if self.group else 0.0
        return TokenBytes(parameters * self.kept * (self.bits + self.index_bits) / 8, scales, kv_per_position)


def kv_bytes(layers: int, kv_heads: int, head_dim: int, bits: float) -> float:
    """Bytes of keys and values of one position."""
    return 2 * layers * kv_heads * head_dim * bits / 8


@dataclass(frozen=True, slots=True)
class Roofline:
    """Two roofs: `ops_per_s` of the multipliers and `bytes_per_s` of the memory."""

    ops_per_s: float
    bytes_per_s: float

    @property
    def ridge(self) -> float:
        """Operations per byte from which on the multipliers are the limit."""
        return self.ops_per_s / self.bytes_per_s

    def attainable(self, ops_per_byte: float) -> float:
        """Operations per second at most, at that intensity."""
        return min(self.ops_per_s, self.bytes_per_s * ops_per_byte)

    def binds(self, ops_per_byte: float) -> str:
        """``memory`` or ``multipliers``."""
        return "memory" if ops_per_byte < self.ridge else "multipliers"


def roofline(
    card: Device,
    mhz: float,
    weight_bits: int,
    activation_bits: int,
    efficiency: float = 1.0,
    dsps: int | None = None,
) -> Roofline:
    """The roofs of a card for products of that width; two operations a multiply-accumulate.

    Args:
        card: the device.
        mhz: of the multipliers.
        weight_bits: of one operand.
        activation_bits: of the other.
        efficiency: achieved over peak bandwidth.
        dsps: that multiply; all that are available, if not given.

    Raises:
        EstimateError: FX911, resources or bandwidth of the card are not known, or no DSP takes such operands.

    Example:
        >>> from flexllm_allo.hardware.devices import device
        >>> round(roofline(device("u280"), 300, 8, 8).ops_per_s / 1e12, 2)
        9.96
    """
    if card.available is None or card.memory.gb_per_s is None:
        raise EstimateError(
            "FX911",
            f"resources or bandwidth of the {card.name} are not known",
            hint="fill in hardware/devices.toml",
        )
    packing = dsp_family(card.dsp_family).packing(weight_bits, activation_bits)
    if packing is None:
        raise EstimateError(
            "FX911",
            f"no packing for {weight_bits} x {activation_bits} bits in a {card.dsp_family}",
            hint="at most 16 x 16; see hardware/packing.toml",
        )
    count = card.available.dsp if dsps is None else dsps
    return Roofline(2 * count * packing.per_dsp * mhz * 1e6, efficiency * card.memory.gb_per_s * 1e9)


def bandwidth_ceiling(token_bytes: float, gb_per_s: float, efficiency: float = 1.0) -> float:
    """Tokens per second if memory is the only limit."""
    return efficiency * gb_per_s * 1e9 / token_bytes


def decode_lanes(gb_per_s: float, bytes_per_weight: float, mhz: float) -> int:
    """Multiplying lanes that keep up with a stream of weights; more of them do not help a decode."""
    return ceil(gb_per_s * 1e9 / (bytes_per_weight * mhz * 1e6) - 0.5)


def prefill_ridge(multipliers: int, bytes_per_weight: float, gb_per_s: float, mhz: float) -> float:
    """Tokens that must share a weight so that the multipliers, and not the memory, limit a prefill."""
    return multipliers * bytes_per_weight * mhz * 1e6 / (gb_per_s * 1e9)
