"""A model that answers by designs which take turns on the card, on the CPU: exactly what `build` writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.llvm import LLVMModule
from ..errors import UsageError
from ..ir.layout import laid_out, unpack_array
from ..models import Checkpoint, Model, load
from ..models.cache_layout import handed_over
from .bitstream import Bitstream
from .build import hardware_top
from .conversation import Conversation, TextSession, check_prompt
from .preset import DEFAULT, Preset, get_preset, preset_bitstreams, preset_top
from .session import Session

Array = NDArray[Any]


class Loaded:
    """A bitstream with its constants in memory, as it is on the card: here compiled for the CPU."""

    def __init__(self, made: Bitstream) -> None:
        self.made = made
        self.module = LLVMModule(made.top)
        self._inputs = made.top.function(made.top.top).inputs
        constants = made.constants()
        self._constants = {
            b.name: laid_out(b, constants[b.name]) for b in self._inputs if b.name in constants
        }

    @property
    def positions(self) -> int:
        """Those of its KV cache; of a prefill, tokens of the longest prompt."""
        return self.made.model.max_seq_len

    def memories(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """What it writes, as its memory holds it: from arrays of elements, zeros where there is none."""
        run = self.made.run
        return {
            b.name: laid_out(b, arrays.get(b.name, np.zeros_like(run[b.name])))
            for b in self._inputs
            if b.name in self.made.written
        }

    def cache(self, memories: Mapping[str, Any]) -> dict[str, Array]:
        """Elements of the KV cache that is in its memory."""
        return {
            b.name: unpack_array(b, memories[b.name]) if b.words > 1 else memories[b.name]
            for b in self._inputs
            if b.name in memories and b.name != "stream"
        }

    def close(self) -> None:
        """Let go of the constants."""
        self._constants = {}

    def __call__(self, memories: Mapping[str, Any], **given: Any) -> Any:
        """Run it once."""
        known = {**self._constants, **memories, **given}
        return self.module(*(known[b.name] for b in self._inputs))


class ReconfiguredSession(TextSession):
    """Runs both designs of a preset in turn, with the KV cache laid out anew in between.

    A prompt runs through the prefill design, which begins with an empty cache. Tokens behind what is in the
    cache already go through the decode design one by one: that needs no other bitstream on the card, and the
    keys and values are those of the prefill design, but for the order in which an engine adds the squares of
    a norm. An engine samples among few candidates: both designs get its number.

    Args:
        preset: a design whose mode is "reconfigured".
        model: what it computes.

    Raises:
        UsageError: FX703, the design has one bitstream, or its kernels do not compute this model.
        ModelError: FX602, the model is an architecture without weights.
    """

    def __init__(self, preset: Preset, model: Model) -> None:
        if preset.mode != "reconfigured":
            raise UsageError(
                "FX703", f"the stages of {preset.name} do not take turns", hint='mode = "reconfigured"'
            )
        model.check_weights()
        self.preset, self.model = preset, model
        made = preset_bitstreams(preset, model)
        self.prefill_design, self.decode_design = (Loaded(made[name]) for name in ("prefill", "decode"))

    @property
    def checkpoint(self) -> Checkpoint:
        return self.model.checkpoint

    def conversation(self) -> Conversation:
        for design in (self.prefill_design, self.decode_design):
            design.module.prepare(design.made.top.top)
        stages = _OnCpu(self.prefill_design, self.decode_design)
        return Conversation(stages, self.config.eos_token_ids, self.model.max_seq_len)

    def close(self) -> None:
        for design in (self.prefill_design, self.decode_design):
            design.close()


class TwoDesigns(ABC):
    """`Stages` of two designs.

    Args:
        prompt: tokens of the longest prompt of the first design.
        positions: of the context.
        vocabulary: its size.
        candidates: likeliest tokens that both sample among.
        makes_token: whether the first one makes the first new token.
    """

    def __init__(
        self, *, prompt: int, positions: int, vocabulary: int, candidates: int, makes_token: bool
    ) -> None:
        self.candidates = candidates
        self._prompt, self._positions, self._vocabulary = prompt, positions, vocabulary
        self._makes_token = makes_token

    @abstractmethod
    def whole(self, prompt: Sequence[int], how: Mapping[str, Any]) -> int | None:
        """Run a prompt through the first design and hand its cache over; the new token, if it makes one."""

    @abstractmethod
    def decode(self, token: int, pos: int, how: Mapping[str, Any]) -> int: ...

    def check(self, prompt: Sequence[int], reused: int) -> None:
        check_prompt(prompt, self._positions, self._vocabulary)
        if not reused and len(prompt) > self._prompt:
            raise UsageError(
                "FX701",
                f"the prompt has {len(prompt)} tokens, the prefill of this design holds {self._prompt}",
                hint="a shorter prompt, or a design with a larger max_prompt",
            )

    def prefill(self, prompt: Sequence[int], reused: int, how: Mapping[str, Any]) -> int:
        token = None
        if not reused:
            token = self.whole(prompt, how)
            reused = len(prompt) - (not self._makes_token)
        for pos in range(reused, len(prompt)):
            token = self.decode(prompt[pos], pos, how)
        assert token is not None
        return token


class _OnCpu(TwoDesigns):
    """Two designs on the CPU, and the KV cache as the second one keeps it."""

    def __init__(self, first: Loaded, second: Loaded) -> None:
        super().__init__(
            prompt=first.positions,
            positions=second.positions,
            vocabulary=second.made.model.config.vocab_size,
            candidates=min(first.made.candidates, second.made.candidates),
            makes_token=first.made.makes_token,
        )
        self._first, self._second = first, second
        self._memories = second.memories({})

    def whole(self, prompt: Sequence[int], how: Mapping[str, Any]) -> int | None:
        first, second = self._first, self._second
        padded = np.zeros(first.positions, np.int32)
        padded[: len(prompt)] = prompt
        memories = first.memories({})
        token = first(memories, prompt=padded, n_prompt=len(prompt), **how)
        layouts = first.made.layout, second.made.layout
        cache = handed_over(*layouts, first.cache(memories), first.positions, second.positions)
        self._memories = second.memories(cache)
        return int(token) if first.made.makes_token else None

    def decode(self, token: int, pos: int, how: Mapping[str, Any]) -> int:
        return int(self._second(self._memories, token=token, pos=pos, **how))


def open_design(
    directory: Path | str, preset: str, recipe: str | None = None, max_seq_len: int | None = None
) -> TextSession:
    """The design of a preset for a checkpoint on the CPU: its functions, in one bitstream or in two.

    Args:
        directory: a Hugging Face folder, or one that `flexllm quantize` wrote.
        preset: by name or file, as `build_project` takes it.
        recipe: by default the preset's, or that of a quantized folder.

    Raises:
        UsageError: FX703, no such preset, or its kernels do not compute this model.
        ModelError, QuantError: as `models.load`.
    """
    if preset == DEFAULT:
        model = load(directory, recipe, max_seq_len)
        return Session(model, hardware_top(model))
    chosen = get_preset(preset)
    model = load(directory, recipe or chosen.recipe_for(Path(directory)), max_seq_len)
    if chosen.mode == "reconfigured":
        return ReconfiguredSession(chosen, model)
    return Session(model, preset_top(chosen, model))


__all__ = ["Loaded", "ReconfiguredSession", "TwoDesigns", "open_design"]
