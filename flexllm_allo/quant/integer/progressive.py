"""Progressive quantization (QoQ, QServe): 4-bit codes that become int8 weights by integer arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import ProgressiveFormat
from ..weight import QuantizedWeight
from .rtn import round_half_away

_BLOCK = 1 << 16  # weights per step: stays in the cache, bounds the memory


def quantize_progressive(
    weight: NDArray[np.float32], fmt: ProgressiveFormat, name: str = ""
) -> QuantizedWeight:
    """Quantize a matrix in two levels.

    Level 1, per row: ``scale = max |w| / fmt.limit`` (1 where that is 0, rounded to the type it is stored
    in), ``w8 = round(w / scale)`` within +-`fmt.limit`. Level 2, per group: `quantize_groups`. The source is
    QServe (MLSys 2025), progressive group quantization.

    Args:
        weight: float32 [N, K], K a multiple of `fmt.group`.
        fmt: the format.
        name: of the tensor, put before the message of an error; empty where the caller adds it.

    Returns:
        Codes, zeros and steps uint8, scale float32 [N, 1]; ``integers()`` are the int8 weights.

    Raises:
        QuantError: FX606, the group does not divide K; NaN or infinity in the weight; a scale that its type
            cannot hold.
    """
    rows, width = weight.shape
    if fmt.group < 1 or width % fmt.group:
        raise QuantError(
            "FX606",
            f"{_prefix(name)}groups of {fmt.group} do not divide rows of {width} weights",
            hint=f"choose a group that divides {width}",
        )
    groups = width // fmt.group
    codes = np.empty((rows, groups, fmt.group), np.uint8)
    zero, step = np.empty((rows, groups), np.uint8), np.empty((rows, groups), np.uint8)
    scale = _scales(weight, fmt, name)
    rows_at_once = max(1, _BLOCK // max(1, width))
    for begin in range(0, rows, rows_at_once):
        part = slice(begin, begin + rows_at_once)
        level1 = np.clip(round_half_away(weight[part] / scale[part]), -fmt.limit, fmt.limit).astype(np.int16)
        codes[part], zero[part], step[part] = quantize_groups(level1.reshape(-1, groups, fmt.group), fmt.bits)
    return QuantizedWeight(fmt, codes.reshape(rows, width), scale, zero, step)


def quantize_groups(
    level1: NDArray[np.int16], bits: int = 4
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Level 2: integers within +-127 per group as ``(code - zero) * step``, all in integers.

    The range [lo, hi] of a group contains 0; with h = 2**bits - 1: ``step = max(1, round((hi - lo) / h))``,
    ``zero = min(round(-lo / step), h)``, ``code = clip(round(w8 / step) + zero, 0, h)``, halves away from
    zero. A group that is wider than h * step, because the step was rounded down, is clipped at an end.

    Args:
        level1: int16 [..., group].
        bits: width of a code.

    Returns:
        Codes [..., group], zeros [...] and steps [...], uint8.
    """
    high = 2**bits - 1
    lo = np.minimum(level1.min(axis=-1), 0)
    hi = np.maximum(level1.max(axis=-1), 0)
    # `high` is odd, so the quotient never is a half.
    step = np.maximum((hi - lo + high // 2) // high, 1).astype(np.int16)
    zero = np.minimum(_divide(-lo, step), high)
    codes = _divide(level1, step[..., None]) + zero[..., None]
    return (
        np.clip(codes, 0, high).astype(np.uint8),
        zero.astype(np.uint8),
        step.astype(np.uint8),
    )


def _divide(value: NDArray[np.int16], step: NDArray[np.int16]) -> NDArray[np.int16]:
    """round(value / step), halves away from zero."""
    # float32 holds 2 * |value| + step exactly, and a quotient of such integers that is not whole lies
    # farther from the next whole number than its rounding, so the floor is that of the integers.
    doubled = np.abs(value).astype(np.float32) * 2 + step
    quotient = (doubled / (step.astype(np.float32) * 2)).astype(np.int16)
    return np.copysign(quotient, value).astype(np.int16)


def _scales(weight: NDArray[np.float32], fmt: ProgressiveFormat, name: str) -> NDArray[np.float32]:
    """float32 [N, 1]."""
    largest: NDArray[np.float32] = np.abs(weight).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise QuantError(
            "FX606",
            f"{_prefix(name)}NaN or infinity in row {row}",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    scale = largest / np.float32(fmt.limit)
    if fmt.scale == "float16":
        scale = _as_half(scale, name)
    scale = np.where(scale == 0, np.float32(1), scale)
    return scale.astype(np.float32)[:, None]


def _as_half(scale: NDArray[np.float32], name: str) -> NDArray[Any]:
    limits = np.finfo(np.float16)
    if bool((scale > limits.max).any()):
        raise QuantError(
            "FX606",
            f"{_prefix(name)}scale {float(scale.max()):.4g} is beyond float16",
            hint="choose a format with float32 scales",
        )
    # A tiny row keeps a scale above 0, else its weights would be divided by the 1 of a row of zeros.
    tiny = np.where(scale > 0, limits.smallest_subnormal, 0).astype(np.float32)
    return np.maximum(scale.astype(np.float16).astype(np.float32), tiny)


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
