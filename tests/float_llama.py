"""A Llama in float64 NumPy, with the Hadamard transforms of rotated models, and random models for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flexllm_allo.models.spec import LlamaConfig
from flexllm_allo.quant.transform.hadamard import Online, hadamard_transform

PLAIN = Online()


@dataclass(frozen=True)
class RandomModel:
    """A `FloatModel` of random weights with gains that are far from 1."""

    config: LlamaConfig
    tensors: dict[str, np.ndarray]

    def rope_tables(self, max_seq_len: int) -> tuple[np.ndarray, np.ndarray]:
        half = np.arange(self.config.head_dim // 2) / (self.config.head_dim // 2)
        angle = np.arange(max_seq_len)[:, None] * self.config.rope_theta**-half
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def random_model(seed: int = 0, **shape: Any) -> RandomModel:
    config = LlamaConfig(
        **{
            "vocab_size": 61, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 6, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, **shape,
        }
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    e, i = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    linear = {
        "self_attn.q_proj": (q, e), "self_attn.k_proj": (kv, e), "self_attn.v_proj": (kv, e),
        "self_attn.o_proj": (e, q), "mlp.gate_proj": (i, e), "mlp.up_proj": (i, e), "mlp.down_proj": (e, i),
    }  # fmt: skip

    def weight(n: int, k: int) -> np.ndarray:
        return (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)

    def gain() -> np.ndarray:
        return np.exp(rng.standard_normal(e)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": weight(config.vocab_size, e), "model.norm.weight": gain()}
    tied = config.tie_word_embeddings
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] if tied else weight(config.vocab_size, e)
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        tensors |= {f"{at}.{name}.weight": weight(*size) for name, size in linear.items()}
        tensors |= {f"{at}.{n}.weight": gain() for n in ("input_layernorm", "post_attention_layernorm")}
    return RandomModel(config, tensors)


def forward(
    model: Any, tokens: Any, online: Online = PLAIN, scores: list[np.ndarray] | None = None
) -> np.ndarray:  # fmt: skip
    """Logits float64 [T, V]; collects the attention scores [H, T, T] of every layer in `scores`."""
    c, w = model.config, {name: model.tensors[name].astype(np.float64) for name in model.tensors}
    x = w["model.embed_tokens.weight"][np.asarray(tokens)]
    count, d = len(x), c.head_dim
    cos, sin = (t.astype(np.float64)[:, None] for t in model.rope_tables(count))

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.rms_norm_eps) * w[name]

    def heads(x: np.ndarray, turn: bool) -> np.ndarray:
        x = x.reshape(count, -1, d)
        if turn:
            a, b = np.split(x, 2, axis=-1)
            x = np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)
            x = hadamard_transform(x) if online.r3 else x
        return x.swapaxes(0, 1)

    for layer in range(c.num_hidden_layers):
        at = f"model.layers.{layer}"
        a = norm(x, f"{at}.input_layernorm.weight")
        q, k, v = (heads(a @ w[f"{at}.self_attn.{n}_proj.weight"].T, turn=n != "v") for n in ("q", "k", "v"))
        group = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat(group, 0), v.repeat(group, 0)
        s = q @ k.swapaxes(1, 2) / np.sqrt(d)
        if scores is not None:
            scores.append(s)
        s = np.where(np.tri(count, dtype=bool), s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(count, -1)
        mixed = hadamard_transform(mixed) if online.out else mixed
        x = x + mixed @ w[f"{at}.self_attn.o_proj.weight"].T
        a = norm(x, f"{at}.post_attention_layernorm.weight")
        gate, up = (a @ w[f"{at}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        h = gate / (1 + np.exp(-gate)) * up
        h = hadamard_transform(h) if online.r4 else h
        x = x + h @ w[f"{at}.mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ w["lm_head.weight"].T
