"""How tensors are called: our kinds of matrices, Hugging Face's names."""

from __future__ import annotations

EMBED, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_LAYER = {
    "attn_norm": "input_layernorm",
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
_MODEL = {"embed": EMBED, "final_norm": FINAL_NORM, "w_head": HEAD}


def tensor_name(kind: str, layer: int | None = None) -> str:
    """Hugging Face's name of a kind of tensor: `wq` of layer 2 is ``model.layers.2.self_attn.q_proj.weight``.

    Without a layer the kinds are ``embed``, ``final_norm`` and ``w_head``.
    """
    return _MODEL[kind] if layer is None else f"model.layers.{layer}.{_LAYER[kind]}.weight"
