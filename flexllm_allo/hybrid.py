"""The hybrid top: one model, two stages, each stage with schedules of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any, Literal, Protocol, get_args

from .errors import UsageError, did_you_mean
from .ir import nodes as ir
from .ir.walk import walk
from .schedule.schedule import Schedule
from .schedule.stage import Stage


class Model(Protocol):
    """What a hybrid top needs of a model (`models.Model` has it)."""

    def program(self, token_parallel: int, decode_parallel: int = 1) -> ir.Program: ...


Mode = Literal["resident", "shared", "reconfigured"]
"""Where the engines of the stages are.

resident: both stages' on the device. shared: decode runs on those of prefill, in blocks that hold one
token. reconfigured: each stage is a design of its own; weights and KV cache stay, laid out alike.
"""


@dataclass(frozen=True)
class HybridTop:
    """A model with its two stages scheduled.

    Attributes:
        model: gives the data: weights, tables, the empty KV cache.
        prefill, decode: the stages.
        schedule: the program and everything applied to it. Its top function, ``generate``, runs
            prefill and then decode until a stop token; both stages read the same weights and the
            same KV cache, so nothing is handed over or laid out again.
        mode: where the engines of the stages are.
    """

    model: Any
    prefill: Stage
    decode: Stage
    schedule: Schedule
    mode: Mode = "resident"
    stage = "decode"  # what memory channels are balanced by: prefill moves little per token

    @cached_property
    def program(self) -> ir.Program:
        """Everything, the scoring functions included: what the CPU runs."""
        return self.schedule.program

    @cached_property
    def top(self) -> ir.Program:
        """What ``generate`` reaches: the hardware."""
        return reachable(self.program, self.program.top)

    @cached_property
    def tops(self) -> dict[str, ir.Program]:
        """The designs that are on the device at one time each, by the name of their top function."""
        names = ("prefill", "decode") if self.mode == "reconfigured" else (self.program.top,)
        return {name: reachable(self.program, name) for name in names}

    def width(self, stage: str) -> int:
        """Tokens that the functions of ``prefill`` or ``decode`` take at once, padding included."""
        shared = stage == "prefill" or self.mode == "shared"
        return self.prefill.token_parallel if shared else self.decode.token_parallel

    def scorer(self, stage: str) -> str:
        """The name of the function that gives the logits of a block in ``prefill`` or ``decode``."""
        tokens = self.width(stage)
        return next(
            f.name for f in self.program.functions if f.origin == "score" and dict(f.bindings)["T"] == tokens
        )


@dataclass(frozen=True)
class Words:
    """How a weight [.., N, K] lies in memory words.

    Attributes:
        elements: in a word. Take a power of two: where it does not divide the dimension, the largest
            part of it that does is used, and AXI ports want such widths.
        along: ``rows``, a word holds the same column of neighbouring output channels, or ``columns``, it
            holds neighbours in a row.
    """

    elements: int
    along: Literal["rows", "columns"] = "rows"


def hybrid(
    model: Model,
    prefill: Stage,
    decode: Stage,
    layout: Mapping[str, Words] | None = None,
    mode: Mode = "resident",
) -> HybridTop:
    """Schedule both stages of a model.

    Args:
        model: a model (`flexllm_allo.models.load`).
        prefill: schedules for the instances that work on blocks of tokens.
        decode: schedules for the instances that work on one token; instances that both stages
            call are scheduled with it.
        layout: parameter of the top -> its memory words.
        mode: ``resident``, ``shared`` or ``reconfigured``, see `Mode`. Shared, `decode` schedules what works
            on one token in either stage, such as the head.

    Raises:
        UsageError: FX703, no such mode.
    """
    if mode not in get_args(Mode):
        raise UsageError("FX703", f'there is no mode "{mode}"', hint=did_you_mean(mode, get_args(Mode)))
    tokens = prefill.token_parallel
    schedule = Schedule(model.program(tokens, tokens if mode == "shared" else 1))
    for name, words in (layout or {}).items():
        pack_words(schedule, name, words)
    first, second = stages(schedule.program, prefill.token_parallel)
    prefill.apply(schedule, first)
    decode.apply(schedule, second)
    return HybridTop(model, prefill, decode, schedule, mode)


def stages(program: ir.Program, token_parallel: int) -> tuple[list[str], list[str]]:
    """Function names of prefill and of decode, callees first.

    Prefill has what the ``prefill``, ``forward`` and ``score`` instances for blocks reach and decode, if it
    works on one token, does not.
    """
    blocks: set[str] = set()
    single: set[str] = set()
    for function in program.functions:
        tokens = dict(function.bindings).get("T")
        if function.origin in ("prefill", "forward", "score", "decode", "head"):
            found = {f.name for f in reachable(program, function.name).functions}
            (blocks if tokens == token_parallel and tokens != 1 else single).update(found)
    names = [f.name for f in program.functions]
    prefill = [n for n in names if n in blocks - single]
    return prefill, [n for n in names if n not in prefill]


def reachable(program: ir.Program, top: str) -> ir.Program:
    """The program of one function and what it calls."""
    wanted = {top}
    for function in reversed(program.functions):
        if function.name in wanted:
            wanted |= {n.func for n in walk(function.body) if isinstance(n, ir.Call)}
    return ir.Program(tuple(f for f in program.functions if f.name in wanted), top)


def pack_words(schedule: Schedule, name: str, words: Words) -> None:
    """Pack a weight [.., N, K] into words.

    Weights that meet in one kernel instance are packed together, so a later one may be done.
    """
    target = getattr(schedule, name)
    buffer = next(p for p in schedule.top_func.params if p.name == name)
    if buffer.words > 1:
        return
    dim = len(buffer.shape) - (words.along == "rows")
    fits = gcd(buffer.shape[dim - 1], words.elements)
    if fits > 1:
        schedule.pack(target, factor=fits, dim=dim)
