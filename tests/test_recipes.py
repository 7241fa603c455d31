"""Every recipe end to end: one function in prefill, decode, the NumPy reference and the C++ of the design."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from quant_models import MIXED, TINY, shortened

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.ir.layout import laid_out, unpack_array
from flexllm_allo.models import Checkpoint, LlamaConfig, Model, load_checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.quant import quantize, recipes
from flexllm_allo.quant.calibration import calibration_samples
from flexllm_allo.quant.names import tensor_name
from flexllm_allo.quant.recipe_file import parse_recipe
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.runtime.session import Session

ALL = {**recipes, "mixed": parse_recipe(MIXED)}
# Sums in float32 may run in any order on the CPU. Behind half precision the last bit then is one of 2^-11.
TOLERANCE = {"none": 1e-5, "w4a16": 2**-11}


def quantized(source, name, samples, max_seq_len):
    if name == "w4a4kv4":
        pytest.importorskip("torch")  # its rotations are learned
    return Model(source, quantize(source, shortened(ALL[name]), samples, max_seq_len))


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def tokens(tiny):
    return tiny.encode((TINY / "heldout.txt").read_text(encoding="utf-8"))


def difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", ALL)
def test_prefill_decode_and_reference_are_one_function(tiny, tokens, name):
    model = quantized(tiny, name, calibration_samples(tokens[1000:], 0, 4, 48), 40)
    tolerance = TOLERANCE.get(name, 0)
    with closing(Session(model)) as session:
        for length in (1, 7, 17, 33):
            window = tokens[:length]
            block = session.logits(window, "prefill")
            assert difference(session.logits(window, "decode"), block) <= min(tolerance, 1e-5)
            assert difference(block, ReferenceLlama(model.weights).prefill(window)) <= tolerance


def small_llama():
    """One random layer: grouped heads, sizes that every recipe's groups and transforms take."""
    config = LlamaConfig(
        vocab_size=72,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    shapes = {"wq": (64, 64), "wk": (32, 64), "wv": (32, 64), "wo": (64, 64), "w_gate": (192, 64)}
    shapes |= {"w_up": (192, 64), "w_down": (64, 192), "attn_norm": (64,), "mlp_norm": (64,)}
    named = {tensor_name(kind, 0): shape for kind, shape in shapes.items()}
    named |= {
        tensor_name("embed"): (72, 64),
        tensor_name("w_head"): (72, 64),
        tensor_name("final_norm"): (64,),
    }
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(size=s) * 0.3 + (len(s) == 1)).astype(np.float32) for name, s in named.items()
    }
    return Checkpoint(config, tensors, "the test", lambda: None)


@pytest.mark.parametrize("name", ALL)
def test_the_compiled_design_generates_the_tokens_of_the_reference(name):
    try:
        find_compiler()
    except ToolError as error:
        pytest.skip(str(error))
    samples = np.random.default_rng(1).integers(0, 72, (4, 16))
    model = quantized(small_llama(), name, samples, 32)
    prompt = [1, 5, 7, 30, 2, 9, 11, 3, 60]  # more than a block, and not a multiple of one
    design = hardware_top(model).top
    function = design.function(design.top)
    given = golden_arguments(model, prompt, 8)
    memory = {b.name: laid_out(b, given[b.name]) for b in function.inputs}
    made = CSimModule(design)(*memory.values())
    reference = ReferenceLlama(model.weights, sequential=True)
    assert memory["tokens"][:made].tolist() == reference.generate(prompt, 8, model.config.eos_token_ids)
    # All bits, not just the largest logit: the cache holds what the layers computed.
    filled = reference.position
    assert filled >= len(prompt)
    buffers = {b.name: b for b in function.inputs}
    for kind in "kv":
        found, expected = memory[f"{kind}_codes"], reference.codes[kind]
        if buffers[f"{kind}_codes"].words > 1:
            found = unpack_array(buffers[f"{kind}_codes"], found)
        assert (found[:, :, :filled] == expected[:, :, :filled]).all()
        if f"{kind}_terms" in memory:
            found, expected = memory[f"{kind}_terms"], reference.terms[kind]
            assert (found[:, :, :filled] == expected[:, :, :filled]).all()
