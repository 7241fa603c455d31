"""SmoothQuant: part of the spread of activation channels moves into the weights, where it hurts less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..model import FloatModel
from ..names import tensor_name
from ..recipes import SITES
from ..weight import FloatArray
from .rescale import Vector, rescale

SMOOTHED = {"attn": "attn_norm", "mlp": "mlp_norm"}
"""The sites behind a norm, whose gain takes the scales up, and that norm."""
Scales = Mapping[tuple[int, str], Vector]


def smooth_scales(amax: FloatArray, weights: Iterable[FloatArray], alpha: float) -> Vector:
    """s = max|x|^alpha / max|w|^(1 - alpha) per input channel (Xiao et al. 2022), the largest over weights.

    Args:
        amax: float32 [K], largest magnitudes of the input channels.
        weights: the matrices [N, K] that read them.
        alpha: how much of the spread moves, 0 to 1.

    Returns:
        float64 [K]; 1 where a channel or all its weights are 0.
    """
    largest = np.max([np.abs(w).max(axis=0) for w in weights], axis=0).astype(np.float64)
    x = amax.astype(np.float64)
    usable = (x > 0) & (largest > 0)
    scale = np.ones(len(x))
    scale[usable] = x[usable] ** alpha / largest[usable] ** (1 - alpha)
    return np.clip(scale, 1e-5, 1e5)


def smooth(model: FloatModel, scales: Scales) -> FloatModel:
    """The same function with other channel sizes: gains / s, columns of the weights behind them * s.

    Args:
        model: any float model.
        scales: float64 [E] by layer and site (``attn`` or ``mlp``); sites without any stay as they are.
    """
    rows: dict[str, Vector] = {}
    columns: dict[str, Vector] = {}
    for (layer, site), scale in scales.items():
        for part in ("", ".bias"):  # a LayerNorm has one
            rows[tensor_name(SMOOTHED[site] + part, layer)] = 1 / scale
        columns |= {tensor_name(kind, layer): scale for kind in SITES[site]}
    return rescale(model, rows, columns)
