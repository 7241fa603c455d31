"""AWQ: input channels that carry large activations get a finer grid, by scaling before rounding."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..calibration import SiteStatistics
from ..formats import WeightFormat
from ..integer.rounding import round_weight
from ..weight import FloatArray
from .rescale import Vector


def awq_scales(
    weights: Iterable[tuple[FloatArray, WeightFormat | None]],
    statistics: SiteStatistics,
    grid: int = 20,
    bits: int | None = None,
) -> Vector:
    """s = mean|x|^alpha of the alpha in {0, 1/grid, ..., 1} with the least error of the outputs.

    The error of the weights W of a site (Lin et al. 2023) is the sum over the inputs seen of
    ``|round(W s) (x / s) - W x|^2`` = tr(D H D^T) with D = round(W s) / s - W and H = sum x x^T. alpha = 0 is
    no scaling at all, so the result is never worse than that.

    Args:
        weights: the matrices [N, K] that read the site, with their formats (None: not rounded).
        statistics: of the site, with a Hessian.
        grid: steps of alpha.
        bits: as in `rounding.round_weight`.

    Returns:
        float64 [K]; 1 for channels that were never anything but 0.
    """
    assert statistics.hessian is not None
    weights = [(w, fmt) for w, fmt in weights if fmt is not None]
    best, best_error = np.ones(len(statistics.amax)), np.inf
    for step in range(grid + 1):
        scale = _scale(statistics, step / grid)
        error = 0.0
        for weight, fmt in weights:
            assert fmt is not None
            scaled = (weight * scale).astype(np.float32)
            lost = round_weight(scaled, fmt, bits=bits).dequantize() / scale - weight
            error += float(np.vdot(lost @ statistics.hessian, lost))
        if error < best_error:
            best, best_error = scale, error
    return best


def _scale(statistics: SiteStatistics, alpha: float) -> Vector:
    """mean|x|^alpha, divided by the geometric mean of its ends, so that the weights keep their size."""
    mean = statistics.absolute / statistics.rows
    seen = mean > 0
    if not seen.any():
        return np.ones(len(mean))
    scale = np.where(seen, mean, 1.0) ** alpha
    scale /= np.sqrt(scale[seen].max() * scale[seen].min())
    scale[~seen] = 1.0
    return np.clip(scale, 1e-4, 1e4)
