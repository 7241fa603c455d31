"""Checkpoints of every family: what is read, what passes make of it, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_models import CONTEXT, FAMILIES, WINDOW, hf_logits, hf_model, model_of, random_tokens

from flexllm_allo.errors import ModelError, QuantError
from flexllm_allo.models import load
from flexllm_allo.models.hf import Checkpoint, load_checkpoint
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.models.spec import LlamaConfig
from flexllm_allo.quant import INT4_WEIGHT, INT8_ACTIVATION, INT8_WEIGHT, IntFormat, Recipe
from flexllm_allo.quant.decoder import Decoder, decode_layer, embedded, float_layer, norm
from flexllm_allo.quant.names import tensor_name
from flexllm_allo.quant.passes import (
    Awq,
    FoldNorms,
    Gptq,
    LowRank,
    Outliers,
    Rotate,
    Rtn,
    Smooth,
    StaticScales,
)
from flexllm_allo.quant.transform.hadamard import Online
from flexllm_allo.runtime.quantize import quantize_folder
from flexllm_allo.runtime.session import Session

TURNED = (FoldNorms(), Rotate(r3=True, r4=True, out=True))
SAMPLES = np.array([random_tokens(n)[:12] for n in (12, 13, 14)])
ROTATED = ["llama", "qwen2", "qwen2, window", "qwen3", "mistral"]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def float_recipe(*passes: Any) -> Recipe:
    """Passes alone: the model must stay the function that it is."""
    return Recipe("case", None, None, None, None, passes=passes)


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_is_the_live_model(name: str, tmp_path: Path) -> None:
    hf = hf_model(name)
    hf.save_pretrained(tmp_path)
    live, stored = Checkpoint.from_transformers(hf), load_checkpoint(tmp_path)
    assert stored.config == live.config
    assert set(stored.tensors) == set(live.tensors)
    for tensor in live.tensors:
        assert stored.tensors[tensor].shape == stored.tensors.entries[tensor].shape
        np.testing.assert_array_equal(stored.tensors[tensor], live.tensors[tensor])


def test_old_files_of_gpt2_have_no_prefix_and_hold_masks(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    hf = hf_model("gpt2")
    expected = Checkpoint.from_transformers(hf)
    state = {k.removeprefix("transformer."): v for k, v in hf.state_dict().items() if k != "lm_head.weight"}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    hf.config.save_pretrained(tmp_path)
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    found = load_checkpoint(tmp_path)
    for name in expected.tensors:
        np.testing.assert_array_equal(found.tensors[name], expected.tensors[name])


def test_wrong_tensors_have_the_names_of_the_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    hf = hf_model("gpt2")
    state = {k: v.contiguous() for k, v in hf.state_dict().items() if k != "lm_head.weight"}
    del state["transformer.h.1.mlp.c_fc.bias"], state["transformer.wpe.weight"]
    state["transformer.h.0.attn.c_attn.weight"] = state["transformer.h.0.attn.c_attn.weight"][
        :, :-1
    ].contiguous()
    state["transformer.h.7.ln_1.weight"] = state["transformer.ln_f.weight"].clone()
    hf.config.save_pretrained(tmp_path)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(tmp_path)
    text = str(caught.value)
    assert caught.value.code == "FX602"
    assert "transformer.h.1.mlp.c_fc.bias is missing, expected shape [20]" in text
    assert f"transformer.wpe.weight is missing, expected shape [{CONTEXT}, 24]" in text
    assert "transformer.h.0.attn.c_attn.weight has shape" in text
    assert "transformer.h.7.ln_1.weight is unexpected" in text


def test_a_bias_that_the_family_has_not_is_refused() -> None:
    live = Checkpoint.from_transformers(hf_model("qwen2"))
    assert "model.layers.1.self_attn.v_proj.bias" in live.tensors
    assert "model.layers.1.self_attn.o_proj.bias" not in live.tensors
    with pytest.raises(ModelError, match="supported for llama: False"):
        Checkpoint.from_transformers(hf_model("llama", attention_bias=True))


BASE: dict[str, Any] = {
    "vocab_size": 29, "hidden_size": 12, "intermediate_size": 14, "num_hidden_layers": 2,
    "num_attention_heads": 3, "num_key_value_heads": 1,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 12, "n_layer": 2, "n_head": 3, "vocab_size": 60000}


def test_defaults_of_families() -> None:
    qwen3 = LlamaConfig.from_dict({"model_type": "qwen3", **BASE})
    assert (qwen3.head_dim, qwen3.max_position_embeddings, qwen3.sliding_window) == (128, 32768, None)
    assert qwen3.eos_token_ids == ()
    mistral = LlamaConfig.from_dict({"model_type": "mistral", **BASE})
    assert (mistral.head_dim, mistral.sliding_window) == (4, 4096)

    def window(**fields: Any) -> int | None:
        return LlamaConfig.from_dict(BASE | fields).sliding_window

    assert window(model_type="mistral", sliding_window=None) is None
    assert window(model_type="llama", sliding_window=8) is None
    qwen2 = {"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 0}
    assert window(**qwen2) is None
    assert window(**qwen2, use_sliding_window=True) == 8
    assert window(**qwen2 | {"use_sliding_window": True, "max_window_layers": 2}) is None
    gpt2 = LlamaConfig.from_dict(GPT2)
    assert (gpt2.intermediate_size, gpt2.max_position_embeddings, gpt2.rms_norm_eps) == (48, 1024, 1e-5)
    assert (gpt2.num_key_value_heads, gpt2.head_dim, gpt2.tie_word_embeddings) == (3, 4, True)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"model_type": "qwen2", **BASE, "architectures": ["LlamaForCausalLM"]}, ": Qwen2ForCausalLM"),
        ({"model_type": "mixtral", **BASE}, "supported: llama, mistral, qwen2, qwen3, gpt2"),
        ({"model_type": "qwen3", **BASE, "attention_bias": True}, "supported for qwen3: False"),
        ({"model_type": "mistral", **BASE, "sliding_window": 0}, "sliding_window is 0"),
        (
            {"model_type": "qwen2", **BASE, "use_sliding_window": True, "max_window_layers": 1},
            "only some layers a sliding window",
        ),
        ({**GPT2, "n_embd": 0}, "n_embd is 0"),
        ({k: v for k, v in GPT2.items() if k != "n_layer"}, "n_layer is missing"),
        ({**GPT2, "activation_function": "relu"}, "activation_function is 'relu'; supported: gelu_new"),
        ({**GPT2, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ],
)  # fmt: skip
def test_config_refusals(config: dict[str, Any], part: str) -> None:
    with pytest.raises(ModelError) as caught:
        LlamaConfig.from_dict(config)
    assert caught.value.code == "FX603"
    assert part in str(caught.value)
    assert str(caught.value).count("\n  - ") <= 2


# -------------------------------------------------------------------------------------- passes


@pytest.mark.parametrize("name", FAMILIES)
def test_the_decoder_of_calibration_is_the_model(name: str) -> None:
    hf = hf_model(name)
    model = Checkpoint.from_transformers(hf)
    tokens = random_tokens(17)
    x = embedded(model, np.array([tokens]))
    decoder = Decoder(model.config, *model.rope_tables(len(tokens)), Online())
    for layer in range(model.config.num_hidden_layers):
        x = decode_layer(decoder, float_layer(model, layer), x)
    bias = "final_norm.bias"
    last = norm(
        x[0], model.tensors[tensor_name("final_norm")], model.config.rms_norm_eps,
        model.tensors[tensor_name(bias)] if tensor_name(bias) in model.tensors else None,
    )  # fmt: skip
    assert relative(last @ model.tensors["lm_head.weight"].T, hf_logits(hf, tokens)) < 1e-4


@pytest.mark.parametrize("name", ROTATED)
def test_rotations_keep_what_a_model_computes(name: str) -> None:
    """Biases turn with the space they are added in, the norm of the heads stays in front of R3."""
    hf = hf_model(name, **({"head_dim": 8} if name == "qwen3" else {}))
    model = model_of(hf, float_recipe(*TURNED))
    tokens = random_tokens(17)
    session = Session(model)
    for stage in ("prefill", "decode"):
        assert relative(session.logits(tokens, stage), hf_logits(hf, tokens)) < 1e-3


@pytest.mark.parametrize("scaling", [Smooth(), Awq(grid=2)])
@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_smoothing_keeps_what_a_model_computes(name: str, scaling: Any) -> None:
    hf = hf_model(name)
    weight = INT8_WEIGHT if isinstance(scaling, Awq) else None  # AWQ searches by the error of rounding
    recipe = replace(float_recipe(scaling, Rtn()), weight=weight)
    tokens = random_tokens(17)
    found = ReferenceLlama(model_of(hf, recipe, calibration=SAMPLES).weights).prefill(tokens)
    assert relative(found, hf_logits(hf, tokens)) < (0.1 if weight else 1e-3)


@pytest.mark.parametrize("name", ["qwen2, window", "qwen3", "gpt2"])
def test_biases_beside_offsets_outliers_and_low_rank(name: str) -> None:
    """Every term that there is, a static cache, and weights corrected by calibration."""
    recipe = Recipe(
        "case",
        INT4_WEIGHT,
        replace(INT8_ACTIVATION, zero="float"),
        IntFormat(8, "per_head", full_range=True),
        INT8_WEIGHT,
        passes=(Outliers(2), Gptq(), LowRank(2), StaticScales()),
    )
    hf = hf_model(name)
    model = model_of(hf, recipe, calibration=SAMPLES)
    session, reference = Session(model), ReferenceLlama(model.weights, sequential=True)
    for length in (5, WINDOW + 1, 17):
        tokens = random_tokens(length)
        expected = reference.prefill(tokens)
        for stage in ("prefill", "decode"):
            np.testing.assert_array_equal(session.logits(tokens, stage), expected)
        assert relative(expected, hf_logits(hf, tokens)) < 0.6


def test_passes_that_do_not_know_a_family() -> None:
    learned = Rotate("learned", "none", r4=False)
    for name, passes, parts in (
        ("gpt2", (FoldNorms(),), ("FoldNorms", "gpt2")),
        ("gpt2", TURNED, ("FoldNorms", "gpt2")),
        ("qwen2", (FoldNorms(), learned), ("Rotate", "qwen2")),
        ("qwen3", (FoldNorms(), learned), ("Rotate", "qwen3")),
        ("mistral", (FoldNorms(), learned), ("Rotate", "mistral")),
    ):
        with pytest.raises(QuantError) as caught:
            model_of(hf_model(name), float_recipe(*passes), calibration=SAMPLES)
        assert caught.value.code == "FX604"
        assert all(part in caught.value.message for part in parts)


# --------------------------------------------------------------------------------------- store


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gpt2"])
def test_a_quantized_folder_is_the_model_it_was_made_of(name: str, tmp_path: Path) -> None:
    hf = hf_model(name)
    hf.save_pretrained(tmp_path / "float")
    quantize_folder(tmp_path / "float", tmp_path / "int", "w8a8kv8")
    tokens = random_tokens(17)
    expected = ReferenceLlama(model_of(hf, "w8a8kv8").weights).prefill(tokens)
    np.testing.assert_array_equal(Session(load(tmp_path / "int")).logits(tokens), expected)
