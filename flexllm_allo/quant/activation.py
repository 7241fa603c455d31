"""Activations under a format: codes, scales and offsets over the last axis, and the values they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import ActivationFormat, IntFormat
from .rtn import quantize_rows, round_half_away

FloatArray = NDArray[np.float32]


def quantize_activation(x: FloatArray, fmt: IntFormat) -> tuple[NDArray[Any], FloatArray, FloatArray | None]:
    """Codes, scale and offset over the last axis, in float32 as the hardware computes them.

    value = code * scale + offset. Without a zero point this is `rtn.quantize_rows` and there is no offset.
    An integer zero point (SpinQuant) forces the range to contain 0 and clamps; a float one (FlexLLM) keeps
    the minimum as the offset and never clamps.

    Args:
        x: float32 [..., K].
        fmt: an integer format of at most 8 bits.

    Returns:
        int8 (symmetric) or uint8 [..., K], float32 [...], float32 [...] or None.
    """
    if fmt.zero == "none":
        return (*quantize_rows(x, fmt), None)
    low, high = x.min(axis=-1), x.max(axis=-1)
    if fmt.zero == "integer":
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    scale = (high - low) / np.float32(fmt.high)
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32, copy=False)
    if fmt.zero == "float":
        codes = round_half_away((x - low[..., None]) / scale[..., None])
        return codes.astype(np.uint8), scale, low
    zero = round_half_away(-low / scale)
    codes = np.clip(round_half_away(x / scale[..., None]) + zero[..., None], 0, fmt.high)
    return codes.astype(np.uint8), scale, -zero * scale


def fake_quantize(x: FloatArray, fmt: ActivationFormat | None) -> FloatArray:
    """float32 values after a trip through the codes; `x` itself without a format."""
    if fmt is None:
        return x
    if not isinstance(fmt, IntFormat):
        return x if fmt.bits == 32 else x.astype(np.float16).astype(np.float32)
    codes, scale, offset = quantize_activation(x, fmt)
    values = codes.astype(np.float32) * scale[..., None]
    return values if offset is None else values + offset[..., None]
