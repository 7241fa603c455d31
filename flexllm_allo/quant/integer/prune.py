"""N:M pruning: which weights of every group stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import NM
from ..passes import Prune
from ..weight import FloatArray
from .rounding import Mask, keep_largest


def prune_mask(
    weight: FloatArray, options: Prune, square: NDArray[np.float64] | None = None, sparsity: NM | None = None
) -> Mask:
    """The weights that are kept: n of largest score in each aligned group of m inputs.

    The score is |w| (``magnitude``) or |w| * ||x||_2 (``wanda``, Sun et al. 2023), the norm of an input
    channel being taken over the calibration set.

    Args:
        weight: float32 [N, K].
        options: the criterion.
        square: float64 [K], sums of x^2; only ``wanda`` needs it.
        sparsity: 2:4 by default.

    Returns:
        bool [N, K].

    Raises:
        QuantError: FX606 when K does not divide into groups.
    """
    sparsity = sparsity or NM()
    if weight.shape[1] % sparsity.m:
        raise QuantError(
            "FX606",
            f"rows of {weight.shape[1]} weights do not divide into groups of {sparsity.m} for "
            f"{sparsity.n}:{sparsity.m} sparsity",
            hint="leave Prune out for this model",
        )
    score = np.abs(weight)
    if options.criterion == "wanda":
        assert square is not None, "wanda weighs by activations"
        score = score * np.sqrt(square).astype(np.float32)
    return keep_largest(score, sparsity)


def is_legal(mask: Mask, sparsity: NM) -> bool:
    """Whether at most n of every aligned group of m are kept."""
    rows, width = mask.shape
    return bool((mask.reshape(rows, width // sparsity.m, sparsity.m).sum(axis=-1) <= sparsity.n).all())
