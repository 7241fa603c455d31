"""Activations as the hardware quantizes them at run time: one scale per row, float32 throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import ActivationFormat, FloatFormat
from .integer.rtn import quantize_rows, round_half_away

FloatArray = NDArray[Any]  # float32; NumPy's stubs lose the width in products with scalars


def quantize_activation(
    x: FloatArray, fmt: ActivationFormat | None
) -> tuple[NDArray[Any], FloatArray, FloatArray | None]:
    """Codes, scales and offsets over the last axis: x = code * scale + offset, up to rounding.

    Args:
        x: float32 [..., K].
        fmt: None keeps the values, `FloatFormat(16)` rounds them to half precision. Asymmetric formats
            follow their `zero`: ``float`` takes the minimum as the offset, ``integer`` a range with 0 in it.

    Returns:
        codes [..., K] (int8, uint8, float32 or float16), scale [...], and offset [...] or None.
    """
    one = np.ones(x.shape[:-1], np.float32)
    if fmt is None or isinstance(fmt, FloatFormat):
        return (x if fmt is None or fmt.bits == 32 else x.astype(np.float16)), one, None
    if fmt.zero == "none":
        codes, scale = quantize_rows(x, fmt)
        return codes, scale, None
    low, high = x.min(axis=-1), x.max(axis=-1)
    if fmt.zero == "integer":
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    step: FloatArray = (high - low) / np.float32(fmt.high)
    step = np.where(step == 0, np.float32(1), step).astype(np.float32, copy=False)
    if fmt.zero == "float":
        above: FloatArray = x - low[..., None]
        return round_half_away(above / step[..., None]).astype(np.uint8), step, low
    zero = round_half_away(-low / step)
    codes = np.clip(round_half_away(x / step[..., None]) + zero[..., None], 0, fmt.high)
    return codes.astype(np.uint8), step, -zero * step


def fake_quantize(x: FloatArray, fmt: ActivationFormat | None) -> FloatArray:
    """The values that the codes of `x` stand for, float32 [..., K]."""
    codes, scale, offset = quantize_activation(x, fmt)
    values = codes.astype(np.float32) * scale[..., None]
    return values if offset is None else values + offset[..., None]


def quantize_static(x: FloatArray, scale: FloatArray, low: int = -128, high: int = 127) -> FloatArray:
    """Codes round(x / scale) clamped to low .. high, as float32, for scales that are known beforehand."""
    return np.clip(round_half_away(x / scale), np.float32(low), np.float32(high))
