"""What a quantized matrix takes in memory once its codes are packed."""

from __future__ import annotations

from ..formats import SCALE_BITS, IntFormat
from ..weight import QuantizedWeight
from .packing import packed_bytes
from .sparsity import index_code_bits


def storage_bytes(weight: QuantizedWeight) -> int:
    """Bytes of a matrix: codes, positions, zeros, steps and scales at the widths they are stored in.

    Every array is packed without gaps between its rows and takes whole bytes; nothing else is rounded, so the
    result is ``format.bits_per_weight(K) * N * K / 8`` and less than a byte more per array.

    Args:
        weight: codes one an element, as `QuantizedWeight` holds them; float matrices count as they are.
    """
    fmt = weight.format
    if fmt is None:
        return weight.codes.nbytes
    total = packed_bytes(weight.codes.size, fmt.bits) + weight.scale.size * SCALE_BITS[fmt.scale] // 8
    if weight.zero is not None:
        total += packed_bytes(weight.zero.size, fmt.bits)
    if weight.step is not None:
        total += weight.step.nbytes
    if weight.index is not None:
        assert isinstance(fmt, IntFormat)
        assert fmt.sparsity is not None
        codes = weight.index.size // (fmt.sparsity.n if fmt.sparsity.index == "3bit" else 1)
        total += packed_bytes(codes, index_code_bits(fmt.sparsity))
    return total
