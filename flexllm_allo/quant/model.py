"""A checkpoint under a recipe: named tensors, some of them integers with scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .architecture import Architecture
from .recipes import Recipe
from .weight import QuantizedWeight

FloatArray = NDArray[np.float32]
Tensor = QuantizedWeight | NDArray[Any]


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
    @property
    def model_type(self) -> str: ...
    @property
    def architecture(self) -> Architecture: ...
    @property
    def sliding_window(self) -> int | None: ...


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
    """The tensors of a model under a recipe, by name.

    Attributes:
        tensors: ``embed`` float32 [V, E]; ``layers.{i}.attn_norm`` and ``mlp_norm`` [E]; ``layers.{i}.wq``
            ... ``w_down`` as `QuantizedWeight`s; ``final_norm``, ``w_head``. Where the recipe has them:
            ``layers.{i}.{site}.outliers`` int32 [C] and ``.low_rank`` [r, K] (sites: `recipes.SITES`, the
            head's without layer), ``layers.{i}.{weight}.side`` [N, C + r], ``layers.{i}.{q,k,v,p}_scale``.
            Where the family has them: ``layers.{i}.{weight}.bias`` [N], ``layers.{i}.q_norm`` and ``k_norm``
            [D], ``.bias`` of norms [E], ``positions`` [max_position_embeddings, E].
        cos, sin: rotary tables, float32 [S, D / 2]; S is the longest sequence.
    """

    config: Shape
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    cos: FloatArray
    sin: FloatArray

    @property
    def max_seq_len(self) -> int:
        """The longest sequence, prompt and new tokens together."""
        return int(self.cos.shape[0])

    def array(self, name: str) -> NDArray[Any]:
        """A tensor that is a plain array."""
        value = self.tensors[name]
        assert not isinstance(value, QuantizedWeight), name
        return value

    def weight(self, kind: str, layer: int = 0) -> QuantizedWeight:
        """A weight by kind (``wq`` ... ``w_down`` of a layer, or ``w_head``)."""
        value = self.tensors[kind if kind == "w_head" else f"layers.{layer}.{kind}"]
        assert isinstance(value, QuantizedWeight), kind
        return value

    def weights(self) -> Iterator[tuple[str, QuantizedWeight]]:
        """Every weight that multiplies activations, with its name."""
        for name, value in self.tensors.items():
            if isinstance(value, QuantizedWeight):
                yield name, value


@dataclass(frozen=True)
class WeightStorage:
    """What the multiplied weights take in the memory of the hardware.

    The embedding table, norms and rotary tables are not in it.

    Attributes:
        weights: how many there are, pruned ones included.
        bits: of codes, positions, scales and zero points.
        side_bytes: of what recipes keep in float beside them.
    """

    weights: int
    bits: float
    side_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return (self.bits + 8 * self.side_bytes) / self.weights

    @property
    def bytes_per_weight(self) -> float:
        return self.bits_per_weight / 8

    @property
    def bytes_per_token(self) -> float:
        """Read once per decoded token."""
        return self.bits / 8 + self.side_bytes


def weight_storage(model: QuantizedModel) -> WeightStorage:
    """Bytes read once per token by the linear layers and the head."""
    weights, bits, side = 0, 0.0, 0
    for _, weight in model.weights():
        count = math.prod(weight.shape)
        weights += count
        bits += count * (weight.format.bits_per_weight(weight.shape[-1]) if weight.format else 32)
    for name, value in model.tensors.items():
        beside = name.endswith((".side", ".low_rank", ".outliers", ".bias")) and "_norm" not in name
        if beside and not isinstance(value, QuantizedWeight):
            side += value.nbytes
    return WeightStorage(weights, bits, side)


def bytes_per_weight(model: QuantizedModel) -> float:
    """Stored bytes per multiplied weight, scales included (a 4-bit code counts half a byte)."""
    return weight_storage(model).bytes_per_weight
