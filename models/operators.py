"""The kernels, types and storage that a recipe and a family ask for: template argument `R` of the graph."""

# Kernels have types of their own, which no checker knows.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flexllm_allo import Bundle, Traits
from flexllm_allo.ir.dtypes import DType, Int, UInt
from flexllm_allo.ir.types import float16, float32
from flexllm_allo.kernels import attention, embedding, grouped, norm, quantize, rope, rotate
from flexllm_allo.kernels.linear import ChannelWeight, Linear, NoWeight, linear
from flexllm_allo.kernels.quantize import Activation
from flexllm_allo.quant.architecture import Architecture
from flexllm_allo.quant.check import check_recipe
from flexllm_allo.quant.formats import (
    ActivationFormat,
    FloatFormat,
    IntFormat,
    ProgressiveFormat,
    WeightFormat,
)
from flexllm_allo.quant.passes import LowRank, Outliers, Rotate
from flexllm_allo.quant.recipes import SITES, Recipe

from .arrays import is_biased

Kernel = Callable[..., Any]
_FLOAT32: Any = float32


LLAMA = Architecture()


@dataclass(frozen=True)
class Operators(Traits):
    """What a recipe and a family make of the graph.

    Attributes:
        attn, out, mlp, down, head: how the inputs of the linear layers are quantized, by site.
        query, cache: the same for queries, and for keys and values.
        wq ... w_head: how the weights are stored and multiplied.
        rope: the rotary embedding, with or without a Hadamard rotation of the heads behind it.
        attend: attention with dynamic or fixed scales.
        Cache, Scales: the arrays these take.
        norm, Norm: in front of sites, and what it learns.
        HeadNorm: what the norm of queries and keys learns, if there is one (`qk_norm`).
        Tables: what all layers share.
        rotary: positions turn queries and keys; else they are added to the tokens.
        gated: the MLP is SwiGLU; else it is GELU, and has no gate.
        window: a token sees this many, itself included; 0 for all.
    """

    name: str
    attn: Activation
    out: Activation
    mlp: Activation
    down: Activation
    head: Activation
    query: Activation
    cache: Activation
    wq: Linear
    wk: Linear
    wv: Linear
    wo: Linear
    w_gate: Linear
    w_up: Linear
    w_down: Linear
    w_head: Linear
    rope: Kernel
    attend: Kernel
    Cache: type[Bundle]
    Scales: type[Bundle]
    norm: Kernel
    Norm: type[Bundle]
    HeadNorm: type[Bundle]
    Tables: type[Bundle]
    qk_norm: bool = False
    rotary: bool = True
    gated: bool = True
    window: int = 0

    def __str__(self) -> str:
        return self.name


def operators(recipe: Recipe, architecture: Architecture = LLAMA, window: int = 0) -> Operators:
    """The operators of a recipe for a family.

    Args:
        recipe: formats and passes.
        architecture: what the layers are made of.
        window: how many tokens a token sees, itself included; 0 for all before it.

    Raises:
        QuantError: FX604, as `check_recipe`.
    """
    check_recipe(recipe)
    turns = recipe.find(Rotate) or Rotate("none", "none", r4=False)
    online = {"out": turns.out, "down": turns.r4}
    sites: dict[str, Any] = {
        site: _site(recipe, site, online.get(site, False), is_biased(architecture, site)) for site in SITES
    }
    weights: dict[str, Any] = {
        kind: _linear(recipe, kind, sites[site]) for site, kinds in SITES.items() for kind in kinds
    }
    gated, rotary = architecture.mlp == "swiglu", architecture.positions == "rotary"
    if not gated:
        weights["w_gate"] = replace(weights["w_gate"], Weight=NoWeight)
    layer_norm = architecture.norm == "layer"
    static = recipe.kv is not None and not recipe.kv.dynamic
    return Operators(
        recipe.name,
        **sites,
        query=_activation(recipe.query),
        cache=_activation(recipe.kv),
        **weights,
        rope=rotate.rope_rotate if turns.r3 else rope.rope,
        attend=attention.attend_static if static else attention.attend,
        Cache=attention.StaticCache if static else attention.DynamicCache,
        Scales=attention.StaticScales if static else attention.NoScales,
        norm=norm.layer_norm if layer_norm else norm.rms_norm,
        Norm=norm.LayerNorm if layer_norm else norm.RmsNorm,
        HeadNorm=norm.RmsNorm if architecture.qk_norm else norm.NoNorm,
        Tables=rope.RotaryTables if rotary else embedding.LearnedTables,
        qk_norm=architecture.qk_norm,
        rotary=rotary,
        gated=gated,
        window=window,
    )


def _activation(fmt: ActivationFormat | None) -> Activation:
    """The plain quantizer of a format."""
    if fmt is None or isinstance(fmt, FloatFormat):
        return Activation(float32 if fmt is None or fmt.bits == 32 else float16, quantize.keep)
    if fmt.zero == "none":
        return Activation(Int(fmt.bits), quantize.quantize)
    kernel = quantize.quantize_zero if fmt.zero == "integer" else quantize.quantize_minimum
    return Activation(UInt(fmt.bits), kernel, offset=True)


def _site(recipe: Recipe, site: str, rotated: bool, biased: bool) -> Activation:
    """How the input of some linear layers is quantized: rotation, float channels, rule, low rank, biases."""
    plain = _activation(recipe.activation_of(site))
    rounds = recipe.rounds(site)  # else there is nothing to correct
    outliers = recipe.find(Outliers) if rounds else None
    low_rank = recipe.find(LowRank) if rounds else None
    count, rank = outliers.count if outliers else 0, low_rank.rank if low_rank else 0
    made = plain
    if count:
        made = replace(
            plain,
            quantize=quantize.quantize_outliers,
            Site=quantize.OutlierSite,
            outliers=count,
            inner=plain,
        )
    if rank:
        kernel = quantize.quantize_mixed if count else quantize.quantize_low_rank
        arrays = quantize.MixedSite if count else quantize.LowRankSite
        made = replace(made, quantize=kernel, Site=arrays, rank=rank, inner=made)
    if biased:
        made = replace(made, quantize=quantize.quantize_biased, biased=True, inner=made)
    return replace(made, quantize=rotate.rotate_quantize, inner=made) if rotated else made


def _linear(recipe: Recipe, kind: str, site: Activation) -> Linear:
    """Storage and kernel of a kind of weight."""
    fmt = recipe.weight_of(kind)
    extra = site.terms - 1
    dtype = _code_type(fmt)
    if fmt is None or (isinstance(fmt, IntFormat) and fmt.granularity != "per_group" and fmt.signed):
        return Linear(dtype, linear, ChannelWeight, extra)
    if isinstance(fmt, ProgressiveFormat):
        return Linear(dtype, grouped.linear_progressive, grouped.ProgressiveWeight, extra, fmt.group)
    if fmt.sparsity:
        index = UInt(2 if fmt.sparsity.index == "2bit" else 3)
        return Linear(dtype, grouped.linear_sparse, grouped.SparseWeight, extra, fmt.group, index)
    if fmt.signed:
        return Linear(dtype, grouped.linear_group, grouped.GroupWeight, extra, fmt.group)
    return Linear(dtype, grouped.linear_zero, grouped.ZeroWeight, extra, fmt.group)


def _code_type(fmt: WeightFormat | None) -> DType:
    if fmt is None:
        return _FLOAT32
    return Int(fmt.bits) if fmt.signed else UInt(fmt.bits)
