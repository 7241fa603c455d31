"""GPT-2: LayerNorm, GELU, biases, learned positions; its weights lie [in, out], q, k and v in one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.models.tensors import Entry
from flexllm_allo.quant.architecture import Architecture

from .family import Family

_MODEL = {
    "model.embed_tokens": "wte",
    "model.embed_positions": "wpe",
    "model.norm": "ln_f",
}
_LAYER = {
    "input_layernorm": "ln_1",
    "self_attn.q_proj": "attn.c_attn",
    "self_attn.k_proj": "attn.c_attn",
    "self_attn.v_proj": "attn.c_attn",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
_THEIRS = re.compile(r"h\.(\d+)\.(.+)\.(weight|bias)$")
_OURS = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)$")
_MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")
"""Causal masks that old files hold beside the weights."""
_PREFIX = "transformer."


def read_gpt2(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The tensors of a GPT-2 file under the names of Llama, matrices as [out, in]; others as they are."""
    stems = {theirs: ours for ours, theirs in _MODEL.items()}
    found: dict[str, Entry] = {}
    for full, entry in entries.items():
        name = full.removeprefix(_PREFIX)
        stem, _, part = name.rpartition(".")
        if stem in stems:
            found[f"{stems[stem]}.{part}"] = entry
        elif match := _THEIRS.match(name):
            found |= _of_layer(match[1], match[2], match[3], entry) or {full: entry}
        elif not _MASKS.match(name):
            found[full] = entry
    return found


def _of_layer(layer: str, theirs: str, part: str, entry: Entry) -> dict[str, Entry]:
    """One tensor of a layer: several, if it is what q, k and v share."""
    ours = [name for name, other in _LAYER.items() if other == theirs]
    made: dict[str, Entry] = {}
    for index, name in enumerate(ours):
        made[f"model.layers.{layer}.{name}.{part}"] = _columns(entry, index, len(ours))
    return made


def _columns(entry: Entry, index: int, parts: int) -> Entry:
    """Part `index` of `parts` equal parts of the last axis, the axes reversed."""
    *rest, last = entry.shape or (0,)
    width = last // parts

    def read() -> NDArray[np.float32]:
        value: NDArray[Any] = entry.read()[..., index * width : (index + 1) * width]
        return np.ascontiguousarray(value.T)

    return Entry((last if last % parts else width, *reversed(rest)), entry.dtype, read)


def gpt2_name(name: str) -> str:
    """GPT-2's name of a tensor of Llama's."""
    stem, _, part = name.rpartition(".")
    if match := _OURS.match(name):
        return f"{_PREFIX}h.{match[1]}.{_LAYER.get(match[2], match[2])}.{match[3]}"
    return f"{_PREFIX}{_MODEL[stem]}.{part}" if stem in _MODEL else name


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    Architecture("layer", "gelu", "learned", ("wq", "wk", "wv", "wo", "w_up", "w_down")),
    defaults={
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "hidden_act": "gelu_new",
        "tie_word_embeddings": True,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    },
    fields={
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
    },
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    activations=("gelu_new", "gelu_pytorch_tanh"),
    read=read_gpt2,
    named=gpt2_name,
)
