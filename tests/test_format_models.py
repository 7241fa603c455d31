"""Every format through a whole model: kernels, the NumPy reference and the compiled hardware design agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from format_models import (
    ACTIVATIONS,
    CACHES,
    COMBINATIONS,
    PLAIN,
    STATIC_KV,
    WEIGHTS,
    integer_only,
    random_model,
    random_tokens,
    random_weight,
    recipe,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ToolError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.kernels.linear import linear_add
from flexllm_allo.models.arrays import _weight
from flexllm_allo.models.operators import operators
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import IntFormat, QuantizedModel, Recipe, weight_storage
from flexllm_allo.quant.activation import fake_quantize, quantize_activation, quantize_static
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.build import hardware_top, weight_words
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedules import cpu, decode, prefill

LENGTHS = (1, 4, 19)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


# ------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("name", COMBINATIONS)
def test_both_stages_are_the_reference_bit_for_bit(name: str) -> None:
    """One stage under the schedules of hardware, the other under those of the CPU, in turns, any block."""
    model, turn = random_model(name), list(COMBINATIONS).index(name)
    on_cpu = ("prefill", "decode")[turn % 2]
    first = cpu.blocked(2 + turn % 5) if on_cpu == "prefill" else prefill.spatial(2 + turn % 3, 4)
    second = cpu.blocked(1) if on_cpu == "decode" else decode.temporal(4)
    session = Session(model, hybrid(model, first, second, weight_words(model)))
    reference = ReferenceLlama(model.weights, sequential=True)
    for length in LENGTHS:
        tokens = random_tokens(length, seed=length)
        expected = reference.prefill(tokens)
        assert np.ptp(expected) > 1
        for stage in ("prefill", "decode"):
            found = session.logits(tokens, stage)
            if stage != on_cpu or integer_only(model.weights.recipe):
                same_bits(found, expected)
            else:
                assert relative(found, expected) < reordered(model.weights.recipe)


def reordered(made: Recipe) -> float:
    """What another order of float sums may change; beside codes, it may move a value to the next one."""
    return 1e-5 if made.activation is None and made.kv is None else 0.1


COMPILED = (
    "w4a4kv8 static", "w4a4kv4", "progressive", "sparse, 2-bit index", "w4a16", "zero points",
    "sparse, outliers and low rank", "rotated, Paley sizes",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_the_hardware_design_as_compiled_cpp_generates_the_same_tokens(name: str) -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    model = random_model(name)
    top = hardware_top(model, token_parallel=3, weight_parallel=4).top
    arguments = golden_arguments(model)
    length, wanted = arguments["n_prompt"], arguments["max_new_tokens"]
    inputs = top.function(top.top).inputs
    made = CSimModule(top)(*(laid_out(b, arguments[b.name]) for b in inputs))
    prompt = arguments["prompt"][:length].tolist()
    expected = ReferenceLlama(model.weights, sequential=True).generate(
        prompt, wanted, model.config.eos_token_ids
    )
    assert len(expected) > 1
    assert arguments["tokens"][:made].tolist() == expected


# ------------------------------------------------------------------- against float64 arithmetic


@pytest.mark.parametrize("inputs", ACTIVATIONS)
@pytest.mark.parametrize("storage", WEIGHTS)
@settings(max_examples=3, deadline=None)
@given(tokens=st.integers(1, 3), rows=st.integers(1, 6), seed=st.integers(0, 999))
def test_a_linear_layer_is_the_product_of_dequantized_numbers(
    storage: str, inputs: str, tokens: int, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    width, fmt, weight_format = 48, ACTIVATIONS[inputs], WEIGHTS[storage]
    weight = random_weight(weight_format, rows, width, rng)
    x = (rng.standard_normal((tokens, width)) + rng.uniform(-1, 1)).astype(np.float32)
    side_x, side_w = (rng.standard_normal((n, 2)).astype(np.float32) for n in (tokens, rows))

    found = run_linear(weight, fmt, x, side_x, side_w)

    values = exact_values(x, fmt)
    weights = exact_weight(weight)
    expected = values @ weights.T + side_x.astype(np.float64) @ side_w.T
    # Where offset and codes cancel, what is rounded is larger than what is left.
    size = np.abs(values) @ np.abs(weights).T + np.abs(side_x) @ np.abs(side_w).T
    assert (np.abs(found - expected) <= 1e-5 * size).all()


def run_linear(weight: Any, fmt: Any, x: np.ndarray, side_x: np.ndarray, side_w: np.ndarray) -> np.ndarray:
    """The kernel of a weight's format on quantized inputs, with two more terms in float."""
    codes, scale, offset = quantize_activation(x, fmt)
    own = np.stack([scale] if offset is None else [scale, offset], axis=-1)
    terms = np.concatenate([own, side_x], axis=-1)
    made = recipe(weight.format, fmt, None, None)
    model: Any = QuantizedModel(PLAIN, made, {"wo": weight, "wo.side": side_w}, scale, scale)
    arrays = [array for _, read in _weight(model, "wo", "wo") if (array := read()) is not None]
    layer = replace(operators(made).wo, extra=terms.shape[1] - 1)
    sizes = dict(F=layer, Tx=operators(made).out.dtype, T=len(x), N=len(weight.codes), K=x.shape[1])
    program = allo.customize(linear_add, instantiate=sizes | dict(P=terms.shape[1])).program
    return Interpreter(program)(codes, terms, *arrays, np.zeros((len(x), len(weight.codes)), np.float32))


def exact_values(x: np.ndarray, fmt: Any) -> np.ndarray:
    """What the codes of float32 [..., K] stand for, float64."""
    codes, scale, offset = quantize_activation(x, fmt)
    values = codes.astype(np.float64) * scale[..., None]
    return values if offset is None else values + offset[..., None]


def exact_weight(weight: Any) -> np.ndarray:
    """What the codes of a weight stand for, float64."""
    if weight.format is None:
        return weight.codes.astype(np.float64)
    whole = weight.integers().astype(np.float64)
    return whole * np.repeat(weight.scale, whole.shape[-1] // weight.scale.shape[-1], axis=-1)


@pytest.mark.parametrize("inputs", ACTIVATIONS)
@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 40), shift=st.integers(-3, 3), seed=st.integers(0, 999))
def test_dequantized_activations_are_within_a_step(inputs: str, width: int, shift: int, seed: int) -> None:
    fmt = ACTIVATIONS[inputs]
    x = (np.random.default_rng(seed).standard_normal((3, width)) + shift).astype(np.float32)
    _, scale, _ = quantize_activation(x, fmt)
    # An integer zero point is rounded too, and codes are clamped.
    steps = {"int8": 0.5, "uint4 minimum": 0.5, "uint8": 0.5, "uint4 zero": 1.0}.get(inputs)
    size = np.abs(x).max(axis=-1, keepdims=True)
    bound = steps * scale[:, None] if steps else np.abs(x) * (2**-11 if inputs == "half" else 0)
    for values in (exact_values(x, fmt), fake_quantize(x, fmt)):
        assert (np.abs(values - x) <= bound + 1e-6 * size * (inputs != "float")).all()


@pytest.mark.parametrize("cache", CACHES)
@settings(max_examples=5, deadline=None)
@given(group=st.integers(1, 3), before=st.integers(0, 5), seed=st.integers(0, 999))
def test_attention_is_that_of_dequantized_numbers(cache: str, group: int, before: int, seed: int) -> None:
    """Up to the rounding of probabilities, which is at most half a code times the codes of the values."""
    rng = np.random.default_rng(seed)
    kv, width, tokens, positions = 2, 8, 2, 8
    heads, end = kv * group, before + tokens
    scales = [rng.uniform(0.015, 0.03, n).astype(np.float32) for n in (heads, kv, kv)]
    scales.append(np.full(heads, 1 / 255, np.float32))
    run = AttentionRun(CACHES[cache], scales, kv, positions)
    q, k, v = (rng.standard_normal((end, n, width)).astype(np.float32) for n in (heads, kv, kv))
    if before:
        run(q[:before], k[:before], v[:before], 0)
    found = run(q[before:], k[before:], v[before:], before)

    query, keys, values = run.values(q, 0), run.values(k, 1), run.values(v, 2)
    for t, h in np.ndindex(tokens, heads):
        seen = slice(0, before + t + 1)
        score = keys[seen, h // group] @ query[before + t, h] * width**-0.5
        p = np.exp(score - score.max())
        p /= p.sum()
        expected = p @ values[seen, h // group]
        bound = run.rounding(p, v[seen, h // group], h // group)
        error = np.abs(found[t, h] - expected)
        assert (error <= bound + 1e-5).all()


@dataclass
class AttentionRun:
    """`attend` (or `attend_static`) and its cache."""

    fmt: IntFormat | None
    scales: list[np.ndarray]
    kv: int
    positions: int

    def __post_init__(self) -> None:
        self.operators = operators(recipe(None, None, self.fmt, None))
        self.cache: list[np.ndarray] = []

    @property
    def static(self) -> bool:
        return self.fmt is STATIC_KV

    def __call__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, pos: int) -> np.ndarray:
        """[T, heads, D] of queries, keys and values at positions from `pos` on."""
        tokens, heads, width = q.shape
        sizes = dict(
            F=self.operators, H=heads, T=tokens, D=width, KV=self.kv, S=self.positions, R=tokens * self.kv
        )
        program = allo.customize(self.operators.attend, instantiate=sizes).program
        if not self.cache:
            stored = np.float32 if self.fmt is None else np.int8 if self.fmt.signed else np.uint8
            for _ in "kv":
                self.cache.append(np.zeros((self.kv, self.positions, width), stored))
                if not self.static:
                    self.cache.append(
                        np.zeros((self.kv, self.positions, self.operators.cache.terms), np.float32)
                    )
        rows = [a.reshape(-1, width) for a in (q, k, v)]
        more = self.scales if self.static else []
        return Interpreter(program)(*rows, pos, tokens, *self.cache, *more).reshape(tokens, heads, width)

    def values(self, x: np.ndarray, which: int) -> np.ndarray:
        """What the codes of queries (0), keys (1) or values (2) [T, heads, D] stand for."""
        if self.static:
            scale = self.scales[which][:, None]
            return quantize_static(x, scale).astype(np.float64) * scale
        return exact_values(x, recipe(None, None, self.fmt, None).query if which == 0 else self.fmt)

    def rounding(self, p: np.ndarray, v: np.ndarray, head: int) -> np.ndarray:
        """The most that rounding the probabilities p [S] may change of p @ v [D]."""
        if self.fmt is None:
            return np.zeros(v.shape[1])
        if self.static:
            scale = self.scales[2][head]
            return 0.5 / 255 * np.abs(quantize_static(v, scale) * scale).sum(axis=0)
        codes, scale, _ = quantize_activation(v, self.fmt)
        query = recipe(None, None, self.fmt, None).query
        assert query is not None
        return 0.5 * (p * scale).max() / query.high * np.abs(codes.astype(np.float64)).sum(axis=0)


# ----------------------------------------------------------------------------------- storage


def test_what_recipes_keep_in_float_is_counted() -> None:
    model = random_model("sparse, outliers and low rank")
    c, layers, count, rank = model.config, model.config.num_hidden_layers, 3, 2
    storage = weight_storage(model.weights)
    hidden, inner = c.hidden_size, c.intermediate_size
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    rows = layers * (queries + 2 * keys + hidden + 2 * inner + hidden) + c.vocab_size
    inputs = [*[hidden, queries, hidden, inner] * layers, hidden]
    assert storage.side_bytes == 4 * (rows * (count + rank) + len(inputs) * count + rank * sum(inputs))
    weights = layers * (2 * queries * hidden + 2 * keys * hidden + 3 * hidden * inner)
    assert storage.weights == weights + c.vocab_size * hidden
    sparse, head = 2 / 2 + 3 / 4 + (32 + 2) / 16, 3 + (32 + 3) / 16
    assert storage.bits == pytest.approx(weights * sparse + c.vocab_size * hidden * head)
    assert storage.bytes_per_token == pytest.approx(storage.bits / 8 + storage.side_bytes)
