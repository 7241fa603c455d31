"""Round-to-nearest without data, tensor by tensor: one float tensor is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .formats import ProgressiveFormat, WeightFormat
from .model import FloatModel
from .passes import Rtn
from .progressive import quantize_progressive
from .recipes import SITES, Recipe
from .rtn import quantize_range
from .weight import FloatArray, QuantizedWeight

OnStep = Callable[[str, int, int], None]
"""Called before each step with its name, its number from 0, and how many steps there are."""

_NORMS = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_LINEARS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
_WEIGHTS = {kind for kinds in SITES.values() for kind in kinds}


def rtn_tensors(
    model: FloatModel,
    recipe: Recipe,
    on_step: OnStep | None = None,
    done: frozenset[str] = frozenset(),
) -> Iterator[tuple[str, QuantizedWeight | NDArray[Any]]]:
    """The tensors of a model under a recipe whose only pass is `Rtn`, but for those that are `done`.

    Yields:
        ``embed`` float32 [V, E]; ``layers.{i}.`` and ``attn_norm``, ``mlp_norm`` float32 [E], ``wq`` ...
        ``w_down``; ``final_norm``; ``w_head``.

    Raises:
        QuantError: FX604, the recipe has other passes or formats; FX606, a tensor that cannot be quantized,
            with its name.
    """
    others = [type(p).__name__ for p in recipe.passes if not isinstance(p, Rtn)]
    if others or recipe.layer_bits:
        raise QuantError(
            "FX604", f"recipe {recipe.name!r} needs more than rounding: {', '.join(others) or 'layer_bits'}"
        )
    steps = list(_steps(model.config.num_hidden_layers))
    for number, (step, names) in enumerate(steps):
        if on_step:
            on_step(step, number, len(steps))
        for name, source in names.items():
            if name in done:
                continue
            kind = name.rpartition(".")[2]
            try:
                value = _finite(model.tensors[source])
                yield name, _rounded(value, recipe.weight_of(kind)) if kind in _WEIGHTS else value
            except QuantError as error:
                raise QuantError(error.code, f"{source}: {error.message}", hint=error.hint) from error


def _steps(layers: int) -> Iterator[tuple[str, dict[str, str]]]:
    """What is done one after the other: our names of tensors, and the checkpoint's."""
    yield "embedding", {"embed": "model.embed_tokens.weight"}
    for i in range(layers):
        names = (_NORMS | _LINEARS).items()
        yield f"layer {i}", {f"layers.{i}.{kind}": f"model.layers.{i}.{name}.weight" for kind, name in names}
    yield "head", {"final_norm": "model.norm.weight", "w_head": "lm_head.weight"}


def _finite(value: FloatArray) -> FloatArray:
    # The extremes are NaN or infinite if any value is, and take no memory.
    if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):
        raise QuantError(
            "FX606",
            "it holds NaN or infinity",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    return np.ascontiguousarray(value, np.float32)


def _rounded(weight: FloatArray, fmt: WeightFormat | None) -> QuantizedWeight:
    rows, width = weight.shape
    if fmt is None:
        return QuantizedWeight(None, weight, np.ones((rows, 1), np.float32))
    if isinstance(fmt, ProgressiveFormat):
        return quantize_progressive(weight, fmt)
    if fmt.sparsity or fmt.granularity == "per_tensor":
        raise QuantError("FX604", "sparse and per-tensor weights need more than rounding rows")
    groups = fmt.groups(width)
    if fmt.granularity == "per_group" and (not groups or width % fmt.group):
        raise QuantError(
            "FX606",
            f"rows of {width} weights do not divide into groups of {fmt.group}",
            hint="choose a group that divides the width",
        )
    codes, scale, zero = quantize_range(weight.reshape(rows * groups, -1), fmt)
    zeros = None if zero is None else zero.reshape(rows, groups)
    return QuantizedWeight(fmt, codes.reshape(rows, width), scale.reshape(rows, groups), zeros)
