"""How tensors are called: our kinds of tensors, Hugging Face's names."""

from __future__ import annotations

EMBED, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_LAYER = {
    "attn_norm": "input_layernorm",
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "wo": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
_MODEL = {
    "embed": "model.embed_tokens",
    "positions": "model.embed_positions",
    "final_norm": "model.norm",
    "w_head": "lm_head",
}


def tensor_name(kind: str, layer: int | None = None) -> str:
    """Hugging Face's name of a kind of tensor: `wq` of layer 2 is ``model.layers.2.self_attn.q_proj.weight``.

    `wq.bias` is the bias beside it. Without a layer the kinds are ``embed``, ``positions`` (which Llama has
    not: a learned vector per position), ``final_norm`` and ``w_head``.
    """
    stem, _, part = kind.partition(".")
    place = _MODEL[stem] if layer is None else f"model.layers.{layer}.{_LAYER[stem]}"
    return f"{place}.{part or 'weight'}"
