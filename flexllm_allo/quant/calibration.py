"""Calibration: which tokens are looked at, and what is remembered of the activations they cause."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantError
from .model import Shape
from .weight import FloatArray

Samples = NDArray[np.int32]


def calibration_samples(
    tokens: Sequence[int], bos: int | None, samples: int, length: int, seed: int = 0
) -> Samples:
    """Windows of a text, chosen at random, none overlapping another.

    Args:
        tokens: the text, without BOS.
        bos: put in front of every window, or None.
        samples: how many windows.
        length: tokens per window, BOS included.
        seed: of the choice; the same seed gives the same windows.

    Returns:
        int32 [samples, length].

    Raises:
        QuantError: FX607 when the text is too short, or nothing is asked for.
    """
    room = length - (bos is not None)
    if samples < 1 or room < 1:
        raise QuantError(
            "FX607",
            f"{samples} calibration samples of {length} tokens hold no text",
            hint="at least one sample of two tokens",
        )
    if len(tokens) < samples * room:
        fitting = len(tokens) // room
        raise QuantError(
            "FX607",
            f"the calibration text has {len(tokens)} tokens; {samples} samples of {length} need "
            f"{samples * room}",
            hint=f"give more text, or ask for {fitting} samples" if fitting else "give more text",
        )
    rng = np.random.default_rng(seed)
    # The tokens left over lie at random between the windows, so that any window can start anywhere.
    slack = np.sort(rng.integers(0, len(tokens) - samples * room + 1, samples))
    starts = rng.permutation(slack + room * np.arange(samples))
    text = np.asarray(tokens, np.int32)
    windows = np.stack([text[start : start + room] for start in starts])
    return windows if bos is None else np.insert(windows, 0, bos, axis=1)


def check_samples(samples: NDArray[np.integer], config: Shape) -> Samples:
    """The samples as int32 [B, T], if the model can take them.

    Raises:
        QuantError: FX607 for an empty batch, samples longer than the model's context, or unknown tokens.
    """
    if samples.ndim != 2 or not samples.size:
        raise QuantError(
            "FX607",
            f"calibration samples have the shape {list(samples.shape)}",
            hint="give token ids [samples, length], as calibration_samples makes them",
        )
    if samples.shape[1] > config.max_position_embeddings:
        raise QuantError(
            "FX607",
            f"calibration samples of {samples.shape[1]} tokens exceed the model's context of "
            f"{config.max_position_embeddings}",
            hint="make them shorter",
        )
    if samples.min() < 0 or samples.max() >= config.vocab_size:
        bad = samples[(samples < 0) | (samples >= config.vocab_size)][0]
        raise QuantError(
            "FX607",
            f"there is no token {bad} in a vocabulary of {config.vocab_size}",
            hint="the text was split by the tokenizer of another model",
        )
    return samples.astype(np.int32)


class SiteStatistics:
    """What is kept of the inputs of a site, however many rows pass: K numbers each, and a K x K matrix.

    Attributes:
        rows: how many inputs were seen.
        amax: float32 [K], largest magnitudes.
        absolute: float64 [K], sums of |x|.
        square: float64 [K], sums of x^2.
        hessian: float64 [K, K], sum of x x^T, or None when not asked for.
    """

    def __init__(self, width: int, hessian: bool) -> None:
        self.rows = 0
        self.amax: FloatArray = np.zeros(width, np.float32)
        self.absolute = np.zeros(width)
        self.square = np.zeros(width)
        self.hessian = np.zeros((width, width)) if hessian else None

    def add(self, x: FloatArray) -> None:
        """Take in inputs [..., K]: one product in float32, sums over samples in float64."""
        x = x.reshape(-1, x.shape[-1])
        size = np.abs(x)
        self.rows += len(x)
        np.maximum(self.amax, size.max(axis=0), out=self.amax)
        self.absolute += size.sum(axis=0, dtype=np.float64)
        if self.hessian is None:
            self.square += np.einsum("tk,tk->k", x, x, dtype=np.float64)
        else:
            self.hessian += x.T @ x
            self.square = np.diag(self.hessian)
