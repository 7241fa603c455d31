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


@dataclass(frozen=True, eq=False)
class Losses:
    """Of a rounded model, mean nats per token of each sequence [B].

    Attributes:
        distance: cross-entropy with the float model's own predictions.
        text: cross-entropy with the text.
    """

    distance: NDArray[np.float64]
    text: NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """What rotations are judged on.

    Attributes:
        model: a Llama with folded norms.
        recipe: gives the formats, and the passes that round.
        samples: token ids [B, T]: what those passes look at, and predictions are compared on.
    """

    model: FloatModel
    recipe: Recipe
    samples: Samples

    def losses(self, rotations: Rotations) -> Losses:
        """What the model loses under rotations.

        Rounded layers are forgotten when the samples are through them: as `round_tensors`, this holds one at
        a time, beside the residual streams of both models.
        """
        view, eps = rotate(self.model, rotations), self.model.config.rms_norm_eps
        decoder = decoder_of(view, self.samples.shape[1], online_of(self.recipe))
        part: dict[str, Any] = {}
        layer, x = 0, np.empty(0, np.float32)
        for name, value in round_tensors(view, self.recipe, self.samples):
            part[name] = value
            if name == "embed":
                x = part.pop("embed")[self.samples]
            elif name == f"layers.{layer}.w_down":  # the last one of a layer
                x = decode_layer(decoder, simulated_layer(part, layer, self.recipe), x)
                part, layer = {}, layer + 1
        head = simulated_site(part, "head", None, self.recipe)
        wanted = self.model.tensors[tensor_name("w_head")].T
        distance, text = np.empty((2, len(x)))
        states = zip(self._exact, rms_norm(x, part["final_norm"], eps), self.samples, strict=True)
        for i, (exact, found, tokens) in enumerate(states):
            p, log_q = np.exp(_log_softmax(exact @ wanted)), _log_softmax(head(found)[0])
            distance[i] = -(p * log_q).sum(axis=-1).mean()
            text[i] = -log_q[np.arange(len(tokens) - 1), tokens[1:]].mean()
        return Losses(distance, text)

    @cached_property
    def _exact(self) -> FloatArray:
        """What the head of the float model reads [B, T, E]."""
        decoder, x = decoder_of(self.model, self.samples.shape[1]), embedded(self.model, self.samples)
        for layer in range(self.model.config.num_hidden_layers):
            x = decode_layer(decoder, float_layer(self.model, layer), x)
        return rms_norm(x, self.model.tensors[tensor_name("final_norm")], self.model.config.rms_norm_eps)


def is_better(losses: Losses, start: Losses, held: int) -> bool:
    """Whether rotations are better than those they began as.

    On the last `held` sequences, which nothing was learned from, the distance must be less by more than
    chance. The text must be predicted better too, on all sequences, since it was no target of the learning:
    a distance says nothing of errors that the float model's own predictions cannot see, and the text alone
    is too noisy to say by how much rotations differ.
    """
    gain = (start.distance - losses.distance)[-held:]
    noise = gain.std(ddof=1) / np.sqrt(held) if held > 1 else 0.0
    return bool(gain.mean() > MARGIN * noise and losses.text.mean() < start.text.mean())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
