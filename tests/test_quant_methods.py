"""Rounding in every format, GPTQ, pruning, smoothing, corrections: each against its definition."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexllm_allo.errors import QuantError
from flexllm_allo.quant.activation import fake_quantize, quantize_activation
from flexllm_allo.quant.calibration import SiteStatistics
from flexllm_allo.quant.formats import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_WEIGHT,
    NM,
    FloatFormat,
    IntFormat,
    ProgressiveFormat,
)
from flexllm_allo.quant.integer.gptq import gptq, inverse_factor
from flexllm_allo.quant.integer.lowrank import low_rank_factors
from flexllm_allo.quant.integer.outliers import outlier_channels
from flexllm_allo.quant.integer.prune import is_legal, prune_mask
from flexllm_allo.quant.integer.rounding import round_weight
from flexllm_allo.quant.integer.rtn import CLIP_RATIOS, dequantize, quantize_weight
from flexllm_allo.quant.passes import Gptq, Prune
from flexllm_allo.quant.transform.awq import awq_scales
from flexllm_allo.quant.transform.smooth import smooth_scales

UINT4 = IntFormat(4, "per_channel", zero="integer")
DENSE = [
    INT8_WEIGHT,
    INT4_WEIGHT,
    IntFormat(3, "per_tensor"),
    IntFormat(4, "per_group", full_range=True, group=8, scale="float16"),
    UINT4,
    IntFormat(8, "per_tensor", zero="integer"),
    IntFormat(3, "per_group", group=4, zero="integer", scale="float16"),
]
SPARSE = [
    IntFormat(4, "per_channel", full_range=True, sparsity=NM()),
    IntFormat(2, "per_group", group=8, zero="integer", sparsity=NM(2, 4, "3bit")),
]
WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.sampled_from([8, 16])),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
)
TINY = np.float32(1e-30)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def groups_of(array, fmt, rows, width):
    """An array [N, K] as [scales, weights under one scale]."""
    return array.reshape(1 if fmt.granularity == "per_tensor" else rows * fmt.groups(width), -1)


# ---- rounding ------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", DENSE, ids=str)
@given(weight=WEIGHTS)
@settings(max_examples=15, deadline=None)
def test_codes_are_the_nearest_and_no_range_is_better(fmt, weight):
    q = round_weight(weight, fmt)
    assert q.format == fmt
    assert q.shape == weight.shape
    assert q.codes.dtype == (np.int8 if fmt.signed else np.uint8)
    assert q.codes.min() >= fmt.low
    assert q.codes.max() <= fmt.high
    assert q.scale.shape == (len(weight), fmt.groups(weight.shape[1]))
    assert (q.scale > 0).all()
    if fmt.scale == "float16":
        assert (q.scale.astype(np.float16).astype(np.float32) == q.scale).all()
    wide = np.repeat(q.scale, weight.shape[1] // q.scale.shape[1], axis=1)
    zero = 0 if q.zero is None else np.repeat(q.zero, weight.shape[1] // q.zero.shape[1], axis=1)
    # No other code of the same grid is nearer.
    value = q.dequantize().astype(np.float64)
    for step in (-1, 1):
        other = np.clip(q.codes.astype(int) + step, fmt.low, fmt.high)
        away = np.abs((other - zero) * wide.astype(np.float64) - weight)
        assert (np.abs(value - weight) <= away * (1 + 1e-5) + np.abs(weight) * 2e-7).all()
    # No other range of the search has less error.
    found = groups_of((value - weight) ** 2, fmt, *weight.shape).sum(axis=1)
    for ratio in CLIP_RATIOS[::7]:
        for error, row in zip(found, groups_of(weight, fmt, *weight.shape), strict=True):
            noise = len(row) * (1e-6 * float(np.abs(row).max())) ** 2
            assert error <= plain_error(row, fmt, ratio) * (1 + 1e-4) + noise


def plain_error(row, fmt, ratio):
    """Squared error of one row under the definition of its format, with one range."""
    ratio = np.float32(ratio)
    low, high = min(row.min(), np.float32(0)) * ratio, max(row.max(), np.float32(0)) * ratio
    scale = (
        np.abs(row).max() * ratio / np.float32(fmt.high)
        if fmt.signed
        else (high - low) / np.float32(fmt.high)
    )
    scale = scale or np.float32(1)
    if fmt.scale == "float16":
        scale = np.float32(np.maximum(np.float16(scale), np.float16(6e-8)))
    zero = 0 if fmt.signed else np.clip(np.round(-low / scale), 0, fmt.high)
    codes = np.clip(np.round(row / scale) + zero, fmt.low, fmt.high)
    if fmt.scale == "float16" and fmt.signed:
        return np.inf  # its range is searched in float32, before the scale is rounded
    return float((((codes - zero) * np.float64(scale) - row) ** 2).sum())


@pytest.mark.parametrize("fmt", DENSE, ids=str)
def test_zeros_have_scale_one_and_integer_zero(fmt):
    q = round_weight(np.zeros((3, 8), np.float32), fmt)
    assert (q.scale == 1).all()
    assert not q.integers().any()


def test_channels_and_groups_are_what_shares_a_scale():
    weight = normal(0, 6, 32)
    channel = round_weight(weight, INT4_WEIGHT)
    codes, scales = quantize_weight(weight, INT4_WEIGHT)
    assert (channel.codes == codes).all()
    assert (channel.scale[:, 0] == scales).all()
    grouped = round_weight(weight, IntFormat(4, "per_group", full_range=True, group=8))
    codes, scales = quantize_weight(weight.reshape(-1, 8), INT4_WEIGHT)
    assert (grouped.codes == codes.reshape(6, 32)).all()
    assert (grouped.scale == scales.reshape(6, 4)).all()
    tensor = round_weight(weight, IntFormat(4, "per_tensor", full_range=True))
    assert (tensor.codes == quantize_weight(weight.reshape(1, -1), INT4_WEIGHT)[0].reshape(6, 32)).all()
    assert len(np.unique(tensor.scale)) == 1


@pytest.mark.parametrize("fmt", SPARSE, ids=str)
def test_sparse_codes_keep_the_largest_in_order_of_position(fmt):
    weight = normal(2, 5, 16)
    weight[0] = 0
    q = round_weight(weight, fmt)
    assert q.codes.shape == q.index.shape == (5, 8)
    pairs = q.index.reshape(5, -1, 2)
    assert (pairs[..., 0] < pairs[..., 1]).all()
    mask = prune_mask(weight, Prune("magnitude"))
    assert (q.integers()[~mask] == 0).all()
    # What is kept is rounded as a dense matrix with zeros would be.
    dense = round_weight(np.where(mask, weight, 0), replace(fmt, sparsity=None))
    assert (dense.integers() == q.integers()).all()


def test_a_mask_may_keep_fewer_but_not_more():
    weight, fmt = normal(3, 2, 8), SPARSE[1]
    mask = np.zeros((2, 8), np.bool_)
    mask[0, 5] = True
    q = round_weight(weight, fmt, mask)
    assert np.count_nonzero(q.integers()) <= 1
    assert (q.integers()[~mask] == 0).all()
    mask[1, 4:7] = True
    with pytest.raises(
        QuantError, match=r"keeps 3 weights in group 1 of row 1; the format holds 2 of 4"
    ) as caught:
        round_weight(weight, fmt, mask)
    assert caught.value.code == "FX606"


@pytest.mark.parametrize("fmt", [INT8_WEIGHT, UINT4], ids=str)
def test_fewer_bits_in_the_same_container(fmt):
    weight = normal(4, 4, 16)
    q, narrow = round_weight(weight, fmt, bits=3), round_weight(weight, replace(fmt, bits=3))
    assert q.format == fmt
    assert (q.codes == narrow.codes).all()
    assert (q.scale == narrow.scale).all()
    for bits in (1, fmt.bits + 1):
        with pytest.raises(QuantError, match="do not fit a container") as caught:
            round_weight(weight, fmt, bits=bits)
        assert caught.value.code == "FX604"


def test_progressive_formats_are_dispatched():
    weight, fmt = normal(5, 4, 64), ProgressiveFormat(4, 32)
    q = round_weight(weight, fmt)
    assert q.step.shape == q.zero.shape == (4, 2)
    assert np.abs(q.dequantize() - weight).max() < 0.4
    for options in ({"bits": 3}, {"mask": np.ones((4, 64), np.bool_)}):
        with pytest.raises(QuantError) as caught:
            round_weight(weight, fmt, **options)
        assert caught.value.code == "FX604"


@pytest.mark.parametrize(
    ("weight", "fmt", "text"),
    [
        (np.zeros((0, 8)), INT4_WEIGHT, r"shape \[0, 8\] has no channels"),
        (np.zeros((8, 0)), INT4_WEIGHT, r"shape \[8, 0\] has no channels"),
        (np.array([[1, 2], [3, np.nan]]), INT4_WEIGHT, r"is nan \(row 1, column 1\)"),
        (np.array([[np.inf, 2]]), UINT4, r"is inf \(row 0, column 0\)"),
        (np.ones((2, 24)), IntFormat(4, "per_group", group=16), "rows of 24 weights .* groups of 16"),
        (np.ones((2, 24)), ProgressiveFormat(4, 16), "rows of 24 weights .* groups of 16"),
        (np.ones((2, 6)), SPARSE[0], "6 weights .* do not divide into groups of 4 for 2:4"),
        (
            np.ones((2, 12)),
            replace(SPARSE[1], group=6),
            "6 weights that share a scale do not divide into groups of 4",
        ),
        (np.full((1, 8), 1e6), IntFormat(4, "per_channel", scale="float16"), "float16"),
    ],
)
def test_what_cannot_be_quantized(weight, fmt, text):
    with pytest.raises(QuantError, match=text) as caught:
        round_weight(weight.astype(np.float32), fmt)
    assert caught.value.code == "FX606"
    assert caught.value.hint
    if not isinstance(fmt, ProgressiveFormat) and fmt.scale == "float32":
        with pytest.raises(QuantError, match=text):
            gptq(weight.astype(np.float32), np.eye(weight.shape[1]), fmt, Gptq())


def test_float_zero_points_are_for_activations():
    with pytest.raises(QuantError, match="no float zero point") as caught:
        round_weight(np.ones((2, 8), np.float32), IntFormat(4, "per_channel", zero="float"))
    assert caught.value.code == "FX604"


# ---- activations ---------------------------------------------------------------------------

ROWS = hnp.arrays(np.float32, (3, 8), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False))


@given(x=ROWS, bits=st.integers(2, 8), zero=st.sampled_from(["none", "integer", "float"]))
@settings(max_examples=30, deadline=None)
def test_activations_are_within_half_a_step(x, bits, zero):
    fmt = IntFormat(bits, "per_token", dynamic=True, zero=zero)
    codes, scale, offset = quantize_activation(x, fmt)
    assert codes.min() >= fmt.low
    assert codes.max() <= fmt.high
    assert (offset is None) == (zero == "none")
    back = fake_quantize(x, fmt).astype(np.float64)
    # An integer zero point shifts the grid by up to half a step, which can cost an end of the range a step.
    allowed = scale[:, None] * (1.0 if zero == "integer" else 0.5)
    assert (np.abs(back - x) <= allowed * (1 + 1e-3) + np.abs(x) * 1e-6 + TINY).all()
    if zero == "integer":
        assert (back[x == 0] == 0).all()
    if zero == "float":
        assert (back.min(axis=1) == x.min(axis=1)).all()


def test_constant_and_unquantized_activations():
    x = np.full((1, 4), 3, np.float32)
    assert (fake_quantize(x, IntFormat(4, "per_token", zero="float")) == 3).all()
    assert not fake_quantize(np.zeros((1, 4), np.float32), IntFormat(4, "per_token", zero="integer")).any()
    third = np.full((1, 4), 1 / 3, np.float32)
    assert (fake_quantize(third, None) == third).all()
    assert (fake_quantize(third, FloatFormat(32)) == third).all()
    assert fake_quantize(third, FloatFormat(16))[0, 0] == np.float32(np.float16(1 / 3))
    assert (
        fake_quantize(third, INT8_ACTIVATION) == dequantize(*quantize_activation(third, INT8_ACTIVATION)[:2])
    ).all()


# ---- GPTQ ----------------------------------------------------------------------------------

GPTQ_FORMATS = [*DENSE[:5], DENSE[6], *SPARSE]


def correlated(seed, width=64, rows=300):
    """Inputs [rows, width] that a few directions explain, and some noise."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.exp(-np.arange(width) / 12)[:, None]
    return rng.normal(size=(rows, width)) @ mixing + 0.1 * rng.normal(size=(rows, width))


def output_error(weight, quantized, hessian):
    lost = quantized.dequantize().astype(np.float64) - weight
    return float(np.vdot(lost @ hessian, lost))


@pytest.mark.parametrize("fmt", GPTQ_FORMATS, ids=str)
def test_gptq_never_loses_to_rtn_on_correlated_inputs(fmt):
    ratios = []
    for seed in range(8):
        x, weight = correlated(seed), normal(100 + seed, 16, 64)
        hessian = x.T @ x
        plain = output_error(weight, round_weight(weight, fmt), hessian)
        for options in (Gptq(), Gptq(block=24), Gptq(act_order=True)):
            if not (fmt.sparsity and options.act_order):
                ratios.append(output_error(weight, gptq(weight, hessian, fmt, options), hessian) / plain)
    assert max(ratios) < 0.75
    assert np.mean(ratios) < 0.45


def reference_gptq(weight, hessian, fmt, damping):
    """GPTQ by the book, with the inverse Hessian of the columns left, one row at a time."""
    h = hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))
    scale = quantize_weight(weight, fmt)[1].astype(np.float64)
    left, codes = weight.astype(np.float64), np.zeros(weight.shape)
    for i in range(weight.shape[1]):
        codes[:, i] = np.clip(np.round(left[:, i] / scale), fmt.low, fmt.high)
        inverse = np.linalg.inv(h[i:, i:])
        error = (left[:, i] - codes[:, i] * scale) / inverse[0, 0]
        left[:, i:] -= np.outer(error, inverse[0])
    return codes


@pytest.mark.parametrize("block", [1, 5, 128])
def test_gptq_is_the_optimal_update_column_by_column(block):
    for seed in range(5):
        x, weight = correlated(seed, 24), normal(seed, 8, 24)
        hessian = x.T @ x
        expected = reference_gptq(weight, hessian, INT4_WEIGHT, 0.01)
        found = gptq(weight, hessian, INT4_WEIGHT, Gptq(block=block)).codes
        assert (found != expected).mean() < 0.02  # a tie or two in float32


@pytest.mark.parametrize("options", [Gptq(), Gptq(act_order=True, block=7)])
def test_weights_on_the_grid_are_exact(options):
    codes = np.random.default_rng(6).integers(-127, 128, (8, 32)).astype(np.int8)
    codes[:, 5] = 127
    weight = dequantize(codes, np.float32(2) ** np.arange(-4, 4))
    x = correlated(7, 32)
    q = gptq(weight, x.T @ x, INT8_WEIGHT, options)
    assert (q.codes == codes).all()
    assert (q.dequantize() == weight).all()


def test_uncorrelated_inputs_make_gptq_rtn():
    weight = normal(8, 6, 32)
    for fmt in (INT4_WEIGHT, UINT4, DENSE[3]):
        q = gptq(weight, np.diag(np.arange(1.0, 33)), fmt, Gptq(act_order=True))
        assert (q.codes == round_weight(weight, fmt).codes).all()


def test_few_samples_and_dead_inputs():
    weight, x = normal(9, 6, 64), correlated(9, 64, rows=5)
    x[:, [3, 40]] = 0
    for damping in (0.01, 0.0):
        q = gptq(weight, x.T @ x, INT4_WEIGHT, Gptq(damping=damping))
        plain = round_weight(weight, INT4_WEIGHT)
        assert np.isfinite(q.dequantize()).all()
        assert (q.codes[:, [3, 40]] == plain.codes[:, [3, 40]]).all()
        assert output_error(weight, q, x.T @ x) <= output_error(weight, plain, x.T @ x)
    q = gptq(weight, np.zeros((64, 64)), INT4_WEIGHT, Gptq())
    assert (q.codes == plain.codes).all()


def test_the_factor_is_that_of_the_inverse():
    x = correlated(10, 150, 400)
    hessian = x.T @ x
    upper = inverse_factor(hessian, 0.01).astype(np.float64)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(150)
    assert (np.tril(upper, -1) == 0).all()
    assert np.allclose(upper.T @ upper @ damped, np.eye(150), atol=1e-3)


def test_gptq_prunes_like_sparse_gpt():
    x, weight, fmt = correlated(11), normal(11, 16, 64), SPARSE[0]
    hessian = x.T @ x
    chosen = gptq(weight, hessian, fmt, Gptq())
    wanda = prune_mask(weight, Prune(), np.diag(hessian))
    given_mask = gptq(weight, hessian, fmt, Gptq(), wanda)
    assert (given_mask.integers()[~wanda] == 0).all()
    assert is_legal(chosen.integers() != 0, NM())
    # The error of what is pruned is made up for as well: better than to prune first and then correct.
    cut = round_weight(weight, fmt, wanda)
    assert output_error(weight, given_mask, hessian) < 0.6 * output_error(weight, cut, hessian)
    assert output_error(weight, chosen, hessian) < 0.6 * output_error(weight, cut, hessian)


def test_gptq_refusals():
    weight, hessian = normal(12, 4, 64), np.eye(64)
    with pytest.raises(QuantError, match="progressive") as caught:
        gptq(weight, hessian, ProgressiveFormat(4, 32), Gptq())
    assert caught.value.code == "FX604"
    with pytest.raises(QuantError, match="act_order takes the groups of 4 apart") as caught:
        gptq(weight, hessian, SPARSE[0], Gptq(act_order=True))
    assert caught.value.code == "FX604"
    hessian[1, 1] = np.inf
    with pytest.raises(QuantError, match="overflow") as caught:
        gptq(weight, hessian, INT4_WEIGHT, Gptq())
    assert caught.value.code == "FX607"


# ---- pruning, smoothing, corrections -------------------------------------------------------


@given(weight=WEIGHTS, seed=st.integers(0, 99), wanda=st.booleans(), n=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_masks_keep_the_best_of_every_group(weight, seed, wanda, n):
    square = np.random.default_rng(seed).uniform(0, 9, weight.shape[1])
    mask = prune_mask(weight, Prune("wanda" if wanda else "magnitude"), square, NM(n, 4))
    assert is_legal(mask, NM(n, 4))
    assert mask.sum() == weight.size * n // 4
    score = np.abs(weight) * (np.sqrt(square).astype(np.float32) if wanda else 1)
    for kept, values in zip(mask.reshape(-1, 4), score.reshape(-1, 4), strict=True):
        best = max(sum(choice) for choice in combinations(values.astype(np.float64), n))
        assert np.isclose(values[kept].astype(np.float64).sum(), best, rtol=1e-6)


def test_masks_need_whole_groups_and_legality_is_checked():
    with pytest.raises(QuantError, match="rows of 6 weights") as caught:
        prune_mask(np.ones((2, 6), np.float32), Prune("magnitude"))
    assert caught.value.code == "FX606"
    assert not is_legal(np.array([[True, True, True, False]]), NM())


def test_smoothing_scales_follow_their_formula():
    amax = np.array([4, 0, 9, 1], np.float32)
    weights = [np.array([[1, 2, 0, -4]], np.float32), np.array([[-2, 1, 0, 1]], np.float32)]
    assert np.allclose(smooth_scales(amax, weights, 0.5), [2**0.5, 1, 1, 0.5])
    assert np.allclose(smooth_scales(amax, weights, 1.0), [4, 1, 1, 1])
    assert np.allclose(smooth_scales(amax, weights, 0.0), [1 / 2, 1, 1, 1 / 4])


def test_awq_finds_channels_that_carry_much_and_is_never_worse():
    fmt = IntFormat(3, "per_group", full_range=True, group=32)
    for seed in range(4):
        x, weight = normal(seed, 200, 64), normal(50 + seed, 16, 64)
        if seed % 2:
            x[:, 7] *= 30
        statistics = SiteStatistics(64, hessian=True)
        statistics.add(x)
        scale = awq_scales([(weight, fmt), (weight[:4], None)], statistics)

        def error(s, x=x, weight=weight):
            rounded = round_weight((weight * s).astype(np.float32), fmt).dequantize()
            return float((((x / s) @ rounded.T - x @ weight.T) ** 2).sum())

        assert error(scale) <= error(np.ones(64)) * (1 + 1e-5)
        if seed % 2:
            assert scale[7] > 1.3 * np.median(scale)
            assert error(scale) < 0.9 * error(np.ones(64))


def test_low_rank_factors_are_those_of_the_svd():
    parts = (normal(13, 5, 12), normal(14, 9, 12))
    down, ups = low_rank_factors(parts, 3)
    assert down.shape == (3, 12)
    assert [up.shape for up in ups] == [(5, 3), (9, 3)]
    assert np.allclose(down @ down.T, np.eye(3), atol=1e-5)
    left, values, right = np.linalg.svd(np.concatenate(parts).astype(np.float64), full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.allclose(np.concatenate(ups) @ down, best, atol=1e-5)


def test_outlier_channels_are_the_largest():
    assert outlier_channels(np.array([1, 5, 2, 5, 9], np.float32), 3).tolist() == [1, 3, 4]


@given(st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_statistics_do_not_depend_on_how_rows_arrive(parts, seed):
    x = normal(seed, 20, 6)
    for hessian in (False, True):
        statistics = SiteStatistics(6, hessian)
        for part in np.array_split(x, parts):
            statistics.add(part)
        assert statistics.rows == 20
        assert (statistics.amax == np.abs(x).max(axis=0)).all()
        assert np.allclose(statistics.absolute, np.abs(x).sum(axis=0), rtol=1e-5)
        assert np.allclose(statistics.square, (x.astype(np.float64) ** 2).sum(axis=0), rtol=1e-5)
        if hessian:
            assert np.allclose(statistics.hessian, x.T.astype(np.float64) @ x, rtol=1e-4, atol=1e-4)
