"""The range search: what it minimises, to the bit, under every format; threads and blocks change nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexllm_allo.errors import QuantError
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_WEIGHT, IntFormat
from flexllm_allo.quant.integer import rtn

UINT4 = IntFormat(4, "per_group", zero="integer", group=8)
UINT2 = IntFormat(2, "per_group", zero="integer", group=32)
HALF = IntFormat(4, "per_group", full_range=True, group=8, scale="float16")
FORMATS = [INT4_WEIGHT, INT8_WEIGHT, IntFormat(2, "per_channel"), UINT4, UINT2, HALF]
ROWS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


def candidates(row: np.ndarray, fmt: IntFormat):
    """(scale, zero) of a row for every ratio, by the definition."""
    low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
    smallest = {"float32": np.finfo(np.float32).tiny, "float16": np.float32(2.0**-24)}[fmt.scale]
    for ratio in map(np.float32, rtn.CLIP_RATIOS):
        span = max(high, -low) * ratio if fmt.zero == "none" else high * ratio - low * ratio
        scale = np.float32((span / np.float32(fmt.high)).astype(fmt.scale))
        scale = np.float32(1) if span == 0 and low == high else max(scale, np.float32(smallest))
        zero = np.float32(0)
        if fmt.zero == "integer":
            zero = np.clip(rtn.round_half_away(np.array(-low * ratio / scale)), 0, fmt.high)
        yield scale, zero


def search(row: np.ndarray, fmt: IntFormat):
    """The range of one row, one step at a time: 16 lanes in float32, the comparison in float64."""
    best, least = None, np.inf
    for scale, zero in candidates(row, fmt):
        u = row / scale
        miss = u - np.clip(rtn.round_half_away(u), fmt.low - zero, fmt.high - zero).astype(np.float32)
        lanes = np.zeros(16, np.float32)
        for begin in range(0, len(miss), 16):
            part = miss[begin : begin + 16]
            lanes[: len(part)] += part * part
        total = np.float32(0)
        for lane in lanes:
            total += lane
        error = float(total) * float(scale) ** 2
        if error < least:
            best, least = (scale, zero), error
    return best


@pytest.mark.parametrize("fmt", FORMATS)
@given(rows=ROWS)
@settings(max_examples=12, deadline=None)
def test_the_search_is_its_definition(fmt, rows):
    codes, scale, zero = rtn.quantize_range(rows, fmt)
    expected = [search(row, fmt) for row in rows]
    assert scale.tolist() == [s for s, _ in expected]
    assert (zero is None) == (fmt.zero == "none")
    assert zero is None or zero.tolist() == [z for _, z in expected]
    z = np.zeros(len(rows)) if zero is None else zero.astype(float)
    whole = rtn.round_half_away(rows / scale[:, None]) + z[:, None]
    assert (codes == np.clip(whole, fmt.low, fmt.high)).all()
    again, same = rtn.search_range(rows, fmt)
    assert (again == scale).all()
    assert zero is None or (same == zero).all()
    with pytest.MonkeyPatch.context() as patch:
        for small in (0, rows.size):  # by the kernel, by NumPy
            patch.setattr(rtn, "_SMALL", small)
            assert (rtn.round_rows(rows, scale, zero, fmt.low, fmt.high) == codes).all()
    assert codes.dtype == (np.int8 if fmt.signed else np.uint8)


@pytest.mark.parametrize("fmt", [UINT4, UINT2, IntFormat(8, "per_channel", zero="integer")])
def test_asymmetric_values_stay_within_half_a_step(fmt):
    rows = np.random.default_rng(0).normal(0.7, 1, (50, 32)).astype(np.float32)
    rows[0] = np.abs(rows[0])  # no negative value: zero point 0
    rows[1] = -np.abs(rows[1])  # no positive one: zero point at the top
    codes, scale, zero = rtn.quantize_range(rows, fmt, ratios=(1.0,))
    value = (codes.astype(np.float32) - zero[:, None]) * scale[:, None]
    # A rounded zero point may push one end of the range out by half a step more.
    assert (np.abs(value - rows) <= scale[:, None] * 1.0001).all()
    assert (zero[0], zero[1]) == (0, fmt.high)
    searched = rtn.quantize_range(rows, fmt)
    better = (searched[0].astype(np.float32) - searched[2][:, None]) * searched[1][:, None]
    plain = ((value - rows).astype(np.float64) ** 2).sum(1)
    assert (((better - rows).astype(np.float64) ** 2).sum(1) <= plain * 1.00001).all()


def test_asymmetric_search_gains_on_heavy_tails():
    rows = np.random.default_rng(0).standard_t(4, size=(64, 512)).astype(np.float32) + 1

    def error(ratios):
        codes, scale, zero = rtn.quantize_range(rows, UINT4, ratios)
        return float((((codes.astype(np.float32) - zero[:, None]) * scale[:, None] - rows) ** 2).mean())

    assert error(rtn.CLIP_RATIOS) < 0.75 * error((1.0,))


@pytest.mark.parametrize("fmt", FORMATS)
def test_threads_and_blocks_change_nothing(fmt, monkeypatch):
    rows = np.random.default_rng(1).normal(size=(37, 50)).astype(np.float32)
    whole = rtn.quantize_range(rows, fmt)
    monkeypatch.setattr(rtn, "_BLOCK", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5), raising=False)
    for a, b in zip(whole, rtn.quantize_range(rows, fmt), strict=True):
        assert a is b or (a == b).all()


@pytest.mark.parametrize("fmt", FORMATS)
def test_rows_of_zeros_and_tiny_rows(fmt):
    rows = np.zeros((4, 5), np.float32)
    rows[1, 2], rows[2, 2], rows[3] = 1e-40, -1e-37, 3e-9
    codes, scale, zero = rtn.quantize_range(rows, fmt)
    assert scale[0] == 1
    assert (scale > 0).all()
    assert np.isfinite(scale).all()
    z = 0 if zero is None else zero[:, None].astype(float)
    value = (codes - z) * scale[:, None]
    assert (np.abs(value - rows) <= scale[:, None]).all()
    assert not value[0].any()


def test_nothing_to_quantize():
    for shape in ((0, 8), (3, 0)):
        codes, scale, _ = rtn.quantize_range(np.zeros(shape, np.float32), INT4_WEIGHT)
        assert codes.shape == shape
        assert (scale == 1).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "fmt", "says"),
    [
        (np.nan, INT4_WEIGHT, "NaN or infinity"),
        (-np.inf, UINT4, "NaN or infinity"),
        (1e6, HALF, "magnitude 1e+06 overflows the float16 scale"),
    ],
)
def test_values_that_cannot_be_quantized(value, fmt, says):
    rows = np.ones((3, 8), np.float32)
    rows[1, 3] = value
    with pytest.raises(QuantError) as caught:
        rtn.quantize_range(rows, fmt)
    assert caught.value.code == "FX606"
    assert says in caught.value.message


def test_weights_have_no_float_zero():
    with pytest.raises(QuantError) as caught:
        rtn.search_range(np.ones((2, 2), np.float32), IntFormat(4, "per_channel", zero="float"))
    assert caught.value.code == "FX604"
