"""Recipes that no kernel computes, or that do not fit a model, are refused as a whole and before any work."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from quant_models import MIXED, RandomModel

from flexllm_allo.errors import QuantError
from flexllm_allo.models.operators import operators
from flexllm_allo.quant import quantize, recipes
from flexllm_allo.quant.check import check_fit, check_recipe
from flexllm_allo.quant.formats import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_KV,
    FloatFormat,
    IntFormat,
    ProgressiveFormat,
)
from flexllm_allo.quant.integer.progressive import quantize_groups
from flexllm_allo.quant.passes import Awq, FoldNorms, Gptq, LowRank, Outliers, Rotate, Rtn, StaticScales
from flexllm_allo.quant.recipe_file import parse_recipe
from flexllm_allo.quant.recipes import Recipe

STATIC = IntFormat(8, "per_head", full_range=True)


ROUND = (Rtn(),)
FIXED = (Rtn(), StaticScales())


def made(weight=INT4_WEIGHT, activation=INT8_ACTIVATION, kv=INT8_KV, head=None, passes=ROUND, **more):
    return Recipe("mine", weight, activation, kv, head, passes=passes, **more)


@pytest.mark.parametrize("recipe", [*recipes.values(), parse_recipe(MIXED)], ids=lambda recipe: recipe.name)
def test_what_comes_with_the_package_is_sound(recipe):
    check_recipe(recipe)
    check_fit(recipe, RandomModel.config)


WRONG = {
    "static input": (made(activation=IntFormat(8, "per_token")), "a scale per_token, dynamic"),
    "one scale": (made(activation=IntFormat(8, "per_tensor", dynamic=True)), "a scale per_token, dynamic"),
    "fp8": (made(activation=FloatFormat(8)), "activation in floating point of 8 bits"),
    "head scales": (made(kv=IntFormat(8, "per_head", dynamic=True)), "kv cannot be per_head and dynamic"),
    "no scales": (made(kv=STATIC), "a kv that is not dynamic needs StaticScales"),
    "scales for nothing": (made(passes=FIXED), "StaticScales are for a kv that"),
    "scales for floats": (made(kv=None, passes=FIXED), "StaticScales are for a kv"),
    "static 4": (made(kv=IntFormat(4, "per_head"), passes=FIXED), "has 8 bits, signed"),
    "static zero": (
        made(kv=IntFormat(8, "per_head", zero="integer"), passes=FIXED),
        "has 8 bits, signed",
    ),
    "limit": (made(ProgressiveFormat(limit=120)), "4 bits within a limit of 120 reach 128 and leave int8"),
    "two bits": (made(ProgressiveFormat(2)), "2 bits within a limit of 119 reach 159 and leave int8"),
    "gptq in two levels": (made(head=ProgressiveFormat(), passes=(Gptq(),)), "head: Gptq knows"),
    "bits in two levels": (made(ProgressiveFormat(), layer_bits={0: 3}), "layer_bits do not go with"),
    "grid": (made(passes=(Awq(grid=0), Rtn())), "Awq.grid is 0; at least 1"),
    "block": (made(passes=(Gptq(block=0),)), "Gptq.block is 0; at least 1"),
    "damping": (made(passes=(Gptq(damping=float("nan")),)), "Gptq.damping is nan; at least 0"),
    "seed": (made(passes=(FoldNorms(), Rotate(seed=-1), Rtn())), "Rotate.seed is -1; at least 0"),
    "rank": (made(passes=(Rtn(), LowRank(-1))), "LowRank.rank is -1; at least 0"),
    "count": (made(passes=(Outliers(-1), Rtn())), "Outliers.count is -1; at least 0"),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "problem"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("entry", [lambda r: quantize(RandomModel(), r), operators])
def test_recipes_that_no_kernel_computes(recipe, problem, entry):
    with pytest.raises(QuantError) as caught:
        entry(recipe)
    assert caught.value.code == "FX604"
    assert "recipe 'mine' cannot be computed: " in caught.value.message
    assert problem in caught.value.message


def test_all_problems_are_listed():
    with pytest.raises(QuantError) as caught:
        check_recipe(made(IntFormat(9, "per_head"), FloatFormat(8), STATIC, head=IntFormat(1, "per_channel")))
    assert caught.value.message.count(";") >= 4


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (made(layer_bits={0: 3, 2: 3}), "layer_bits names layer 2, the layers are 0 to 1"),
        (made(passes=(Outliers(33), Rtn())), "33 outliers in inputs of 32 channels"),
        (made(passes=(Rtn(), LowRank(33))), "rank 33 for inputs of 32 channels"),
    ],
)
def test_recipes_for_another_model(recipe, problem):
    samples = np.zeros((1, 4), np.int32)
    with pytest.raises(QuantError, match=f"recipe 'mine' does not fit the model: {problem}") as caught:
        quantize(RandomModel(), recipe, samples)
    assert caught.value.code == "FX604"
    assert "config.json" in caught.value.hint


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("limit", [1, 7, 60, 100, 110, 119, 127])
def test_no_group_exceeds_the_bound_of_its_format(bits, limit):
    ends = [pair for pair in product(range(-limit, 1), range(limit + 1))]
    level1 = np.array([[low, high] for low, high in ends], np.int16)
    codes, zero, step = quantize_groups(level1, bits)
    whole = (codes.astype(int) - zero[:, None]) * step[:, None].astype(int)
    fmt = ProgressiveFormat(bits, limit=limit)
    assert np.abs(whole).max() <= fmt.largest
    # The bound is no idle caution where it forbids something.
    if fmt.largest > 127:
        assert np.abs(whole).max() > 127 - 8
