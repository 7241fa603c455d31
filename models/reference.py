"""The quantised Llama in NumPy, bit for bit what the kernels compute: their oracle.

Every float operation is one float32 operation in the order of the kernels: sums over a row run from the
first index to the last (`numpy.cumsum` does; `numpy.sum` goes pairwise), integer sums are exact. Token rows
are independent of each other, so a prefill and the same tokens decoded one by one give the same bits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import UsageError
from flexllm_allo.models.expf import expf
from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.rtn import quantize_rows

FloatArray = NDArray[Any]  # float32 throughout; NumPy's stubs lose the width in products with scalars
Codes = NDArray[Any]  # int8 codes, or float32 values where the recipe has no format

# Products of two int8 codes summed over this many terms stay below 2^24, so float32 holds every partial
# sum exactly and a float matrix product in any order is an exact integer one.
_EXACT_TERMS = 1024


class ReferenceLlama:
    """A quantised Llama with its KV cache, token rows in, logits out.

    Args:
        model: the arrays of `quant.quantize_checkpoint`.
        sequential: where the recipe leaves weights in float32, add products one after the other as the
            kernels do. Without it those sums are matrix products of NumPy: faster, and equal up to rounding.
            Integer sums are exact either way.
    """

    def __init__(self, model: QuantizedModel, sequential: bool = False) -> None:
        self.model = model
        self.sequential = sequential
        config = model.config
        cache = (config.num_hidden_layers, config.num_key_value_heads, model.max_seq_len)
        stored = np.float32 if model.recipe.kv is None else np.int8
        self.k_cache: Codes = np.zeros((*cache, config.head_dim), stored)  # [L, KV, S, D]
        self.v_cache: Codes = np.zeros((*cache, config.head_dim), stored)
        self.k_scale: FloatArray = np.ones(cache, np.float32)  # [L, KV, S]
        self.v_scale: FloatArray = np.ones(cache, np.float32)
        self.position = 0

    def prefill(self, tokens: Sequence[int]) -> FloatArray:
        """Logits [T, V] of a new sequence; what the KV cache held is forgotten.

        Raises:
            UsageError: FX701 when there are no tokens or more than `max_seq_len`, FX703 for a token outside
                the vocabulary.
        """
        self.position = 0
        if not len(tokens):
            raise UsageError("FX701", "there are no tokens to prefill", hint="give at least one, such as BOS")
        return self._forward(tokens)

    def decode(self, token: int) -> FloatArray:
        """Logits [V] after one more token."""
        return self._forward([token])[0]

    def generate(
        self, prompt_tokens: Sequence[int], max_new_tokens: int, eos: int | Collection[int] | None = None
    ) -> list[int]:
        """Up to `max_new_tokens` greedy tokens after a prompt; the first `eos` token is the last one.

        A tie goes to the smallest token id.
        """
        stop: Collection[int] = (eos,) if isinstance(eos, int) else eos or ()
        if len(prompt_tokens) + max_new_tokens > self.model.max_seq_len:
            raise UsageError(
                "FX701",
                f"{len(prompt_tokens)} prompt tokens and {max_new_tokens} new ones exceed "
                f"max_seq_len {self.model.max_seq_len}",
                hint="shorten the prompt, ask for fewer tokens, or quantise with a larger max_seq_len",
            )
        logits = self.prefill(prompt_tokens)[-1]
        generated: list[int] = []
        while len(generated) < max_new_tokens:
            generated.append(int(np.argmax(logits)))
            if generated[-1] in stop or len(generated) == max_new_tokens:
                break
            logits = self.decode(generated[-1])
        return generated

    def _forward(self, tokens: Sequence[int]) -> FloatArray:
        m = self.model
        begin, end = self.position, self.position + len(tokens)
        self._check(tokens, end)
        x = m.embed[np.asarray(tokens, dtype=np.int64)]
        for layer in range(m.config.num_hidden_layers):
            x = self._attention(x, layer, begin, end)
            x = self._mlp(x, layer)
        self.position = end
        h = rms_norm(x, m.final_norm, m.config.rms_norm_eps)
        return self._linear(*_quantize(h, m.recipe.activation), m.w_head, m.w_head_scale)

    def _check(self, tokens: Sequence[int], end: int) -> None:
        if end > self.model.max_seq_len:
            raise UsageError(
                "FX701",
                f"{end} tokens exceed max_seq_len {self.model.max_seq_len}",
                hint="quantise the checkpoint with a larger max_seq_len",
            )
        vocab = self.model.config.vocab_size
        bad = [token for token in tokens if not 0 <= token < vocab]
        if bad:
            raise UsageError("FX703", f"there is no token {bad[0]}", hint=f"token ids are 0 to {vocab - 1}")

    def _attention(self, x: FloatArray, layer: int, begin: int, end: int) -> FloatArray:
        m, c = self.model, self.model.config
        rows, d = len(x), c.head_dim
        h = _quantize(rms_norm(x, m.attn_norm[layer], c.rms_norm_eps), m.recipe.activation)
        q = self._linear(*h, m.wq[layer], m.wq_scale[layer]).reshape(rows, c.num_attention_heads, d)
        k = self._linear(*h, m.wk[layer], m.wk_scale[layer]).reshape(rows, c.num_key_value_heads, d)
        v = self._linear(*h, m.wv[layer], m.wv_scale[layer]).reshape(rows, c.num_key_value_heads, d)
        cos, sin = m.cos[begin:end], m.sin[begin:end]
        q_codes, q_scale = _quantize(rope(q, cos, sin), m.recipe.kv)
        for value, codes, scales in (
            (rope(k, cos, sin), self.k_cache[layer], self.k_scale[layer]),
            (v, self.v_cache[layer], self.v_scale[layer]),
        ):
            new_codes, new_scales = _quantize(value, m.recipe.kv)
            codes[:, begin:end] = new_codes.swapaxes(0, 1)
            scales[:, begin:end] = new_scales.T
        mixed = self._attend(q_codes, q_scale, layer, begin, end)
        a = _quantize(mixed.reshape(rows, -1), m.recipe.activation)
        return x + self._linear(*a, m.wo[layer], m.wo_scale[layer])

    def _attend(self, q: Codes, q_scale: FloatArray, layer: int, begin: int, end: int) -> FloatArray:
        """Attention of rows begin..end over the cache 0..end; q [T, H, D], result [T, H, D]."""
        c, kv_format = self.model.config, self.model.recipe.kv
        rows, d = len(q), c.head_dim
        group = c.num_attention_heads // c.num_key_value_heads
        inverse_sqrt = np.float32(1.0 / np.sqrt(np.float64(d)))
        future = np.arange(end)[None, :] > np.arange(begin, end)[:, None]
        result = np.empty((rows, c.num_attention_heads, d), np.float32)
        for kv_head in range(c.num_key_value_heads):
            heads = slice(kv_head * group, (kv_head + 1) * group)
            keys, values = self.k_cache[layer, kv_head, :end], self.v_cache[layer, kv_head, :end]
            key_scale, value_scale = self.k_scale[layer, kv_head, :end], self.v_scale[layer, kv_head, :end]
            acc = self._dot(q[:, heads].reshape(rows * group, d), keys).reshape(rows, group, end)
            score = acc * (q_scale[:, heads, None] * key_scale) * inverse_sqrt
            score[np.broadcast_to(future[:, None], score.shape)] = -np.inf
            e = expf(score - score.max(axis=-1, keepdims=True))
            # The future adds zeros at the end of the sum, which change nothing.
            weight = e / sequential_sum(e)[..., None] * value_scale
            # Not negative, so the symmetric codes are 0..127. They carry the scale of their value row, which
            # leaves one scale for the whole sum.
            codes, scale = _quantize(weight, kv_format)
            mixed = self._dot(codes.reshape(rows * group, end), values.T).reshape(rows, group, d)
            result[:, heads] = mixed * scale[..., None]
        return result

    def _mlp(self, x: FloatArray, layer: int) -> FloatArray:
        m = self.model
        h = _quantize(rms_norm(x, m.mlp_norm[layer], m.config.rms_norm_eps), m.recipe.activation)
        gate = self._linear(*h, m.w_gate[layer], m.w_gate_scale[layer])
        up = self._linear(*h, m.w_up[layer], m.w_up_scale[layer])
        a = _quantize(swiglu(gate, up), m.recipe.activation)
        return x + self._linear(*a, m.w_down[layer], m.w_down_scale[layer])

    def _linear(self, x: Codes, x_scale: FloatArray, weight: Codes, weight_scale: FloatArray) -> FloatArray:
        """float32(sum of products) * (x_scale * weight_scale): x [T, K], weight [N, K], result [T, N]."""
        return self._dot(x, weight) * (x_scale[:, None] * weight_scale)

    def _dot(self, x: Codes, w: Codes) -> FloatArray:
        """Products of rows, float32 [R, N] of x [R, K] and w [N, K]; exact for codes."""
        if x.dtype == np.int8 and w.dtype == np.int8:
            return _integer_dot(x, w)
        x, w = x.astype(np.float32, copy=False), w.astype(np.float32, copy=False)
        return np.stack([sequential_sum(w * row) for row in x]) if self.sequential else x @ w.T


def sequential_sum(x: FloatArray) -> FloatArray:
    """Sums over the last axis, from the first element to the last, each addition rounded to float32."""
    return np.cumsum(x, axis=-1, dtype=np.float32)[..., -1]


def rms_norm(x: FloatArray, gain: FloatArray, eps: float) -> FloatArray:
    """(x / sqrt(mean(x^2) + eps)) * gain over rows [T, E]."""
    mean = sequential_sum(x * x) / np.float32(x.shape[-1])
    r = np.float32(1) / np.sqrt(mean + np.float32(eps))
    return (x * r[:, None]) * gain


def rope(x: FloatArray, cos: FloatArray, sin: FloatArray) -> FloatArray:
    """Rotary embedding of [T, heads, D] in pairs (i, i + D/2), tables [T, D/2] (`rotate_half`)."""
    c, s = cos[:, None], sin[:, None]
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate((first * c - second * s, second * c + first * s), axis=-1)


def swiglu(gate: FloatArray, up: FloatArray) -> FloatArray:
    """silu(gate) * up with silu(g) = g / (1 + expf(-g))."""
    return gate / (np.float32(1) + expf(-gate)) * up


def _quantize(x: FloatArray, fmt: IntFormat | None) -> tuple[Codes, FloatArray]:
    """Codes and scales over the last axis; the values themselves and ones without a format."""
    return (x, np.ones(x.shape[:-1], np.float32)) if fmt is None else quantize_rows(x, fmt)


def _integer_dot(x: NDArray[np.int8], w: NDArray[np.int8]) -> FloatArray:
    terms = range(0, x.shape[-1], _EXACT_TERMS)
    parts = (
        x[:, k : k + _EXACT_TERMS].astype(np.float32) @ w[:, k : k + _EXACT_TERMS].astype(np.float32).T
        for k in terms
    )
    acc = next(parts)
    if len(terms) == 1:
        return acc
    total = acc.astype(np.int32)
    for part in parts:
        total += part.astype(np.int32)
    return total.astype(np.float32)
