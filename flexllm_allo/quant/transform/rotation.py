"""Rotations of the hidden space that leave what a model computes unchanged, and spread its outliers.

Sources: QuaRot (arXiv 2404.00456), SpinQuant (arXiv 2405.16406). An activation x becomes x R with an
orthogonal R, each weight that reads it W R, each that writes it R^T W.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..model import FloatModel, Shape
from ..passes import Rotate
from .hadamard import Online, hadamard_base, hadamard_transform
from .views import ModelView

Real = NDArray[np.float64]

_LAYER = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+_proj)\.weight$")
_GAINS = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
}
_WRITERS = ("o_proj", "down_proj")
_ELEMENTS = 1 << 22  # of a table of vectors that are in float64 at a time


@dataclass(frozen=True, eq=False)
class Rotations:
    """Orthogonal matrices in float64, and which Hadamard transforms run online.

    L layers, E hidden size, D head dimension.

    Attributes:
        r1: [E, E] of the residual stream, or None.
        r2: [L, D, D], one per layer for all its value heads, or None.
        r3: queries and keys are transformed online; no weight has to undo it, since both turn alike.
        r4: the input of down_proj is transformed online, and down_proj undoes it.
        out: the same for o_proj.
    """

    r1: Real | None = None
    r2: Real | None = None
    r3: bool = False
    r4: bool = False
    out: bool = False

    @property
    def online(self) -> Online:
        """What the model computes at run time."""
        return Online(self.r3, self.r4, self.out)


def fold_norms(model: FloatModel) -> ModelView:
    """The model with the gain of every RMSNorm in the weights behind it, and gains of 1.

    lm_head takes the gain of the final norm. It must be a tensor of its own, as every `FloatModel` has it:
    the embedding of a tied model stays as it is.
    """
    tensors = model.tensors

    def change(name: str, tensor: NDArray[np.float32]) -> NDArray[Any]:
        if name.endswith("norm.weight"):
            return np.ones_like(tensor)
        if name == "lm_head.weight":
            return tensor * tensors["model.norm.weight"].astype(np.float64)
        found = _LAYER.match(name)
        if found is None or found[2] not in _GAINS:
            return tensor
        gain = tensors[f"model.layers.{found[1]}.{_GAINS[found[2]]}.weight"]
        return tensor * gain.astype(np.float64)

    return ModelView(model, change)


def random_rotations(config: Shape, rotate: Rotate) -> Rotations:
    """The rotations of a pass from random signs: where learned ones begin, and QuaRot's.

    A rotation is H diag(+-1) / sqrt(n), or the orthogonal factor of a Gaussian matrix where there is no
    Hadamard matrix of that size (R1 and R2 only; online transforms need one).

    Raises:
        QuantError: FX604, an online transform of a size without Hadamard matrix.
    """
    for wanted, place, size in (
        (rotate.r3, "queries and keys (r3, head_dim)", config.head_dim),
        (rotate.r4, "the input of down_proj (r4, intermediate_size)", config.intermediate_size),
        (rotate.out, "the input of o_proj (out)", config.num_attention_heads * config.head_dim),
    ):
        if wanted:
            _check_size(place, size, rotate.folded)
    rng = np.random.default_rng(rotate.seed)
    r1 = _random_orthogonal(config.hidden_size, rng) if rotate.r1 != "none" else None
    layers = range(config.num_hidden_layers)
    r2 = np.stack([_random_orthogonal(config.head_dim, rng) for _ in layers]) if rotate.r2 != "none" else None
    undone = not rotate.folded
    return Rotations(r1, r2, rotate.r3, rotate.r4 and undone, rotate.out and undone)


def _check_size(place: str, size: int, folded: bool) -> None:
    try:
        base, _ = hadamard_base(size)
        if folded and base > 1:
            raise QuantError(
                "FX604",
                f"a Hadamard matrix of size {size} that another program folded into weights is not known",
                hint="powers of two have only one in common use",
            )
    except QuantError as error:
        raise QuantError(
            error.code, f"{place}: {error.message}", hint=f"{error.hint}, or leave this rotation out"
        ) from error


def _random_orthogonal(n: int, rng: np.random.Generator) -> Real:
    try:
        signs = rng.choice((-1.0, 1.0), n)
        return hadamard_transform(np.eye(n)).T * signs
    except QuantError:
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        return q * np.sign(np.diag(r))  # the sign of a column is LAPACK's choice; this makes it ours


def rotate(model: FloatModel, rotations: Rotations) -> ModelView:
    """The model with rotations in its weights; with `rotations.online` computed it is the same function.

    Norms must have been folded (`fold_norms`): a gain does not commute with R1. Embedding W R1; q, k, v,
    gate, up and lm_head W R1; o and down R1^T W; v R2^T W and o W R2 in every head (the query heads that
    share a key/value head all get the same R2). The transforms H that run online are then undone in
    down (`r4`) and o (`out`) by W H^T.

    Raises:
        QuantError: FX604, gains that R1 needs folded are not 1.
    """
    head_dim, r1 = model.config.head_dim, rotations.r1
    if r1 is not None:
        check_folded(model)

    def change(name: str, tensor: NDArray[np.float32]) -> NDArray[Any]:
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            return tensor if r1 is None else _times(tensor, r1)
        found = _LAYER.match(name)
        if found is None:
            return tensor
        layer, kind = int(found[1]), found[2]
        weight = tensor.astype(np.float64)
        if r1 is not None:
            weight = r1.T @ weight if kind in _WRITERS else weight @ r1
        if rotations.r2 is not None and kind == "v_proj":
            heads = weight.reshape(-1, head_dim, weight.shape[1])
            weight = (rotations.r2[layer].T @ heads).reshape(weight.shape)
        if rotations.r2 is not None and kind == "o_proj":
            heads = weight.reshape(weight.shape[0], -1, head_dim)
            weight = (heads @ rotations.r2[layer]).reshape(weight.shape)
        if (rotations.r4 and kind == "down_proj") or (rotations.out and kind == "o_proj"):
            weight = hadamard_transform(weight)
        return weight

    return ModelView(model, change)


def check_folded(model: FloatModel) -> None:
    """Refuse gains that are not 1.

    Raises:
        QuantError: FX604, with the name of the norm.
    """
    for name in model.tensors:
        if name.endswith("norm.weight") and not (model.tensors[name] == 1).all():
            raise QuantError(
                "FX604",
                f"the model cannot be rotated, the gains in {name} are not 1",
                hint="fold_norms(model) first; in a recipe, FoldNorms before Rotate",
            )


def _times(table: NDArray[np.float32], matrix: Real) -> NDArray[np.float32]:
    """table @ matrix in float64, with bounded memory."""
    result = np.empty_like(table)
    step = max(1, _ELEMENTS // table.shape[1])
    for begin in range(0, len(table), step):
        result[begin : begin + step] = table[begin : begin + step] @ matrix
    return result
