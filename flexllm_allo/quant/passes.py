"""What a recipe does to a model before and while its weights become integers: passes, in a fixed order.

Each pass may be left out, none may stand before an earlier one of `ORDER`: folding a norm undoes a smoothing
scale, a rotation needs folded norms, a Hessian is only right for the weights it was collected on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..errors import QuantError

Rotation = Literal["none", "hadamard", "learned"]


@dataclass(frozen=True)
class Smooth:
    """SmoothQuant: activations / s, weights * s per input channel, s = max|x|^alpha / max|w|^(1-alpha)."""

    alpha: float = 0.5


@dataclass(frozen=True)
class Awq:
    """AWQ: `Smooth` with s = mean|x|^alpha; of `grid` + 1 values of alpha the one of least output error."""

    grid: int = 20


@dataclass(frozen=True)
class FoldNorms:
    """Multiply the gain of every RMSNorm into the linear layers behind it; the gains become 1."""


@dataclass(frozen=True)
class Rotate:
    """Orthogonal rotations of the hidden space; the model computes the same function.

    Attributes:
        r1: of the residual stream, absorbed by the weights.
        r2: of every value head, absorbed by v_proj and o_proj.
        r3: online Hadamard of queries and keys after the rotary embedding.
        r4: online Hadamard in front of down_proj, its inverse absorbed by the weight.
        out: online Hadamard in front of o_proj over all heads (QuaRot), its inverse absorbed.
        steps: of Cayley SGD, for learned rotations.
        seed: of the random signs.
        folded: the weights hold the inverses of `r4` and `out` already, as in a checkpoint that SpinQuant
            exported; they are only computed online. For sizes that are powers of two, whose Hadamard
            matrix is everybody's.
    """

    r1: Rotation = "hadamard"
    r2: Rotation = "hadamard"
    r3: bool = False
    r4: bool = True
    out: bool = False
    steps: int = 100
    seed: int = 0
    folded: bool = False


@dataclass(frozen=True)
class Prune:
    """Keep 2 of 4 weights by |w| (``magnitude``) or |w| * ||x|| (``wanda``)."""

    criterion: Literal["magnitude", "wanda"] = "wanda"


@dataclass(frozen=True)
class Rtn:
    """Round every weight to nearest, with a searched range."""


@dataclass(frozen=True)
class Gptq:
    """Round column by column and correct the columns not yet rounded (with a mask: SparseGPT's update)."""

    block: int = 128
    damping: float = 0.01
    act_order: bool = False


@dataclass(frozen=True)
class LowRank:
    """Add the `rank` strongest singular directions of the rounding error back, in float."""

    rank: int = 8


@dataclass(frozen=True)
class Outliers:
    """LLM.int8: keep the `count` input channels of largest magnitude of every linear layer in float."""

    count: int = 4


@dataclass(frozen=True)
class StaticScales:
    """Fix the scales of queries, keys, values and attention probabilities per layer and head, from data."""


Pass = Smooth | Awq | FoldNorms | Rotate | Prune | Rtn | Gptq | Outliers | LowRank | StaticScales
ORDER: tuple[tuple[type[Pass], ...], ...] = (
    (Smooth, Awq),
    (FoldNorms,),
    (Rotate,),
    (Outliers,),
    (Prune,),
    (Rtn, Gptq),
    (LowRank,),
    (StaticScales,),
)
"""Alternatives stand together; a recipe takes at most one of each step."""
NEEDS_DATA = (Smooth, Awq, Prune, Gptq, Outliers, StaticScales)
"""Passes that look at activations; `Prune` by magnitude and hadamard rotations do not."""


def check_order(recipe: str, passes: Sequence[Pass]) -> None:
    """Refuse an order that would not mean what it says.

    Raises:
        QuantError: FX604, with the two passes that stand the wrong way round, or the one that is missing.
    """
    position = {kind: step for step, kinds in enumerate(ORDER) for kind in kinds}
    names = " -> ".join(" or ".join(kind.__name__ for kind in kinds) for kinds in ORDER)
    for before, after in pairwise(passes):
        if position[type(before)] >= position[type(after)]:
            relation = "must come before" if type(before) is not type(after) else "stands twice after"
            raise QuantError(
                "FX604",
                f"recipe {recipe!r}: {type(after).__name__} {relation} {type(before).__name__}",
                hint=f"the order is {names}; every step may be left out",
            )
    kinds = {type(p) for p in passes}
    if Rotate in kinds and FoldNorms not in kinds:
        raise QuantError(
            "FX604",
            f"recipe {recipe!r} rotates without FoldNorms",
            hint="a norm's gain does not commute with a rotation; put FoldNorms before Rotate",
        )


def needs_data(passes: Sequence[Pass]) -> bool:
    """Whether the passes look at activations, so that calibration text is needed."""
    return any(
        (isinstance(p, NEEDS_DATA) and p != Prune("magnitude"))
        or (isinstance(p, Rotate) and "learned" in (p.r1, p.r2))
        for p in passes
    )
