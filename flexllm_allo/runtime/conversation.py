"""A KV cache that is kept: only what is new in a prompt is run through the layers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import UsageError
from ..models import Checkpoint
from ..models.sampling import Sampling

OnToken = Callable[[int], None]


@dataclass(frozen=True)
class GenerationResult:
    """New tokens (a stop token included) and how fast they came, prefill not counted.

    Attributes:
        reused: leading tokens of the prompt whose keys and values were in the cache already.
    """

    tokens: list[int]
    tokens_per_second: float
    reused: int = 0


class Stages(Protocol):
    """Both stages of a design, and the KV cache of a conversation.

    Attributes:
        candidates: likeliest tokens that the design samples among.
    """

    @property
    def candidates(self) -> int: ...

    def check(self, prompt: Sequence[int], reused: int) -> None:
        """Refuse a prompt that cannot be run, before anything is changed.

        Raises:
            UsageError: FX701, FX703.
        """
        ...

    def prefill(self, prompt: Sequence[int], reused: int, how: Mapping[str, Any]) -> int:
        """Run the prompt but for its first `reused` tokens, which are in the cache; the token after it."""
        ...

    def decode(self, token: int, pos: int, how: Mapping[str, Any]) -> int:
        """The token after `token`, which stands at `pos`."""
        ...


class Turns(ABC):
    """What was said so far, and how it goes on.

    Attributes:
        tokens: prompt and answers, but for a last token that was not run through the layers yet.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._pending: list[int] = []  # answered, but not run through the layers yet

    @abstractmethod
    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """Continue a whole prompt, earlier turns included; see `TextSession.generate`.

        Raises:
            UsageError: FX701, FX703, as `TextSession.generate`.
        """

    def send(
        self,
        new_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """The next turn: continue all that was said so far and these tokens behind it.

        Raises:
            UsageError: FX701, FX703, as `TextSession.generate`.
        """
        return self.generate([*self.said, *new_tokens], max_new_tokens, on_token, **sampling)

    @property
    def said(self) -> list[int]:
        """All tokens so far; the last one of an answer is not in the cache yet."""
        return [*self.tokens, *self._pending]


class Conversation(Turns):
    """Turns that share a beginning: a chat, or prompts with the same instructions in front.

    The tokens are the same as without a cache, bit for bit: prefill and decode compute the same keys and
    values for a position, whatever the block it was in.

    Args:
        stages: what runs it.
        stops: tokens that end a text.
        positions: of the context.

    Attributes:
        tokens: those whose keys and values are in the cache, prompt and answers.
    """

    def __init__(self, stages: Stages, stops: Sequence[int], positions: int) -> None:
        super().__init__()
        self._stages, self._stops, self._positions = stages, set(stops), positions

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        how = Sampling(**sampling).limited(self._stages.candidates).arguments()
        token, reused = self._prefill(prompt_tokens, how)
        made: list[int] = []
        start = time.perf_counter()
        while len(made) < max_new_tokens:
            made.append(token)
            if on_token is not None:
                on_token(token)
            pos = len(self.tokens)
            if token in self._stops or pos >= self._positions or len(made) == max_new_tokens:
                break
            following = self._stages.decode(token, pos, how)
            self.tokens.append(token)
            token = following
        self._pending = made[-1:]
        seconds, steps = time.perf_counter() - start, len(made) - 1
        return GenerationResult(made, steps / seconds if steps and seconds else 0.0, reused)

    def _prefill(self, prompt: Sequence[int], how: Mapping[str, Any]) -> tuple[int, int]:
        """Run what the cache lacks of a prompt; the first new token, and how many were there."""
        pairs = zip(self.tokens, prompt[:-1], strict=False)  # the last one's output is wanted, so it is run
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.tokens), len(prompt) - 1))
        self._stages.check(prompt, same)
        self.tokens, self._pending = list(prompt[:same]), []
        token = self._stages.prefill(prompt, same, how)
        self.tokens = list(prompt)
        return token, same


class TextSession(ABC):
    """Text to tokens, tokens to text, and prompts that are continued."""

    @property
    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Configuration and tokenizer."""

    @abstractmethod
    def conversation(self) -> Turns:
        """An empty conversation, with a KV cache of its own."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the weights and the compiled code."""

    @property
    def config(self) -> Any:
        return self.checkpoint.config

    @property
    def stop_token(self) -> int | None:
        """The first token that ends a text."""
        return next(iter(self.config.eos_token_ids), None)

    def encode(self, text: str, special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens (BOS in front) that the tokenizer adds, if wanted."""
        return self.checkpoint.encode(text, special_tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.checkpoint.decode(tokens)

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """Continue a prompt until a stop token, `max_new_tokens` or the end of the context.

        Args:
            sampling: ``temperature``, ``top_k``, ``top_p``, ``seed`` as in `models.sampling.Sampling`;
                greedy by default.

        Raises:
            UsageError: FX701, the prompt is empty or longer than the context, or than the prefill takes;
                FX703, one of `sampling` out of range.
        """
        return self.conversation().generate(prompt_tokens, max_new_tokens, on_token, **sampling)


def check_prompt(tokens: Sequence[int], positions: int, vocabulary: int) -> None:
    """Refuse what is no prompt for a model.

    Raises:
        UsageError: FX701, it is empty or longer than the context; FX703, a token outside the vocabulary.
    """
    if not 1 <= len(tokens) <= positions:
        what = "is empty" if not tokens else f"has {len(tokens)} tokens"
        raise UsageError("FX701", f"the prompt {what}", hint=f"1 to {positions} tokens fit this model")
    bad = next((t for t in tokens if not 0 <= t < vocabulary), None)
    if bad is not None:
        hint = f"token ids are 0 to {vocabulary - 1}"
        raise UsageError("FX703", f"there is no token {bad}", hint=hint)


__all__ = ["Conversation", "GenerationResult", "Stages", "TextSession", "Turns", "check_prompt"]
