"""Low-rank correction: the strongest directions of what rounding lost are added back in float."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..weight import FloatArray


def low_rank_factors(residuals: Sequence[FloatArray], rank: int) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """The best approximation of rank `rank` to the residuals of all weights of a site, stacked.

    residual ~ up @ down with the rows of `down` orthonormal: its rows are the leading right singular vectors
    (from the eigenvectors of R^T R, which is K x K however many rows there are), and up = residual @ down^T.

    Args:
        residuals: float32 [N, K] each, with one K: weights less what their codes stand for.
        rank: how many directions; K if there are no more.

    Returns:
        float32 [r, K], and float32 [N, r] for each residual.
    """
    width = residuals[0].shape[1]
    gram = np.zeros((width, width))
    for residual in residuals:
        gram += residual.T @ residual
    vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :rank]
    # Signs of eigenvectors are arbitrary: the largest entry is made positive, so that every machine agrees.
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    down = np.ascontiguousarray((vectors * np.where(largest < 0, -1.0, 1.0)).T, dtype=np.float32)
    return down, tuple(residual @ down.T for residual in residuals)
