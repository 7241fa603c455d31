"""Quantized tensors as the float decoder computes them: rounded weights, and how inputs are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .decoder import AttentionScales, DecoderLayer, Site
from .model import Tensor
from .recipes import SITES, Recipe
from .weight import QuantizedWeight


def simulated_layer(tensors: Mapping[str, Tensor], layer: int, recipe: Recipe) -> DecoderLayer:
    """A layer of the tensors that `quantize_tensors` gives; its matrices are float32 from now on."""
    prefix = f"layers.{layer}."
    found: Mapping[str, Any] = tensors
    scales = None
    if prefix + "q_scale" in tensors:
        scales = AttentionScales(**{name: found[f"{prefix}{name}_scale"] for name in "qkvp"})
    sites = {site: simulated_site(tensors, site, layer, recipe) for site in SITES if site != "head"}
    attn_norm, mlp_norm = (found[f"{prefix}{kind}"] for kind in ("attn_norm", "mlp_norm"))
    return DecoderLayer(attn_norm, mlp_norm, sites, recipe.kv, recipe.query, scales)


def simulated_site(tensors: Mapping[str, Tensor], site: str, layer: int | None, recipe: Recipe) -> Site:
    """One site; the head's has no layer."""
    prefix = "" if layer is None else f"layers.{layer}."
    found: Mapping[str, Any] = tensors
    weights: dict[str, Any] = {}
    for kind in SITES[site]:
        weight = tensors[prefix + kind]
        assert isinstance(weight, QuantizedWeight), kind
        weights[kind] = weight.dequantize()
    sides = {k: found[f"{prefix}{k}.side"] for k in SITES[site] if f"{prefix}{k}.side" in tensors}
    return Site(
        weights,
        recipe.activation_of(site),
        found.get(f"{prefix}{site}.outliers"),
        found.get(f"{prefix}{site}.low_rank"),
        sides,
    )
