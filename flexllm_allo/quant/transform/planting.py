"""Outlier channels planted into a model that has none, without changing what it computes.

Large language models have a few hidden channels that are tens of times larger than the others; small ones
have not. To see on a small model what a method does about them, gains of norms grow and weights shrink.
"""

from __future__ import annotations

import numpy as np

from ..model import FloatModel
from ..names import tensor_name
from ..recipes import SITES
from .rescale import Vector, rescale
from .smooth import SMOOTHED


def plant_outliers(
    model: FloatModel, fraction: float = 0.02, factor: float = 30.0, seed: int = 0, inner: float = 1.0
) -> FloatModel:
    """The same function with channels that stick out: a view, nothing is kept.

    In the norm in front of every attention and MLP block, the same random channels get gains `factor` times
    as large, and the columns of the weights behind them are divided by it. With `inner`, random channels
    between up_proj and down_proj grow by that factor as well (rows of up_proj, columns of down_proj).

    Args:
        model: any float model.
        fraction: part of the channels that grow, at least one.
        factor: how much they grow in the hidden space.
        seed: of the choice of channels.
        inner: how much they grow inside the MLP.
    """
    config, rng = model.config, np.random.default_rng(seed)
    hidden = _grown(rng, config.hidden_size, fraction, factor)
    rows: dict[str, Vector] = {}
    columns: dict[str, Vector] = {}
    for layer in range(config.num_hidden_layers):
        for site, norm in SMOOTHED.items():
            rows |= {tensor_name(norm + part, layer): hidden for part in ("", ".bias")}
            columns |= {tensor_name(kind, layer): 1 / hidden for kind in SITES[site]}
        within = _grown(rng, config.intermediate_size, fraction, inner)
        rows[tensor_name("w_up", layer)] = within
        columns[tensor_name("w_down", layer)] = 1 / within
    return rescale(model, rows, columns)


def _grown(rng: np.random.Generator, size: int, fraction: float, factor: float) -> Vector:
    """Ones [size] with `factor` at random places."""
    vector = np.ones(size)
    vector[rng.choice(size, max(1, round(fraction * size)), replace=False)] = factor
    return vector
