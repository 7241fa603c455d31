"""The arrays of a quantized model as the graph takes them: by parameter name, layers stacked.

`constant_arrays` has all of them at once, for the CPU; `constant_parts` one after the other, for what only
passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.quant.architecture import Architecture
from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.recipes import SITES, Recipe
from flexllm_allo.quant.weight import QuantizedWeight

Array = NDArray[Any]
Lay = Callable[[str, Array], Array]
LAYER_NORMS = ("attn_norm", "mlp_norm", "q_norm", "k_norm")
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
        **dict(_norm_arrays(model, "final_norm", "final_norm")),
        **stacked,
        **{name: lay(name, array) for name, array in head.items()},
        **_tables(model),
        "eps": np.asarray(model.config.rms_norm_eps, np.float32),
    }


def _tables(model: QuantizedModel) -> dict[str, Array]:
    """What says where a token stands: rotary tables, or learned positions."""
    if model.config.architecture.positions == "learned":
        return {"positions": np.ascontiguousarray(model.array("positions")[: model.max_seq_len])}
    return {"cosine": model.cos, "sine": model.sin}


def _as_it_is(name: str, array: Array) -> Array:
    del name
    return array


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that begins on a cache line, so that vectors do not straddle two."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def constant_parts(model: QuantizedModel, name: str) -> Iterator[Array]:
    """One of `constant_arrays` piece by piece along its first axis: layer by layer, or all of it.

    At any time one layer of one tensor is in memory, if `model.tensors` reads its tensors when asked.
    """
    whole = _whole(model, name)
    if whole is not None:
        yield whole
        return
    for layer in range(model.config.num_hidden_layers):
        yield _layer_array(model, layer, name)[None]


def _whole(model: QuantizedModel, name: str) -> Array | None:
    """A constant that no layer has a part of; None for the others."""
    kind, _, part = name.rpartition("_")
    if name == "embed":
        return model.array(name)
    if kind == "final_norm":
        return dict(_norm_arrays(model, kind, kind))[name]
    if name in ("cosine", "sine", "positions"):
        return _tables(model)[name]
    if name == "eps":
        return np.asarray(model.config.rms_norm_eps, np.float32)
    if kind == "w_head":
        return _weight_array(model, "w_head", kind, part)
    return dict(_site_arrays(model, "head", "head")).get(name)


def _layer_array(model: QuantizedModel, layer: int, name: str) -> Array:
    prefix = f"layers.{layer}."
    if name.startswith("scales_"):
        return model.array(prefix + name.removeprefix("scales_"))
    kind, _, part = name.rpartition("_")
    if kind in LAYER_NORMS:
        return dict(_norm_arrays(model, prefix + kind, kind))[name]
    if kind in SITE_OF:
        return _weight_array(model, prefix + kind, kind, part)
    site = next(site for site in SITES if name.startswith(f"{site}_"))
    return model.array(f"{prefix}{site}.{name.removeprefix(f'{site}_')}")


def _weight_array(model: QuantizedModel, name: str, kind: str, part: str) -> Array:
    """One of `_weight_arrays`, without making the others."""
    weight = model.tensors[name]
    assert isinstance(weight, QuantizedWeight)
    if part == "index":
        return _index(weight)
    if part == "terms":
        return model_terms(model, name, kind)
    return getattr(weight, part)


def _layer_arrays(model: QuantizedModel, layer: int) -> Iterator[tuple[str, Array]]:
    prefix = f"layers.{layer}."
    for norm in LAYER_NORMS:
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
        terms.append(_row_sums(weight))
    if side is not None:
        terms.append(side)
    if bias is not None:
        terms.append(bias[:, None])
    return np.concatenate(terms, axis=-1)


def _row_sums(weight: QuantizedWeight) -> NDArray[np.float32]:
    """float32 [N, 1], rows by rows: the float values of a whole output layer would take a gigabyte."""
    rows = weight.codes.shape[0]
    step = max(1, (1 << 22) // weight.shape[-1])

    def part(a: Array | None, begin: int) -> Any:
        return None if a is None else a[begin : begin + step]

    sums = [
        replace(
            weight,
            codes=part(weight.codes, i),
            scale=part(weight.scale, i),
            zero=part(weight.zero, i),
            step=part(weight.step, i),
            index=part(weight.index, i),
        )
        .dequantize()
        .sum(axis=-1, dtype=np.float64)
        for i in range(0, rows, step)
    ]
    return np.concatenate(sums).astype(np.float32)[:, None]


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
