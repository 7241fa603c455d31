"""The perplexity of a session on a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..quant.perplexity import perplexity, text_sha256

CONTEXT = 256
"""Positions per window, BOS included, unless the model's own context is shorter."""


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


def text_perplexity(
    session: LogitsSource,
    text: str,
    context: int = CONTEXT,
    on_window: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every token of `text` once, in windows that start with BOS and do not overlap.

    Args:
        session: gives logits [T, V] for T tokens.
        text: what to score.
        context: positions per window, capped by the model's context.
        on_window: called with (windows done, windows in all).

    Returns:
        ``ppl``, ``tokens`` (how many were scored) and ``settings``, with which two results are comparable.

    Raises:
        UsageError: FX703 when the text has no token to predict.
    """
    bos = session.config.bos_token_id
    tokens = list(session.encode(text))
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    context = min(context, session.config.max_position_embeddings)
    no_bos = bos is None  # then a window does not score its first token
    windows, done = -(-(len(tokens) - no_bos) // (context - 1 + no_bos)), 0

    def score(window: list[int]) -> NDArray[np.float32]:
        nonlocal done
        logits = session.logits(window, "prefill")
        done += 1
        if on_window is not None:
            on_window(done, windows)
        return logits

    result = asdict(perplexity(score, tokens, context, bos=bos))
    head = {"ppl": result.pop("ppl"), "tokens": result.pop("scored_tokens")}
    del result["tokens"]
    return {**head, "settings": {**result, "text_sha256": text_sha256(text), "stage": "prefill"}}
