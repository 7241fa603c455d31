"""The passes that change the float model before anything is rounded, as views laid over it."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import QuantError
from ..architecture import Architecture
from ..calibration import Samples, SiteStatistics
from ..decoder import decode_layer, decoder_of, embedded, float_layer
from ..model import FloatModel
from ..passes import Awq, FoldNorms, Rotate, Smooth
from ..recipes import Recipe
from ..weight import FloatArray
from .awq import awq_scales
from .learn import learn_rotations
from .rotation import fold_norms, random_rotations, rotate
from .smooth import SMOOTHED, Scales, smooth, smooth_scales
from .views import finite


def apply_float_passes(model: FloatModel, recipe: Recipe, samples: Samples | None) -> FloatModel:
    """The model after Smooth or Awq, FoldNorms and Rotate: views, computed tensor by tensor when read.

    Raises:
        QuantError: FX604, a pass does not know the family.
    """
    _check_family(model, recipe)
    if recipe.find(Smooth) or recipe.find(Awq) or recipe.find(FoldNorms):
        model = finite(model)
    if scales := _channel_scales(model, recipe, samples):
        model = smooth(model, scales)
    if recipe.find(FoldNorms):
        model = fold_norms(model)
    if rotation := recipe.find(Rotate):
        model = rotate(model, _rotations(model, recipe, rotation, samples))
    return model


def _check_family(model: FloatModel, recipe: Recipe) -> None:
    """Refuse passes that would change what a model of the family computes."""
    config, rotation = model.config, recipe.find(Rotate)
    if recipe.find(FoldNorms) and config.architecture.norm == "layer":
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r}: FoldNorms does not know the LayerNorm of {config.model_type}",
            hint="a rotation does not commute with its mean; choose a recipe without FoldNorms and Rotate",
        )
    plain = config.architecture == Architecture() and config.sliding_window is None
    if rotation and "learned" in (rotation.r1, rotation.r2) and not plain:
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r}: Rotate cannot learn rotations of {config.model_type}",
            hint='take rotations that are not learned: r1 and r2 = "hadamard"',
        )


def _rotations(model: FloatModel, recipe: Recipe, rotation: Rotate, samples: Samples | None):
    if "learned" not in (rotation.r1, rotation.r2):
        return random_rotations(model.config, rotation)
    assert samples is not None
    return learn_rotations(model, recipe, samples, rotation)


def _channel_scales(model: FloatModel, recipe: Recipe, samples: Samples | None) -> Scales:
    """Scales by layer and site of Smooth or Awq; nothing without either."""
    smoothing, awq = recipe.find(Smooth), recipe.find(Awq)
    if not smoothing and not awq:
        return {}
    assert samples is not None
    scales: Scales = {}
    for layer, found in float_statistics(model, samples, hessian=awq is not None):
        for site, (statistics, weights) in found.items():
            if smoothing:
                scales[layer, site] = smooth_scales(statistics.amax, weights.values(), smoothing.alpha)
            elif awq:
                pairs = [(w, recipe.weight_of(kind)) for kind, w in weights.items()]
                bits = recipe.layer_bits.get(layer)
                scales[layer, site] = awq_scales(pairs, statistics, awq.grid, bits)
    return scales


def float_statistics(
    model: FloatModel, samples: Samples, hessian: bool
) -> Iterator[tuple[int, dict[str, tuple[SiteStatistics, dict[str, FloatArray]]]]]:
    """What the sites behind norms see in the float model, layer by layer, with the weights that read it."""
    decoder = decoder_of(model, samples.shape[1])
    x = embedded(model, samples)
    for index in range(model.config.num_hidden_layers):
        layer = float_layer(model, index)
        seen = {site: SiteStatistics(x.shape[-1], hessian) for site in SMOOTHED}

        def tap(name: str, value: FloatArray, seen: dict[str, SiteStatistics] = seen) -> None:
            if name in seen:
                seen[name].add(value)

        x = decode_layer(decoder, layer, x, tap)
        yield index, {site: (seen[site], dict(layer.sites[site].weights)) for site in SMOOTHED}
