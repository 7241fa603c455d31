"""Rounding, the range search, recipes, storage accounting, perplexity."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexllm_allo.errors import QuantError, UsageError
from flexllm_allo.models.arrays import constant_arrays
from flexllm_allo.models.expf import expf
from flexllm_allo.models.operators import operators
from flexllm_allo.quant import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_KV,
    INT8_WEIGHT,
    IntFormat,
    Recipe,
    Rotate,
    Rtn,
    StaticScales,
    bytes_per_weight,
    dequantize,
    get_recipe,
    perplexity,
    quantize,
    quantize_rows,
    quantize_weight,
    recipes,
    round_half_away,
    text_sha256,
    weight_storage,
)
from flexllm_allo.quant.formats import NM, ProgressiveFormat

DATA_FREE = ["none", "w8a8kv8", "w4a8kv8"]
"""Recipes that need no calibration text."""

FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
for _name in ("roundf", "expf"):
    getattr(LIBM, _name).restype = ctypes.c_float
    getattr(LIBM, _name).argtypes = [ctypes.c_float]


@pytest.mark.parametrize(
    ("fmt", "low", "high"), [(INT8_WEIGHT, -127, 127), (INT4_WEIGHT, -8, 7), (INT8_ACTIVATION, -127, 127)]
)
def test_code_ranges(fmt: IntFormat, low: int, high: int) -> None:
    assert (fmt.low, fmt.high) == (low, high)


@given(hnp.arrays(np.float32, 16, elements=st.floats(-1e9, 1e9, width=32)))
def test_round_is_that_of_c(x):
    assert round_half_away(x).tolist() == [LIBM.roundf(float(v)) for v in x]


def test_round_near_one_half():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    x = np.array([0.5, below, -0.5, 1.5, 2.5, -2.5, 8388607.5], np.float32)
    assert round_half_away(x).tolist() == [1, 0, -1, 2, 3, -3, 8388608]


def test_expf_is_that_of_c():
    x = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32) * 20
    x[0, :4] = [0, -np.inf, np.inf, 200]
    assert expf(x).tolist() == [[LIBM.expf(float(v)) for v in row] for row in x]
    assert expf(x[:, ::2]).shape == (50, 20)
    assert expf(np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("fmt", [INT8_WEIGHT, INT4_WEIGHT, IntFormat(3, "per_channel")])
@given(weight=FLOATS)
@settings(max_examples=60, deadline=None)
def test_weight_properties(fmt, weight):
    codes, scales = quantize_weight(weight, fmt)
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    assert codes.min() >= fmt.low
    assert codes.max() <= fmt.high
    assert (scales > 0).all()

    def error(c, s):
        return ((dequantize(c, s).astype(np.float64) - weight) ** 2).sum(axis=1)

    plain = error(*quantize_weight(weight, fmt, ratios=(1.0,)))
    assert (error(codes, scales) <= plain * (1 + 1e-5) + 1e-30).all()
    # Inside the range the error is at most half a step.
    inside = np.abs(weight) <= (fmt.high * scales)[:, None]
    step = scales[:, None].astype(np.float64)
    excess = np.abs(dequantize(codes, scales).astype(np.float64) - weight) - step / 2
    assert (excess[inside] <= (np.abs(weight) * 1e-6 + 1e-30)[inside]).all()


def test_clip_search_beats_plain_rounding():
    weight = np.random.default_rng(0).standard_t(4, size=(64, 512)).astype(np.float32)

    def mse(**options):
        return float(((dequantize(*quantize_weight(weight, INT4_WEIGHT, **options)) - weight) ** 2).mean())

    assert mse() < 0.6 * mse(ratios=(1.0,))


def test_full_range_never_hurts():
    weight = np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32)

    def error(fmt):
        return ((dequantize(*quantize_weight(weight, fmt)) - weight).astype(np.float64) ** 2).sum(axis=1)

    assert (error(INT4_WEIGHT) <= error(IntFormat(4, "per_channel")) * (1 + 1e-6)).all()


def test_weights_on_the_grid_survive():
    codes = np.random.default_rng(2).integers(-127, 128, size=(8, 40)).astype(np.int8)
    codes[:, 0] = 127
    scales = np.float32(2) ** np.arange(-4, 4).astype(np.float32)
    again, found = quantize_weight(dequantize(codes, scales), INT8_WEIGHT)
    assert (again == codes).all()
    assert (found == scales).all()


def test_blocks_of_rows_are_independent(monkeypatch):
    weight = np.random.default_rng(3).normal(size=(10, 12)).astype(np.float32)
    whole = quantize_weight(weight, INT4_WEIGHT)
    monkeypatch.setattr("flexllm_allo.quant.integer.rtn._BLOCK", 30)
    split = quantize_weight(weight, INT4_WEIGHT)
    assert all((a == b).all() for a, b in zip(whole, split, strict=True))


def test_zero_rows_have_scale_one():
    codes, scales = quantize_weight(np.zeros((2, 3), np.float32), INT8_WEIGHT)
    assert not codes.any()
    assert scales.tolist() == [1, 1]
    codes, scales = quantize_rows(np.zeros((2, 3), np.float32), INT8_ACTIVATION)
    assert not codes.any()
    assert scales.tolist() == [1, 1]


@given(x=FLOATS)
def test_row_properties(x):
    codes, scales = quantize_rows(x, INT8_ACTIVATION)
    largest = np.abs(x).max(axis=1)
    assert (np.abs(codes).max(axis=1)[largest > 1e-30] == 127).all()
    assert (scales[largest > 1e-30] == (largest / np.float32(127))[largest > 1e-30]).all()
    negated, _ = quantize_rows(-x, INT8_ACTIVATION)
    assert (negated == -codes).all()


def test_nan_weight_is_refused():
    with pytest.raises(QuantError) as caught:
        quantize_weight(np.array([[1, np.nan]], np.float32), INT8_WEIGHT)
    assert caught.value.code == "FX606"


def test_recipes():
    assert list(recipes) == [
        "none", "w8a8kv8", "w4a8kv8", "w4a16", "w4a8kv4", "w4a4kv8", "w4a4kv4", "w4a4kv4-quarot", "w2a8kv4",
    ]  # fmt: skip
    assert get_recipe("w4a8kv8").head == INT8_WEIGHT
    assert "lm_head" in get_recipe("w4a8kv8").description
    with pytest.raises(QuantError) as caught:
        get_recipe("w4a8kv")
    assert caught.value.code == "FX604"
    assert '"w4a8kv8"' in caught.value.hint


class FloatModel:
    """A random float model, as `quantize` takes it."""

    config = SimpleNamespace(
        vocab_size=11,
        hidden_size=6,
        intermediate_size=10,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=9,
        rms_norm_eps=1e-5,
    )

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        shapes = {"model.embed_tokens": (11, 6), "model.norm": (6,), "lm_head": (11, 6)}
        for i in range(2):
            at = f"model.layers.{i}."
            shapes |= {at + "input_layernorm": (6,), at + "post_attention_layernorm": (6,)}
            shapes |= {at + "self_attn.q_proj": (8, 6), at + "self_attn.o_proj": (6, 8)}
            shapes |= {at + "self_attn.k_proj": (4, 6), at + "self_attn.v_proj": (4, 6)}
            shapes |= {at + "mlp.gate_proj": (10, 6), at + "mlp.up_proj": (10, 6)}
            shapes |= {at + "mlp.down_proj": (6, 10)}
        self.tensors = {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}

    def rope_tables(self, max_seq_len):
        return np.ones((max_seq_len, 2), np.float32), np.zeros((max_seq_len, 2), np.float32)


@pytest.mark.parametrize("name", DATA_FREE)
def test_tensors_and_stacked_arrays(name):
    source = FloatModel()
    model = quantize(source, name, max_seq_len=5)
    plain = {
        "embed": (11, 6), "final_norm": (6,), "cosine": (5, 2), "sine": (5, 2), "eps": (),
        "attn_norm": (2, 6), "mlp_norm": (2, 6),
    }  # fmt: skip
    weights = {
        "wq": (2, 8, 6), "wk": (2, 4, 6), "wv": (2, 4, 6), "wo": (2, 6, 8),
        "w_gate": (2, 10, 6), "w_up": (2, 10, 6), "w_down": (2, 6, 10), "w_head": (11, 6),
    }  # fmt: skip
    arrays = constant_arrays(model)
    assert set(arrays) == set(plain) | {f"{w}_{part}" for w in weights for part in ("codes", "terms")}
    for field, shape in plain.items():
        assert arrays[field].shape == shape, field
        assert arrays[field].dtype == np.float32
        assert arrays[field].flags.c_contiguous, field
    for field, shape in weights.items():
        codes, terms = arrays[f"{field}_codes"], arrays[f"{field}_terms"]
        assert codes.shape == shape, field
        assert codes.flags.c_contiguous, field
        assert codes.dtype == (np.float32 if name == "none" else np.int8)
        assert terms.shape == (*shape[:-1], 1)
        assert terms.dtype == np.float32
        for layer in range(2):
            weight = model.weight(field, layer)
            assert weight.shape == shape[-2:]
            at = () if field == "w_head" else layer
            assert (codes[at] == weight.codes).all()
            assert (terms[at] == weight.scale).all()
    assert model.max_seq_len == 5
    down, weight = source.tensors["model.layers.1.mlp.down_proj.weight"], model.weight("w_down", 1)
    assert (np.abs(weight.dequantize() - down) <= (0 if name == "none" else weight.scale * 5)).all()
    if name == "w4a8kv8":
        assert np.abs(arrays["wq_codes"]).max() <= 8
        assert np.abs(arrays["w_head_codes"]).max() == 127


def test_storage_counts_packed_codes_and_scales():
    weights, head = 2 * (8 * 6 + 2 * 4 * 6 + 6 * 8 + 3 * 6 * 10), 11 * 6
    scales = 32 * (2 * (8 + 4 + 4 + 6 + 10 + 10 + 6) + 11)
    sizes = {name: weight_storage(quantize(FloatModel(), name)) for name in DATA_FREE}
    assert {s.weights for s in sizes.values()} == {weights + head}
    assert {s.side_bytes for s in sizes.values()} == {0}
    assert sizes["none"].bytes_per_weight == 4
    assert sizes["w8a8kv8"].bits == pytest.approx(8 * (weights + head) + scales)
    assert sizes["w4a8kv8"].bits == pytest.approx(4 * weights + 8 * head + scales)
    assert sizes["w4a8kv8"].bytes_per_token == sizes["w4a8kv8"].bits / 8
    model = quantize(FloatModel(), "w4a8kv8")
    assert bytes_per_weight(model) == sizes["w4a8kv8"].bytes_per_weight
    assert INT4_WEIGHT.bits_per_weight(64) == 4.5


SPARSE = IntFormat(2, "per_group", zero="integer", group=32, sparsity=NM(2, 4, "3bit"))


@pytest.mark.parametrize(
    ("fmt", "stored"),  # bits of a matrix [N, K] = [6, 64], counted from its arrays
    [
        (INT8_WEIGHT, 6 * 64 * 8 + 6 * 32),
        (IntFormat(4, "per_group", full_range=True, group=16, scale="float16"), 6 * 64 * 4 + 6 * 4 * 16),
        (IntFormat(3, "per_group", zero="integer", group=32), 6 * 64 * 3 + 6 * 2 * (32 + 3)),
        (IntFormat(3, "per_channel", zero="integer"), 6 * 64 * 3 + 6 * (32 + 3)),
        (ProgressiveFormat(4, 16), 6 * 64 * 4 + 6 * 4 * (8 + 4) + 6 * 32),
        (SPARSE, 6 * 32 * 2 + 6 * 16 * 3 + 6 * 2 * (32 + 2)),
        (replace(SPARSE, sparsity=NM(2, 4, "2bit")), 6 * 32 * 2 + 6 * 32 * 2 + 6 * 2 * (32 + 2)),
    ],
)
def test_bits_of_a_weight_are_those_of_its_arrays(fmt, stored):
    assert 6 * 64 * fmt.bits_per_weight(64) == pytest.approx(stored)


def test_recipes_and_lengths_that_do_not_fit_are_refused():
    for recipe, length in (("w8a8", None), ("none", 0), ("none", 10)):
        with pytest.raises(QuantError) as caught:
            quantize(FloatModel(), recipe, max_seq_len=length)
        assert caught.value.code == "FX604"


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (Recipe("w16", IntFormat(16, "per_channel"), None, None, None), "weight of 16 bits; 2 to 8"),
        (Recipe("h1", None, None, None, IntFormat(1, "per_channel")), "head of 1 bits"),
        (Recipe("a16", INT8_WEIGHT, replace(INT8_ACTIVATION, bits=16), None, None), "activation of 16 bits"),
        (Recipe("kv9", None, None, replace(INT8_KV, bits=9), None), "kv of 9 bits"),
        (Recipe("row", INT8_ACTIVATION, None, None, None), "a weight cannot be per_token"),
        (Recipe("group", IntFormat(4, "per_group"), None, None, None), "per_group needs a group"),
        (Recipe("min", IntFormat(4, "per_channel", zero="float"), None, None, None), "no float zero"),
        (Recipe("14", replace(SPARSE, sparsity=NM(1, 4)), None, None, None), "sparse weights are 2:4"),
        (
            Recipe("s", IntFormat(2, "per_group", group=32, sparsity=NM()), None, None, None),
            "with an integer zero",
        ),
        (
            Recipe("down", INT8_WEIGHT, None, None, None, kinds={"w_down": IntFormat(9, "per_channel")}),
            "w_down of 9 bits",
        ),
    ],
)
def test_formats_that_no_kernel_computes_are_refused(recipe, problem):
    with pytest.raises(QuantError) as caught:
        operators(recipe)
    assert caught.value.code == "FX604"
    assert f"recipe {recipe.name!r} cannot be computed" in caught.value.message
    assert problem in caught.value.message


def test_a_weight_that_cannot_be_quantized_is_named():
    source = FloatModel()
    wide = Recipe("w16", IntFormat(16, "per_channel"), None, None, None)
    with pytest.raises(QuantError) as caught:
        quantize(source, wide)
    assert caught.value.code == "FX604"
    source.tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = np.inf
    with pytest.raises(QuantError, match=r"model\.layers\.1\.mlp\.up_proj\.weight") as caught:
        quantize(source, "w8a8kv8")
    assert caught.value.code == "FX606"


def bigram(tokens):
    """Logits that depend on the last token alone, so that windows do not matter."""
    table = np.random.default_rng(5).normal(size=(13, 13))
    return table[np.asarray(tokens)]


@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.integers(2, 9), st.integers(1, 9))
@settings(deadline=None)
def test_perplexity_scores_each_token_once(tokens, context, stride):
    stride = min(stride, context - 1)
    result = perplexity(bigram, tokens, context, stride)
    logits = bigram(tokens)[:-1]
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(tokens) - 1), tokens[1:]]
    assert result.scored_tokens == len(tokens) - 1
    assert math.isclose(result.ppl, math.exp(nll.mean()), rel_tol=1e-9)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(2, 9))
@settings(deadline=None)
def test_perplexity_with_bos(tokens, context):
    seen = []

    def uniform(window):
        assert window[0] == 1
        assert len(window) <= context
        seen.append(window[1:])
        return np.zeros((len(window), 13), np.float32)

    result = perplexity(uniform, tokens, context, bos=1)
    assert list(chain.from_iterable(seen)) == tokens
    assert result.scored_tokens == result.tokens == len(tokens)
    assert (result.windows, result.context) == (len(seen), context)
    assert (result.stride, result.bos) == (context - 1, 1)
    assert math.isclose(result.ppl, 13)


def test_perplexity_refusals_and_digests():
    for tokens, context, stride in (([1], 8, 4), ([1, 2], 1, 1), ([1, 2, 3], 4, 5), ([1, 2, 3], 4, 0)):
        with pytest.raises(UsageError) as caught:
            perplexity(bigram, tokens, context, stride)
        assert caught.value.code == "FX703"
    assert len(perplexity(bigram, [1, 2], 2, 1).tokens_sha256) == 64
    assert text_sha256("abc").startswith("ba7816bf")


STATIC = IntFormat(8, "per_head", full_range=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"activation": IntFormat(8, "per_tensor", dynamic=True)},
            "activations have a scale per_token, dynamic",
        ),
        ({"activation": IntFormat(8, "per_token")}, "activations have a scale per_token"),
        ({"kv": STATIC}, "a kv that is not dynamic needs StaticScales"),
        ({"passes": (Rtn(), StaticScales())}, "StaticScales are for a kv that is not dynamic"),
        (
            {"kv": replace(STATIC, bits=4), "passes": (Rtn(), StaticScales())},
            "has 8 bits, signed, per_head",
        ),
        (
            {"kv": replace(STATIC, zero="integer"), "passes": (Rtn(), StaticScales())},
            "has 8 bits, signed, per_head",
        ),
        ({"kv": IntFormat(8, "per_head", dynamic=True)}, "kv cannot be per_head and dynamic"),
    ],
)
def test_inputs_that_no_kernel_computes_are_refused(change, text):
    with pytest.raises(QuantError, match=text) as caught:
        operators(replace(get_recipe("w8a8kv8"), **change))
    assert caught.value.code == "FX604"


def test_a_folded_rotation_of_an_unknown_matrix_is_refused():
    from flexllm_allo.quant.transform.rotation import random_rotations

    config = SimpleNamespace(
        hidden_size=64, head_dim=16, intermediate_size=48, num_attention_heads=4, num_hidden_layers=1
    )
    with pytest.raises(QuantError, match="another program folded") as caught:
        random_rotations(config, Rotate(folded=True))
    assert caught.value.code == "FX604"
    assert random_rotations(config, Rotate()).r4
