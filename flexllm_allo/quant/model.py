"""A checkpoint under a recipe: the stacked integer arrays and scales that the kernels take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .formats import IntFormat
from .recipes import Recipe, get_recipe
from .rtn import quantize_weight

FloatArray = NDArray[np.float32]
Codes = NDArray[Any]  # int8 codes, or float32 where the recipe leaves the weight alone

# Field of QuantizedModel -> name of the layer's tensor in a Hugging Face checkpoint.
_LINEARS = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
_NORMS = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


class Shape(Protocol):
    """What quantisation and execution need of a configuration (`models.LlamaConfig` has it)."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def rms_norm_eps(self) -> float: ...


class FloatModel(Protocol):
    """A float model with Hugging Face's tensor names (`models.Checkpoint` is one)."""

    @property
    def config(self) -> Shape: ...
    @property
    def tensors(self) -> Mapping[str, FloatArray]: ...
    def rope_tables(self, max_seq_len: int) -> tuple[FloatArray, FloatArray]:
        """Cosines and sines [max_seq_len, head_dim / 2]."""
        ...


@dataclass(frozen=True)
class QuantizedModel:
    """Weights by kind, all layers of a kind stacked, C-contiguous.

    L layers, E hidden size, H heads, KV key/value heads, D head dimension, I intermediate size, V vocabulary,
    S longest sequence. A weight [L, N, K] is int8 codes with float32 scales [L, N], or float32 with scales of
    1 where the recipe has no format; int4 codes take one int8 each (packing them into words is the layout
    of the hardware, which follows from the schedule).
    """

    config: Shape
    recipe: Recipe
    embed: FloatArray  # [V, E]
    attn_norm: FloatArray  # [L, E]
    wq: Codes  # [L, H*D, E]
    wq_scale: FloatArray
    wk: Codes  # [L, KV*D, E]
    wk_scale: FloatArray
    wv: Codes  # [L, KV*D, E]
    wv_scale: FloatArray
    wo: Codes  # [L, E, H*D]
    wo_scale: FloatArray
    mlp_norm: FloatArray  # [L, E]
    w_gate: Codes  # [L, I, E]
    w_gate_scale: FloatArray
    w_up: Codes  # [L, I, E]
    w_up_scale: FloatArray
    w_down: Codes  # [L, E, I]
    w_down_scale: FloatArray
    final_norm: FloatArray  # [E]
    w_head: Codes  # [V, E]
    w_head_scale: FloatArray  # [V]
    cos: FloatArray  # [S, D/2]
    sin: FloatArray  # [S, D/2]

    @property
    def max_seq_len(self) -> int:
        """The longest sequence, prompt and new tokens together."""
        return int(self.cos.shape[0])

    def linears(self) -> dict[str, tuple[Codes, FloatArray, IntFormat | None]]:
        """Codes, scales and format of every weight that multiplies activations, by field name."""
        formats = dict.fromkeys(_LINEARS, self.recipe.weight) | {"w_head": self.recipe.head}
        return {w: (getattr(self, w), getattr(self, f"{w}_scale"), fmt) for w, fmt in formats.items()}


@dataclass(frozen=True)
class WeightStorage:
    """What the multiplied weights take in the memory of the hardware: packed codes, float32 scales.

    The embedding table, norms and rotary tables are not in it.
    """

    weights: int
    code_bytes: float
    scale_bytes: int

    @property
    def bytes_per_weight(self) -> float:
        return (self.code_bytes + self.scale_bytes) / self.weights


def weight_storage(model: QuantizedModel) -> WeightStorage:
    """Bytes read once per token by the linear layers and the head."""
    weights, code_bytes, scale_bytes = 0, 0.0, 0
    for codes, scales, fmt in model.linears().values():
        weights += codes.size
        code_bytes += codes.size * (fmt.bits if fmt else 32) / 8
        scale_bytes += scales.nbytes if fmt else 0
    return WeightStorage(weights, code_bytes, scale_bytes)


def bytes_per_weight(model: QuantizedModel) -> float:
    """Stored bytes per multiplied weight, scales included (a 4-bit code counts half a byte)."""
    return weight_storage(model).bytes_per_weight


def quantize_checkpoint(
    checkpoint: FloatModel, recipe: Recipe | str, max_seq_len: int | None = None
) -> QuantizedModel:
    """The arrays of a model under a recipe.

    Tensors are read and quantised one by one: the peak is the result and one float tensor.

    Args:
        checkpoint: a `models.Checkpoint`, or anything with `config`, `tensors` and `rope_tables`.
        recipe: a `Recipe` or the name of one.
        max_seq_len: length of the KV cache; the configuration's `max_position_embeddings` by default.

    Raises:
        QuantError: FX604 for an unknown recipe, a format that cannot be built, a bad length, or NaN weights.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    _check_recipe(recipe)
    config = checkpoint.config
    length = config.max_position_embeddings if max_seq_len is None else max_seq_len
    if not 1 <= length <= config.max_position_embeddings:
        raise QuantError(
            "FX604",
            f"max_seq_len {length} does not fit the model",
            hint=f"choose 1 to {config.max_position_embeddings} (max_position_embeddings)",
        )
    arrays: dict[str, NDArray[Any]] = {}
    for field, name in _LINEARS.items():
        arrays[field], arrays[f"{field}_scale"] = _stack_linear(checkpoint, name, recipe.weight)
    for field, name in _NORMS.items():
        layers = range(config.num_hidden_layers)
        arrays[field] = np.stack([_tensor(checkpoint, f"model.layers.{i}.{name}.weight") for i in layers])
    embed, head = _tensor(checkpoint, "model.embed_tokens.weight"), _tensor(checkpoint, "lm_head.weight")
    arrays["w_head"], arrays["w_head_scale"] = _quantize(head, recipe.head, "lm_head.weight")
    cos, sin = checkpoint.rope_tables(length)
    final_norm = _tensor(checkpoint, "model.norm.weight")
    return QuantizedModel(
        config=config, recipe=recipe, embed=embed, final_norm=final_norm, cos=cos, sin=sin, **arrays
    )


def _check_recipe(recipe: Recipe) -> None:
    formats = {kind: getattr(recipe, kind) for kind in ("weight", "activation", "kv", "head")}
    bad = [f"{kind} of {fmt.bits} bits" for kind, fmt in formats.items() if fmt and not 2 <= fmt.bits <= 8]
    if bad:
        raise QuantError(
            "FX604", f"recipe {recipe.name!r} asks for {', '.join(bad)}", hint="2 to 8 bits are supported"
        )


def _tensor(checkpoint: FloatModel, name: str) -> FloatArray:
    return np.ascontiguousarray(checkpoint.tensors[name], dtype=np.float32)


def _quantize(weight: FloatArray, fmt: IntFormat | None, name: str) -> tuple[Codes, FloatArray]:
    if fmt is None:
        return weight, np.ones(len(weight), np.float32)
    try:
        return quantize_weight(weight, fmt)
    except QuantError as error:
        raise QuantError(error.code, f"{name}: {error.message}", hint=error.hint) from error


def _stack_linear(checkpoint: FloatModel, name: str, fmt: IntFormat | None) -> tuple[Codes, FloatArray]:
    """One kind of linear layer of all blocks: codes [L, N, K] and scales [L, N]."""

    def layer(i: int) -> tuple[Codes, FloatArray]:
        full = f"model.layers.{i}.{name}.weight"
        return _quantize(_tensor(checkpoint, full), fmt, full)

    layers = checkpoint.config.num_hidden_layers
    codes, scale = layer(0)
    stacked: Codes = np.empty((layers, *codes.shape), codes.dtype)
    scales = np.empty((layers, *scale.shape), np.float32)
    stacked[0], scales[0] = codes, scale
    for i in range(1, layers):
        stacked[i], scales[i] = layer(i)
    return stacked, scales
