"""Round to nearest: weights per row with a searched range, activations per row.

Arithmetic is float32 throughout and the same on every processor: each candidate scale of a row is judged by
the squared error of the codes it would give, in units of the step, summed in `range_kernels.LANES` lanes;
errors are then compared in float64 after multiplying by the scale's square.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import IntFormat

FloatArray = NDArray[np.float32]
Zeros = NDArray[np.uint8]

# Fractions of the largest magnitude tried as the range; 1 is plain round-to-nearest.
CLIP_RATIOS = tuple(float(r) for r in np.linspace(1.0, 0.4, 40, dtype=np.float32))
_BLOCK = 1 << 17  # elements a thread takes at once: they stay in its cache
_SMALL = 1 << 13  # elements that are not worth the call of a kernel (a column of GPTQ)
_SMALLEST = {
    "float32": np.finfo(np.float32).smallest_normal,
    "float16": np.finfo(np.float16).smallest_subnormal,
}


def round_half_away(x: NDArray[Any]) -> NDArray[Any]:
    """C's `roundf`: to the nearest integer, halves away from zero, exact for every float32."""
    whole = np.trunc(x)
    # x - whole is exact, whereas x + 0.5 would carry 0.49999997 up to 1.
    whole += np.copysign(np.abs(x - whole) >= np.float32(0.5), x)
    return whole


def quantize_weight(
    weight: FloatArray, fmt: IntFormat, ratios: tuple[float, ...] = CLIP_RATIOS
) -> tuple[NDArray[np.int8], FloatArray]:
    """Codes and scales of a weight matrix under a symmetric format, per output channel (row).

    `search_range` and `round_rows`, of which a block of rows goes through both while it is in the cache.

    Args:
        weight: float32 [N, K].
        fmt: an integer format of at most 8 bits, one code per int8 in the result.
        ratios: the ranges to try, as fractions of the largest magnitude.

    Returns:
        int8 [N, K] and float32 [N].

    Raises:
        QuantError: FX606 when the weight holds a NaN or an infinity.
    """
    codes, scale, _ = quantize_range(weight, fmt, ratios)
    return codes, scale


def quantize_range(
    rows: FloatArray, fmt: IntFormat, ratios: tuple[float, ...] = CLIP_RATIOS
) -> tuple[NDArray[Any], FloatArray, Zeros | None]:
    """Codes, scales and zero points of rows [R, C] that share a scale each (whole rows, or groups as rows).

    Returns:
        int8 (symmetric) or uint8 [R, C]; float32 [R]; uint8 [R], or None for a symmetric format.

    Raises:
        QuantError: FX606 when a row holds a NaN or an infinity, FX604 for a float zero.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    codes = np.empty(rows.shape, np.int8 if fmt.signed else np.uint8)
    scale, zero = np.empty(len(rows), np.float32), np.zeros(len(rows), np.uint8)

    def block(at: slice) -> None:
        scale[at], zero[at] = _search(rows[at], fmt, ratios)
        _round(rows[at], scale[at], zero[at].astype(np.float32), fmt.low, fmt.high, codes[at])

    _for_blocks(rows.shape, block)
    return codes, scale, None if fmt.signed else zero


def search_range(
    rows: FloatArray, fmt: IntFormat, ratios: tuple[float, ...] = CLIP_RATIOS
) -> tuple[FloatArray, Zeros | None]:
    """The range of least squared error for each row; every row shares one scale.

    Symmetric: scale = max |w| * ratio / fmt.high. Asymmetric: lo = min(w, 0) * ratio, hi = max(w, 0) * ratio,
    scale = (hi - lo) / (2^bits - 1), zero = round(-lo / scale). The scale is rounded to the type it is stored
    in before anything is computed with it; a row of zeros gets 1, others at least the smallest number of that
    type. On a tie the earlier ratio wins.

    Args:
        rows: float32 [R, C].
        fmt: a format of at most 8 bits, symmetric or with an integer zero.
        ratios: the ranges to try, as fractions of the whole one.

    Returns:
        float32 [R], and uint8 [R] or None for a symmetric format.

    Raises:
        QuantError: FX606 when a row holds a NaN or an infinity, FX604 for a float zero.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    scale, zero = np.empty(len(rows), np.float32), np.zeros(len(rows), np.uint8)

    def block(at: slice) -> None:
        scale[at], zero[at] = _search(rows[at], fmt, ratios)

    _for_blocks(rows.shape, block)
    return scale, None if fmt.signed else zero


def round_rows(
    rows: FloatArray, scale: FloatArray, zero: NDArray[Any] | None, low: int, high: int
) -> NDArray[Any]:
    """Codes clip(round(w / scale) + zero, low, high), halves away from zero.

    Args:
        rows: float32 [R, C], finite.
        scale: float32 [R].
        zero: [R], integers 0 to 255 of any type, None for a symmetric format.
        low: the lowest code.
        high: the highest code.

    Returns:
        int8 [R, C], or uint8 where no code is negative.
    """
    zeros = np.zeros_like(scale) if zero is None else zero.astype(np.float32, copy=False)
    kind = np.int8 if low < 0 else np.uint8
    if rows.size <= _SMALL:
        return np.clip(round_half_away(rows / scale[:, None]) + zeros[:, None], low, high).astype(kind)
    rows = np.ascontiguousarray(rows, np.float32)
    codes = np.empty(rows.shape, kind)
    _for_blocks(rows.shape, lambda at: _round(rows[at], scale[at], zeros[at], low, high, codes[at]))
    return codes


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


def _for_blocks(shape: tuple[int, ...], work: Callable[[slice], None]) -> None:
    """Call `work` for blocks of whole rows, on as many threads as there are processors for this process."""
    count, width = shape
    step = max(1, _BLOCK // max(1, width))
    blocks = [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]
    workers = min(len(blocks), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    for block in blocks[:1] if workers > 1 else blocks:  # the first call compiles, once for all threads
        work(block)
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(work, block) for block in blocks[1:]]:
                done.result()


def _search(
    rows: FloatArray, fmt: IntFormat, ratios: tuple[float, ...]
) -> tuple[FloatArray, Zeros | NDArray[np.float32]]:
    """Scale and zero [R] of least squared error."""
    from .range_kernels import LANES, compiled, squared_errors

    count, width = rows.shape
    scale, zero = _candidates(rows, fmt, ratios)
    low, high = fmt.low - zero, fmt.high - zero
    words = -(-width // LANES)
    if words * LANES != width:  # zeros are exact under every scale
        rows = np.pad(rows, ((0, 0), (0, words * LANES - width)))
    error = np.zeros(scale.shape, np.float32)
    flat = (a.reshape(-1) for a in (rows, scale, low, high))
    compiled(squared_errors)(*flat, count, words, len(ratios), error.reshape(-1))
    best = (error.astype(np.float64) * np.square(scale, dtype=np.float64)).argmin(axis=1)[:, None]
    return np.take_along_axis(scale, best, 1)[:, 0], np.take_along_axis(zero, best, 1)[:, 0]


def _candidates(rows: FloatArray, fmt: IntFormat, ratios: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Scales and zeros [R, ratios] to try, float32."""
    if fmt.zero == "float":
        raise QuantError("FX604", "weights have no format with a float zero", hint='use zero = "integer"')
    ratio = np.array(ratios, np.float32)
    low, high = rows.min(axis=1, initial=0)[:, None], rows.max(axis=1, initial=0)[:, None]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise QuantError(
            "FX606",
            "a weight holds NaN or infinity and cannot be quantised",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    with np.errstate(over="ignore"):
        span = np.maximum(high, -low) * ratio if fmt.signed else high * ratio - low * ratio
        stored = (span / np.float32(fmt.high)).astype(fmt.scale, copy=False)
    if not np.isfinite(stored).all():
        raise QuantError(
            "FX606",
            f"a weight of magnitude {max(high.max(), -low.min()):.3g} overflows the {fmt.scale} scale",
            hint='the checkpoint is damaged, or needs scale = "float32" in the format',
        )
    smallest = np.float32(_SMALLEST[fmt.scale])
    scale = np.where(high == low, np.float32(1), np.maximum(stored.astype(np.float32), smallest))
    if fmt.signed:
        return scale, np.zeros_like(scale)
    return scale, np.clip(round_half_away(-low * ratio / scale), 0, fmt.high)


def _round(
    rows: FloatArray, scale: FloatArray, zero: FloatArray, low: int, high: int, codes: NDArray[Any]
) -> None:
    from .range_kernels import compiled, rounded

    count, width = rows.shape
    bounds = low - zero, high - zero
    flat = codes.view(np.int8).reshape(-1)
    compiled(rounded)(rows.reshape(-1), scale, zero, *bounds, count, width, flat)
