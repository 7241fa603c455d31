"""What is on a device at one time: a scheduled program, and the data that its top function takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hybrid import HybridTop, pack_words, reachable
from ..ir import nodes as ir
from ..kernels.sampling import CANDIDATES
from ..models import Model
from ..models.arrays import constant_parts
from ..models.cache_layout import PLAIN, CacheLayout
from ..models.engine import TOP
from ..models.engine_memory import EngineParts
from ..models.engine_model import Decode
from ..models.flexllm_model import Prefill, prefill_parts
from ..models.sampling import Sampling
from ..schedule.schedule import Schedule
from ..schedule.stage import Stage
from .designs import decode_design, prefill_design
from .storage import Storage, store_arrays
from .words import WORD_ROWS, weight_words

Array = NDArray[Any]
GOLDEN_PROMPT = 11
"""Tokens of the test bench's prompt: no multiple of a block, so that the last block is short."""
GOLDEN_TOKENS = 6
BLOCK = 8
"""Tokens of a block of prefill, where only the other stage is wanted."""


TOOLS = Storage()
"""The tools decide where arrays are."""


@dataclass(frozen=True)
class Bitstream:
    """A design, or the part of one that is on the device by itself.

    Attributes:
        name: ``generate`` for a whole design, ``prefill`` or ``decode`` for a stage of one.
        schedule: the program and what was applied to it.
        top: what is on the device.
        stage: the function whose traffic memory channels are balanced by.
        parts: gives an argument that never changes, piece by piece along its first axis.
        run: arguments of a run of the test bench, by name.
        written: arguments that a run writes.
        makes_token: whether a prefill makes the first new token; else decode begins with the prompt's last.
        layout: of its KV cache.
        candidates: likeliest tokens that it samples among.
    """

    name: str
    model: Model
    schedule: Schedule
    top: ir.Program
    stage: str
    parts: Callable[[str], Iterator[Array]]
    run: Mapping[str, Any]
    written: tuple[str, ...]
    makes_token: bool = True
    layout: CacheLayout = PLAIN
    candidates: int = CANDIDATES

    def constants(self) -> dict[str, Any]:
        """What never changes between runs, by parameter name.

        Raises:
            ModelError: FX602, the model is an architecture without weights.
        """
        self.model.check_weights()
        inputs = self.top.function(self.top.top).inputs
        names = (b.name for b in inputs if b.name not in self.run)
        return {name: _joined(list(self.parts(name))) for name in names}


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def whole(top: HybridTop, run: Mapping[str, Any] | None = None) -> Bitstream:
    """Both stages of a design, prefill and then decode until the end.

    Args:
        run: arguments of the test bench, by default `run_arguments`.
    """
    model = top.model
    given = run_arguments(model) if run is None else run
    written = ("tokens", *model.cache())
    return Bitstream("generate", model, top.schedule, top.top, "decode", _parts(model), given, written)


def stage_of(top: HybridTop, name: str) -> Bitstream:
    """One stage of a design by itself, ``prefill`` or ``decode``."""
    program = top.tops[name] if name in top.tops else reachable(top.program, name)
    return _stage(top.model, top.schedule, program, name)


def prefill_bitstream(
    model: Model, stage: Stage, word_rows: int = WORD_ROWS, storage: Storage = TOOLS, max_prompt: int = 0
) -> Bitstream:
    """The prefill of a model by itself, as a stage schedules it.

    Args:
        word_rows: rows of a weight in a memory word.
        storage: where arrays are.
        max_prompt: tokens of the longest prompt; 0 for those of the context.
    """
    return staged(model.shortened(max_prompt), "prefill", stage, word_rows, storage)


def staged(
    model: Model,
    name: str,
    stage: Stage,
    word_rows: int = WORD_ROWS,
    storage: Storage = TOOLS,
) -> Bitstream:
    """``prefill`` or ``decode`` of a model by itself, as a stage schedules it.

    Args:
        word_rows, storage: as for `prefill_bitstream`.
    """
    block = stage.token_parallel if name == "prefill" else BLOCK  # which a decode does not see
    s = Schedule(reachable(model.program(block), name))
    known = {b.name for b in s.top_func.params}
    for weight, words in weight_words(model, word_rows).items():
        if weight in known:
            pack_words(s, weight, words)
    stage.apply(s, [f.name for f in s.program.functions])
    store_arrays(s, storage)
    return _stage(model, s, s.program, name)


def flexllm_prefill(model: Model, size: Prefill, storage: Storage = TOOLS, max_prompt: int = 0) -> Bitstream:
    """FlexLLM's prefill, which makes no token: the last of a prompt is the first that decode takes."""
    model = model.shortened(max_prompt)
    s = prefill_design(model, size)
    store_arrays(s, storage)
    given = run_arguments(model)
    run = {name: given[name] for name in ("prompt", "n_prompt", "stream")} | size.layout.memories(
        model.cache()
    )
    made = Bitstream(
        "prefill",
        model,
        s,
        s.program,
        "prefill",
        prefill_parts(model, size, _parts(model)),
        run,
        _memories(run),
    )
    return replace(made, makes_token=False, layout=size.layout)


def decode_bitstream(model: Model, size: Decode, storage: Storage = TOOLS) -> Bitstream:
    """Decode of a model on an engine."""
    s = decode_design(model, size)
    store_arrays(s, storage)
    parts = EngineParts(model, size.plan(model), _parts(model))
    run = engine_run(model, size)
    made = Bitstream("decode", model, s, s.program, "decode", parts, run, _memories(run))
    return replace(made, layout=size.layout(model), candidates=TOP)


def _stage(model: Model, s: Schedule, program: ir.Program, name: str) -> Bitstream:
    run = stage_run(model, name)
    return Bitstream(name, model, s, program, name, _parts(model), run, _memories(run))


def _parts(model: Model) -> Callable[[str], Iterator[Array]]:
    return lambda name: constant_parts(model.weights, name)


def _memories(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The KV cache and the residual stream."""
    return tuple(name for name in run if name[:2] in ("k_", "v_") or name == "stream")


# ------------------------------------------------------------------------------ arguments of a run


def run_arguments(
    model: Model,
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """The arguments of ``generate`` that differ from run to run, by name."""
    size = model.max_seq_len
    random = np.random.default_rng(0).integers(0, model.config.vocab_size, min(GOLDEN_PROMPT, size))
    tokens = random if prompt is None else np.array(prompt)
    padded = np.zeros(size, np.int32)
    padded[: len(tokens)] = tokens
    return {
        **(sampling or Sampling()).arguments(),
        **model.cache(),
        "prompt": padded,
        "n_prompt": len(tokens),
        "max_new_tokens": min(new_tokens, size),
        "stop": model.stop_table(),
        "tokens": np.zeros(size, np.int32),
    }


def golden_arguments(
    model: Model,
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """Arguments of ``generate`` by name."""
    return {**model.constants, **run_arguments(model, prompt, new_tokens, sampling)}


def stage_run(model: Model, name: str) -> dict[str, Any]:
    """The arguments of ``prefill`` or ``decode`` that differ from run to run."""
    given = run_arguments(model)
    own = (
        "max_new_tokens",
        "stop",
        "tokens",
        *(() if name == "prefill" else ("prompt", "n_prompt", "stream")),
    )
    run = {k: v for k, v in given.items() if k not in own}
    return run if name == "prefill" else run | {"token": 1, "pos": given["n_prompt"]}


def engine_run(model: Model, size: Decode) -> dict[str, Any]:
    """The same of ``decode`` on an engine: keys and values lie by head, and here are random codes."""
    random = np.random.default_rng(1)
    empty = {name: array for name, array in model.cache().items() if name != "stream"}
    codes = {name: random.integers(-128, 128, array.shape, np.int8) for name, array in empty.items()}
    start = {"token": 1, "pos": min(GOLDEN_PROMPT, model.max_seq_len - 1)}
    return {**Sampling().arguments(), **size.layout(model).memories(codes), **start}


__all__ = [
    "GOLDEN_PROMPT", "GOLDEN_TOKENS", "Bitstream", "decode_bitstream", "flexllm_prefill", "golden_arguments",
    "prefill_bitstream", "run_arguments", "stage_of", "staged", "whole",
]  # fmt: skip
