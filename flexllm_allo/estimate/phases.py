"""The phases of a run: which functions are called from outside, how often, with which scalars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import EstimateError, did_you_mean
from ..ir import nodes as ir
from .cost import Cost
from .loops import Timing
from .ports import bank_depth
from .result import Phase

SAMPLES = 5
"""Positions at which a decode is evaluated; between them its cycles are a line."""

GREEDY = {"temperature": 0.0, "top_k": 0}
"""How tokens are chosen where the caller does not say: the likeliest, as in `models.sampling`."""

STAGES = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class Run:
    """All calls of a function from outside.

    Attributes:
        entry: the function.
        arrays: its arrays that lie in off-chip memory.
        cost: of all calls.
        tokens: read by a prefill, made by a decode.
    """

    entry: ir.Function
    arrays: frozenset[str]
    cost: Cost
    tokens: int = 0

    @property
    def name(self) -> str:
        return self.entry.name

    def phase(self, mhz: float) -> Phase:
        """The figures of the phase at a clock."""
        sizes = {b.name: b.dtype.bits / 8 for b in self.entry.params}
        moved = sum((read + written) * sizes[name] for name, (read, written) in self.cost.words.items())
        cycles = self.cost.cycles
        return Phase(
            round(cycles), cycles / mhz / 1e6, round(self.cost.operations), round(moved), self.tokens
        )


def runs(timing: Timing, scalars: Mapping[str, Any], new_tokens: int, on_chip: bool) -> list[Run]:
    """The phases in order; the last one that takes any time is what a design is judged by.

    Args:
        timing: of the program.
        scalars: scalar arguments by name.
        new_tokens: tokens a model makes; prefill makes the first. A top ``decode`` makes the others.
        on_chip: whether all arguments are memories of the chip.

    Raises:
        EstimateError: FX901, the length of a loop is not known; FX902, an argument does not fit.
    """
    program = timing.program
    is_model = {f.name for f in program.functions}.issuperset(STAGES) and program.top not in STAGES
    alone = program.top == "decode" and "n_prompt" in scalars and "pos" not in scalars
    given = {**GREEDY, **{k: v for k, v in scalars.items() if not (alone and k == "n_prompt")}}
    _check(program, (program.top, *STAGES) if is_model else (program.top,), given)

    def run(name: str, calls: list[tuple[Mapping[str, Any], float]], tokens: int = 0) -> Run:
        entry, cost = program.function(name), Cost()
        arrays = frozenset[str]() if on_chip else off_chip(entry)
        for values, times in calls:
            made = timing.function(name, arrays, {**given, **values})  # on the device even if it never runs
            if times:
                cost.add(made, times)
        return Run(entry, arrays, cost, tokens)

    def decode(prompt: int) -> Run:
        points = decode_points(prompt, new_tokens - 1) or [(prompt, 0.0)]
        return run("decode", [({"pos": p}, times) for p, times in points], new_tokens - 1)

    if alone:
        return [decode(int(scalars["n_prompt"]))]
    if not is_model:
        return [run(program.top, [({}, 1)])]
    if "n_prompt" not in scalars:
        raise EstimateError(
            "FX902", "how long the prompt is, is not known", hint='give it: s.estimate("u280", n_prompt=1024)'
        )
    prompt = int(scalars["n_prompt"])
    return [run("prefill", [({}, 1)], prompt), decode(prompt)]


def off_chip(function: ir.Function) -> frozenset[str]:
    """The arrays of an entry that lie in off-chip memory, each bank behind a port of its own.

    An array with an element per bank is taken to be registers of the chip.
    """
    arrays = (b for b in function.params if b.shape and not b.is_stream)
    return frozenset(b.name for b in arrays if bank_depth(b) > 1)


def decode_points(prompt: int, tokens: int) -> list[tuple[int, float]]:
    """Positions among `prompt` and the `tokens` - 1 after it, and how many of them each stands for.

    The sum of a function over all positions is exact where it is a line.
    """
    count = min(SAMPLES, tokens)
    points = sorted({prompt + round(i * (tokens - 1) / max(1, count - 1)) for i in range(count)})
    weights = dict.fromkeys(points, 0.0)
    for a, b in pairwise(points):  # a up to b, without b
        weights[a] += (b - a + 1) / 2
        weights[b] += (b - a - 1) / 2
    if points:
        weights[points[-1]] += 1
    return list(weights.items())


def _check(program: ir.Program, functions: tuple[str, ...], scalars: Mapping[str, Any]) -> None:
    known = {p.name for f in functions for p in program.function(f).params if not p.shape}
    for name in scalars.keys() - known - GREEDY.keys():
        raise EstimateError("FX902", f'there is no scalar argument "{name}"', hint=did_you_mean(name, known))


__all__ = ["Run", "decode_points", "off_chip", "runs"]
