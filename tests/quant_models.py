"""Small float models, and what a recipe made of them computed again from the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from flexllm_allo import models
from flexllm_allo.models.spec import LlamaConfig, rope_tables
from flexllm_allo.quant.decoder import (
    AttentionScales,
    DecoderLayer,
    Site,
    decoder_of,
    online_of,
    rms_norm,
)
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_KV, INT8_WEIGHT, IntFormat
from flexllm_allo.quant.names import tensor_name
from flexllm_allo.quant.passes import Rotate
from flexllm_allo.quant.recipes import SITES, Recipe

TINY = Path(models.__path__[0]) / "tiny"
KINDS = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
UINT4 = IntFormat(4, "per_token", dynamic=True, zero="integer")


class RandomModel:
    """A small float model: four query heads per key/value head, gains that are not 1, an untied head."""

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=24,
    )

    def __init__(self, seed=0, **changes):
        self.config = self.config.model_copy(update=changes)
        rng, c = np.random.default_rng(seed), self.config
        e, i, h, kv = c.hidden_size, c.intermediate_size, 32, 8
        shapes = {"wq": (h, e), "wk": (kv, e), "wv": (kv, e), "wo": (e, h)}
        shapes |= {"w_gate": (i, e), "w_up": (i, e), "w_down": (e, i), "attn_norm": (e,), "mlp_norm": (e,)}
        named = {tensor_name(kind, n): s for n in range(c.num_hidden_layers) for kind, s in shapes.items()}
        for kind, shape in {"embed": (40, e), "w_head": (40, e), "final_norm": (e,)}.items():
            named[tensor_name(kind)] = shape
        self.tensors = {
            name: (rng.normal(size=s) * 0.3 + (len(s) == 1)).astype(np.float32) for name, s in named.items()
        }

    def rope_tables(self, max_seq_len):
        return rope_tables(self.config, max_seq_len)


def recipe(*passes, weight=INT4_WEIGHT, activation=UINT4, kv=INT8_KV, head=INT8_WEIGHT, **more):
    return Recipe("test", weight, activation, kv, head, passes=passes, **more)


def random_samples(model, count=4, length=16, seed=0):
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (count, length))


def rebuilt(found, i, r):
    """Layer i of the results as the decoder computes it."""
    prefix = f"layers.{i}."
    scales = None
    if prefix + "q_scale" in found:
        scales = AttentionScales(*(found[f"{prefix}{name}_scale"] for name in "qkvp"))
    sites = {site: rebuilt_site(found, site, prefix, r) for site in SITES if site != "head"}
    return DecoderLayer(found[prefix + "attn_norm"], found[prefix + "mlp_norm"], sites, r.kv, r.query, scales)


def rebuilt_site(found, site, prefix, r):
    sides = {k: found[f"{prefix}{k}.side"] for k in SITES[site] if f"{prefix}{k}.side" in found}
    return Site(
        {kind: found[prefix + kind].dequantize() for kind in SITES[site]},
        r.activation_of(site),
        found.get(f"{prefix}{site}.outliers"),
        found.get(f"{prefix}{site}.low_rank"),
        sides,
    )


def logits(model, found, r, tokens):
    """Logits [T, V] of the results of a recipe."""
    decoder = decoder_of(model, len(tokens), online_of(r))
    x = found["embed"][np.asarray(tokens)]
    for i in range(model.config.num_hidden_layers):
        x = decoder.forward(rebuilt(found, i, r), x)
    return rebuilt_site(found, "head", "", r)(rms_norm(x, found["final_norm"], model.config.rms_norm_eps))[0]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def shortened(recipe):
    """The recipe with two steps where it learns."""
    steps = (replace(p, steps=2) if isinstance(p, Rotate) else p for p in recipe.passes)
    return replace(recipe, passes=tuple(steps))


MIXED = """\
name = "mixed"
passes = [
    { pass = "smooth" }, { pass = "outliers", count = 3 }, { pass = "gptq" }, { pass = "low_rank", rank = 2 },
]
weight = { format = "int", bits = 4, granularity = "per_group", zero = "integer", group = 32 }
activation = { format = "int", bits = 8, granularity = "per_token", dynamic = true }
kv = { bits = 4, granularity = "per_token_and_head", dynamic = true, zero = "integer" }
head = { format = "int", bits = 8, granularity = "per_tensor" }

[kinds]
w_down = { format = "int", bits = 8, granularity = "per_channel" }
wv = { format = "int", bits = 3, granularity = "per_group", zero = "integer", group = 32, sparsity = { } }

[layer_bits]
0 = 3
"""
"""A recipe file with a bit of everything."""
