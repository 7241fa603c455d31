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
from flexllm_allo.models.arrays import SITE_OF, has_offset, weight_terms
from flexllm_allo.models.expf import expf
from flexllm_allo.models.sampling import Sampling, choose
from flexllm_allo.quant.activation import quantize_activation, quantize_static
from flexllm_allo.quant.formats import ActivationFormat, IntFormat
from flexllm_allo.quant.integer.rtn import round_half_away
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.passes import Rotate
from flexllm_allo.quant.transform.hadamard import hadamard_transform

FloatArray = NDArray[Any]  # float32 throughout; NumPy's stubs lose the width in products with scalars
Codes = NDArray[Any]  # int8 or uint8 codes, or float values where the recipe has no format

# Products of two 8-bit codes summed over this many terms stay below 2^24, so float32 holds every partial
# sum exactly and a float matrix product in any order is an exact integer one.
_EXACT_TERMS = 256


class ReferenceLlama:
    """A quantised Llama with its KV cache, token rows in, logits out.

    Args:
        model: what `quant.quantize` makes.
        sequential: where the recipe leaves weights in float32, add products one after the other as the
            kernels do. Without it those sums are matrix products of NumPy: faster, and equal up to rounding.
            Integer sums are exact either way.
    """

    def __init__(self, model: QuantizedModel, sequential: bool = False) -> None:
        self.model = model
        self.sequential = sequential
        self.rotate = model.recipe.find(Rotate) or Rotate("none", "none", r4=False)
        config, kv = model.config, model.recipe.kv
        cache = (config.num_hidden_layers, config.num_key_value_heads, model.max_seq_len)
        stored = np.float32 if kv is None else np.int8 if kv.signed else np.uint8
        self.codes: dict[str, Codes] = {n: np.zeros((*cache, config.head_dim), stored) for n in "kv"}
        width = 2 if kv is not None and kv.zero != "none" else 1
        self.terms: dict[str, FloatArray] = {n: np.zeros((*cache, width), np.float32) for n in "kv"}
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
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        eos: int | Collection[int] | None = None,
        sampling: Sampling | None = None,
    ) -> list[int]:
        """Up to `max_new_tokens` tokens after a prompt, greedy by default; the first `eos` token is the last.

        A tie goes to the smallest token id.
        """
        how = sampling or Sampling()
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
            generated.append(choose(logits, how, self.position))
            if generated[-1] in stop or len(generated) == max_new_tokens:
                break
            logits = self.decode(generated[-1])
        return generated

    def _forward(self, tokens: Sequence[int]) -> FloatArray:
        m = self.model
        begin, end = self.position, self.position + len(tokens)
        self._check(tokens, end)
        x = m.array("embed")[np.asarray(tokens, dtype=np.int64)]
        for layer in range(m.config.num_hidden_layers):
            x = self._attention(x, layer, begin, end)
            x = self._mlp(x, layer)
        self.position = end
        h = rms_norm(x, m.array("final_norm"), m.config.rms_norm_eps)
        return self._linears(h, ("w_head",))[0]

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
        h = rms_norm(x, m.array(f"layers.{layer}.attn_norm"), c.rms_norm_eps)
        q, k, v = (p.reshape(rows, -1, d) for p in self._linears(h, ("wq", "wk", "wv"), layer))
        cos, sin = m.cos[begin:end], m.sin[begin:end]
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        if self.rotate.r3:
            q, k = hadamard_transform(q), hadamard_transform(k)
        static = m.recipe.kv is not None and not m.recipe.kv.dynamic
        mixed = (self._attend_static if static else self._attend)(q, k, v, layer, begin, end)
        mixed = mixed.reshape(rows, -1)
        return x + self._linears(hadamard_transform(mixed) if self.rotate.out else mixed, ("wo",), layer)[0]

    def _mlp(self, x: FloatArray, layer: int) -> FloatArray:
        m = self.model
        h = rms_norm(x, m.array(f"layers.{layer}.mlp_norm"), m.config.rms_norm_eps)
        hidden = swiglu(*self._linears(h, ("w_gate", "w_up"), layer))
        hidden = hadamard_transform(hidden) if self.rotate.r4 else hidden
        return x + self._linears(hidden, ("w_down",), layer)[0]

    # ------------------------------------------------------------------------------- attention

    def _attend(
        self, q: FloatArray, k: FloatArray, v: FloatArray, layer: int, begin: int, end: int
    ) -> FloatArray:
        """Append keys and values, then attention of rows begin..end over 0..end; all [T, heads, D]."""
        recipe = self.model.recipe
        for name, value in (("k", k), ("v", v)):
            codes, terms = _quantize(value, recipe.kv)
            self.codes[name][layer][:, begin:end] = codes.swapaxes(0, 1)
            self.terms[name][layer][:, begin:end] = terms.swapaxes(0, 1)
        q_codes, q_terms = _quantize(q, recipe.query)
        q_scale = q_terms[..., 0]
        result = np.empty_like(q)
        for kv_head, heads in self._groups():
            keys, values = (self.codes[n][layer, kv_head, :end] for n in "kv")
            k_terms, v_terms = (self.terms[n][layer, kv_head, :end] for n in "kv")
            acc = self._heads_dot(q_codes[:, heads], keys)
            score = acc * (q_scale[:, heads, None] * k_terms[:, 0])
            if k_terms.shape[-1] == 2:
                total = q_codes[:, heads].astype(np.int32).sum(axis=-1).astype(np.float32)
                score = score + (total * q_scale[:, heads])[..., None] * k_terms[:, 1]
            p = self._softmax(score, begin, end)
            weight = p * v_terms[:, 0]
            # Not negative, so the symmetric codes are 0..127. They carry the scale of their value row, which
            # leaves one scale for the whole sum.
            codes, terms = _quantize(weight, recipe.query)
            mixed = self._heads_dot(codes, values.T) * terms[..., :1]
            if v_terms.shape[-1] == 2:
                mixed = mixed + sequential_sum(p * v_terms[:, 1])[..., None]
            result[:, heads] = mixed
        return result

    def _attend_static(
        self, q: FloatArray, k: FloatArray, v: FloatArray, layer: int, begin: int, end: int
    ) -> FloatArray:
        """`_attend` with scales that are fixed per head."""
        m = self.model
        scales = {n: m.array(f"layers.{layer}.{n}_scale")[:, None] for n in "qkvp"}
        for name, value in (("k", k), ("v", v)):
            self.codes[name][layer][:, begin:end] = quantize_static(value, scales[name]).swapaxes(0, 1)
        q_codes = quantize_static(q, scales["q"]).astype(np.int8)
        result = np.empty_like(q)
        for kv_head, heads in self._groups():
            keys, values = (self.codes[n][layer, kv_head, :end] for n in "kv")
            acc = self._heads_dot(q_codes[:, heads], keys)
            p = self._softmax(acc * (scales["q"][heads] * scales["k"][kv_head]), begin, end)
            steps: FloatArray = p / scales["p"][heads]
            codes = np.minimum(round_half_away(steps), np.float32(255)).astype(np.uint8)
            mixed = self._heads_dot(codes, values.T)
            result[:, heads] = mixed * (scales["p"][heads] * scales["v"][kv_head])
        return result

    def _groups(self) -> list[tuple[int, slice]]:
        """Each key/value head with the query heads that share it."""
        c = self.model.config
        group = c.num_attention_heads // c.num_key_value_heads
        return [(h, slice(h * group, (h + 1) * group)) for h in range(c.num_key_value_heads)]

    def _softmax(self, score: FloatArray, begin: int, end: int) -> FloatArray:
        """Causal softmax of score / sqrt(D), [T, heads, end]."""
        score = score * np.float32(1.0 / np.sqrt(np.float64(self.model.config.head_dim)))
        future = np.arange(end)[None, :] > np.arange(begin, end)[:, None]
        score[np.broadcast_to(future[:, None], score.shape)] = -np.inf
        e = expf(score - score.max(axis=-1, keepdims=True))
        # The future adds zeros at the end of the sum, which change nothing.
        return e / sequential_sum(e)[..., None]

    def _heads_dot(self, x: Codes, w: Codes) -> FloatArray:
        """[T, heads, N] of x [T, heads, K] and w [N, K]."""
        return self._dot(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], len(w))

    # ---------------------------------------------------------------------------------- linear

    def _linears(self, x: FloatArray, kinds: Sequence[str], layer: int = 0) -> list[FloatArray]:
        """The linear layers that share the input x [T, K]: quantize once, multiply by each weight."""
        m = self.model
        prefix = "" if kinds[0] == "w_head" else f"layers.{layer}."
        site, side = prefix + SITE_OF[kinds[0]], list[FloatArray]()
        rest = x
        if f"{site}.outliers" in m.tensors:
            columns = m.array(f"{site}.outliers")
            side.append(x[:, columns])
            rest = x.copy()
            rest[:, columns] = 0
        if f"{site}.low_rank" in m.tensors:
            directions = m.array(f"{site}.low_rank")
            side.append(np.stack([sequential_sum(directions * row) for row in x]))
        codes, terms = _quantize(rest, m.recipe.activation_of(SITE_OF[kinds[0]]))
        terms = np.concatenate([terms, *side], axis=-1)
        return [self._linear(codes, terms, prefix, kind, layer) for kind in kinds]

    def _linear(self, x: Codes, x_terms: FloatArray, prefix: str, kind: str, layer: int) -> FloatArray:
        """The formula of `kernels.linear`: codes x [T, K] and their terms, a weight [N, K], result [T, N]."""
        m, weight = self.model, self.model.weight(kind, layer)
        name = f"{prefix}{kind}.side"
        side = m.array(name) if name in m.tensors else None
        w_terms = weight_terms(weight, has_offset(m.recipe, kind), side)
        groups = weight.scale.shape[-1]
        integers = weight.codes if weight.format is None else weight.integers()
        if isinstance(weight.format, IntFormat) and weight.format.granularity == "per_group":
            width = integers.shape[-1] // groups
            total = np.zeros((len(x), len(integers)), np.float32)
            for g in range(groups):
                part = self._dot(x[:, g * width : (g + 1) * width], integers[:, g * width : (g + 1) * width])
                total = total + part * w_terms[:, g]
            y = total * x_terms[:, :1]
        elif isinstance(weight.format, IntFormat) and not weight.format.signed:
            y = (self._dot(x, integers) * w_terms[:, 0]) * x_terms[:, :1]
        else:
            y = self._dot(x, integers) * (x_terms[:, :1] * w_terms[:, 0])
        for j in range(1, x_terms.shape[-1]):
            y = y + x_terms[:, j : j + 1] * w_terms[:, groups - 1 + j]
        return y

    def _dot(self, x: Codes, w: Codes) -> FloatArray:
        """Products of rows, float32 [R, N] of x [R, K] and w [N, K]; exact for codes."""
        if x.dtype.kind in "iu" and w.dtype.kind in "iu":
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


def _quantize(x: FloatArray, fmt: ActivationFormat | None) -> tuple[Codes, FloatArray]:
    """Codes over the last axis, and terms [..., 1 or 2]: the scale and, in asymmetric formats, the offset."""
    codes, scale, offset = quantize_activation(x, fmt)
    return codes, np.stack([scale] if offset is None else [scale, offset], axis=-1)


def _integer_dot(x: Codes, w: Codes) -> FloatArray:
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
