"""A model that answers on a card: the linked design of a project, through the Python binding of XRT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models.hf import Checkpoint
from ..models.sampling import Sampling
from .card import CardDesign, pyxrt
from .conversation import GenerationResult, OnToken, TextSession, Turns, check_prompt


class XrtSession(TextSession):
    """Runs ``generate`` of a project on a card.

    The weights go to the card once, a file per memory channel; arguments are views into these. A design
    whose stages take turns is for `XrtReconfiguredSession`.

    Args:
        project: a folder that `build_project` wrote for a checkpoint.
        xclbin: the linked design; by default ``<top>.hw.xclbin`` in the project.
        device: index of the card.

    Raises:
        ToolError: FX501, the module pyxrt is not installed, or the design is not linked yet.
        UsageError: FX703, there is no project, it has no weights, or is one stage of two that take turns.
    """

    def __init__(self, project: Path | str, xclbin: Path | str | None = None, device: int = 0) -> None:
        self._design = CardDesign(Path(project), Path(xclbin) if xclbin else None)
        top = self._design.manifest["top"]
        if top != "generate":
            hint = "name the folder above, which has both"
            raise UsageError("FX703", f"{project} is the {top} of two designs that take turns", hint=hint)
        self._checkpoint = self._design.checkpoint()
        xrt = pyxrt()
        self._design.check_linked()
        self._design.load(xrt, xrt.device(device))
        self._design.write("stop", self._design.stored("stop"))

    @property
    def checkpoint(self) -> Checkpoint:
        return self._checkpoint

    @property
    def max_seq_len(self) -> int:
        return self._design.positions

    def conversation(self) -> Turns:
        """An empty conversation. Every turn runs all that was said: a run begins with an empty cache."""
        return _WholeRuns(self)

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """Continue a prompt until a stop token, `max_new_tokens` or the end of the context.

        The card does all of it in one run, so `on_token` is called for all tokens at its end, and the time
        of the prefill is in `tokens_per_second`.

        Raises:
            UsageError: FX701, the prompt is empty or longer than the context; FX703, a token outside the
                vocabulary, or one of `sampling` out of range.
        """
        check_prompt(prompt_tokens, self.max_seq_len, self.config.vocab_size)
        how = Sampling(**sampling).arguments()
        self._design.write("prompt", np.array(prompt_tokens, np.int32))
        start = time.perf_counter()
        most = min(max_new_tokens, self.max_seq_len)
        made = self._design.run(n_prompt=len(prompt_tokens), max_new_tokens=most, **how)
        seconds = time.perf_counter() - start
        tokens = [int(token) for token in self._design.read("tokens")[:made]]
        for token in tokens:
            if on_token is not None:
                on_token(token)
        return GenerationResult(tokens, len(tokens) / seconds if seconds else 0.0)

    def close(self) -> None:
        """Let go of the card's memory."""
        self._design.unload()


class _WholeRuns(Turns):
    def __init__(self, session: XrtSession) -> None:
        super().__init__()
        self._session = session

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: OnToken | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        result = self._session.generate(prompt_tokens, max_new_tokens, on_token, **sampling)
        self.tokens, self._pending = [*prompt_tokens, *result.tokens[:-1]], result.tokens[-1:]
        return result


__all__ = ["XrtSession"]
