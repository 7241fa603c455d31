"""A float model under a recipe, layer by layer: what comes out is final, what went in is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .calibration import Samples, SiteStatistics, check_samples
from .check import check_fit, check_recipe
from .decoder import AttentionScales, DecoderLayer, Site, Tap, rms_norm
from .integer.site import QuantizedSite, quantize_site
from .model import FloatModel
from .names import EMBED, tensor_name
from .passes import Awq, Gptq, Smooth, StaticScales, needs_data
from .recipes import SITES, Recipe
from .transform.float_passes import apply_float_passes, decoder_of, online_of
from .weight import FloatArray, QuantizedWeight

_NORMS = ("attn_norm", "mlp_norm")
_TINY = np.float32(1e-30)  # stands in for a head that is 0 throughout
Result = tuple[str, QuantizedWeight | NDArray[Any]]
OnStep = Callable[[str, int, int], None]
"""Called before each step with its name, its number from 0, and how many steps there are."""


def quantize_tensors(
    model: FloatModel,
    recipe: Recipe,
    samples: NDArray[np.integer] | None = None,
    on_step: OnStep | None = None,
    done: Container[str] = (),
) -> Iterator[Result]:
    """The tensors of a model under a recipe, one after the other.

    Passes on the float model are views, so a matrix is computed when its site is reached. With data, the
    samples walk through the layers: a site is rounded for the inputs that the rounded sites in front of it
    produce, weights and activations both. At any time there are the residual streams of the samples, one
    layer in float and rounded, and one Hessian.

    Args:
        model: any float model.
        recipe: formats and passes.
        samples: token ids [B, T]; looked at only if a pass needs data.
        on_step: for progress.
        done: names of tensors that are there already; layers all of whose tensors are among them are left
            out where nothing else depends on them, which is where no data walks through the layers.

    Yields:
        ``embed`` float32 [V, E]; per layer ``layers.{i}.`` and: ``attn_norm``, ``mlp_norm`` float32 [E];
        ``wq``, ``wk``, ``wv``, ``wo``, ``w_gate``, ``w_up``, ``w_down``; ``final_norm``; ``w_head``. With
        Outliers ``{site}.outliers`` int32 [C], with LowRank ``{site}.low_rank`` float32 [r, K], with either
        ``{kind}.side`` float32 [N, C + r] (see `decoder.Site`). With StaticScales ``q_scale``, ``p_scale``
        float32 [H], ``k_scale``, ``v_scale`` float32 [KV].

    Raises:
        QuantError: FX604 as `check_recipe` and `check_fit`, FX606 with the name of a tensor
            that cannot be quantized, FX607 when data is needed and missing or unusable.
    """
    data = checked_samples(model, recipe, samples)
    if on_step:
        on_step("float passes", 0, model.config.num_hidden_layers + 2)
    yield from round_tensors(apply_float_passes(model, recipe, data), recipe, data, on_step, done)


def checked_samples(model: FloatModel, recipe: Recipe, samples: NDArray[np.integer] | None) -> Samples | None:
    """The samples that the passes of a recipe look at, or None if none does.

    Raises:
        QuantError: FX604 and FX607 as `quantize_tensors`.
    """
    check_recipe(recipe)
    check_fit(recipe, model.config)
    if not needs_data(recipe.passes):
        return None
    if samples is None:
        raise QuantError(
            "FX607",
            f"recipe {recipe.name!r} looks at activations and was given no calibration samples",
            hint="pass samples made by calibration_samples, or choose a recipe with Rtn alone",
        )
    return check_samples(samples, model.config)


def round_tensors(
    model: FloatModel,
    recipe: Recipe,
    samples: Samples | None,
    on_step: OnStep | None = None,
    done: Container[str] = (),
) -> Iterator[Result]:
    """`quantize_tensors` of a model that has been through `apply_float_passes`."""
    step = on_step or _silent
    layers = model.config.num_hidden_layers
    run = _Run(model, recipe, samples)
    if run.x is not None:
        done = ()
    if "embed" not in done:
        yield "embed", run.vector("embed", None)
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
        # Smooth and Awq have had their look at the data; without another pass nobody else needs it.
        later = [p for p in self.recipe.passes if not isinstance(p, Smooth | Awq)]
        self.x: FloatArray | None = None
        if self.samples is not None and needs_data(later):
            self.decoder = decoder_of(self.model, self.samples.shape[1], online_of(self.recipe))
            self.x = self.model.tensors[EMBED][self.samples]  # [B, T, E]

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
        norms = {kind: self.vector(kind, index) for kind in _NORMS}
        for kind, gain in norms.items():
            yield prefix + kind, gain
        sites: dict[str, Site] = {}
        layer = DecoderLayer(norms["attn_norm"], norms["mlp_norm"], sites, self.recipe.kv, self.recipe.query)
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
        gain = self.vector("final_norm", None)
        yield "final_norm", gain
        eps = self.model.config.rms_norm_eps
        yield from self._quantize("head", None, lambda x: rms_norm(x, gain, eps)).tensors("")

    def _quantize(
        self, site: str, layer: int | None, inputs: Callable[[FloatArray], FloatArray]
    ) -> QuantizedSite:
        """A site rounded for its inputs [T, K], given the residual stream [T, E] of a sample."""
        weights = {
            kind: np.ascontiguousarray(self.model.tensors[tensor_name(kind, layer)]) for kind in SITES[site]
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
        return quantize_site(site, weights, self.recipe, statistics, layer)

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
