"""Rotations judged by the model as it will be: rotated, and rounded by the passes that follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration import Samples
from ..decoder import decode_layer, decoder_of, embedded, float_layer, online_of, rms_norm
from ..layers import round_tensors
from ..model import FloatModel
from ..names import tensor_name
from ..recipes import Recipe
from ..simulate import simulated_layer, simulated_site
from ..weight import FloatArray
from .rotation import Rotations, rotate

MARGIN = 2.0
"""Standard errors of its mean by which a gain must exceed 0 to be more than chance."""


@dataclass(frozen=True)
class Trial:
    """What rotations are judged on.

    Attributes:
        model: a Llama with folded norms.
        recipe: gives the formats, and the passes that round.
        samples: token ids [B, T] that those passes look at.
        held: token ids [H, T] that predictions are compared on: none that rotations were learned from.
    """

    model: FloatModel
    recipe: Recipe
    samples: Samples
    held: Samples

    def losses(self, rotations: Rotations) -> NDArray[np.float64]:
        """Mean cross-entropy (nats) with the float model's own predictions, per sequence [H].

        Rounded layers are forgotten when the sequences are through them: as `round_tensors`, this holds one
        at a time, beside the residual streams of both models.
        """
        view, eps = rotate(self.model, rotations), self.model.config.rms_norm_eps
        decoder = decoder_of(view, self.held.shape[1], online_of(self.recipe))
        part: dict[str, Any] = {}
        layer, x = 0, np.empty(0, np.float32)
        for name, value in round_tensors(view, self.recipe, self.samples):
            part[name] = value
            if name == "embed":
                x = part.pop("embed")[self.held]
            elif name == f"layers.{layer}.w_down":  # the last one of a layer
                x = decode_layer(decoder, simulated_layer(part, layer, self.recipe), x)
                part, layer = {}, layer + 1
        head = simulated_site(part, "head", None, self.recipe)
        wanted = self.model.tensors[tensor_name("w_head")].T
        pairs = zip(self._exact, rms_norm(x, part["final_norm"], eps), strict=True)
        return np.array([_cross_entropy(exact @ wanted, head(found)[0]) for exact, found in pairs])

    @cached_property
    def _exact(self) -> FloatArray:
        """What the head of the float model reads [H, T, E]."""
        decoder, x = decoder_of(self.model, self.held.shape[1]), embedded(self.model, self.held)
        for layer in range(self.model.config.num_hidden_layers):
            x = decode_layer(decoder, float_layer(self.model, layer), x)
        return rms_norm(x, self.model.tensors[tensor_name("final_norm")], self.model.config.rms_norm_eps)


def is_better(losses: NDArray[np.float64], start: NDArray[np.float64]) -> bool:
    """Whether losses [H] of the same sequences are below those at the start by more than chance."""
    gain = start - losses
    noise = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return bool(gain.mean() > MARGIN * noise)


def _cross_entropy(wanted: FloatArray, found: FloatArray) -> float:
    """Mean over rows of logits [T, V]."""
    p = np.exp(_log_softmax(wanted))
    return float(-(p * _log_softmax(found)).sum(axis=-1).mean())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
