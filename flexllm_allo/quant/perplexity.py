"""Perplexity with a sliding window, reported with every setting that changes the number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and how it was measured; two are comparable when the settings are equal.

    Attributes:
        ppl: exp of the mean negative log-likelihood of the scored tokens (natural logarithm).
        scored_tokens: how many tokens were predicted.
        tokens: how many tokens the text has; without BOS the first one is never predicted.
        windows: how many times the model ran.
        context: positions per window, BOS included.
        stride: tokens by which the window moves.
        bos: the token id in front of every window, or None.
        tokens_sha256: digest of the token ids.
    """

    ppl: float
    scored_tokens: int
    tokens: int
    windows: int
    context: int
    stride: int
    bos: int | None
    tokens_sha256: str


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8, to name a data set in a report."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def perplexity(
    logits_fn: Callable[[list[int]], NDArray[np.floating]],
    tokens: Sequence[int],
    context: int,
    stride: int | None = None,
    bos: int | None = None,
) -> Perplexity:
    """Perplexity of a text; every token is scored once, in the first window that can predict it.

    Without BOS the first token of the text (and of every window, if they do not overlap) is not scored.

    Args:
        logits_fn: maps token ids to logits [T, V]; row t predicts token t + 1.
        tokens: the text, without BOS.
        context: positions per window, BOS included.
        stride: tokens by which the window moves; windows do not overlap by default.
        bos: a token id put in front of every window, so that its first token is predicted too.

    Raises:
        UsageError: FX703 for a window, stride or text with which nothing can be scored.
    """
    lead = [] if bos is None else [bos]
    room = context - len(lead)
    stride = room if stride is None else stride
    _check(context, room, stride, len(tokens), lead)
    total, scored, windows, done = 0.0, 0, 0, 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + room, len(tokens))
        first = max(done, begin + 1 - len(lead))
        if first < end:
            logits = logits_fn([*lead, *tokens[begin:end]])
            rows = np.asarray(logits[first - begin + len(lead) - 1 : end - begin + len(lead) - 1])
            total += _negative_log_likelihood(rows, np.asarray(tokens[first:end]))
            scored += end - first
            windows += 1
        done = end
        if end == len(tokens):
            break
    digest = hashlib.sha256(np.asarray(tokens, dtype="<i4").tobytes()).hexdigest()
    return Perplexity(math.exp(total / scored), scored, len(tokens), windows, context, stride, bos, digest)


def _check(context: int, room: int, stride: int, tokens: int, lead: list[int]) -> None:
    if room < 2 - len(lead):
        raise UsageError("FX703", f"a context of {context} has no token to predict", hint="2 is the least")
    if not 1 <= stride <= room:
        raise UsageError(
            "FX703",
            f"a stride of {stride} with windows of {room} tokens would skip tokens or never end",
            hint=f"choose 1 to {room}",
        )
    if tokens + len(lead) < 2:
        raise UsageError("FX703", f"a text of {tokens} tokens has no token to predict", hint="give more text")


def _negative_log_likelihood(logits: NDArray[np.floating], targets: NDArray[np.int_]) -> float:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    chosen = wide[np.arange(len(targets)), targets]
    return float((np.log(np.exp(wide).sum(axis=-1)) - chosen).sum())
