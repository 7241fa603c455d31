"""A KV cache that is kept: only what is new in a prompt is run through the layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models.sampling import Sampling

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class GenerationResult:
    """New tokens (a stop token included) and how fast they came, prefill not counted.

    Attributes:
        reused: leading tokens of the prompt whose keys and values were in the cache already.
    """

    tokens: list[int]
    tokens_per_second: float
    reused: int = 0


class Conversation:
    """Turns that share a beginning: a chat, or prompts with the same instructions in front.

    The tokens are the same as without a cache, bit for bit: prefill and decode compute the same keys and
    values for a position, whatever the block it was in.

    Attributes:
        tokens: those whose keys and values are in the cache, prompt and answers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cache = session.empty_cache()
        self.tokens: list[int] = []
        self._pending: list[int] = []  # answered, but not run through the layers yet

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None] | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """Continue a whole prompt, earlier turns included; see `Session.generate`.

        Raises:
            UsageError: FX701, FX703, as `Session.generate`.
        """
        session, stops = self._session, set(self._session.config.eos_token_ids)
        how = Sampling(**sampling).arguments()
        token, reused = self._prefill(prompt_tokens, how)
        made: list[int] = []
        start = time.perf_counter()
        while len(made) < max_new_tokens:
            made.append(token)
            if on_token is not None:
                on_token(token)
            pos = len(self.tokens)
            if token in stops or pos >= session.model.max_seq_len or len(made) == max_new_tokens:
                break
            following = int(session.call("decode", self._cache, token=token, pos=pos, **how))
            self.tokens.append(token)
            token = following
        self._pending = made[-1:]
        seconds, steps = time.perf_counter() - start, len(made) - 1
        return GenerationResult(made, steps / seconds if steps and seconds else 0.0, reused)

    def send(
        self,
        new_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None] | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """The next turn: continue all that was said so far and these tokens behind it.

        Raises:
            UsageError: FX701, FX703, as `Session.generate`.
        """
        return self.generate([*self.said, *new_tokens], max_new_tokens, on_token, **sampling)

    @property
    def said(self) -> list[int]:
        """All tokens so far; the last one of an answer is not in the cache yet."""
        return [*self.tokens, *self._pending]

    def _prefill(self, prompt: Sequence[int], how: Mapping[str, Any]) -> tuple[int, int]:
        """Run what the cache lacks of a prompt; the first new token, and how many were there."""
        session = self._session
        padded = session.padded(prompt)
        pairs = zip(self.tokens, prompt[:-1], strict=False)  # the last one's output is wanted, so it is run
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.tokens), len(prompt) - 1))
        self.tokens, self._pending = list(prompt[:same]), []
        if not same:
            token = int(session.call("prefill", self._cache, prompt=padded, n_prompt=len(prompt), **how))
        else:
            token = self._continue(padded[same : len(prompt)], same, how)
        self.tokens = list(prompt)
        return token, same

    def _continue(self, tokens: NDArray[np.int32], pos: int, how: Mapping[str, Any]) -> int:
        session, block = self._session, self._session.top.prefill.token_parallel
        forward, x = session.instance("forward", block), np.zeros(0, np.float32)
        for first in range(0, len(tokens), block):
            part = tokens[first : first + block]
            given = np.zeros(block, np.int32)
            given[: len(part)] = part
            x = session.call(forward, self._cache, tokens=given, n=len(part), pos=pos + first)[len(part) - 1]
        logits = session.call(session.instance("head", 1), self._cache, x=x[None])
        place = pos + len(tokens)
        return int(
            session.call(session.instance("sample"), self._cache, logits=logits, position=place, **how)
        )


__all__ = ["Conversation", "GenerationResult"]
