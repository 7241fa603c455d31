"""Architectures by name, without weights: enough to plan, emit and measure a design at full shape."""

from __future__ import annotations

from typing import Any

from flexllm_allo.errors import ModelError, did_you_mean
from flexllm_allo.models.hf import Checkpoint
from flexllm_allo.models.model import Model
from flexllm_allo.models.spec import LlamaConfig
from flexllm_allo.models.tensors import Tensors
from flexllm_allo.quant.check import check_recipe
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.quantize import sequence_length
from flexllm_allo.quant.recipes import DEFAULT_RECIPE, Recipe, get_recipe

_LLAMA_3_2: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}

PRESETS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        **_LLAMA_3_2,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "llama-3.2-3b": {
        **_LLAMA_3_2,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
"""The config.json of published models, by name: what determines shapes and tables."""


def architecture(name: str, recipe: str | Recipe | None = None, max_seq_len: int | None = None) -> Model:
    """A model of a published shape that has no weights and no tokenizer.

    Args:
        name: one of `PRESETS`.
        recipe: a recipe or its name; by default w8a8kv8.
        max_seq_len: positions of the KV cache; the model's own context by default.

    Raises:
        ModelError: FX601, no such architecture; FX602 and FX605 later, from whatever asks the model for
            weights or for its tokenizer.
        QuantError: FX604, no such recipe, or the length does not fit.

    Example:
        >>> architecture("llama-3.2-1b", "w4a4kv8", 2048).config.hidden_size
        2048
    """
    if name not in PRESETS:
        raise ModelError("FX601", f"there is no architecture {name!r}", hint=did_you_mean(name, PRESETS))
    chosen = get_recipe(recipe or DEFAULT_RECIPE) if not isinstance(recipe, Recipe) else recipe
    check_recipe(chosen)
    config = LlamaConfig.from_dict(PRESETS[name], name)

    def no_tokenizer() -> Any:
        raise ModelError("FX605", f"the architecture {name!r} has no tokenizer", hint="load a checkpoint")

    checkpoint = Checkpoint(config, Tensors({}), name, no_tokenizer)
    cos, sin = checkpoint.rope_tables(sequence_length(config, max_seq_len))
    return Model(checkpoint, QuantizedModel(config, chosen, {}, cos, sin))
