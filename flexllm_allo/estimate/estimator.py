"""From a scheduled program to an `Estimate`: the phases, their stages, resources, bandwidth, power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from ..errors import EstimateError
from ..hardware.devices import Device, Resources
from ..hardware.devices import device as find_device
from ..ir import nodes as ir
from ..schedule.trace import Primitive
from .channels import Placement, busiest, channels
from .fit import Fit
from .hardware_copies import copies
from .limits import Demand, excesses, holding, total, utilization
from .loops import Timing
from .operators import Operators
from .phases import Run, off_chip, runs
from .power import power
from .resources import module, ports
from .result import Estimate, Module, Phase, StageTiming
from .stages import ScheduleLines, binding, stages


def estimate(
    program: ir.Program,
    device: str = "u280",
    *,
    clock_mhz: float | None = None,
    new_tokens: int = 2,
    trips: Mapping[str, int] | None = None,
    operators: Mapping[str, Mapping[str, Any]] | None = None,
    trace: Iterable[Primitive] = (),
    placement: Placement | None = None,
    reconfigured: bool = False,
    on_chip: bool = False,
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
        reconfigured: whether prefill and decode are on the device one after the other; the resources are then
            those of the fuller one.
        on_chip: whether the arrays of the top are memories of the chip that somebody else fills, as in the
            flow without a platform; else they are ports to off-chip memory.
        design: its name.
        scalars: scalar arguments, by name: ``n_prompt=1024``.

    Raises:
        EstimateError: FX901, the length of a loop is not known; FX902, an argument does not fit.
        TargetError: FX402, there is no such device.
    """
    card = find_device(device)
    mhz = card.default_mhz if clock_mhz is None else clock_mhz
    if not 0 < mhz < inf or new_tokens < 1:
        what = f"a clock of {mhz} MHz and {new_tokens} new tokens: both are positive and finite"
        raise EstimateError("FX902", what)
    rate, efficiency = card.memory.channel_gb_per_s, card.memory.efficiency
    port_bytes = inf if rate is None else rate * 1e3 * efficiency / mhz
    timing = Timing(program, Operators(card.dsp_family, mhz, operators), trips, port_bytes)
    found = runs(timing, scalars, new_tokens, on_chip)
    loads = {run.name: _modules(timing, [run]) for run in found} if reconfigured else {}
    modules = max(loads.values(), key=lambda m: _fullest(card, m)) if loads else _modules(timing, found)
    used = total(m.resources for m in modules)
    main = next((run for run in reversed(found) if run.cost.cycles), found[-1])
    rows = _rows(timing, found, ScheduleLines(program, trace))
    notes = [
        f"operators and memories at {mhz:g} MHz; a channel gives {efficiency:.0%} of its peak",
        "FIFOs are taken to be deep enough",
    ]
    phases, waits = _phases(card, found, mhz, placement or {})
    notes += [f"{name}: {reason}" for name, reason in waits.items()]
    return Estimate(
        design=design or program.top,
        device=card.key,
        clock_mhz=mhz,
        phases=phases,
        modules=tuple(modules),
        utilization=utilization(used, card.available) if card.available else {},
        channels=channels(card, main, mhz, placement or {}, phases[main.name].seconds),
        power_w=_power(card, used, mhz, phases[main.name], notes),
        binds=waits.get(main.name) or binding([row for row in rows if row.phase == main.name], main.cost),
        stages=tuple(rows),
        notes=tuple(notes),
        fit=_fit(card, loads or {"": modules}),
    )


def _phases(
    card: Device, found: Iterable[Run], mhz: float, placement: Placement
) -> tuple[dict[str, Phase], dict[str, str]]:
    """The phases, and why some are longer than their loops.

    A phase whose ports together ask for more than a channel gives takes as long as the channel.
    """
    phases, waits = dict[str, Phase](), dict[str, str]()
    for run in found:
        phase = phases[run.name] = run.phase(mhz)
        channel, seconds, rate = busiest(card, run, placement)
        if seconds <= phase.seconds * (1 + 1e-9):
            continue
        times = seconds / phase.seconds
        phases[run.name] = replace(phase, cycles=round(seconds * mhz * 1e6), seconds=seconds)
        waits[run.name] = (
            f"bandwidth of {channel}: its ports together ask for {rate * times:,.1f} GB/s, "
            f"and it gives {rate:,.1f}; that takes {times:.1f} times as long as the loops"
        )
    return phases, waits


def _fit(card: Device, loads: Mapping[str, Sequence[Module]]) -> Fit:
    """Whether the card holds what is on it at one time, by the name of that, and which other cards do."""
    demands = {n: Demand([Module(n, total(m.resources for m in modules))]) for n, modules in loads.items()}
    found = [
        replace(excess, where=name)
        for name, demand in (demands if card.available else {}).items()
        for excess in excesses(demand, card)
    ]
    held = [holding(demand) for demand in demands.values()]
    others = (key for key in held[0] if key != card.key and all(key in keys for keys in held))
    return Fit(tuple(found), others=tuple(others))


def _rows(timing: Timing, found: Sequence[Run], lines: ScheduleLines) -> list[StageTiming]:
    held = copies(timing.program, {run.name: run.arrays for run in found})
    return [row for run in found for row in stages(timing, run.name, run.cost, lines, held)]


def _modules(timing: Timing, found: Sequence[Run]) -> list[Module]:
    """The function instances that the phases need together, and the ports of their top."""
    modules: list[Module] = []
    for key, number in copies(timing.program, {run.name: run.arrays for run in found}).items():
        if key in timing.instances:
            one = module(timing.instances[key], timing.program)
            modules.append(one)
            modules += [replace(one, name=f"{one.name}#{i}") for i in range(2, number + 1)]
    top = timing.program.function(timing.program.top) if len(found) > 1 else found[0].entry
    arrays = off_chip(top) if any(run.arrays for run in found) else frozenset[str]()
    return [*modules, ports(timing.instance(top.name, arrays))]


def _fullest(card: Device, modules: Iterable[Module]) -> float:
    """The share of the resource that modules take most of."""
    used = total(m.resources for m in modules)
    return max(utilization(used, card.available).values()) if card.available else used.lut


def _power(card: Device, used: Resources, mhz: float, phase: Phase, notes: list[str]) -> float | None:
    try:
        return power(card, used, mhz, phase.bytes / phase.seconds / 1e9 if phase.seconds else 0.0).total_w
    except EstimateError as error:
        notes.append(error.message)
        return None


__all__ = ["estimate"]
