"""LLM.int8: the input channels with the largest activations stay in float."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..weight import FloatArray


def outlier_channels(amax: FloatArray, count: int) -> NDArray[np.int32]:
    """The `count` channels of largest magnitude, ascending (Dettmers et al. 2022; a fixed count, so that the
    hardware knows it). The earlier of equals.

    Args:
        amax: float32 [K], largest magnitudes of the input channels of a site.
        count: how many; K if there are no more.

    Returns:
        int32 [C].
    """
    return np.sort(np.argsort(-amax, kind="stable")[:count]).astype(np.int32)
