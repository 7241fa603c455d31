"""The passes that change the float model before anything is rounded, as views laid over it."""

from __future__ import annotations

from collections.abc import Iterator

from ..calibration import Samples, SiteStatistics
from ..decoder import Decoder, decode_layer, float_layer
from ..model import FloatModel
from ..names import EMBED
from ..passes import Awq, FoldNorms, Rotate, Smooth
from ..recipes import Recipe
from ..weight import FloatArray
from .awq import awq_scales
from .hadamard import Online
from .learn import learn_rotations
from .rotation import fold_norms, random_rotations, rotate
from .smooth import SMOOTHED, Scales, smooth, smooth_scales
from .views import finite


def apply_float_passes(model: FloatModel, recipe: Recipe, samples: Samples | None) -> FloatModel:
    """The model after Smooth or Awq, FoldNorms and Rotate: views, computed tensor by tensor when read."""
    if recipe.find(Smooth) or recipe.find(Awq) or recipe.find(FoldNorms):
        model = finite(model)
    if scales := _channel_scales(model, recipe, samples):
        model = smooth(model, scales)
    if recipe.find(FoldNorms):
        model = fold_norms(model)
    if rotation := recipe.find(Rotate):
        model = rotate(model, _rotations(model, recipe, rotation, samples))
    return model


def online_of(recipe: Recipe) -> Online:
    """The Hadamard transforms that a model under the recipe computes at run time."""
    rotation = recipe.find(Rotate)
    return Online(rotation.r3, rotation.r4, rotation.out) if rotation else Online()


def decoder_of(model: FloatModel, length: int, online: Online | None = None) -> Decoder:
    """The decoder of a model for samples of at most `length` tokens."""
    return Decoder(model.config, *model.rope_tables(length), online or Online())


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
    x = model.tensors[EMBED][samples]
    for index in range(model.config.num_hidden_layers):
        layer = float_layer(model, index)
        seen = {site: SiteStatistics(x.shape[-1], hessian) for site in SMOOTHED}

        def tap(name: str, value: FloatArray, seen: dict[str, SiteStatistics] = seen) -> None:
            if name in seen:
                seen[name].add(value)

        x = decode_layer(decoder, layer, x, tap)
        yield index, {site: (seen[site], dict(layer.sites[site].weights)) for site in SMOOTHED}
