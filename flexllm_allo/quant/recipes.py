"""Recipes: which formats the weights, activations, KV cache and head get, and how they get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import QuantError, did_you_mean
from .formats import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_KV,
    INT8_WEIGHT,
    NM,
    ActivationFormat,
    FloatFormat,
    IntFormat,
    ProgressiveFormat,
    WeightFormat,
)
from .passes import FoldNorms, Gptq, Pass, Rotate, Rtn, StaticScales, check_order

P = TypeVar("P", bound=Pass)
SITES = {
    "attn": ("wq", "wk", "wv"),
    "out": ("wo",),
    "mlp": ("w_gate", "w_up"),
    "down": ("w_down",),
    "head": ("w_head",),
}
"""The places where activations are quantized, and the weights that read the result."""


@dataclass(frozen=True)
class Recipe:
    """One format per kind of tensor (None leaves it in float32), and the passes that lead there.

    Attributes:
        name: how the command line and reports call it.
        weight: the linear layers inside the blocks.
        activation: the input of every linear layer.
        kv: keys and values, after the rotary embedding.
        head: the weight of the output layer; the embedding table stays float32.
        description: one line for people.
        passes: what is done to the model, in the order of `passes.ORDER`.
        kinds: formats of single kinds of linear layer (``w_down``, ...) in place of `weight`.
        layer_bits: bits of single layers, at most those of the format, whose container they share.
    """

    name: str
    weight: WeightFormat | None
    activation: ActivationFormat | None
    kv: IntFormat | None
    head: WeightFormat | None
    description: str = ""
    passes: tuple[Pass, ...] = (Rtn(),)
    kinds: Mapping[str, WeightFormat] = field(default_factory=lambda: {})
    layer_bits: Mapping[int, int] = field(default_factory=lambda: {})

    def __post_init__(self) -> None:
        check_order(self.name, self.passes)

    def weight_of(self, kind: str) -> WeightFormat | None:
        """The format of a kind of linear layer: ``wq`` ... ``w_down``, ``w_head``."""
        return self.head if kind == "w_head" else self.kinds.get(kind, self.weight)

    def activation_of(self, site: str) -> ActivationFormat | None:
        """The format of the input of a site (`SITES`); a head in float reads its input in float."""
        return None if site == "head" and self.head is None else self.activation

    def rounds(self, site: str) -> bool:
        """Whether some weight of a site becomes integers."""
        return any(self.weight_of(kind) is not None for kind in SITES[site])

    @property
    def query(self) -> IntFormat | None:
        """The format of queries: 8 bits beside an asymmetric cache, else that of the cache."""
        return self.kv if self.kv is None or self.kv.signed else INT8_KV

    def find(self, kind: type[P]) -> P | None:
        """The pass of that kind, if the recipe has it."""
        return next((p for p in self.passes if isinstance(p, kind)), None)


_UINT4_TOKEN = IntFormat(4, "per_token", dynamic=True, zero="float")
_UINT4_SPIN = IntFormat(4, "per_token", dynamic=True, zero="integer")
_UINT4_KV = IntFormat(4, "per_token_and_head", dynamic=True, zero="integer")
_STATIC_KV = IntFormat(8, "per_head", full_range=True)
_W2 = IntFormat(2, "per_group", zero="integer", group=32, sparsity=NM(2, 4, "3bit"))
_SPIN = Rotate("learned", "learned", r3=True, r4=True)
_QUAROT = Rotate("hadamard", "hadamard", r3=True, r4=True, out=True)

recipes: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("none", None, None, None, None, "float32 throughout", ()),
        Recipe(
            "w8a8kv8",
            INT8_WEIGHT,
            INT8_ACTIVATION,
            INT8_KV,
            INT8_WEIGHT,
            "8-bit weights per channel, 8-bit activations and KV cache per token",
        ),
        Recipe(
            "w4a8kv8",
            INT4_WEIGHT,
            INT8_ACTIVATION,
            INT8_KV,
            INT8_WEIGHT,
            "4-bit weights per channel (lm_head at 8 bits), 8-bit activations and KV cache per token",
        ),
        Recipe(
            "w4a16",
            IntFormat(4, "per_group", full_range=True, group=64, scale="float16"),
            FloatFormat(16),
            None,
            None,
            "4-bit weights per group of 64, half-precision activations, float KV cache and head (GPTQ)",
            (Gptq(),),
        ),
        Recipe(
            "w4a8kv4",
            ProgressiveFormat(4, 64),
            INT8_ACTIVATION,
            _UINT4_KV,
            INT8_WEIGHT,
            "QoQ: 4-bit weights dequantized in int8, rotated blocks, 4-bit KV cache per head and token",
            (FoldNorms(), Rotate(r3=True, r4=False), Rtn()),
        ),
        Recipe(
            "w4a4kv8",
            INT4_WEIGHT,
            _UINT4_TOKEN,
            _STATIC_KV,
            INT4_WEIGHT,
            "FlexLLM: 4-bit weights and head, dynamic 4-bit activations with a float minimum, static int8 "
            "attention",
            (FoldNorms(), Rotate(), Gptq(), StaticScales()),
        ),
        Recipe(
            "w4a4kv4",
            INT4_WEIGHT,
            _UINT4_SPIN,
            _UINT4_KV,
            INT8_WEIGHT,
            "SpinQuant: learned rotations, 4-bit weights, activations and KV cache",
            (FoldNorms(), _SPIN, Gptq()),
        ),
        Recipe(
            "w4a4kv4-quarot",
            INT4_WEIGHT,
            _UINT4_SPIN,
            _UINT4_KV,
            INT8_WEIGHT,
            "QuaRot: as w4a4kv4 with random Hadamard rotations, one more in front of o_proj",
            (FoldNorms(), _QUAROT, Gptq()),
        ),
        Recipe(
            "w2a8kv4",
            _W2,
            INT8_ACTIVATION,
            _UINT4_KV,
            INT8_WEIGHT,
            "AccLLM: 2-bit weights per group, 2:4 sparse (SparseGPT), 8-bit activations, 4-bit KV cache",
            (FoldNorms(), Rotate(r3=True), Gptq()),
        ),
    )
}


DEFAULT_RECIPE = "w8a8kv8"


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, or the one in a TOML file if `name` is a path (it ends with ``.toml``).

    Raises:
        QuantError: FX604 with the nearest names, or with what is wrong in the file.
    """
    if name.endswith(".toml"):
        from .recipe_file import read_recipe

        return read_recipe(name)
    if name not in recipes:
        raise QuantError("FX604", f"there is no recipe {name!r}", hint=did_you_mean(name, recipes))
    return recipes[name]
