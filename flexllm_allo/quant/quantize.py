"""``quantize``: a float model and a recipe become a quantized model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .layers import OnStep
from .model import FloatModel, QuantizedModel, Shape, Tensor
from .pipeline import quantize_tensors
from .recipes import Recipe, get_recipe


def quantize(
    model: FloatModel,
    recipe: Recipe | str,
    calibration: NDArray[np.integer] | None = None,
    max_seq_len: int | None = None,
    on_step: OnStep | None = None,
) -> QuantizedModel:
    """The tensors of a model under a recipe.

    Tensors are read and quantized layer by layer: the peak is the result, one layer and, for recipes that
    look at activations, those of the calibration text.

    Args:
        model: a `models.Checkpoint`, or anything with `config`, `tensors` and `rope_tables`.
        recipe: a `Recipe` or the name of one.
        calibration: token ids [B, T] (`calibration_samples`); some recipes need none.
        max_seq_len: length of the KV cache; the configuration's `max_position_embeddings` by default.
        on_step: called before each step with its name, its number from 0, and how many there are.

    Raises:
        QuantError: FX604 for an unknown recipe, a format that does not fit or a bad length, FX606 for a
            tensor that cannot be quantized, FX607 for missing calibration data.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    length = sequence_length(model.config, max_seq_len)
    tensors: dict[str, Tensor] = dict(quantize_tensors(model, recipe, calibration, on_step))
    cos, sin = model.rope_tables(length)
    return QuantizedModel(model.config, recipe, tensors, cos, sin)


def sequence_length(config: Shape, wanted: int | None) -> int:
    """The length of the KV cache.

    Raises:
        QuantError: FX604, it does not fit the model.
    """
    length = config.max_position_embeddings if wanted is None else wanted
    if not 1 <= length <= config.max_position_embeddings:
        raise QuantError(
            "FX604",
            f"max_seq_len {length} does not fit the model",
            hint=f"choose 1 to {config.max_position_embeddings} (max_position_embeddings)",
        )
    return length
