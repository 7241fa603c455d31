"""A small model for the designs that have KV heads side by side, and how to run those."""

from __future__ import annotations

import numpy as np
from quant_models import RandomModel

from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.ir.layout import laid_out, unpack_array
from flexllm_allo.models import Model
from flexllm_allo.models.spec import LlamaConfig
from flexllm_allo.quant import quantize
from flexllm_allo.quant.names import tensor_name
from flexllm_allo.quant.recipes import get_recipe

S, HEADS, D, LAYERS = 24, 8, 4, 2
"""Positions, KV heads, elements of a head and layers of the small model."""


def has_csim() -> bool:
    try:
        find_compiler()
        find_ap_headers()
    except ToolError:
        return False
    return True


class Heads(RandomModel):
    """A float model of `kv` KV heads; its sizes are powers of two."""

    def __init__(self, kv: int = HEADS):
        self.config = LlamaConfig(
            vocab_size=48, hidden_size=64, intermediate_size=64, num_hidden_layers=LAYERS,
            num_attention_heads=16, num_key_value_heads=kv, head_dim=D, max_position_embeddings=S,
        )  # fmt: skip
        rng, e = np.random.default_rng(0), 64
        shapes = dict.fromkeys(("wq", "wo", "w_gate", "w_up", "w_down"), (e, e))
        shapes |= {"wk": (kv * D, e), "wv": (kv * D, e), "attn_norm": (e,), "mlp_norm": (e,)}
        named = {tensor_name(kind, n): s for n in range(LAYERS) for kind, s in shapes.items()}
        named |= {
            tensor_name("embed"): (48, e),
            tensor_name("w_head"): (48, e),
            tensor_name("final_norm"): (e,),
        }
        self.tensors = {
            name: (rng.normal(size=s) * 0.3 + (len(s) == 1)).astype(np.float32) for name, s in named.items()
        }


def small_model(kv: int = HEADS) -> Model:
    """The model, quantized by FlexLLM's recipe."""
    model = Heads(kv)
    samples = np.random.default_rng(1).integers(0, 48, (4, S)).astype(np.int32)
    return Model(model, quantize(model, get_recipe("w4a4kv8"), samples))


def run(design, given):
    """Call a design; its result, and its arrays afterwards as programs see them."""
    s, function, constants = design
    known = constants | given
    memories = s.top_func.inputs
    passed = [laid_out(p, known[p.name]) if p.shape else known[p.name] for p in memories]
    result = function(*passed)
    held = {p.name: unpack_array(p, a) if p.words > 1 else a for p, a in zip(memories, passed, strict=True)}
    return result, {name: held[name] for name in given}
