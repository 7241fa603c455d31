"""A model seen with rows and columns of its tensors multiplied by vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import FloatModel
from ..weight import FloatArray
from .views import ModelView

Vector = NDArray[np.float64]


def rescale(model: FloatModel, rows: Mapping[str, Vector], columns: Mapping[str, Vector]) -> ModelView:
    """The model with tensors times vectors, computed in float64 when a tensor is read.

    Args:
        model: any float model.
        rows: factors [N] by tensor name, of the rows of a matrix [N, K] or the elements of a vector [N].
        columns: factors [K] by tensor name, of the columns of a matrix.
    """

    def change(name: str, tensor: FloatArray) -> NDArray[Any]:
        down, across = rows.get(name), columns.get(name)
        value: NDArray[Any] = tensor
        if across is not None:
            value = value * across
        if down is not None:
            value = value * (down if value.ndim == 1 else down[:, None])
        return value

    return ModelView(model, change)
