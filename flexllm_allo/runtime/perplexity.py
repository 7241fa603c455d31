"""The perplexity of a session on a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    def describe(self) -> dict[str, Any]: ...


def text_perplexity(
    session: LogitsSource,
    text: str,
    context: int | None = None,
    stride: int | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every token of `text` once, in windows that start with BOS.

    Args:
        session: gives logits [T, V] for T tokens.
        text: what to score.
        context: positions per window, `CONTEXT` by default, capped by the model's context.
        stride: tokens by which the window moves; by default windows do not overlap.
        on_window: called with (windows done, windows in all).

    Returns:
        ``ppl``, ``tokens`` (how many were scored), ``recipe`` (its name) and ``settings``, with which two
        results are comparable.

    Raises:
        UsageError: FX703 when the text has no token to predict.
    """
    bos = session.config.bos_token_id
    tokens = list(session.encode(text))
    if bos is not None and tokens[:1] == [bos]:
        tokens = tokens[1:]
    context = min(context or CONTEXT, session.config.max_position_embeddings)
    no_bos = bos is None  # then a window does not score its first token
    room = context - 1 + no_bos
    step = stride or room
    beyond = len(tokens) - room - (no_bos and step == room)
    windows, done = 1 + max(0, -(-beyond // step)), 0

    def score(window: list[int]) -> NDArray[np.float32]:
        nonlocal done
        logits = session.logits(window, "prefill")
        done += 1
        if on_window is not None:
            on_window(done, windows)
        return logits

    result = asdict(perplexity(score, tokens, context, stride, bos))
    about = session.describe()
    head = {"ppl": result.pop("ppl"), "tokens": result.pop("scored_tokens")}
    head["recipe"] = about["recipe"]["name"]
    del result["tokens"]
    settings = {**result, "text_sha256": text_sha256(text), "stage": "prefill", **about}
    return {**head, "settings": settings}


def comparison(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Results of `text_perplexity` as rows of a table, compared with the first of them."""
    base = results[0]["ppl"]
    return [
        {
            "recipe": str(result["recipe"]),
            "perplexity": f"{result['ppl']:.4f}",
            "change": f"{100 * (result['ppl'] / base - 1):+.2f} %",
            "tokens": f"{result['tokens']:,}",
            "bits/weight": f"{result['settings']['bits_per_weight']:.3f}",
            "MB/token": f"{result['settings']['bytes_per_token'] / 1e6:.3f}",
        }
        for result in results
    ]
