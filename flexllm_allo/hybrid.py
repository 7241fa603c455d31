"""The hybrid top: one model, two stages, each stage with schedules of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any, Literal, Protocol

from .ir import nodes as ir
from .ir.walk import walk
from .schedule.schedule import Schedule
from .schedule.stage import Stage


class Model(Protocol):
    """What a hybrid top needs of a model (`models.Model` has it)."""

    def program(self, token_parallel: int) -> ir.Program: ...


@dataclass(frozen=True)
class HybridTop:
    """A model with its two stages scheduled.

    Attributes:
        model: gives the data: weights, tables, the empty KV cache.
        prefill, decode: the stages.
        schedule: the program and everything applied to it. Its top function, ``generate``, runs
            prefill and then decode until a stop token; both stages read the same weights and the
            same KV cache, so nothing is handed over or laid out again.
    """

    model: Any
    prefill: Stage
    decode: Stage
    schedule: Schedule

    @cached_property
    def program(self) -> ir.Program:
        """Everything, the scoring functions included: what the CPU runs."""
        return self.schedule.program

    @cached_property
    def top(self) -> ir.Program:
        """What ``generate`` reaches: the hardware."""
        return reachable(self.program, self.program.top)

    def scorer(self, stage: str) -> str:
        """The name of the function that gives the logits of a block in ``prefill`` or ``decode``."""
        tokens = self.prefill.token_parallel if stage == "prefill" else self.decode.token_parallel
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
    model: Model, prefill: Stage, decode: Stage, layout: Mapping[str, Words] | None = None
) -> HybridTop:
    """Schedule both stages of a model.

    Args:
        model: a model (`flexllm_allo.models.load`).
        prefill: schedules for the instances that work on blocks of tokens.
        decode: schedules for the instances that work on one token; instances that both stages
            call are scheduled with it.
        layout: parameter of the top -> its memory words.
    """
    schedule = Schedule(model.program(prefill.token_parallel))
    for name, words in (layout or {}).items():
        pack_words(schedule, name, words)
    first, second = stages(schedule.program, prefill.token_parallel)
    prefill.apply(schedule, first)
    decode.apply(schedule, second)
    return HybridTop(model, prefill, decode, schedule)


def stages(program: ir.Program, token_parallel: int) -> tuple[list[str], list[str]]:
    """Function names of prefill and of decode, callees first.

    Prefill has what the ``forward`` and ``score`` instances for blocks reach and decode does not.
    """
    blocks: set[str] = set()
    single: set[str] = set()
    for function in program.functions:
        tokens = dict(function.bindings).get("T")
        if function.origin in ("forward", "score", "decode"):
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
