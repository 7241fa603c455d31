"""The arrays of a quantized model as the graph takes them: by parameter name, layers stacked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.quant.architecture import Architecture
from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.recipes import SITES, Recipe
from flexllm_allo.quant.weight import QuantizedWeight

Array = NDArray[Any]
SITE_OF = {weight: site for site, weights in SITES.items() for weight in weights}
_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))  # patterns of 2:4, as in `kernels.grouped`


def constant_arrays(model: QuantizedModel) -> dict[str, Array]:
    """What never changes between runs, by parameter name: weights, terms, tables, eps."""
    layers = [dict(_layer_arrays(model, i)) for i in range(model.config.num_hidden_layers)]
    stacked = {name: _stack([layer[name] for layer in layers]) for name in layers[0]}
    head = dict(_weight_arrays(model, "w_head", "w_head")) | dict(_site_arrays(model, "head", "head"))
    tables = {"cosine": model.cos, "sine": model.sin}
    if model.config.architecture.positions == "learned":
        tables = {"positions": np.ascontiguousarray(model.array("positions")[: model.max_seq_len])}
    return {
        "embed": model.array("embed"),
        **dict(_norm_arrays(model, "final_norm", "final_norm")),
        **stacked,
        **head,
        **tables,
        "eps": np.asarray(model.config.rms_norm_eps, np.float32),
    }


def _stack(arrays: list[Array]) -> Array:
    return np.ascontiguousarray(np.stack(arrays))


def _layer_arrays(model: QuantizedModel, layer: int) -> Iterator[tuple[str, Array]]:
    prefix = f"layers.{layer}."
    for norm in ("attn_norm", "mlp_norm", "q_norm", "k_norm"):
        if prefix + norm in model.tensors:
            yield from _norm_arrays(model, prefix + norm, norm)
    for site, weights in SITES.items():
        if site != "head":
            yield from _site_arrays(model, prefix + site, site)
            for weight in weights:
                if prefix + weight in model.tensors:  # not every MLP has a gate
                    yield from _weight_arrays(model, prefix + weight, weight)
    for scale in ("q_scale", "k_scale", "v_scale", "p_scale"):
        if prefix + scale in model.tensors:
            yield f"scales_{scale}", model.array(prefix + scale)


def _norm_arrays(model: QuantizedModel, name: str, kind: str) -> Iterator[tuple[str, Array]]:
    yield f"{kind}_gain", model.array(name)
    if f"{name}.bias" in model.tensors:
        yield f"{kind}_bias", model.array(f"{name}.bias")


def _site_arrays(model: QuantizedModel, name: str, site: str) -> Iterator[tuple[str, Array]]:
    for part in ("outliers", "low_rank"):
        if f"{name}.{part}" in model.tensors:
            yield f"{site}_{part}", model.array(f"{name}.{part}")


def _weight_arrays(model: QuantizedModel, name: str, kind: str) -> Iterator[tuple[str, Array]]:
    weight = model.tensors[name]
    assert isinstance(weight, QuantizedWeight)
    yield f"{kind}_codes", weight.codes
    if weight.index is not None:
        yield f"{kind}_index", _index(weight)
    if weight.zero is not None:
        yield f"{kind}_zero", weight.zero
    if weight.step is not None:
        yield f"{kind}_step", weight.step
    yield f"{kind}_terms", model_terms(model, name, kind)


def model_terms(model: QuantizedModel, name: str, kind: str) -> NDArray[np.float32]:
    """`weight_terms` of a weight of a model: its name, and its kind."""
    weight = model.tensors[name]
    assert isinstance(weight, QuantizedWeight)
    side, bias = (model.array(n) if n in model.tensors else None for n in (f"{name}.side", f"{name}.bias"))
    if bias is None and is_biased(model.config.architecture, SITE_OF[kind]):
        bias = np.zeros(len(weight.scale), np.float32)
    return weight_terms(weight, has_offset(model.recipe, kind), side, bias)


def is_biased(architecture: Architecture, site: str) -> bool:
    """Whether weights that read a site have biases."""
    return any(kind in architecture.biases for kind in SITES[site])


def has_offset(recipe: Recipe, kind: str) -> bool:
    """Whether the inputs of a kind of weight are asymmetric."""
    fmt = recipe.activation_of(SITE_OF[kind])
    return isinstance(fmt, IntFormat) and fmt.zero != "none"


def weight_terms(
    weight: QuantizedWeight, offset: bool, side: Array | None = None, bias: Array | None = None
) -> NDArray[np.float32]:
    """float32 [N, ...]: scales, the sum of the row for inputs with an offset, what stays in float, bias."""
    terms = [weight.scale]
    if offset:
        terms.append(weight.dequantize().sum(axis=-1, dtype=np.float64).astype(np.float32)[..., None])
    if side is not None:
        terms.append(side)
    if bias is not None:
        terms.append(bias[:, None])
    return np.concatenate(terms, axis=-1)


def _index(weight: QuantizedWeight) -> NDArray[np.uint8]:
    """Positions as the kernel reads them: one a code, or one pattern a pair."""
    assert isinstance(weight.format, IntFormat)
    assert weight.format.sparsity is not None
    assert weight.index is not None
    if weight.format.sparsity.index == "2bit":
        return weight.index
    pattern = np.zeros((4, 4), np.uint8)
    for code, (first, second) in enumerate(_PAIRS):
        pattern[first, second] = code
    return pattern[weight.index[..., 0::2], weight.index[..., 1::2]]
