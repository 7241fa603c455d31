"""Floats to GGUF blocks: the block formats' own scales, fitted by least squares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..integer.rtn import round_half_away
from .blocks import Bytes, Fields, FloatArray, block_type

_BLOCK = 1 << 16  # weights per step: the candidates of a search stay in the cache
# Widenings and narrowings of the range that are tried, in codes.
_SHIFTS = tuple(float(t) for t in np.linspace(-0.9, 1.2, 8))


def quantize_blocks(values: FloatArray, kind: str, name: str = "") -> Bytes:
    """Quantize rows of weights to blocks of a GGUF type.

    Q4_0, Q8_0 and Q8_K round by the largest magnitude of a block, as ggml's reference does. The types with
    sub-blocks try a few ranges for each, fit its scale (and min) to the codes by least squares, quantize
    these to the block's, and round the codes once more with what is stored.

    Args:
        values: float32 [..., K], K a multiple of the block.
        kind: name of the type.
        name: of the tensor, put before the message of an error.

    Returns:
        uint8 [..., K / weights * nbytes].

    Raises:
        QuantError: FX608, an unknown type or rows that are not whole blocks; FX606, NaN, infinity, or a scale
            beyond float16.
    """
    form = block_type(kind, name)
    width = form.row_bytes(values.shape[-1], name)
    _check_finite(values, name)
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, form.weights)
    out = np.empty((len(blocks), form.nbytes), np.uint8)
    step = max(1, _BLOCK // form.weights)
    for begin in range(0, len(blocks), step):
        part = blocks[begin : begin + step]
        if form.pack is None:
            records = _floats(part, kind, name)
        else:
            with np.errstate(invalid="ignore"):  # of scales beyond float16, which are refused next
                fields = _QUANTIZERS[kind](part)
            _check_scale(fields, part, kind, name)
            records = form.pack(fields)
        out[begin : begin + step] = records.view(np.uint8).reshape(len(part), -1)
    return out.reshape(*values.shape[:-1], width)


def _floats(values: FloatArray, kind: str, name: str) -> NDArray[np.generic]:
    if kind == "F32":
        return values
    if kind == "F16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise _too_large(values, kind, name)
        return half
    bits = values.view(np.uint32)
    # To nearest, ties to even: half an ulp of the upper half, less one bit where that half is even.
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _peak(values: FloatArray) -> FloatArray:
    """The value of largest magnitude over the last axis, with its sign."""
    at = np.abs(values).argmax(axis=-1)[..., None]
    return np.take_along_axis(values, at, -1)[..., 0]


def _inverse(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / values, 0 for 0 (and for what is too small to have an inverse)."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / values
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _stored(scale: FloatArray) -> FloatArray:
    """A scale as it comes back from the file."""
    with np.errstate(over="ignore"):
        return scale.astype(np.float16).astype(np.float32)


def _one_scale(d: FloatArray, codes: NDArray[np.floating]) -> Fields:
    whole = codes.astype(np.int16)
    return Fields(d, np.ones((len(d), 1), np.int16), whole[:, None, :])


def _q4_0(x: FloatArray) -> Fields:
    d = _peak(x) / np.float32(-8)
    # In float64, where product and sum are exact enough to be rounded once, as a fused multiply-add is.
    codes = np.floor(x.astype(np.float64) * _inverse(d)[:, None] + 8.5)
    return _one_scale(d, np.clip(codes, 0, 15) - 8)


def _q8_0(x: FloatArray) -> Fields:
    d = np.abs(x).max(axis=-1) / np.float32(127)
    return _one_scale(d, round_half_away(x * _inverse(d)[:, None]))


def _q8_k(x: FloatArray) -> Fields:
    inverse = np.float32(-127) * _inverse(_peak(x))
    codes = np.minimum(np.rint(x * inverse[:, None]), 127)
    return _one_scale(_inverse(inverse), codes)


def _fit_scale(x: FloatArray, low: int) -> FloatArray:
    """Signed scales [B, S] of x [B, S, L] for codes low .. -low - 1: value = scale * code."""
    peak = _peak(x)
    inverse = _inverse(peak)
    best, best_gain = np.zeros_like(peak), np.zeros_like(peak)
    for shift in _SHIFTS:
        codes = np.clip(np.rint(x * (np.float32(low - shift) * inverse)[..., None]), low, -low - 1)
        square, product = (codes * codes).sum(axis=-1), (codes * x).sum(axis=-1)
        # With its best scale, product / square, a choice of codes lowers the squared error by this much.
        scale = product * _inverse(square)
        gain = product * scale
        better = gain > best_gain
        best[better], best_gain[better] = scale[better], gain[better]
    return best


def _symmetric(low: int, scale_low: int) -> Callable[[FloatArray], Fields]:
    """The quantizer of a type without mins: signed codes from `low`, signed scales from `scale_low`."""

    def quantize(values: FloatArray) -> Fields:
        x = values.reshape(len(values), -1, 16)
        fitted = _fit_scale(x, low)
        d = _stored(_peak(fitted) / np.float32(scale_low))
        scales = np.clip(np.rint(fitted * _inverse(d)[:, None]), scale_low, -scale_low - 1)
        step = _inverse(d[:, None] * scales)[..., None]
        codes = np.clip(np.rint(x * step), low, -low - 1)
        return Fields(d, scales.astype(np.int16), codes.astype(np.int16))

    return quantize


def _fit_range(x: FloatArray, high: int) -> tuple[FloatArray, FloatArray]:
    """Scales and mins [B, S], not negative, of x [B, S, L] for codes 0 .. high: scale * code - min."""
    low = np.minimum(x.min(axis=-1), 0)
    span = x.max(axis=-1) - low
    best, best_min = np.zeros_like(span), -low
    best_error = ((x - low[..., None]) ** 2).sum(axis=-1)
    inverse, length = _inverse(span), np.float32(x.shape[-1])
    sum_x = x.sum(axis=-1)
    for shift in _SHIFTS:
        codes = np.rint((x - low[..., None]) * (np.float32(high + shift) * inverse)[..., None])
        codes = np.clip(codes, 0, high)
        sum_c, square, product = codes.sum(axis=-1), (codes * codes).sum(axis=-1), (codes * x).sum(axis=-1)
        spread = length * square - sum_c * sum_c
        scale: FloatArray = (length * product - sum_c * sum_x) * _inverse(spread)
        least = (scale * sum_c - sum_x) / length
        # A min cannot be negative; where it would be, the line goes through zero.
        scale = np.where(least < 0, product * _inverse(square), scale)
        least = np.maximum(least, np.float32(0))
        error: FloatArray = ((scale[..., None] * codes - least[..., None] - x) ** 2).sum(axis=-1)
        better = (error < best_error) & (scale >= 0)
        best[better], best_min[better], best_error[better] = scale[better], least[better], error[better]
    return best, best_min


def _ranged(high: int, length: int, scale_high: int) -> Callable[[FloatArray], Fields]:
    """The quantizer of a type with mins: codes to `high`, scales and mins to `scale_high`."""

    def quantize(values: FloatArray) -> Fields:
        x = values.reshape(len(values), -1, length)
        scale, least = _fit_range(x, high)
        d = _stored(scale.max(axis=-1) / np.float32(scale_high))
        dmin = _stored(least.max(axis=-1) / np.float32(scale_high))
        scales = np.clip(np.rint(scale * _inverse(d)[:, None]), 0, scale_high)
        mins = np.clip(np.rint(least * _inverse(dmin)[:, None]), 0, scale_high)
        step = _inverse(d[:, None] * scales)[..., None]
        codes = np.clip(np.rint((x + (dmin[:, None] * mins)[..., None]) * step), 0, high)
        return Fields(d, scales.astype(np.int16), codes.astype(np.int16), dmin, mins.astype(np.int16))

    return quantize


_QUANTIZERS: dict[str, Callable[[FloatArray], Fields]] = {
    "Q4_0": _q4_0,
    "Q8_0": _q8_0,
    "Q8_K": _q8_k,
    "Q2_K": _ranged(3, 16, 15),
    "Q3_K": _symmetric(-4, -32),
    "Q4_K": _ranged(15, 32, 63),
    "Q5_K": _ranged(31, 32, 63),
    "Q6_K": _symmetric(-32, -128),
}


def _check_finite(values: FloatArray, name: str) -> None:
    if not np.isfinite(values).all():
        raise QuantError(
            "FX606",
            f"{_prefix(name)}NaN or infinity in the weight",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )


def _check_scale(fields: Fields, values: FloatArray, kind: str, name: str) -> None:
    if kind == "Q8_K":  # whose scale is float32
        return
    if not all(np.isfinite(_stored(d)).all() for d in (fields.d, fields.dmin) if d is not None):
        raise _too_large(values, kind, name)


def _too_large(values: FloatArray, kind: str, name: str) -> QuantError:
    return QuantError(
        "FX606",
        f"{_prefix(name)}weights up to {float(np.abs(values).max()):.4g} are beyond the float16 of {kind}",
        hint="store this tensor as BF16 or F32",
    )


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
