"""Round to nearest: weights per output channel with a searched range, activations per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .formats import IntFormat

# Fractions of the largest magnitude tried as the range; 1 is plain round-to-nearest.
CLIP_RATIOS = tuple(float(r) for r in np.linspace(1.0, 0.4, 40, dtype=np.float32))
_BLOCK = 1 << 17  # elements per step of the search: stays in the cache, bounds the memory


def round_half_away(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """C's `roundf`: to the nearest integer, halves away from zero, exact for every float32."""
    whole = np.trunc(x)
    # x - whole is exact, whereas x + 0.5 would carry 0.49999997 up to 1.
    whole += np.copysign(np.abs(x - whole) >= np.float32(0.5), x)
    return whole


def quantize_weight(
    weight: NDArray[np.float32], fmt: IntFormat, ratios: tuple[float, ...] = CLIP_RATIOS
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes and scales of a weight matrix, per output channel (row).

    Each row gets the scale, out of max |w| * ratio / fmt.high, with the least squared error; on a tie the
    earlier ratio wins. A row of zeros gets the scale 1.

    Args:
        weight: float32 [N, K].
        fmt: an integer format of at most 8 bits, one code per int8 in the result.
        ratios: the ranges to try, as fractions of the largest magnitude.

    Returns:
        int8 [N, K] and float32 [N].

    Raises:
        QuantError: FX604 when the weight holds a NaN or an infinity.
    """
    rows, width = weight.shape
    codes = np.empty((rows, width), np.int8)
    scales = np.empty(rows, np.float32)
    step = max(1, _BLOCK // max(1, width))
    for begin in range(0, rows, step):
        block = weight[begin : begin + step]
        scale = _search_scale(block, fmt, ratios)
        rounded = round_half_away(block / scale[:, None])
        codes[begin : begin + step] = np.clip(rounded, fmt.low, fmt.high)
        scales[begin : begin + step] = scale
    return codes, scales


def dequantize(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [..., K] of codes [..., K] and scales [...]."""
    return codes.astype(np.float32) * scales[..., None]


def quantize_rows(x: NDArray[np.float32], fmt: IntFormat) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes and scales over the last axis, as the hardware computes them at run time.

    scale = max |x| / high in float32, 1 where that is zero; code = round(x / scale), halves away from zero.

    Args:
        x: float32 [..., K].
        fmt: an integer format of at most 8 bits.

    Returns:
        int8 [..., K] and float32 [...].
    """
    largest: NDArray[np.float32] = np.abs(x).max(axis=-1)
    scale = _nonzero(largest / np.float32(fmt.high))
    codes = np.clip(round_half_away(x / scale[..., None]), fmt.low, fmt.high)
    return codes.astype(np.int8), scale


def _nonzero(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales with 1 in place of 0, so that a row of zeros gets codes of zero."""
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32, copy=False)


def _search_scale(
    block: NDArray[np.float32], fmt: IntFormat, ratios: tuple[float, ...]
) -> NDArray[np.float32]:
    """The scale of least squared error for each row of a block."""
    largest = np.abs(block).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        raise QuantError(
            "FX604",
            "a weight holds NaN or infinity and cannot be quantised",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    best = np.ones(len(block), np.float32)
    best_error = np.full(len(block), np.inf)
    work = np.empty_like(block)
    for ratio in ratios:
        scale = _nonzero(largest * np.float32(ratio) / np.float32(fmt.high))
        column = scale[:, None]
        np.divide(block, column, out=work)
        # Ties to even: a tie costs the same either way, and rint is one instruction.
        np.rint(work, out=work)
        np.clip(work, fmt.low, fmt.high, out=work)
        work *= column
        work -= block
        work *= work
        # In double precision, so that the choice does not hang on the processor's order of summation.
        error = work.sum(axis=1, dtype=np.float64)
        better = error < best_error
        best[better], best_error[better] = scale[better], error[better]
    return best
