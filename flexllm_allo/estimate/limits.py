"""Whether a design fits its device: shares, what exceeds and by how much, the nearest setting that fits."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from ..errors import EstimateError
from ..hardware.devices import RESOURCES, Caps, Device, Resources, device, devices
from .fit import Excess, Fit
from .result import Estimate, Module

Setting = Mapping[str, int]
"""Parameters of a schedule by name, such as ``token_parallel``."""

NOTHING = Resources(lut=0, ff=0, dsp=0, bram18=0, uram=0)
_TRIES = 500  # settings tried in search of one that fits


@dataclass(frozen=True, slots=True)
class Demand:
    """What a design asks of a device.

    Attributes:
        modules: its function instances, each once; those with an `slr` also count there.
        channels: how many channels of each kind of memory, such as ``{"HBM": 16}``.
    """

    modules: Sequence[Module]
    channels: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def resources(self) -> Resources:
        return total(module.resources for module in self.modules)

    @property
    def by_region(self) -> dict[str, Resources]:
        """The resources of the modules that are placed, by super logic region."""
        placed = sorted({module.slr for module in self.modules if module.slr})
        return {slr: total(m.resources for m in self.modules if m.slr == slr) for slr in placed}


def total(parts: Iterable[Resources]) -> Resources:
    """The sum."""
    return reduce(add, parts, NOTHING)


def utilization(used: Resources, available: Resources) -> dict[str, float]:
    """The share of every resource, by its field; infinite for what the device has none of."""
    pairs = zip(RESOURCES, used.counts(), available.counts(), strict=True)
    return {name: n / there if there else (float("inf") if n else 0.0) for name, n, there in pairs}


def excesses(demand: Demand, card: Device, caps: Caps | None = None) -> list[Excess]:
    """Every limit that a design exceeds: of the device, of its regions, of its memories.

    Args:
        demand: what the design asks for.
        card: the device.
        caps: shares allowed; those of the card, if not given. In a region everything may be used, for the
            caps are averages over the device.

    Raises:
        EstimateError: FX911, nothing is known of the resources of the card.
    """
    limits = caps or card.caps
    whole = _available(card)
    found = list(_over(demand.resources, whole, limits, ""))
    for region, used in demand.by_region.items():
        there = card.region_resources.get(region, NOTHING)
        found += _over(used, there, Caps(1.0, 1.0, 1.0, 1.0, 1.0), f"{region} ")
    kinds = {memory.kind: memory.channels for memory in card.memories}
    for kind, used in demand.channels.items():
        if used > kinds.get(kind, 0):
            found.append(Excess(f"{kind} channels", used, kinds.get(kind, 0)))
    return found


def demand_of(estimate: Estimate) -> Demand:
    """What an estimated design asks for: its modules, and the channels it uses."""
    kinds = [channel.name.partition("[")[0] for channel in estimate.channels]
    return Demand(estimate.modules, {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)})


def fit_of(estimate: Estimate) -> Fit:
    """What the estimator says, or else the limits that the modules and channels of the estimate exceed."""
    card = device(estimate.device)
    if not estimate.fit or card.available is None:
        return estimate.fit
    demand = demand_of(estimate)
    return Fit(tuple(excesses(demand, card)), others=holding(demand))


def check_fits(
    demand: Demand,
    card: Device,
    caps: Caps | None = None,
    setting: Setting | None = None,
    choices: Mapping[str, Sequence[int]] | None = None,
    evaluate: Callable[[Setting], Demand] | None = None,
) -> None:
    """Refuse a design that does not fit.

    Args:
        demand: what the design asks for.
        card: the device.
        caps: shares allowed; those of the card, if not given.
        setting: the parameters it was made with.
        choices: the values that each parameter may have.
        evaluate: gives the demand of another setting, so that the nearest one that fits can be named.

    Raises:
        EstimateError: FX910, it does not fit: what is exceeded and by how much, and in the hint the nearest
            setting that fits; FX911, nothing is known of the resources of the card.
    """
    found = excesses(demand, card, caps)
    if not found:
        return
    message = f"the design does not fit the {card.name}: " + "; ".join(str(excess) for excess in found)
    hint = ""
    if setting is not None and choices and evaluate:
        near = nearest(setting, choices, lambda s: not excesses(evaluate(s), card, caps))
        hint = _setting_hint(setting, near)
    raise EstimateError("FX910", message, hint=hint or _other_cards(demand, card, found))


def nearest(
    setting: Setting,
    choices: Mapping[str, Sequence[int]],
    fits: Callable[[Setting], bool],
    tries: int = _TRIES,
) -> dict[str, int] | None:
    """The setting that fits at the smallest distance: one step moves one parameter to its next choice.

    Among settings at one distance, the one that leaves the earlier parameters the larger. None if the search
    ends, or has tried `tries` settings, without one that fits.
    """
    order = {name: sorted({*values, setting[name]}) for name, values in choices.items()}
    start = tuple(order[name].index(setting[name]) for name in order)
    queue: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [(0, (), start)]
    seen = {start}
    for _ in range(tries):
        if not queue:
            return None
        steps, _, at = heapq.heappop(queue)
        tried = {**setting, **{name: order[name][i] for name, i in zip(order, at, strict=True)}}
        if fits(tried):
            return tried
        for beside in _beside(at, [len(values) for values in order.values()]):
            if beside not in seen:
                seen.add(beside)
                heapq.heappush(queue, (steps + 1, tuple(-i for i in beside), beside))
    return None


def _beside(at: tuple[int, ...], sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for place, (i, size) in enumerate(zip(at, sizes, strict=True)):
        for moved in (i - 1, i + 1):
            if 0 <= moved < size:
                yield (*at[:place], moved, *at[place + 1 :])


def _over(used: Resources, there: Resources, caps: Caps, where: str) -> Iterator[Excess]:
    for (name, label), n, count in zip(RESOURCES.items(), used.counts(), there.counts(), strict=True):
        excess = Excess(f"{where}{label}", n, count, caps.share(name))
        if excess.over > 0:
            yield excess


def _available(card: Device) -> Resources:
    if card.available is None:
        known = ", ".join(c.key for c in devices() if c.available)
        raise EstimateError(
            "FX911", f"the resources of the {card.name} are not known", hint=f"known: {known}"
        )
    return card.available


def _setting_hint(asked: Setting, near: Setting | None) -> str:
    if near is None:
        return "no setting near this one fits"
    changed = [f"{name} = {n} (not {asked[name]})" for name, n in near.items() if n != asked[name]]
    return "the nearest setting that fits: " + ", ".join(changed)


def holding(demand: Demand) -> tuple[str, ...]:
    """The cards of the database that a design fits, by name."""
    return tuple(c.key for c in devices() if c.available and not excesses(demand, c))


def _other_cards(demand: Demand, card: Device, found: Sequence[Excess]) -> str:
    """The cards it fits, and what this one has instead of a memory that it lacks."""
    parts: list[str] = []
    missing = [excess for excess in found if excess.what.endswith("channels") and not excess.there_are]
    if missing:
        has = ", ".join(f"{m.channels} {m.kind}" for m in card.memories)
        parts.append(f"its memory is {has} channel{'s' if card.memory.channels > 1 else ''}")
    others = [key for key in holding(demand) if key != card.key]
    parts.append(f"it fits {', '.join(others)}" if others else "it fits no card of the database")
    return "; ".join(parts)
