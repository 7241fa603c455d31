"""One site of a layer: the weights that read one input, rounded together with what stays in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..calibration import SiteStatistics
from ..decoder import Site
from ..formats import IntFormat, WeightFormat
from ..names import tensor_name
from ..passes import Gptq, LowRank, Outliers, Prune
from ..recipes import Recipe
from ..weight import FloatArray, QuantizedWeight
from .gptq import gptq
from .lowrank import low_rank_factors
from .outliers import outlier_channels
from .prune import prune_mask
from .rounding import Mask, check_weight, round_weight


@dataclass(frozen=True)
class QuantizedSite:
    """The weights of a site as integers, and their corrections in float.

    Attributes:
        name: ``attn``, ``out``, ``mlp``, ``down`` or ``head``.
        weights: by kind; with format None they are float.
        outliers: int32 [C], input channels left to `sides`; the integer weights are 0 there.
        low_rank: float32 [r, K].
        sides: float32 [N, C + r] by kind: outlier columns, then low-rank factors.
        biases: float32 [N] by kind.
    """

    name: str
    weights: Mapping[str, QuantizedWeight]
    outliers: NDArray[np.int32] | None = None
    low_rank: FloatArray | None = None
    sides: Mapping[str, FloatArray] = field(default_factory=lambda: {})
    biases: Mapping[str, FloatArray] = field(default_factory=lambda: {})

    def simulate(self, recipe: Recipe) -> Site:
        """The site as the decoder computes it, in float."""
        weights = {kind: weight.dequantize() for kind, weight in self.weights.items()}
        activation = recipe.activation_of(self.name)
        return Site(weights, activation, self.outliers, self.low_rank, self.sides, self.biases)

    def tensors(self, prefix: str) -> Iterator[tuple[str, QuantizedWeight | NDArray[Any]]]:
        """Results by name: ``{prefix}wq``, ``{prefix}wq.side``, ``{prefix}attn.outliers``, ...

        The last weight comes last: where it is, the whole site is.
        """
        if self.outliers is not None:
            yield f"{prefix}{self.name}.outliers", self.outliers
        if self.low_rank is not None:
            yield f"{prefix}{self.name}.low_rank", self.low_rank
        for kind, weight in self.weights.items():
            if kind in self.sides:
                yield f"{prefix}{kind}.side", self.sides[kind]
            if kind in self.biases:
                yield f"{prefix}{kind}.bias", self.biases[kind]
            yield f"{prefix}{kind}", weight


def quantize_site(
    site: str,
    weights: Mapping[str, FloatArray],
    recipe: Recipe,
    statistics: SiteStatistics | None,
    layer: int | None,
) -> QuantizedSite:
    """All weights of a site under a recipe: Outliers, Prune, Rtn or Gptq, LowRank.

    Args:
        site: its name.
        weights: float32 [N, K] by kind, with one K.
        recipe: formats and passes.
        statistics: of the inputs, for passes that need data.
        layer: for messages and `Recipe.layer_bits`; None for the head.

    Raises:
        QuantError: FX606 with the name of the tensor that cannot be quantized.
    """
    outliers: NDArray[np.int32] | None = None
    if (chosen := recipe.find(Outliers)) and recipe.rounds(site):
        assert statistics is not None
        outliers = outlier_channels(statistics.amax, chosen.count)
    quantized: dict[str, QuantizedWeight] = {}
    for kind, weight in weights.items():
        try:
            check_weight(weight, None)
            quantized[kind] = _quantize(kind, weight, recipe, statistics, layer, outliers)
        except QuantError as error:
            name = tensor_name(kind, layer)
            raise QuantError(error.code, f"{name}: {error.message}", hint=error.hint) from error
    sides = {kind: [w[:, outliers]] for kind, w in weights.items()} if outliers is not None else {}
    low_rank: FloatArray | None = None
    if (correction := recipe.find(LowRank)) and recipe.rounds(site):
        residuals = [
            _without(weight, outliers) - quantized[kind].dequantize() for kind, weight in weights.items()
        ]
        low_rank, factors = low_rank_factors(residuals, correction.rank)
        for kind, factor in zip(weights, factors, strict=True):
            sides.setdefault(kind, []).append(factor)
    joined = {kind: np.concatenate(parts, axis=1) for kind, parts in sides.items()}
    return QuantizedSite(site, quantized, outliers, low_rank, joined)


def _quantize(
    kind: str,
    weight: FloatArray,
    recipe: Recipe,
    statistics: SiteStatistics | None,
    layer: int | None,
    outliers: NDArray[np.int32] | None,
) -> QuantizedWeight:
    fmt = recipe.weight_of(kind)
    weight = _without(weight, outliers)
    mask = _mask(kind, weight, recipe, statistics)
    if fmt is None:
        kept = weight if mask is None else np.where(mask, weight, np.float32(0))
        return QuantizedWeight(None, kept, np.ones((len(weight), 1), np.float32))
    bits = None if layer is None else recipe.layer_bits.get(layer)
    options = recipe.find(Gptq)
    if options is None:
        return round_weight(weight, fmt, mask, bits)
    assert statistics is not None
    assert statistics.hessian is not None
    hessian = statistics.hessian
    if outliers is not None:
        hessian = hessian.copy()
        hessian[outliers], hessian[:, outliers] = 0, 0
    return gptq(weight, hessian, fmt, options, mask, bits)


def _mask(kind: str, weight: FloatArray, recipe: Recipe, statistics: SiteStatistics | None) -> Mask | None:
    """Which weights stay: the sparse kinds of a recipe with sparse formats, else all inside the blocks."""
    options = recipe.find(Prune)
    if options is None:
        return None
    sparsity = _sparsity(recipe.weight_of(kind))
    others = any(_sparsity(fmt) for fmt in (recipe.weight, recipe.head, *recipe.kinds.values()))
    if sparsity is None and (others or kind == "w_head"):
        return None
    return prune_mask(weight, options, statistics.square if statistics else None, sparsity)


def _sparsity(fmt: WeightFormat | None):
    return fmt.sparsity if isinstance(fmt, IntFormat) else None


def _without(weight: FloatArray, outliers: NDArray[np.int32] | None) -> FloatArray:
    """The weight with 0 in the columns that stay in float."""
    if outliers is None:
        return weight
    weight = weight.copy()
    weight[:, outliers] = 0
    return weight
