"""Perplexity of a session on a text, with the settings that make the number repeatable."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

WINDOW = 256
"""Tokens per window, BOS included, unless the model's context is shorter."""


class _Config(Protocol):
    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def max_position_embeddings(self) -> int: ...


class LogitsSource(Protocol):
    """What perplexity needs of a session."""

    @property
    def config(self) -> _Config: ...
    def encode(self, text: str) -> Sequence[int]: ...
    def logits(self, tokens: Sequence[int], stage: str) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Perplexity:
    """``exp(-mean log p(token))`` over `tokens` tokens, and how they were scored."""

    ppl: float
    tokens: int
    settings: dict[str, Any]


def perplexity(
    session: LogitsSource,
    text: str,
    *,
    window: int = WINDOW,
    on_window: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """The perplexity of `text`: every token once, in windows that do not overlap.

    Each window is a BOS followed by ``window - 1`` tokens of the text, scored in one prefill. A
    model without a BOS starts each window with a token of the text, which is not scored itself.

    Args:
        session: gives float32 logits ``[T, vocab]`` for T tokens.
        text: what to score.
        window: tokens per window, capped by the model's context.
        on_window: called with (windows done, windows in all).

    Raises:
        UsageError: FX701 when the text has nothing to score.
    """
    bos = session.config.bos_token_id
    tokens = list(session.encode(text))
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    window = min(window, session.config.max_position_embeddings)
    stride = window - 1 if bos is not None else window
    lead = [bos] if bos is not None else []
    starts = range(0, len(tokens), stride)
    total, scored = 0.0, 0
    for done, start in enumerate(starts, 1):
        chunk = lead + tokens[start : start + stride]
        if len(chunk) > 1:
            logits = session.logits(chunk[:-1], "prefill")
            total += _negative_log_likelihood(logits, np.array(chunk[1:]))
            scored += len(chunk) - 1
        if on_window is not None:
            on_window(done, len(starts))
    if not scored:
        raise UsageError("FX701", "the text has no token to score", hint="give a text of several words")
    digest = hashlib.sha256(text.encode()).hexdigest()
    settings = {"window": window, "stride": stride, "bos": bos, "text_sha256": digest, "stage": "prefill"}
    return Perplexity(math.exp(total / scored), scored, settings)


def _negative_log_likelihood(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Sum over the rows of ``log(sum(exp(logits))) - logits[target]``, in float64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return float((np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(targets)), targets]).sum())
