"""Rounding layer by layer: what comes out is final, what went in is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .calibration import Samples, SiteStatistics
from .decoder import (
    VECTORS,
    AttentionScales,
    DecoderLayer,
    Site,
    Tap,
    decoder_of,
    embedded,
    norm,
    online_of,
    present,
)
from .integer.site import QuantizedSite, quantize_site
from .model import FloatModel
from .names import tensor_name
from .passes import Awq, Gptq, Rotate, Smooth, StaticScales, needs_data
from .recipes import SITES, Recipe
from .weight import FloatArray, QuantizedWeight

_NORMS = ("attn_norm", "mlp_norm")
_TINY = np.float32(1e-30)  # stands in for a head that is 0 throughout
Result = tuple[str, QuantizedWeight | NDArray[Any]]
OnStep = Callable[[str, int, int], None]
"""Called before each step with its name, its number from 0, and how many steps there are."""


def round_tensors(
    model: FloatModel,
    recipe: Recipe,
    samples: Samples | None,
    on_step: OnStep | None = None,
    done: Container[str] = (),
) -> Iterator[Result]:
    """`pipeline.quantize_tensors` of a model that has been through `apply_float_passes`."""
    step = on_step or _silent
    layers = model.config.num_hidden_layers
    run = _Run(model, recipe, samples)
    if run.x is not None:
        done = ()
    if "embed" not in done:
        yield "embed", run.vector("embed", None)
        if present(run.model, ("positions",), None):
            yield "positions", run.vector("positions", None)
    for i in range(layers):
        step(f"layer {i}", i + 1, layers + 2)
        if f"layers.{i}.w_down" not in done:
            yield from run.layer(i)
    step("head", layers + 1, layers + 2)
    if "w_head" not in done:
        yield from run.head()


def _silent(name: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass
class _Run:
    """The model behind the float passes, and the samples on their way through it."""

    model: FloatModel
    recipe: Recipe
    samples: Samples | None

    def __post_init__(self) -> None:
        # Passes on the float model have had their look at the data; without another one nobody needs it.
        later = [p for p in self.recipe.passes if not isinstance(p, Smooth | Awq | Rotate)]
        self.x: FloatArray | None = None
        if self.samples is not None and needs_data(later):
            self.decoder = decoder_of(self.model, self.samples.shape[1], online_of(self.recipe))
            self.x = embedded(self.model, self.samples)  # [B, T, E]

    def vector(self, kind: str, layer: int | None) -> FloatArray:
        """A tensor that stays float32."""
        name = tensor_name(kind, layer)
        value = np.ascontiguousarray(self.model.tensors[name], np.float32)
        if not np.isfinite(value).all():
            raise QuantError(
                "FX606", f"{name} holds NaN or infinity", hint="the checkpoint is damaged, or overflowed"
            )
        return value

    def layer(self, index: int) -> Iterator[Result]:
        """One layer: each site is rounded, then computed as rounded, before the next one is looked at."""
        prefix = f"layers.{index}."
        norms = {kind: self.vector(kind, index) for kind in (*_NORMS, *present(self.model, VECTORS, index))}
        for kind, gain in norms.items():
            yield prefix + kind, gain
        sites: dict[str, Site] = {}
        gains = norms.pop("attn_norm"), norms.pop("mlp_norm")
        layer = DecoderLayer(*gains, sites, self.recipe.kv, self.recipe.query, vectors=norms)
        for site in ("attn", "out", "mlp", "down"):
            if site == "out" and self.recipe.find(StaticScales):
                layer = replace(layer, scales=self._attention_scales(layer))
                for name, scale in vars(layer.scales).items():
                    yield f"{prefix}{name}_scale", scale
            found = self._quantize(site, index, lambda x, at=site, now=layer: self._input(at, now, x))
            yield from found.tensors(prefix)
            if self.x is None:
                continue
            sites[site] = found.simulate(self.recipe)
            if site in ("out", "down"):
                for x in self.x:
                    x += sites[site](self._input(site, layer, x))[0]

    def head(self) -> Iterator[Result]:
        """The last norm and the output layer."""
        gain, bias = self.vector("final_norm", None), None
        yield "final_norm", gain
        if present(self.model, ("final_norm.bias",), None):
            bias = self.vector("final_norm.bias", None)
            yield "final_norm.bias", bias
        eps = self.model.config.rms_norm_eps
        yield from self._quantize("head", None, lambda x: norm(x, gain, eps, bias)).tensors("")

    def _quantize(
        self, site: str, layer: int | None, inputs: Callable[[FloatArray], FloatArray]
    ) -> QuantizedSite:
        """A site rounded for its inputs [T, K], given the residual stream [T, E] of a sample."""
        weights = {
            kind: np.ascontiguousarray(self.model.tensors[tensor_name(kind, layer)])
            for kind in present(self.model, SITES[site], layer)
        }
        biases = {
            kind.partition(".")[0]: self.vector(kind, layer)
            for kind in present(self.model, [f"{kind}.bias" for kind in SITES[site]], layer)
        }
        statistics = None
        if self.x is not None:
            width = next(iter(weights.values())).shape[1]
            statistics = SiteStatistics(width, hessian=self.recipe.find(Gptq) is not None)
            for x in self.x:
                statistics.add(inputs(x))
            if not np.isfinite(statistics.absolute).all():
                where = "the head" if layer is None else f"layer {layer}, site {site}"
                raise QuantError(
                    "FX607",
                    f"calibration activations in front of {where} are not finite",
                    hint="the weights or the norms are damaged",
                )
        return replace(quantize_site(site, weights, self.recipe, statistics, layer), biases=biases)

    def _input(self, site: str, layer: DecoderLayer, x: FloatArray, tap: Tap | None = None) -> FloatArray:
        """The input [T, K] of a site, from the residual stream [T, E] in front of attention or the MLP."""
        if site in ("attn", "out"):
            h = self.decoder.attention_input(layer, x)
            return h if site == "attn" else self.decoder.mix(layer, h, tap)
        h = self.decoder.mlp_input(layer, x)
        return h if site == "mlp" else self.decoder.gated(layer, h)

    def _attention_scales(self, layer: DecoderLayer) -> AttentionScales:
        """Scales over all samples: q, k, v / 127 of the largest magnitude per head, p / 255."""
        assert self.x is not None
        largest: dict[str, FloatArray] = {}

        def tap(name: str, value: FloatArray) -> None:
            heads = np.abs(value).max(axis=(1, 2) if name == "p" else (0, 2))
            largest[name] = np.maximum(largest.get(name, _TINY), heads)

        for x in self.x:
            self._input("out", layer, x, tap)
        steps = {name: np.float32(255 if name == "p" else 127) for name in largest}
        return AttentionScales(**{name: largest[name] / steps[name] for name in largest})
