"""Where the decoder layers of model families differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """What a decoder layer is made of; the defaults are Llama's.

    Attributes:
        norm: ``rms``, or ``layer`` (mean subtracted, a bias behind the gain).
        mlp: ``swiglu``, down(silu(gate(x)) * up(x)), or ``gelu``, down(gelu(up(x))) with the tanh form of
            GELU and no gate.
        positions: ``rotary`` embedding of queries and keys, or a ``learned`` vector added to each token's.
        biases: kinds of linear layers (``wq``, ...) that have a bias.
        qk_norm: RMSNorm of every query and key head in front of the rotary embedding.
    """

    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    positions: Literal["rotary", "learned"] = "rotary"
    biases: tuple[str, ...] = ()
    qk_norm: bool = False
