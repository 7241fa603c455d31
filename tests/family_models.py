"""Small random models of every family, as transformers makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flexllm_allo.models import Model
from flexllm_allo.models.hf import Checkpoint
from flexllm_allo.quant import quantize

CONTEXT = 40
WINDOW = 7
VOCABULARY = 47
_LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN2 = {k: v for k, v in _LLAMA.items() if k != "head_dim"}  # it has none of its own: 24 / 6
_GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 20, "n_positions": CONTEXT,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "llama, tied": ("Llama", _LLAMA | {"tie_word_embeddings": True}),  # as SmolLM and SmolLM2
    "qwen2": ("Qwen2", _QWEN2 | {"tie_word_embeddings": True}),
    "qwen2, window": (
        "Qwen2",
        _QWEN2 | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3", _LLAMA | {"head_dim": 10}),
    "mistral": ("Mistral", _LLAMA | {"sliding_window": WINDOW}),
    "mistral, no window": ("Mistral", _LLAMA | {"sliding_window": None}),
    "gpt2": ("GPT2", _GPT2),
}


def hf_model(name: str, **changes: Any) -> Any:
    """The model in transformers: gains away from 1, biases away from 0."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    kind, shape = FAMILIES[name]
    config = getattr(transformers, f"{kind}Config")(**(shape | changes), attn_implementation="eager")
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            size = 0.2 if "bias" not in parameter_name else 0.5
            parameter.data += torch.randn_like(parameter) * size
    return model.eval()


def hf_logits(model: Any, tokens: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def model_of(hf: Any, recipe: Any, **more: Any) -> Model:
    checkpoint = Checkpoint.from_transformers(hf)
    return Model(checkpoint, quantize(checkpoint, recipe, **more))


def random_tokens(count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, VOCABULARY, count).tolist()
