"""Signal-to-noise ratios of a quantized model, layer by layer, and what they do to the next token.

Samples walk through the float model and the quantized one side by side, one layer of either in memory. All
is compared in the basis of the quantized model: the float model is the one behind the float passes of the
recipe (Smooth, FoldNorms, Rotate), which computes the same function. A rotation keeps every power, so the
ratio of a rotated residual stream is that of the stream itself.

Each place is measured alone, for what the float model would put there, so that a bad one does not blame
those behind it; only ``stream`` carries all noise from the first layer on. Decibels are
10 log10(sum signal^2 / sum noise^2) over all tokens, sums in float64; infinite where nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activation import fake_quantize, quantize_activation, quantize_static
from .calibration import Samples
from .decoder import Decoder, DecoderLayer, Site, decoder_of, float_layer, online_of, rms_norm
from .model import FloatModel, Tensor
from .names import EMBED, tensor_name
from .recipes import SITES, Recipe
from .simulate import simulated_layer, simulated_site
from .weight import FloatArray

PLACES = (
    "attn", "wq", "wk", "wv", "q", "k", "v", "p", "attention", "out", "wo",
    "mlp", "w_gate", "w_up", "down", "w_down", "stream",
)  # fmt: skip
"""The places of a layer, in the order of computation: sites (inputs of linear layers), weights, what is
rounded inside attention, all of attention, the residual stream behind the layer."""
HEAD_PLACES = ("head", "w_head")
LOCAL_DB = 15.0
"""A place is bad below this: its rounding error has over 3 % of the power of what it rounds. Four bits
without outliers give 17 to 20 dB, eight bits about 40; each bit 6."""
STREAM_DB = 10.0
"""The same for the residual stream, which sums up the noise of all layers: a tenth of its power."""


@dataclass(frozen=True)
class Measurement:
    """One place of one layer.

    Attributes:
        layer: None for the head.
        place: one of `PLACES` or `HEAD_PLACES`.
        snr: dB. Of a site: outputs of its weights in float, when its input is rounded (a large channel that
            the weights make small does not hide the others). Of a weight: its outputs, when it is rounded and
            its input is not. Of ``q``, ``k``, ``v`` and ``p``: these values; of ``attention``: its result
            when all of them are rounded. Of ``stream``: the residual stream behind the layer.
        values: dB of the values themselves: of the input of a site, of a matrix.
        peak: largest magnitude over root mean square of what shares a scale: mean over rows of a site, a
            weight, or a head of q, k, v. None where it says nothing.
    """

    layer: int | None
    place: str
    snr: float
    values: float
    peak: float | None = None

    @property
    def threshold(self) -> float:
        """The decibels it should have."""
        return STREAM_DB if self.place == "stream" else LOCAL_DB

    @property
    def bad(self) -> bool:
        return self.snr < self.threshold


@dataclass(frozen=True)
class OutputError:
    """What all of it does to the next token.

    Attributes:
        tokens: how many were predicted.
        kl: mean Kullback-Leibler divergence of the quantized model's distribution from the float one's, nats.
        cross_entropy_float: mean over the tokens of the samples that follow, nats.
        cross_entropy: the same of the quantized model.
        snr: dB, of the logits.
    """

    tokens: int
    kl: float
    cross_entropy_float: float
    cross_entropy: float
    snr: float

    @property
    def perplexity_float(self) -> float:
        return _exp(self.cross_entropy_float)

    @property
    def perplexity(self) -> float:
        return _exp(self.cross_entropy)


@dataclass(frozen=True)
class SnrReport:
    """All measurements of a quantized model, in the order of computation."""

    recipe: Recipe
    layers: int
    measurements: tuple[Measurement, ...]
    output: OutputError

    def at(self, layer: int | None, place: str) -> Measurement:
        return next(m for m in self.measurements if (m.layer, m.place) == (layer, place))

    def bad(self) -> tuple[Measurement, ...]:
        """Those below their threshold."""
        return tuple(m for m in self.measurements if m.bad)

    def first_bad(self) -> Measurement | None:
        """The first of them, where repair begins; None if all is well."""
        return next(iter(self.bad()), None)


@dataclass
class _Ratio:
    """Powers of a signal and of its noise."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: FloatArray, error: FloatArray) -> None:
        self.signal += _power(reference)
        self.noise += _power(error)

    @property
    def db(self) -> float:
        if self.noise == 0:
            return math.inf
        if not math.isfinite(self.noise):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class _Place:
    """What is summed up at a place."""

    snr: _Ratio = field(default_factory=_Ratio)
    values: _Ratio | None = None  # None: the same as `snr`
    peaks: list[float] = field(default_factory=lambda: [])

    def measurement(self, layer: int | None, place: str) -> Measurement:
        peak = float(np.mean(self.peaks)) if self.peaks else None
        return Measurement(layer, place, self.snr.db, (self.values or self.snr).db, peak)


def measure_snr(
    model: FloatModel, recipe: Recipe, tensors: Iterable[tuple[str, Tensor]], samples: Samples
) -> SnrReport:
    """The report of a quantized model on samples.

    Args:
        model: the float model behind the recipe's float passes (`apply_float_passes`).
        recipe: of the quantized model.
        tensors: its tensors in the order of `quantize_tensors`; those of one layer are kept at a time.
        samples: int32 [B, T] token ids.
    """
    decoder = decoder_of(model, samples.shape[1], online_of(recipe))
    exact = model.tensors[EMBED][samples]  # [B, T, E]
    rounded = exact.copy()
    found: list[Measurement] = []
    head: dict[str, Tensor] = {}
    for layer, group in groupby(tensors, lambda item: _layer_of(item[0])):
        if layer is None:
            head |= {name: tensor for name, tensor in group if name != "embed"}
            continue
        walk = _LayerWalk(decoder, float_layer(model, layer), simulated_layer(dict(group), layer, recipe))
        for n in range(len(samples)):
            exact[n], rounded[n] = walk.forward(exact[n], rounded[n])
        found += [walk.places[place].measurement(layer, place) for place in PLACES]
    measured, output = _head(model, simulated_site(head, "head", None, recipe), exact, rounded, samples)
    return SnrReport(recipe, model.config.num_hidden_layers, (*found, *measured), output)


def _layer_of(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("layers.") else None


class _LayerWalk:
    """One layer in float and as it is rounded, and what was measured of it."""

    def __init__(self, decoder: Decoder, exact: DecoderLayer, rounded: DecoderLayer) -> None:
        self.decoder, self.exact, self.rounded = decoder, exact, rounded
        # Everything in float but queries, keys, values and probabilities.
        self.attention = replace(exact, kv=rounded.kv, query=rounded.query, scales=rounded.scales)
        self.places = {place: _Place() for place in PLACES}
        for site, float_site in exact.sites.items():
            _add_weights(self.places, float_site, rounded.sites[site])

    def forward(self, x: FloatArray, noisy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both residual streams [T, E] of a sample behind the layer."""
        taken: dict[str, FloatArray] = {}
        after = self.decoder.forward(self.exact, x, taken.__setitem__)
        noisy_after = self.decoder.forward(self.rounded, noisy)
        for site, float_site in self.exact.sites.items():
            _add_site(self.places, site, float_site, self.rounded.sites[site], taken[site])
        for name, reference, values in _attention_values(self.rounded, taken):
            self.places[name].snr.add(reference, values - reference)
            if name != "p":
                self.places[name].peaks.append(_peak(reference))
        mixed = self.decoder.mix(self.attention, taken["attn"])
        self.places["attention"].snr.add(taken["out"], mixed - taken["out"])
        self.places["stream"].snr.add(after, noisy_after - after)
        return after, noisy_after


def _add_weights(places: dict[str, _Place], exact: Site, rounded: Site) -> None:
    """Matrices of a site, corrections included."""
    for kind, weight in exact.weights.items():
        error = rounded.weights[kind] - weight
        side = rounded.sides.get(kind)
        if side is not None:
            count = 0 if rounded.outliers is None else len(rounded.outliers)
            if rounded.outliers is not None:
                error[:, rounded.outliers] += side[:, :count]
            if rounded.low_rank is not None:
                error += side[:, count:] @ rounded.low_rank
        place = places[kind]
        place.values = _Ratio()
        place.values.add(weight, error)
        place.peaks.append(_peak(weight))


def _add_site(places: dict[str, _Place], site: str, exact: Site, rounded: Site, x: FloatArray) -> None:
    """A site for an input [T, K] of the float model: its input rounded alone, each weight rounded alone."""
    inner = x
    if rounded.outliers is not None:
        inner = x.copy()
        inner[:, rounded.outliers] = 0
    error = fake_quantize(inner, rounded.activation) - inner
    if rounded.outliers is not None:
        error[:, rounded.outliers] = 0  # the weights there are 0, whatever the format makes of 0
    place = places[site]
    place.values = place.values or _Ratio()
    place.values.add(x, error)
    place.peaks.append(_peak(inner))
    outputs = replace(rounded, activation=None)(x)
    for (kind, weight), output in zip(exact.weights.items(), outputs, strict=True):
        reference = x @ weight.T
        place.snr.add(reference, error @ weight.T)
        places[kind].snr.add(reference, output - reference)


def _attention_values(
    layer: DecoderLayer, taken: dict[str, FloatArray]
) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Queries, keys, values and probabilities, as they are and rounded, as `Decoder.mix` rounds them."""
    scales, kv = layer.scales, layer.kv
    for name in "qkv":
        x = taken[name]
        if scales:
            s = getattr(scales, name)[:, None]
            yield name, x, quantize_static(x, s) * s
        else:
            yield name, x, fake_quantize(x, layer.query if name == "q" else kv) if kv and kv.dynamic else x
    p, v = taken["p"], taken["v"]
    if scales:
        s = scales.p[:, None, None]
        yield "p", p, quantize_static(p, s, 0, 255) * s
    elif kv and kv.dynamic:
        # Probabilities carry the scales of their values.
        steps = quantize_activation(v.swapaxes(0, 1), kv)[1]
        carried = p * np.repeat(steps, len(p) // len(steps), axis=0)[:, None]
        yield "p", carried, fake_quantize(carried, layer.query)
    else:
        yield "p", p, p


def _head(
    model: FloatModel, site: Site, exact: FloatArray, rounded: FloatArray, samples: Samples
) -> tuple[list[Measurement], OutputError]:
    """The head, and the distributions behind it; logits of one sample at a time."""
    gain, eps = model.tensors[tensor_name("final_norm")], model.config.rms_norm_eps
    float_site = Site({kind: model.tensors[tensor_name(kind)] for kind in SITES["head"]})
    places = {place: _Place() for place in HEAD_PLACES}
    _add_weights(places, float_site, site)
    logits, sums, tokens = _Ratio(), np.zeros(3), 0
    for x, noisy, sample in zip(exact, rounded, samples, strict=True):
        h = rms_norm(x, gain, eps)
        _add_site(places, "head", float_site, site, h)
        reference, found = float_site(h)[0], site(rms_norm(noisy, gain, eps))[0]
        logits.add(reference, found - reference)
        sums += _divergence(reference[:-1], found[:-1], sample[1:])
        tokens += len(sample) - 1
    kl, exactly, roundly = (sums / tokens).tolist()
    measured = [places[place].measurement(None, place) for place in HEAD_PLACES]
    return measured, OutputError(tokens, kl, exactly, roundly, logits.db)


def _divergence(
    reference: FloatArray, found: FloatArray, targets: NDArray[np.int32]
) -> tuple[float, float, float]:
    """Sums over rows of logits [T, V]: KL(reference || found), cross-entropy of either."""
    p, q = _log_softmax(reference), _log_softmax(found)
    rows = np.arange(len(targets))
    kl = float((np.exp(p) * (p - q)).sum())
    return kl, -float(p[rows, targets].sum()), -float(q[rows, targets].sum())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def _power(x: FloatArray) -> float:
    return float(np.sum(np.square(x), dtype=np.float64))


def _peak(x: NDArray[Any]) -> float:
    """Largest magnitude over root mean square, mean over rows [..., K] that are not 0."""
    largest = np.abs(x).max(axis=-1)
    rms: NDArray[np.float64] = np.sqrt(np.mean(np.square(x), axis=-1, dtype=np.float64))
    ratios: list[float] = (largest[rms > 0] / rms[rms > 0]).ravel().tolist()
    return sum(ratios) / len(ratios) if ratios else 1.0
