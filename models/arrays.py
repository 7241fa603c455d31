"""The arrays of a quantized model as the graph takes them: by parameter name, layers stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.recipes import SITES, Recipe
from flexllm_allo.quant.weight import QuantizedWeight

Array = NDArray[Any]
Lay = Callable[[str, Array], Array]
SITE_OF = {weight: site for site, weights in SITES.items() for weight in weights}
_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))  # patterns of 2:4, as in `kernels.grouped`


def constant_arrays(model: QuantizedModel, lay: Lay | None = None) -> dict[str, Array]:
    """What never changes between runs, by parameter name: weights, terms, tables, eps.

    Args:
        model: the tensors; those of a folder are read layer by layer, so that one is in memory twice.
        lay: ``lay(name, array)`` gives what is kept of an array (one layer of it, if layers are stacked).
    """
    lay = lay or _as_it_is
    stacked: dict[str, Array] = {}
    layers = model.config.num_hidden_layers
    for layer in range(layers):
        for name, logical in _layer_arrays(model, layer):
            array = lay(name, logical)
            if layer == 0:
                stacked[name] = aligned_empty((layers, *array.shape), array.dtype)
            stacked[name][layer] = array
    head = dict(_weight_arrays(model, "w_head", "w_head")) | dict(_site_arrays(model, "head", "head"))
    return {
        "embed": model.array("embed"),
        "final_norm": model.array("final_norm"),
        **stacked,
        **{name: lay(name, array) for name, array in head.items()},
        "cosine": model.cos,
        "sine": model.sin,
        "eps": np.asarray(model.config.rms_norm_eps, np.float32),
    }


def _as_it_is(name: str, array: Array) -> Array:
    del name
    return array


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that begins on a cache line, so that vectors do not straddle two."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def _layer_arrays(model: QuantizedModel, layer: int) -> Iterator[tuple[str, Array]]:
    prefix = f"layers.{layer}."
    for norm in ("attn_norm", "mlp_norm"):
        yield norm, model.array(prefix + norm)
    for site, weights in SITES.items():
        if site != "head":
            yield from _site_arrays(model, prefix + site, site)
            for weight in weights:
                yield from _weight_arrays(model, prefix + weight, weight)
    for scale in ("q_scale", "k_scale", "v_scale", "p_scale"):
        if prefix + scale in model.tensors:
            yield f"scales_{scale}", model.array(prefix + scale)


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
    side = model.array(f"{name}.side") if f"{name}.side" in model.tensors else None
    yield f"{kind}_terms", weight_terms(weight, has_offset(model.recipe, kind), side)


def has_offset(recipe: Recipe, kind: str) -> bool:
    """Whether the inputs of a kind of weight are asymmetric."""
    fmt = recipe.activation_of(SITE_OF[kind])
    return isinstance(fmt, IntFormat) and fmt.zero != "none"


def weight_terms(weight: QuantizedWeight, offset: bool, side: Array | None = None) -> NDArray[np.float32]:
    """float32 [N, ...]: scales, the sum of the row if activations have an offset, what stays in float."""
    terms = [weight.scale]
    if offset:
        terms.append(weight.dequantize().sum(axis=-1, dtype=np.float64).astype(np.float32)[..., None])
    if side is not None:
        terms.append(side)
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
