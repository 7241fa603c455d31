"""The arrays of a quantized model as the graph takes them: by parameter name, layers stacked.

`constant_arrays` has all of them at once, for the CPU; `constant_parts` one after the other, for what only
passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
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
Reader = Callable[[], Array | None]
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
        for name, read in _layer(model, layer):
            logical = read()
            if logical is None:
                continue
            array = lay(name, logical)
            if layer == 0:
                stacked[name] = aligned_empty((layers, *array.shape), array.dtype)
            stacked[name][layer] = array
    shared = ((name, read()) for name, read in _shared(model))
    return stacked | {name: lay(name, array) for name, array in shared if array is not None}


def constant_parts(model: QuantizedModel, name: str) -> Iterator[Array]:
    """One of `constant_arrays` piece by piece along its first axis: layer by layer, or all of it.

    At any time one layer of one tensor is in memory, if `model.tensors` reads its tensors when asked.
    """
    shared = dict(_shared(model))
    if name in shared:
        yield _there(shared[name]())
        return
    for layer in range(model.config.num_hidden_layers):
        yield _there(dict(_layer(model, layer))[name]())[None]


def _there(array: Array | None) -> Array:
    assert array is not None
    return array


def _as_it_is(name: str, array: Array) -> Array:
    del name
    return array


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that begins on a cache line, so that vectors do not straddle two."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


# ------------------------------------------------------------- every array by name, read when asked for


def _shared(model: QuantizedModel) -> Iterator[tuple[str, Reader]]:
    """The arrays that no layer has a part of."""
    yield "embed", partial(model.array, "embed")
    yield from _norm(model, "final_norm", "final_norm")
    yield from _site(model, "head", "head")
    yield from _weight(model, "w_head", "w_head")
    if model.config.architecture.positions == "learned":
        positions = model.max_seq_len
        yield "positions", lambda: np.ascontiguousarray(model.array("positions")[:positions])
    else:
        yield "cosine", lambda: model.cos
        yield "sine", lambda: model.sin
    yield "eps", lambda: np.asarray(model.config.rms_norm_eps, np.float32)


def _layer(model: QuantizedModel, layer: int) -> Iterator[tuple[str, Reader]]:
    """The arrays of a layer."""
    prefix = f"layers.{layer}."
    for norm in LAYER_NORMS:
        if prefix + norm in model.tensors:
            yield from _norm(model, prefix + norm, norm)
    for site, weights in SITES.items():
        if site != "head":
            yield from _site(model, prefix + site, site)
            for weight in weights:
                if prefix + weight in model.tensors:  # not every MLP has a gate
                    yield from _weight(model, prefix + weight, weight)
    for scale in ("q_scale", "k_scale", "v_scale", "p_scale"):
        if prefix + scale in model.tensors:
            yield f"scales_{scale}", partial(model.array, prefix + scale)


def _norm(model: QuantizedModel, name: str, kind: str) -> Iterator[tuple[str, Reader]]:
    yield f"{kind}_gain", partial(model.array, name)
    if f"{name}.bias" in model.tensors:
        yield f"{kind}_bias", partial(model.array, f"{name}.bias")


def _site(model: QuantizedModel, name: str, site: str) -> Iterator[tuple[str, Reader]]:
    for part in ("outliers", "low_rank"):
        if f"{name}.{part}" in model.tensors:
            yield f"{site}_{part}", partial(model.array, f"{name}.{part}")


def _weight(model: QuantizedModel, name: str, kind: str) -> Iterator[tuple[str, Reader]]:
    """The parts of a weight, which is read with the first of them; None for those that its format lacks."""

    @cache
    def weight() -> QuantizedWeight:
        found = model.tensors[name]
        assert isinstance(found, QuantizedWeight)
        return found

    yield f"{kind}_codes", lambda: weight().codes
    yield f"{kind}_index", lambda: None if weight().index is None else _index(weight())
    yield f"{kind}_zero", lambda: weight().zero
    yield f"{kind}_step", lambda: weight().step
    yield f"{kind}_terms", lambda: model_terms(model, name, kind)


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
