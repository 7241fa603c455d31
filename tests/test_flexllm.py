"""FlexLLM's design on our kernels: what it computes, and its published and derived cycles."""

from __future__ import annotations

import numpy as np
import pytest
from quant_models import RandomModel

from flexllm_allo.ir.layout import laid_out, unpack_array
from flexllm_allo.models import Model, architecture
from flexllm_allo.models.flexllm_model import Prefill
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import quantize
from flexllm_allo.quant.recipes import get_recipe
from flexllm_allo.runtime.flexllm import PREFILL_MHZ, prefill_design

PROMPT = 1024
MEASURED_PREFILL_S = 1.6615
STAGES = {
    "q": 179_500, "scores": 163_800, "softmax": 100_200, "values": 165_800, "o": 179_500, "gate": 179_500,
    "hadamard": 176_700, "down": 188_700, "keys and values": 47_400,
}  # fmt: skip
"""Cycles per block of 8 tokens of a 1,024-token prompt, from the loops of FlexLLM's code."""


@pytest.fixture(scope="module")
def small() -> Model:
    """A model with a hidden size of a power of two, quantized by FlexLLM's recipe."""
    model = RandomModel(intermediate_size=64)
    samples = np.random.default_rng(1).integers(0, 40, (4, 24)).astype(np.int32)
    return Model(model, quantize(model, get_recipe("w4a4kv8"), samples))


def arguments(s, given):
    """Arguments of a top in its order, as its memory holds them."""
    return {p.name: laid_out(p, given[p.name]) if p.shape else given[p.name] for p in s.top_func.inputs}


def held(s, name, array):
    memory = next(p for p in s.top_func.params if p.name == name)
    return unpack_array(memory, array) if memory.words > 1 else array


@pytest.mark.parametrize("length", [1, 3, 4, 9, 21])
def test_prefill_fills_the_cache_as_the_reference_does(small, length):
    """Channels that do not divide the rows, and a prompt that does not fill its blocks or tiles of keys."""
    size = Prefill(token=4, attention=3, attention_word=4, mlp=4, mlp_word=4, key=4, value=4)
    s = prefill_design(small, size)
    tokens = np.random.default_rng(length).integers(0, 40, length)
    prompt = np.zeros(24, np.int32)
    prompt[:length] = tokens
    memory = {
        "k_codes": np.zeros((2, 1, 24, 8), np.int8),
        "v_codes": np.zeros((2, 1, 2, 24, 4), np.int8),
        "stream": np.zeros((24, 32), np.float32),
    }
    given = arguments(s, size.constants(small) | memory | {"prompt": prompt, "n_prompt": length})
    s.build()(*given.values())
    reference = ReferenceLlama(small.weights)
    reference.prefill(tokens.tolist())
    np.testing.assert_array_equal(held(s, "k_codes", given["k_codes"]), reference.codes["k"])
    values = held(s, "v_codes", given["v_codes"]).transpose(0, 1, 3, 2, 4).reshape(2, 1, 24, 8)
    np.testing.assert_array_equal(values, reference.codes["v"])
    assert np.any(given["stream"][length - 1])


@pytest.fixture(scope="module")
def prefilled():
    model = architecture("llama-3.2-1b", "w4a4kv8", 2048)
    return prefill_design(model).estimate("u280", clock_mhz=PREFILL_MHZ, n_prompt=PROMPT)


def test_prefill_takes_what_was_measured(prefilled):
    assert prefilled.phases["prefill"].seconds == pytest.approx(MEASURED_PREFILL_S, rel=0.1)
