"""Recipes: which format the weights, activations, KV cache and head of a model get."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import QuantError, did_you_mean
from .formats import INT4_WEIGHT, INT8_ACTIVATION, INT8_KV, INT8_WEIGHT, IntFormat


@dataclass(frozen=True)
class Recipe:
    """One format per kind of tensor; None leaves it in float32.

    Attributes:
        name: how the command line and reports call it.
        weight: the linear layers inside the blocks.
        activation: the input of every linear layer.
        kv: queries, keys, values (after the rotary embedding) and attention probabilities.
        head: the weight of the output layer; the embedding table stays float32.
        description: one line for people.
    """

    name: str
    weight: IntFormat | None
    activation: IntFormat | None
    kv: IntFormat | None
    head: IntFormat | None
    description: str = ""


recipes: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("none", None, None, None, None, "float32 throughout"),
        Recipe(
            "w8a8kv8",
            INT8_WEIGHT,
            INT8_ACTIVATION,
            INT8_KV,
            INT8_WEIGHT,
            "8-bit weights per channel, 8-bit activations and KV cache per token",
        ),
        Recipe(
            "w4a8kv8",
            INT4_WEIGHT,
            INT8_ACTIVATION,
            INT8_KV,
            INT8_WEIGHT,
            "4-bit weights per channel (lm_head at 8 bits), 8-bit activations and KV cache per token",
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        QuantError: FX604 with the nearest names.
    """
    if name not in recipes:
        raise QuantError("FX604", f"there is no recipe {name!r}", hint=did_you_mean(name, recipes))
    return recipes[name]
