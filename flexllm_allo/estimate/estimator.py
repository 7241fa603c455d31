"""From a scheduled program to an `Estimate`: the phases, their stages, resources, bandwidth, power."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any

from ..errors import EstimateError, did_you_mean
from ..hardware.devices import Device
from ..hardware.devices import device as find_device
from ..ir import nodes as ir
from ..schedule.trace import Primitive
from .cost import Cost
from .hardware_copies import copies
from .limits import utilization
from .loops import Timing
from .operators import Operators
from .power import power
from .resources import module, ports
from .result import ChannelTraffic, Estimate, Module, Phase
from .stages import ScheduleLines, binding, stages

SAMPLES = 5
"""Positions at which a decode is evaluated; between them its cycles are a line."""

GREEDY = {"temperature": 0.0, "top_k": 0}
"""How tokens are chosen where the caller does not say: the likeliest, as in `models.sampling`."""


def estimate(
    program: ir.Program,
    device: str = "u280",
    *,
    clock_mhz: float | None = None,
    new_tokens: int = 2,
    trips: Mapping[str, int] | None = None,
    operators: Mapping[str, Mapping[str, Any]] | None = None,
    trace: Iterable[Primitive] = (),
    placement: Mapping[str, Sequence[str]] | None = None,
    design: str = "",
    **scalars: float,
) -> Estimate:
    """Cycles, resources, bandwidth and power of a scheduled program.

    A program with functions ``prefill`` and ``decode`` is estimated for a prompt of `n_prompt` tokens and
    `new_tokens` new ones, of which prefill makes the first, and one whose top is ``decode`` for its part of
    that; any other one for a call of its top function.

    Args:
        program: the scheduled program.
        device: the card.
        clock_mhz: the clock; the card's usual one by default.
        new_tokens: tokens to make.
        trips: iterations of loops whose length only a run tells, by ``loop`` or ``function.loop``.
        operators: float operation -> figures to replace, ``{"add": {"latency": 6}}``.
        trace: the primitives that were applied, for the lines of the schedule.
        placement: the memory channels of every argument of the top, such as ``["HBM[3]"]``.
        design: its name.
        scalars: scalar arguments, by name: ``n_prompt=1024``.

    Raises:
        EstimateError: FX901, the length of a loop is not known; FX902, an argument does not fit.
        TargetError: FX402, there is no such device.
    """
    card = find_device(device)
    mhz = clock_mhz or card.default_mhz
    if not mhz > 0 or new_tokens < 1:
        raise EstimateError("FX902", f"a clock of {mhz} MHz and {new_tokens} new tokens: both are positive")
    rate = card.memory.channel_gb_per_s
    efficiency = card.memory.efficiency
    port_bytes = inf if rate is None else rate * 1e3 * efficiency / mhz
    timing = Timing(program, Operators(card.dsp_family, mhz, operators), trips, port_bytes)
    runs = _runs(timing, program, dict(scalars), new_tokens)
    lines = ScheduleLines(program, trace)
    rows = [row for phase, (cost, _, _) in runs.items() for row in stages(timing, phase, cost, lines)]
    phases = {
        name: Phase(
            round(cost.cycles), cost.cycles / mhz / 1e6, round(cost.operations),
            round(_bytes(program.function(entry), cost)), tokens,
        )
        for name, (cost, entry, tokens) in runs.items()
    }  # fmt: skip
    main = "decode" if "decode" in phases else next(iter(phases))
    modules = _modules(timing, program, [entry for _, entry, _ in runs.values()])
    processes = Counter(m.name.partition("#")[0] for m in modules)
    used = modules[0].resources
    for m in modules[1:]:
        used = used + m.resources
    notes = [f"operators and memories at {mhz:g} MHz; a channel gives {efficiency:.0%} of its peak"]
    return Estimate(
        design=design or program.top,
        device=card.key,
        clock_mhz=mhz,
        phases=phases,
        modules=tuple(modules),
        utilization=utilization(used, card.available) if card.available else {},
        channels=channels(card, program.function(runs[main][1]), runs[main][0], mhz, placement or {}),
        power_w=_power(card, used, mhz, phases[main], notes),
        binds=binding([r for r in rows if r.phase == main], runs[main][0], processes),
        stages=tuple(rows),
        notes=tuple(notes),
    )


Run = tuple[Cost, str, int]
"""What a phase costs, the function it calls, its tokens."""


def _runs(timing: Timing, program: ir.Program, scalars: dict[str, Any], new_tokens: int) -> dict[str, Run]:
    names = {f.name for f in program.functions}
    if program.top == "decode" and "pos" not in scalars and "n_prompt" in scalars:
        prompt = int(scalars.pop("n_prompt"))
        given = {**GREEDY, **scalars}
        _check(program, ["decode"], given)
        calls = _decode(timing, program, given, prompt, new_tokens - 1)
        return {"decode": (calls, "decode", new_tokens - 1)}
    if not {"prefill", "decode"} <= names or program.top in ("prefill", "decode"):
        return {program.top: (_call(timing, program, program.top, scalars), program.top, 0)}
    if "n_prompt" not in scalars:
        raise EstimateError(
            "FX902", "how long the prompt is, is not known", hint='give it: s.estimate("u280", n_prompt=1024)'
        )
    given = {**GREEDY, **scalars}
    prompt = int(scalars["n_prompt"])
    _check(program, {"generate", "prefill", "decode"} & names, given)
    first = _call(timing, program, "prefill", {**given, "n_prompt": prompt})
    rest = _decode(timing, program, given, prompt, new_tokens - 1)
    runs: dict[str, Run] = {"prefill": (first, "prefill", prompt)}
    if new_tokens > 1:
        runs["decode"] = (rest, "decode", new_tokens - 1)
    return runs


def _check(program: ir.Program, functions: Iterable[str], scalars: Mapping[str, Any]) -> None:
    known = {p.name for f in functions for p in program.function(f).params if not p.shape}
    for name in scalars.keys() - known - GREEDY.keys():
        raise EstimateError("FX902", f'there is no scalar argument "{name}"', hint=did_you_mean(name, known))


def _call(timing: Timing, program: ir.Program, name: str, scalars: Mapping[str, Any]) -> Cost:
    if name == program.top:
        _check(program, [name], {k: v for k, v in scalars.items()})
    return timing.function(name, off_chip(program.function(name)), scalars)


def off_chip(function: ir.Function) -> frozenset[str]:
    """The arrays of an entry that lie in off-chip memory: those in banks are memories of the chip."""
    return frozenset(b.name for b in function.params if b.shape and not b.is_stream and not b.banks)


def _decode(timing: Timing, program: ir.Program, given: Mapping[str, Any], prompt: int, tokens: int) -> Cost:
    """All decode calls after a prompt, from a few positions among them."""
    total = Cost()
    for position, weight in decode_points(prompt, tokens):
        total.add(_call(timing, program, "decode", {**given, "pos": position}), weight)
    return total


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


def _bytes(entry: ir.Function, cost: Cost) -> float:
    sizes = {b.name: b.dtype.bits / 8 for b in entry.params}
    return sum((read + written) * sizes[name] for name, (read, written) in cost.words.items())


def channels(
    card: Device, entry: ir.Function, cost: Cost, mhz: float, placement: Mapping[str, Sequence[str]]
) -> tuple[ChannelTraffic, ...]:
    """What moves through every channel in a phase, on average."""
    moved: dict[str, float] = {}
    widest: dict[str, float] = {}
    sizes = {b.name: b.dtype.bits / 8 for b in entry.params}
    for name, (read, written) in cost.words.items():
        places = placement.get(name, ())
        for channel in places:
            moved[channel] = moved.get(channel, 0) + (read + written) * sizes[name] / len(places)
            widest[channel] = max(widest.get(channel, 0), sizes[name])
    memories = {memory.kind: memory for memory in card.memories}
    found: list[ChannelTraffic] = []
    for channel in sorted(moved, key=lambda c: (c.split("[")[0], int(re.sub(r"\D", "", c) or 0))):
        kind = channel.split("[")[0]
        memory = memories.get(kind)
        peak = memory.channel_gb_per_s if memory and memory.channel_gb_per_s else 0.0
        limit = min(peak * (memory.efficiency if memory else 1.0), widest[channel] * mhz / 1e3)
        rate = moved[channel] / (cost.cycles / mhz / 1e6) / 1e9 if cost.cycles else 0.0
        found.append(ChannelTraffic(channel, rate, limit, peak))
    return tuple(found)


def _modules(timing: Timing, program: ir.Program, entries: Sequence[str]) -> list[Module]:
    found: list[Module] = []
    counts = copies(program, {name: off_chip(program.function(name)) for name in entries})
    for key, number in counts.items():
        if key in timing.instances:
            one = module(timing.instances[key])
            for i in range(number):
                found.append(
                    one if i == 0 else Module(f"{one.name}#{i + 1}", one.resources, lutram=one.lutram)
                )
    top = next((e for e in entries if e == program.top), entries[-1])
    return [*found, ports(timing.instance(top, off_chip(program.function(top))))]


def _power(card: Device, used: Any, mhz: float, phase: Phase, notes: list[str]) -> float:
    try:
        return power(card, used, mhz, phase.bytes / phase.seconds / 1e9 if phase.seconds else 0.0).total_w
    except EstimateError as error:
        notes.append(error.message)
        return 0.0


__all__ = ["estimate", "off_chip"]
