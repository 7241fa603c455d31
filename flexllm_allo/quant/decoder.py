"""The float decoder layer in NumPy, with taps for calibration, and rounded as a recipe says on request.

What it computes is the model up to float rounding; the bits of the hardware are `models.reference`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import fake_quantize, quantize_activation, quantize_static
from .formats import ActivationFormat, IntFormat
from .model import FloatModel, Shape
from .names import tensor_name
from .passes import Rotate
from .recipes import SITES, Recipe
from .transform.hadamard import Online, hadamard_transform

FloatArray = NDArray[Any]  # float32 throughout; NumPy's stubs lose the width in products with scalars
Tap = Callable[[str, FloatArray], None]
"""Called with a name and values of one sample: the sites ``attn``, ``out``, ``mlp``, ``down`` [T, K] (after
online transforms, before rounding), ``q`` [T, H, D], ``k``, ``v`` [T, KV, D] and ``p`` [H, T, T]."""


@dataclass(frozen=True)
class Site:
    """What happens to an input on its way through the weights that read it.

    y = round(x) @ W.T, and with corrections: x is 0 at `outliers` before it is rounded, and
    y += x[outliers] @ side[:, :C].T + (x @ low_rank.T) @ side[:, C:].T for the x before.

    Attributes:
        weights: float32 [N, K] by kind (``wq``, ...), rounded or not.
        activation: how the input is rounded.
        outliers: int32 [C], input channels that stay in float.
        low_rank: float32 [r, K].
        sides: float32 [N, C + r] by kind.
        biases: float32 [N] by kind.
    """

    weights: Mapping[str, FloatArray]
    activation: ActivationFormat | None = None
    outliers: NDArray[np.int32] | None = None
    low_rank: FloatArray | None = None
    sides: Mapping[str, FloatArray] = field(default_factory=lambda: {})
    biases: Mapping[str, FloatArray] = field(default_factory=lambda: {})

    def __call__(self, x: FloatArray) -> list[FloatArray]:
        """Outputs [T, N] of each weight for an input [T, K]."""
        extra: list[FloatArray] = []
        inner = x
        if self.outliers is not None:
            extra.append(x[:, self.outliers])
            inner = x.copy()
            inner[:, self.outliers] = 0
        if self.low_rank is not None:
            extra.append(x @ self.low_rank.T)
        rounded = fake_quantize(inner, self.activation)
        outputs = {kind: rounded @ w.T for kind, w in self.weights.items()}
        if extra:
            beside = np.concatenate(extra, axis=1)
            for kind, side in self.sides.items():
                outputs[kind] += beside @ side.T
        for kind, bias in self.biases.items():
            outputs[kind] += bias
        return list(outputs.values())


@dataclass(frozen=True)
class AttentionScales:
    """Static scales of one layer: queries and probabilities float32 [H], keys and values float32 [KV]."""

    q: FloatArray
    k: FloatArray
    v: FloatArray
    p: FloatArray


@dataclass(frozen=True)
class DecoderLayer:
    """One layer, as far as it is known: sites are filled in one after the other.

    Attributes:
        attn_norm: float32 [E], gain in front of attention.
        mlp_norm: float32 [E], gain in front of the MLP.
        vectors: what else the norms of a family learn: ``attn_norm.bias``, ``mlp_norm.bias`` [E], ``q_norm``,
            ``k_norm`` [D].
        sites: ``attn``, ``out``, ``mlp``, ``down``.
        kv: how keys and values are rounded, per token and head; a static format needs `scales`.
        query: how queries are rounded, and probabilities times the scales of their values.
        scales: static scales in place of those.
    """

    attn_norm: FloatArray
    mlp_norm: FloatArray
    sites: Mapping[str, Site]
    kv: IntFormat | None = None
    query: IntFormat | None = None
    scales: AttentionScales | None = None
    vectors: Mapping[str, FloatArray] = field(default_factory=lambda: {})


@dataclass(frozen=True)
class Decoder:
    """What all layers share: the shape of the model, rotary tables, transforms computed at run time.

    Attributes:
        config: the shape.
        cos: float32 [S, D / 2], as long as the longest sample.
        sin: float32 [S, D / 2].
        online: Hadamard transforms that a rotated model computes.
    """

    config: Shape
    cos: FloatArray
    sin: FloatArray
    online: Online

    def attention_input(self, layer: DecoderLayer, x: FloatArray) -> FloatArray:
        """The input [T, E] of site ``attn``, from the residual stream [T, E]."""
        return norm(x, layer.attn_norm, self.config.rms_norm_eps, layer.vectors.get("attn_norm.bias"))

    def mix(self, layer: DecoderLayer, h: FloatArray, tap: Tap | None = None) -> FloatArray:
        """The input [T, H * D] of site ``out`` from that of ``attn``: causal attention."""
        rows, d = len(h), self.config.head_dim
        q, k, v = (y.reshape(rows, -1, d) for y in layer.sites["attn"](h))
        if self.config.architecture.qk_norm:
            eps = self.config.rms_norm_eps
            q, k = rms_norm(q, layer.vectors["q_norm"], eps), rms_norm(k, layer.vectors["k_norm"], eps)
        q, k = (self._rotary(y) for y in (q, k))
        if self.online.r3:
            q, k = hadamard_transform(q), hadamard_transform(k)
        if tap:
            tap("q", q)
            tap("k", k)
            tap("v", v)
        if layer.scales:
            scales = layer.scales
            q, k, v = (_static(x, s[:, None]) for x, s in ((q, scales.q), (k, scales.k), (v, scales.v)))
        elif layer.kv and layer.kv.dynamic:
            q, k = fake_quantize(q, layer.query), fake_quantize(k, layer.kv)
        group = q.shape[1] // k.shape[1]
        keys, values = (np.repeat(y.swapaxes(0, 1), group, axis=0) for y in (k, v))
        scores = q.swapaxes(0, 1) @ keys.swapaxes(1, 2) * np.float32(d**-0.5)
        scores += np.triu(np.full((rows, rows), -np.inf, np.float32), 1)  # the future
        if window := self.config.sliding_window:
            scores += np.tril(np.full((rows, rows), -np.inf, np.float32), -window)  # the distant past
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        if tap:
            tap("p", p)
        mixed = _weighted(layer, p, values).swapaxes(0, 1).reshape(rows, -1)
        return hadamard_transform(mixed) if self.online.out else mixed

    def mlp_input(self, layer: DecoderLayer, x: FloatArray) -> FloatArray:
        """The input [T, E] of site ``mlp``, from the residual stream after attention."""
        return norm(x, layer.mlp_norm, self.config.rms_norm_eps, layer.vectors.get("mlp_norm.bias"))

    def gated(self, layer: DecoderLayer, h: FloatArray) -> FloatArray:
        """The input [T, I] of site ``down`` from that of ``mlp``: silu(gate) * up, or gelu(up)."""
        outputs = layer.sites["mlp"](h)
        with np.errstate(over="ignore"):  # exp may reach infinity, and the quotient is 0 then
            if self.config.architecture.mlp == "swiglu":
                gate, up = outputs
                inner = gate / (1 + np.exp(-gate)) * up
            else:
                inner = gelu(outputs[0])
        return hadamard_transform(inner) if self.online.r4 else inner

    def forward(self, layer: DecoderLayer, x: FloatArray, tap: Tap | None = None) -> FloatArray:
        """The residual stream [T, E] of one sample behind a layer."""
        h = self.attention_input(layer, x)
        mixed = self.mix(layer, h, tap)
        y = x + layer.sites["out"](mixed)[0]
        after = self.mlp_input(layer, y)
        inner = self.gated(layer, after)
        if tap:
            for name, value in (("attn", h), ("out", mixed), ("mlp", after), ("down", inner)):
                tap(name, value)
        return y + layer.sites["down"](inner)[0]

    def _rotary(self, x: FloatArray) -> FloatArray:
        """Rotary embedding of [T, heads, D] in pairs (i, i + D / 2)."""
        c, s = self.cos[: len(x), None], self.sin[: len(x), None]
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate((first * c - second * s, second * c + first * s), axis=-1)


def online_of(recipe: Recipe) -> Online:
    """The Hadamard transforms that a model under the recipe computes at run time."""
    rotation = recipe.find(Rotate)
    return Online(rotation.r3, rotation.r4, rotation.out) if rotation else Online()


def decoder_of(model: FloatModel, length: int, online: Online | None = None) -> Decoder:
    """The decoder of a model for samples of at most `length` tokens."""
    return Decoder(model.config, *model.rope_tables(length), online or Online())


def decode_layer(decoder: Decoder, layer: DecoderLayer, x: FloatArray, tap: Tap | None = None) -> FloatArray:
    """The residual stream [B, T, E] behind a layer, sample by sample: memory for one sample at a time."""
    return np.stack([decoder.forward(layer, sample, tap) for sample in x])


def float_layer(model: FloatModel, layer: int) -> DecoderLayer:
    """A layer of a float model as it is: its matrices are read now."""
    sites = {
        site: Site(
            {kind: model.tensors[tensor_name(kind, layer)] for kind in present(model, kinds, layer)},
            biases=site_biases(model, site, layer),
        )
        for site, kinds in SITES.items()
        if site != "head"
    }
    attn_norm, mlp_norm = (model.tensors[tensor_name(kind, layer)] for kind in ("attn_norm", "mlp_norm"))
    vectors = {kind: model.tensors[tensor_name(kind, layer)] for kind in present(model, VECTORS, layer)}
    return DecoderLayer(attn_norm, mlp_norm, sites, vectors=vectors)


VECTORS = ("attn_norm.bias", "mlp_norm.bias", "q_norm", "k_norm")
"""What norms of some families learn beside the gains that all have."""


def present(model: FloatModel, kinds: Sequence[str], layer: int | None) -> list[str]:
    """Those kinds of tensors that the model has."""
    return [kind for kind in kinds if tensor_name(kind, layer) in model.tensors]


def site_biases(model: FloatModel, site: str, layer: int | None) -> dict[str, FloatArray]:
    """Biases [N] of the weights of a site, by kind."""
    kinds = [kind for kind in SITES[site] if tensor_name(f"{kind}.bias", layer) in model.tensors]
    return {kind: model.tensors[tensor_name(f"{kind}.bias", layer)] for kind in kinds}


def embedded(model: FloatModel, tokens: NDArray[np.integer]) -> FloatArray:
    """The residual stream [B, T, E] of token ids [B, T] in front of the layers."""
    x = model.tensors[tensor_name("embed")][tokens]
    if present(model, ("positions",), None):
        x = x + model.tensors[tensor_name("positions")][: tokens.shape[1]]
    return x


def norm(x: FloatArray, gain: FloatArray, eps: float, bias: FloatArray | None = None) -> FloatArray:
    """RMSNorm over rows [T, E], or LayerNorm where there is a bias."""
    if bias is None:
        return rms_norm(x, gain, eps)
    return rms_norm(x - x.mean(axis=-1, keepdims=True), gain, eps) + bias


def gelu(x: FloatArray) -> FloatArray:
    """The tanh form of GELU, x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))."""
    return x / (1 + np.exp(-np.float32(np.sqrt(8 / np.pi)) * (x + np.float32(0.044715) * x**3)))


def rms_norm(x: FloatArray, gain: FloatArray, eps: float) -> FloatArray:
    """x / sqrt(mean(x^2) + eps) * gain over rows [T, E]."""
    mean = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean + np.float32(eps)) * gain


def _weighted(layer: DecoderLayer, p: FloatArray, values: FloatArray) -> FloatArray:
    """Sums [H, T, D] of values [H, T, D] (static ones are rounded already) under probabilities [H, T, T]."""
    if layer.scales:
        return _static(p, layer.scales.p[:, None, None], 0, 255) @ values
    if layer.kv is None or not layer.kv.dynamic:
        return p @ values
    # Probabilities carry the scale of their value, so that the sum is one of integers, exact in float32. It
    # must be: a token that sees few others mixes to a coarse grid, half of whose points may lie on ties.
    codes, scale, offset = quantize_activation(values, layer.kv)
    weights, steps, _ = quantize_activation(p * scale[:, None], layer.query)
    mixed = weights.astype(np.float32) @ codes.astype(np.float32) * steps[..., None]
    return mixed if offset is None else mixed + p @ offset[..., None]


def _static(x: FloatArray, scale: FloatArray, low: int = -128, high: int = 127) -> FloatArray:
    """Values after a trip through codes of a fixed scale."""
    return quantize_static(x, scale, low, high) * scale
