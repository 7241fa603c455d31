"""A Llama end to end: kernels against transformers, prefill against decode, designs against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexllm_allo.errors import UsageError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.models import Model, load
from flexllm_allo.models.hf import Checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import quantize
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedules import cpu, decode, prefill

TINY = Path(__file__).parent.parent / "models" / "tiny"
DATA_FREE = ["none", "w8a8kv8", "w4a8kv8"]
"""Recipes that need no calibration text."""
SHAPE = {
    "vocab_size": 47, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10, "max_position_embeddings": 48,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS = {
    "odd heads, untied": {"tie_word_embeddings": False},
    "tied, twelve heads": {"tie_word_embeddings": True, "num_attention_heads": 12, "num_key_value_heads": 12},
    "grouped, llama3 rope": {
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        },
    },
}  # fmt: skip


def hf_model(**changes):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SHAPE | changes)))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += torch.randn_like(parameter) * 0.2
    return model.eval()


def hf_logits(model, tokens):
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def random_tokens(count, vocabulary=47):
    return np.random.default_rng(count).integers(0, vocabulary, count).tolist()


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def model_of(hf, recipe):
    checkpoint = Checkpoint.from_transformers(hf)
    return Model(checkpoint, quantize(checkpoint, recipe))


@pytest.fixture(scope="module")
def odd():
    """Sessions on a small odd model, one per recipe."""
    hf = hf_model()
    return {recipe: Session(model_of(hf, recipe)) for recipe in DATA_FREE}


@pytest.mark.parametrize("name", CONFIGS)
def test_unquantised_logits_equal_transformers(name):
    hf = hf_model(**CONFIGS[name])
    session = Session(model_of(hf, "none"))
    for length in (1, 2, 15, 16, 17, 40):
        tokens = random_tokens(length)
        expected = hf_logits(hf, tokens)
        assert relative(session.logits(tokens, "prefill"), expected) < 1e-3
        assert relative(session.logits(tokens, "decode"), expected) < 1e-3


@pytest.mark.parametrize("recipe", DATA_FREE)
def test_decode_equals_prefill_at_every_length(odd, recipe):
    for length in range(1, 41):
        tokens = random_tokens(length)
        block, single = odd[recipe].logits(tokens, "prefill"), odd[recipe].logits(tokens, "decode")
        assert block.shape == (length, 47)
        if recipe == "none":  # its sums may be reassociated
            assert relative(block, single) < 1e-5
        else:
            np.testing.assert_array_equal(block, single)


@pytest.mark.parametrize("recipe", ["w8a8kv8", "w4a8kv8"])
def test_both_stages_equal_the_numpy_reference_bit_for_bit(odd, recipe):
    tokens = random_tokens(21)
    reference = ReferenceLlama(odd[recipe].model.weights)
    np.testing.assert_array_equal(odd[recipe].logits(tokens), reference.prefill(tokens))
    made = odd[recipe].generate(tokens, 12)
    assert made.tokens == ReferenceLlama(odd[recipe].model.weights).generate(tokens, 12, 2)


@pytest.mark.parametrize("recipe", ["w8a8kv8", "w4a8kv8"])
def test_the_hardware_design_computes_what_the_cpu_schedules_compute(odd, recipe):
    model = odd[recipe].model
    hardware = Session(model, hardware_top(model, token_parallel=4, weight_parallel=4))
    for length in (1, 3, 4, 5, 19):
        tokens = random_tokens(length)
        expected = odd[recipe].logits(tokens)
        np.testing.assert_array_equal(hardware.logits(tokens, "prefill"), expected)
        np.testing.assert_array_equal(hardware.logits(tokens, "decode"), expected)


@pytest.mark.parametrize("block", [2, 3, 7])
def test_any_block_size_gives_the_same_logits(odd, block):
    model = odd["w8a8kv8"].model
    session = Session(model, hybrid(model, cpu.blocked(block), cpu.blocked(1)))
    tokens = random_tokens(15)
    np.testing.assert_array_equal(session.logits(tokens), odd["w8a8kv8"].logits(tokens))


def test_stages_have_schedules_of_their_own(odd):
    top = hybrid(odd["w8a8kv8"].model, prefill.spatial(4, 4), decode.temporal(8))
    linear = [f for f in top.program.functions if f.origin == "linear"]
    unrolled = {dict(f.bindings)["T"]: str(f) for f in linear}
    assert set(unrolled) >= {1, 4}
    text = str(top.schedule)
    assert "for t in range(4):  # unroll" in text
    assert "normed: Stream[float32, 16]" in text


def test_generation_stops_at_a_stop_token(odd):
    session = odd["w8a8kv8"]
    free = session.generate(random_tokens(5), 30)
    assert len(free.tokens) <= 30
    stop = free.tokens[-1]
    first = free.tokens.index(stop)
    config = session.config.model_copy(update={"eos_token_id": stop})
    model = Model(replace(session.model.checkpoint, config=config), session.model.weights)
    assert Session(model).generate(random_tokens(5), 30).tokens == free.tokens[: first + 1]


def test_generation_ends_with_the_context(odd):
    tokens = random_tokens(46)
    assert 1 <= len(odd["none"].generate(tokens, 30).tokens) <= 48 - 46 + 1


@pytest.mark.parametrize(("tokens", "text"), [([], "the prompt is empty"), ([3] * 49, "has 49 tokens")])
def test_prompts_that_do_not_fit_are_refused(odd, tokens, text):
    with pytest.raises(UsageError, match=text) as caught:
        odd["none"].generate(tokens, 1)
    assert caught.value.code == "FX701"
    assert "1 to 48 tokens" in caught.value.hint


def test_the_shipped_model_has_learnt_and_survives_quantisation():
    from flexllm_allo.runtime.perplexity import text_perplexity

    text = (TINY / "heldout.txt").read_text(encoding="utf-8")
    ppl = {recipe: text_perplexity(Session(load(TINY, recipe)), text)["ppl"] for recipe in DATA_FREE}
    assert ppl["none"] < 30  # a unigram model has 687 on this text (models/tiny/train.json)
    assert ppl["w8a8kv8"] < ppl["none"] * 1.01
    assert ppl["w4a8kv8"] < ppl["none"] * 1.04


def test_packed_weights_leave_the_lanes_of_the_schedule_as_they_are(odd):
    text = str(hardware_top(odd["w8a8kv8"].model, token_parallel=4, weight_parallel=8).schedule)
    assert "pack(8 x int8 along dimension 1)" in text
    assert "for n_inner in range(8):  # unroll" in text
