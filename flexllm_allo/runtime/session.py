"""A model that answers: the hybrid top on the CPU, with its KV cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.llvm import LLVMModule
from ..errors import UsageError
from ..hybrid import HybridTop, Words, hybrid
from ..ir import nodes as ir
from ..ir.layout import laid_out, unpack_array
from ..kernels.linear import ChannelWeight, Linear
from ..kernels.sampling import CANDIDATES
from ..models import Checkpoint, Model, load
from ..models.sampling import Sampling
from ..quant.model import weight_storage
from ..quant.recipe_file import recipe_to_dict
from ..quant.recipes import SITES
from ..schedules import cpu
from .conversation import Conversation, GenerationResult, TextSession, check_prompt

CPU_BLOCK = 32
"""Tokens in a prefill block on the CPU."""


def half_bytes(model: Model) -> dict[str, Words]:
    """Memory words of the four-bit weights with one scale per row, whose products the CPU does in tiles."""
    made: dict[str, Words] = {}
    for kind in (kind for kinds in SITES.values() for kind in kinds):
        weight: Linear = getattr(model.operators, kind)
        if weight.Weight is ChannelWeight and weight.dtype.is_integer and weight.dtype.bits == 4:
            made[f"{kind}_codes"] = cpu.HALF_BYTES
    return made


class Session(TextSession):
    """Runs a hybrid top's own functions through LLVM.

    Args:
        top: the design; by default the model with the `cpu` schedules.
    """

    def __init__(self, model: Model, top: HybridTop | None = None) -> None:
        self.model = model
        self.top = top or hybrid(model, cpu.blocked(CPU_BLOCK), cpu.blocked(1), half_bytes(model))
        self.module = LLVMModule(self.top.program)
        everything = self.top.program.function(self.top.program.top).inputs
        self._held = {p.name: p for p in everything}
        self._data = model.laid_out(everything)
        self._cache = self.empty_cache()
        self._laid_out: dict[tuple[str, int, int], Any] = {}

    @classmethod
    def open(cls, folder: Path | str, recipe: str | None = None, max_seq_len: int | None = None) -> Session:
        """Load a Hugging Face folder and compile it for the CPU."""
        return cls(load(folder, recipe, max_seq_len))

    @property
    def checkpoint(self) -> Checkpoint:
        return self.model.checkpoint

    def describe(self) -> dict[str, Any]:
        """What the numbers of this session depend on: recipe in full, arithmetic, calibration, storage."""
        recipe, storage = self.model.weights.recipe, weight_storage(self.model.weights)
        return {
            "recipe": recipe_to_dict(recipe),
            "dtype": "float32 between integer kernels",
            "calibration": self.model.calibration,
            "bits_per_weight": storage.bits_per_weight,
            "bytes_per_token": storage.bytes_per_token,
        }

    def conversation(self) -> Conversation:
        """An empty conversation, with a KV cache of its own."""
        self._prepare("prefill", "decode")
        return Conversation(_OneDesign(self), self.config.eos_token_ids, self.model.max_seq_len)

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        on_token: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> list[GenerationResult]:
        """Continue several prompts, each as `generate` does; what they have in common in front is run once.

        They are run one after the other, those with a common beginning in a row: on a CPU every prompt
        alone keeps all cores busy.

        Args:
            on_token: called with the number of the prompt and the token.
            sampling: as in `generate`, for all prompts.

        Raises:
            UsageError: FX701, FX703, as `generate`, before anything is run.
        """
        Sampling(**sampling)
        for prompt in prompts:
            self.padded(prompt)
        conversation, results = self.conversation(), dict[int, GenerationResult]()
        for number in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
            tell = None if on_token is None else partial(on_token, number)
            results[number] = conversation.generate(prompts[number], max_new_tokens, tell, **sampling)
        return [results[number] for number in range(len(prompts))]

    def logits(self, tokens: Sequence[int], stage: str = "prefill") -> NDArray[np.float32]:
        """Logits [T, vocab] of T tokens: in blocks (``prefill``) or token by token (``decode``).

        Raises:
            UsageError: FX701, no tokens or more than the context; FX703, a token outside the
                vocabulary or an unknown stage.
        """
        if stage not in ("prefill", "decode"):
            raise UsageError("FX703", f'there is no stage "{stage}"', hint="prefill or decode")
        self.padded(tokens)
        self._prepare(stage)
        scorer = self.top.scorer(stage)
        block = self.top.prefill.token_parallel if stage == "prefill" else 1
        rows: list[NDArray[np.float32]] = []
        for pos in range(0, len(tokens), block):
            part = tokens[pos : pos + block]
            padded = np.zeros(self.top.width(stage), np.int32)
            padded[: len(part)] = part
            out = self.call(scorer, self._cache, tokens=padded, n=len(part), pos=pos)
            rows.append(out[: len(part)])
        return np.concatenate(rows)

    def empty_cache(self) -> dict[str, Any]:
        """A KV cache as the design's memory holds it."""
        return {name: laid_out(self._held[name], array) for name, array in self.model.cache().items()}

    def close(self) -> None:
        """Let go of the weights and the compiled code."""
        self._data = {}
        self._cache = {}
        self._laid_out = {}

    def padded(self, tokens: Sequence[int]) -> NDArray[np.int32]:
        """A prompt as the design takes it, int32 [max_seq_len].

        Raises:
            UsageError: FX701, it is empty or longer than the context; FX703, a token outside the vocabulary.
        """
        size = self.model.max_seq_len
        check_prompt(tokens, size, self.config.vocab_size)
        padded = np.zeros(size, np.int32)
        padded[: len(tokens)] = tokens
        return padded

    def call(self, function: str, cache: Mapping[str, Any], **given: Any) -> Any:
        """Call a function of the design with these arguments, the constants and a KV cache."""
        params = self.top.program.function(function).inputs
        known = {**cache, **given}
        return self.module.call(
            function, *(known[p.name] if p.name in known else self._memory(p) for p in params)
        )

    def instance(self, origin: str, tokens: int | None = None) -> str:
        """The name of the function that computes a part of the graph, for blocks of so many tokens."""
        functions = self.top.program.functions
        return next(f.name for f in functions if f.origin == origin and dict(f.bindings).get("T") == tokens)

    def _prepare(self, *stages: str) -> None:
        """Compile what calls the layers of these stages, all at once: the layers take most of the time."""
        if self.top.mode == "shared":
            stages = ("prefill", "decode")
        names = [*stages, *map(self.top.scorer, stages)]
        if "prefill" in stages:  # the next turn of a conversation
            names += [self.instance("forward", self.top.prefill.token_parallel), self.instance("head", 1)]
        self.module.prepare(*dict.fromkeys(names))

    def _memory(self, param: ir.Buffer) -> Any:
        """A constant as this parameter's memory holds it, laid out once."""
        key = (param.name, param.words, param.word_axis)
        if key not in self._laid_out:
            held, array = self._held[param.name], self._data[param.name]
            if held.words > 1 and (held.words, held.word_axis) != key[1:]:  # a scorer's own words
                array = unpack_array(held, array)
            self._laid_out[key] = laid_out(param, array)
        return self._laid_out[key]


class _OneDesign:
    """`Stages` of one design on the CPU, and its KV cache."""

    candidates = CANDIDATES

    def __init__(self, session: Session) -> None:
        self._session, self._cache = session, session.empty_cache()

    def check(self, prompt: Sequence[int], reused: int) -> None:
        del reused
        self._session.padded(prompt)

    def prefill(self, prompt: Sequence[int], reused: int, how: Mapping[str, Any]) -> int:
        padded, n = self._session.padded(prompt), len(prompt)
        if reused:
            return self._continue(padded[reused:n], reused, how)
        return int(self._session.call("prefill", self._cache, prompt=padded, n_prompt=n, **how))

    def decode(self, token: int, pos: int, how: Mapping[str, Any]) -> int:
        return int(self._session.call("decode", self._cache, token=token, pos=pos, **how))

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
