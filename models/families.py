"""The families: one record each; GPT-2, which is stored in its own way, has a file."""

from __future__ import annotations

from flexllm_allo.quant.architecture import Architecture

from .family import Family
from .gpt2 import GPT2

LLAMA = Family("llama", "LlamaForCausalLM")
"""Llama 2, 3, 3.1 and 3.2, TinyLlama, SmolLM and SmolLM2."""

MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    window="always",
)

_QWEN = {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "bos_token_id": None,
    "eos_token_id": None,
}

QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    Architecture(biases=("wq", "wk", "wv")),
    defaults=_QWEN,
    window="flag",
)
"""Qwen2 and Qwen2.5."""

QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    Architecture(qk_norm=True),
    defaults={**_QWEN, "head_dim": 128},
    window="flag",
)

FAMILIES = {family.model_type: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3, GPT2)}
"""By ``model_type`` of config.json."""
