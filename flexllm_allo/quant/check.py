"""What a recipe must be so that the kernels compute it, refused before anything is quantized."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import QuantError
from .formats import FloatFormat, ProgressiveFormat, WeightFormat
from .model import Shape
from .passes import Awq, Gptq, LowRank, Outliers, Rotate, Rtn, StaticScales
from .recipes import SITES, Recipe


def check_recipe(recipe: Recipe) -> None:
    """Refuse formats that no kernel computes, and passes that do not go with them.

    Raises:
        QuantError: FX604, with the list of all problems, or for formats without a pass that rounds.
    """
    problems = [*_weights(recipe), *_activation(recipe), *_cache(recipe), *_numbers(recipe)]
    if problems:
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r} cannot be computed: {'; '.join(problems)}",
            hint="change these formats, or start from one in flexllm_allo.quant.recipes",
        )
    if any((recipe.weight, recipe.head, *recipe.kinds.values())) and not (
        recipe.find(Rtn) or recipe.find(Gptq)
    ):
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r} has formats for weights but no pass that rounds them",
            hint="add Rtn or Gptq to its passes",
        )


def check_fit(recipe: Recipe, config: Shape) -> None:
    """Refuse a recipe for another model: layers that are not there, more channels than there are.

    Raises:
        QuantError: FX604, with the list of all problems.
    """
    layers = config.num_hidden_layers
    problems = [
        f"layer_bits names layer {layer}, the layers are 0 to {layers - 1}"
        for layer in recipe.layer_bits
        if not 0 <= layer < layers
    ]
    widths = {
        "attn": config.hidden_size,
        "out": config.num_attention_heads * config.head_dim,
        "mlp": config.hidden_size,
        "down": config.intermediate_size,
        "head": config.hidden_size,
    }
    narrow = min((widths[site] for site in SITES if recipe.rounds(site)), default=None)
    outliers, low_rank = recipe.find(Outliers), recipe.find(LowRank)
    if narrow is not None and outliers and outliers.count > narrow:
        problems.append(f"{outliers.count} outliers in inputs of {narrow} channels")
    if narrow is not None and low_rank and low_rank.rank > narrow:
        problems.append(f"rank {low_rank.rank} for inputs of {narrow} channels")
    if problems:
        raise QuantError(
            "FX604",
            f"recipe {recipe.name!r} does not fit the model: {'; '.join(problems)}",
            hint="the sizes are in the model's config.json",
        )


def _weights(recipe: Recipe) -> Iterator[str]:
    for kind in ("weight", "head", *recipe.kinds):
        fmt = recipe.weight_of("w_head" if kind == "head" else kind)
        if fmt is None:
            continue
        if not 2 <= fmt.bits <= 8:
            yield f"{kind} of {fmt.bits} bits; 2 to 8 are supported"
        yield from (f"{kind}: {problem}" for problem in _weight(fmt, recipe))


def _weight(fmt: WeightFormat, recipe: Recipe) -> Iterator[str]:
    if isinstance(fmt, ProgressiveFormat):
        if recipe.find(Gptq):
            yield "Gptq knows formats of one level; round a progressive one with Rtn"
        if recipe.layer_bits:
            yield "layer_bits do not go with a progressive format"
        if fmt.largest > 127:
            yield f"{fmt.bits} bits within a limit of {fmt.limit} reach {fmt.largest} and leave int8"
        return
    if fmt.granularity not in ("per_tensor", "per_channel", "per_group"):
        yield f"a weight cannot be {fmt.granularity}"
    if fmt.granularity == "per_group" and fmt.group < 1:
        yield "per_group needs a group"
    if fmt.zero == "float":
        yield "a weight has no float zero; use an integer zero point"
    if fmt.sparsity and ((fmt.sparsity.n, fmt.sparsity.m) != (2, 4) or fmt.signed):
        yield "sparse weights are 2:4 with an integer zero point"


def _activation(recipe: Recipe) -> Iterator[str]:
    fmt = recipe.activation
    if isinstance(fmt, FloatFormat):
        if fmt.bits not in (16, 32):
            yield f"activation in floating point of {fmt.bits} bits; 16 and 32 are supported"
    elif fmt is not None:
        if not 2 <= fmt.bits <= 8:
            yield f"activation of {fmt.bits} bits; 2 to 8 are supported"
        if fmt.granularity != "per_token" or not fmt.dynamic:
            yield "activations have a scale per_token, dynamic"


def _cache(recipe: Recipe) -> Iterator[str]:
    fmt, static = recipe.kv, recipe.find(StaticScales) is not None
    if fmt is not None and not 2 <= fmt.bits <= 8:
        yield f"kv of {fmt.bits} bits; 2 to 8 are supported"
    if fmt is not None and fmt.dynamic and fmt.granularity != "per_token_and_head":
        yield f"kv cannot be {fmt.granularity} and dynamic; per_token_and_head is"
    if fmt is not None and not fmt.dynamic:
        if fmt.granularity != "per_head" or fmt.bits != 8 or not fmt.signed:
            yield "a kv that is not dynamic has 8 bits, signed, per_head"
        if not static:
            yield "a kv that is not dynamic needs StaticScales"
    if static and (fmt is None or fmt.dynamic):
        yield "StaticScales are for a kv that is not dynamic"


def _numbers(recipe: Recipe) -> Iterator[str]:
    """Parameters of passes that mean nothing."""
    for kind, name, least in (
        (Awq, "grid", 1),
        (Rotate, "steps", 0),
        (Rotate, "seed", 0),
        (Gptq, "block", 1),
        (Gptq, "damping", 0),
        (Outliers, "count", 0),
        (LowRank, "rank", 0),
    ):
        value = getattr(recipe.find(kind), name, least)
        if not value >= least:  # a NaN is not
            yield f"{kind.__name__}.{name} is {value}; at least {least}"
