"""The NumPy reference against transformers, against a scalar transcription of its formulas, and itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from pathlib import Path

import numpy as np
import pytest

from flexllm_allo.errors import UsageError
from flexllm_allo.models.hf import Checkpoint, load_checkpoint
from flexllm_allo.models.model import Model
from flexllm_allo.models.reference import ReferenceLlama, sequential_sum
from flexllm_allo.quant import perplexity, quantize
from flexllm_allo.runtime.session import Session

TINY = Path(__file__).parent.parent / "models" / "tiny"
F = np.float32
DATA_FREE = ["none", "w8a8kv8", "w4a8kv8"]
"""Recipes that need no calibration text."""
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS = {
    "odd": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10},
    "tied, 4 to 2 heads": {"tie_word_embeddings": True},
    "no grouping, llama3": {"num_key_value_heads": 4, "rope_parameters": LLAMA3},
}
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
for _name in ("roundf", "expf"):
    getattr(LIBM, _name).restype = ctypes.c_float
    getattr(LIBM, _name).argtypes = [ctypes.c_float]


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


def hf_model(changes):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    shape = {
        "vocab_size": 47,
        "hidden_size": 24,
        "intermediate_size": 28,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(shape | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def hf_logits(model, tokens):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


# --------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_none_equals_transformers(name, sequential):
    model = hf_model(CONFIGS[name])
    tokens = np.random.default_rng(0).integers(0, 47, 40).tolist()
    reference = ReferenceLlama(quantize(Checkpoint.from_transformers(model), "none"), sequential)
    logits = reference.prefill(tokens)
    assert logits.dtype == np.float32
    assert relative_error(logits, hf_logits(model, tokens)) < 1e-4


@pytest.mark.parametrize(("recipe", "tolerance"), [("w8a8kv8", 0.08), ("w4a8kv8", 0.6)])
@pytest.mark.parametrize("name", CONFIGS)
def test_quantised_is_close_to_transformers(name, recipe, tolerance):
    # Random weights of width 24 are a hard case; the trained checkpoint below is the realistic one.
    model = hf_model(CONFIGS[name])
    tokens = np.random.default_rng(0).integers(0, 47, 40).tolist()
    reference = ReferenceLlama(quantize(Checkpoint.from_transformers(model), recipe))
    assert relative_error(reference.prefill(tokens), hf_logits(model, tokens)) < tolerance


def test_tiny_equals_transformers(tiny):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    tokens = tiny.encode("The for statement is used to iterate over the elements of a sequence")
    reference = ReferenceLlama(quantize(tiny, "none"))
    assert relative_error(reference.prefill(tokens), hf_logits(model, tokens)) < 1e-4


# -------------------------------------------------------------------- the formulas, one at a time


def scalar_sum(values):
    total = F(0)
    for value in values:
        total = F(total + value)
    return total


def scalar_codes(x):
    scale = F(max(abs(v) for v in x) / F(127))
    scale = F(1) if scale == 0 else scale
    return [int(np.clip(LIBM.roundf(float(F(v / scale))), -127, 127)) for v in x], scale


def scalar_linear(x, weight):
    codes, xs = scalar_codes(x)
    acc = [sum(int(c) * int(v) for c, v in zip(codes, row, strict=True)) for row in weight.codes]
    return [F(F(a) * F(xs * s)) for a, s in zip(acc, weight.scale[:, 0], strict=True)]


def scalar_norm(x, gain, eps):
    r = F(F(1) / np.sqrt(F(F(scalar_sum([F(v * v) for v in x]) / F(len(x))) + F(eps))))
    return [F(F(v * r) * g) for v, g in zip(x, gain, strict=True)]


def scalar_rope(x, cos, sin):
    half = len(x) // 2
    first = [F(F(x[i] * cos[i]) - F(x[i + half] * sin[i])) for i in range(half)]
    return first + [F(F(x[i + half] * cos[i]) + F(x[i] * sin[i])) for i in range(half)]


def scalar_attention(q, keys, values):
    """One head of one row: q float [D], keys and values as (codes, scale) per position."""
    codes, qs = scalar_codes(q)
    inverse = F(1 / np.sqrt(len(q)))
    score = []
    for key, ks in keys:
        acc = sum(a * b for a, b in zip(codes, key, strict=True))
        score.append(F(F(F(acc) * F(qs * ks)) * inverse))
    e = [F(LIBM.expf(float(F(s - max(score))))) for s in score]
    total = scalar_sum(e)
    a, scale = scalar_codes([F(F(v / total) * vs) for v, (_, vs) in zip(e, values, strict=True)])
    acc = [sum(a[s] * values[s][0][d] for s in range(len(a))) for d in range(len(q))]
    return [F(F(v) * scale) for v in acc]


def scalar_block(m, layer, x, position, keys, values):
    """One block on one row; keys and values are the lists of the layer's cache, per KV head."""
    c, d, eps = m.config, m.config.head_dim, m.config.rms_norm_eps
    h = scalar_norm(x, m.array(f"layers.{layer}.attn_norm"), eps)
    q, k, v = (np.reshape(scalar_linear(h, m.weight(w, layer)), (-1, d)) for w in ("wq", "wk", "wv"))
    tables = m.cos[position], m.sin[position]
    for head in range(c.num_key_value_heads):
        keys[head].append(scalar_codes(scalar_rope(k[head], *tables)))
        values[head].append(scalar_codes(v[head]))
    group = c.num_attention_heads // c.num_key_value_heads
    mixed = []
    for head in range(c.num_attention_heads):
        kv_head = head // group
        mixed += scalar_attention(scalar_rope(q[head], *tables), keys[kv_head], values[kv_head])
    o = scalar_linear(mixed, m.weight("wo", layer))
    x = [F(a + b) for a, b in zip(x, o, strict=True)]
    h = scalar_norm(x, m.array(f"layers.{layer}.mlp_norm"), eps)
    gate = scalar_linear(h, m.weight("w_gate", layer))
    up = scalar_linear(h, m.weight("w_up", layer))
    act = [F(F(g / F(F(1) + F(LIBM.expf(float(-g))))) * u) for g, u in zip(gate, up, strict=True)]
    down = scalar_linear(act, m.weight("w_down", layer))
    return [F(a + b) for a, b in zip(x, down, strict=True)]


def scalar_logits(m, tokens):
    c = m.config
    keys, values = (
        [[[] for _ in range(c.num_key_value_heads)] for _ in range(c.num_hidden_layers)] for _ in range(2)
    )
    rows = []
    for position, token in enumerate(tokens):
        x = list(m.array("embed")[token])
        for layer in range(c.num_hidden_layers):
            x = scalar_block(m, layer, x, position, keys[layer], values[layer])
        h = scalar_norm(x, m.array("final_norm"), c.rms_norm_eps)
        rows.append(scalar_linear(h, m.weight("w_head")))
    return np.array(rows, np.float32)


@pytest.mark.parametrize("recipe", ["w8a8kv8", "w4a8kv8"])
@pytest.mark.parametrize("name", ["odd", "no grouping, llama3"])
def test_reference_is_the_formulas_bit_for_bit(name, recipe):
    model = quantize(Checkpoint.from_transformers(hf_model(CONFIGS[name])), recipe)
    tokens = [1, 5, 5, 40, 3, 2, 17]
    assert (ReferenceLlama(model).prefill(tokens) == scalar_logits(model, tokens)).all()


def test_kernels_are_the_reference_bit_for_bit():
    checkpoint = Checkpoint.from_transformers(hf_model(CONFIGS["odd"]))
    model = quantize(checkpoint, "w4a8kv8")
    session = Session(Model(checkpoint, model))
    tokens = np.random.default_rng(0).integers(0, 47, 37).tolist()
    expected = ReferenceLlama(model).prefill(tokens)
    for stage in ("prefill", "decode"):
        assert (session.logits(tokens, stage) == expected).all()


def test_sums_run_in_order():
    x = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    assert sequential_sum(x).tolist() == [float(scalar_sum(row)) for row in x]


def test_integer_sums_are_exact_beyond_float32():
    from flexllm_allo.models.reference import _integer_dot

    rng = np.random.default_rng(0)
    x = rng.integers(100, 128, size=(2, 5001)).astype(np.int8)
    w = rng.integers(100, 128, size=(3, 5001)).astype(np.int8)
    exact = x.astype(np.int64) @ w.astype(np.int64).T
    assert exact.max() > 1 << 24
    assert (_integer_dot(x, w) == exact.astype(np.float32)).all()


# ------------------------------------------------------------------------------------ generation


@pytest.mark.parametrize(("recipe", "sequential"), [("none", True), ("w8a8kv8", False), ("w4a8kv8", False)])
def test_decode_equals_prefill_exactly(tiny, recipe, sequential):
    tokens = tiny.encode("The for statement is used to iterate over the elements")
    reference = ReferenceLlama(quantize(tiny, recipe, max_seq_len=64), sequential)
    whole = reference.prefill(tokens)
    split = len(tokens) // 2
    assert (reference.prefill(tokens[:split]) == whole[:split]).all()
    for i in range(split, len(tokens)):
        assert (reference.decode(tokens[i]) == whole[i]).all()


def test_generate(tiny):
    reference = ReferenceLlama(quantize(tiny, "w8a8kv8", max_seq_len=48))
    prompt = tiny.encode("The for statement")
    generated = reference.generate(prompt, 12)
    assert len(generated) == 12
    logits = reference.prefill(prompt + generated)[len(prompt) - 1 : -1]
    assert generated == logits.argmax(axis=1).tolist()
    stop = generated[4]
    assert reference.generate(prompt, 12, eos=stop) == generated[: generated.index(stop) + 1]
    assert reference.generate(prompt, 12, eos=(stop,)) == generated[: generated.index(stop) + 1]
    assert reference.generate(prompt, 0) == []


def test_perplexity_of_the_recipes(tiny):
    text = (TINY / "heldout.txt").read_text(encoding="utf-8")
    tokens = tiny.encode(text)[1:511]
    found = {}
    for recipe in DATA_FREE:
        reference = ReferenceLlama(quantize(tiny, recipe, max_seq_len=256))
        found[recipe] = perplexity(reference.prefill, tokens, context=256, bos=0).ppl
    assert found["none"] < tiny.config.vocab_size / 4
    assert abs(found["w8a8kv8"] / found["none"] - 1) < 0.02
    assert abs(found["w4a8kv8"] / found["none"] - 1) < 0.1


def test_speed_suffices_for_a_chat(tiny):
    reference = ReferenceLlama(quantize(tiny, "w4a8kv8"))
    reference.prefill(list(range(200)))
    times = []
    for token in range(10):
        start = time.perf_counter()
        reference.decode(token)
        times.append(time.perf_counter() - start)
    assert sorted(times)[len(times) // 2] < 0.1, "4 ms on an idle core"


def test_refusals(tiny):
    reference = ReferenceLlama(quantize(tiny, "w8a8kv8", max_seq_len=4))
    for call in (
        lambda: reference.prefill([]),
        lambda: reference.prefill([1] * 5),
        lambda: reference.generate([1, 2], 3),
        lambda: (reference.prefill([1] * 4), reference.decode(1)),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "FX701"
    for token in (-1, 2048):
        with pytest.raises(UsageError) as refused:
            reference.prefill([token])
        assert refused.value.code == "FX703"
