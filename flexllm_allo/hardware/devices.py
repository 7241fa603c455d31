"""The database of FPGA cards (`devices.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import TargetError, UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Resources:
    """Counts of logic, multipliers and on-chip memories (BRAM in units of 18 Kbit)."""

    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def __sub__(self, other: Resources) -> Resources:
        return Resources(*(a - b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, ...]:
        """The figures, in the order of `RESOURCES`."""
        return (self.lut, self.ff, self.dsp, self.bram18, self.uram)


RESOURCES: Mapping[str, str] = {
    "lut": "LUT",
    "ff": "FF",
    "dsp": "DSP",
    "bram18": "BRAM18",
    "uram": "URAM",
}
"""What a die has, by field of `Resources`, with the vendor's name."""


@dataclass(frozen=True, slots=True)
class Caps:
    """Shares of the resources that a design may use and still be expected to route.

    The defaults are the limits that FINN's partitioner uses for Alveo cards [code].
    """

    lut: float = 0.70
    ff: float = 0.50
    dsp: float = 0.80
    bram18: float = 0.80
    uram: float = 0.80

    def share(self, resource: str) -> float:
        """The cap of one resource, by its field."""
        return float(getattr(self, resource))


EFFICIENCY: Mapping[str, float] = {"HBM": 0.70, "DDR": 0.85}
"""Achieved over peak bandwidth of long sequential bursts, by kind of memory.

HBM: FlightLLM's model of a channel that is read through its own port [code]; EdgeLLM's matmul reached 0.75,
all of it 0.61 [secondary]. DDR: llama-fpga 0.85 to 0.88, Hummingbird 0.93 [secondary].
"""

FOREIGN_CHANNEL = 0.35
"""The efficiency of an HBM channel that is read through the port of another [code, FlightLLM]."""


@dataclass(frozen=True, slots=True)
class OffChipMemory:
    """Off-chip memory: `channels` of `channel_bytes` each, whose ports are in the region `slr`.

    `channel_gb_per_s` is None where the database does not know it; `ports` is how many AXI masters of
    kernels the memory takes, None if there is no fixed number; `port_bits` is how wide such a port is on the
    side of the memory (a kernel's may be wider, and is converted).
    """

    kind: str
    channels: int
    channel_bytes: int
    channel_gb_per_s: float | None = None
    slr: str = "SLR0"
    ports: int | None = None
    port_bits: int | None = None

    @property
    def total_bytes(self) -> int:
        return self.channels * self.channel_bytes

    @property
    def gb_per_s(self) -> float | None:
        """All channels together, by the data sheet."""
        return None if self.channel_gb_per_s is None else self.channels * self.channel_gb_per_s

    @property
    def efficiency(self) -> float:
        """The share of its peak that long bursts get: the same for every design."""
        return EFFICIENCY[self.kind]


@dataclass(frozen=True, slots=True)
class Device:
    """A card. `resources` are those of the die, `usable` what the platform's shell leaves.

    Both are None for boards that projects can be written for, but of which nothing more is known here.
    `regions` are the super logic regions by name, where they differ. `second` is a larger and slower memory
    beside the first; `versal` says which link flow the card takes; `dsp_family` is DSP48E1, DSP48E2 or DSP58;
    `power_family` names the constants of its power; `max_w` is what the card may draw. `sources` says where
    the figures are from: published, code, derived, secondary or recalled.
    """

    key: str
    name: str
    part: str
    platform: str
    slrs: int
    default_mhz: float
    memory: OffChipMemory
    resources: Resources | None = None
    usable: Resources | None = None
    second: OffChipMemory | None = None
    versal: bool = False
    dsp_family: str = "DSP48E2"
    power_family: str | None = None
    max_w: float | None = None
    regions: Mapping[str, Resources] = field(default_factory=dict[str, Resources], hash=False)
    caps: Caps = Caps()
    sources: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def available(self) -> Resources | None:
        """What a design may draw on: behind the shell where that is known, else the whole die."""
        return self.usable or self.resources

    @property
    def region_resources(self) -> Mapping[str, Resources]:
        """What is available in every super logic region; even parts where the database has no figures."""
        whole = self.available
        if self.regions or whole is None:
            return self.regions
        part = Resources(*(count // self.slrs for count in whole.counts()))
        return {f"SLR{n}": part for n in range(self.slrs)}

    @property
    def memories(self) -> tuple[OffChipMemory, ...]:
        """The memories of the card, the fastest first."""
        return (self.memory,) if self.second is None else (self.memory, self.second)

    @property
    def ports(self) -> int | None:
        """AXI ports that a kernel may have: of the first memory, and one for a channel of the second."""
        if self.memory.ports is None:
            return None
        return self.memory.ports + (self.second.channels if self.second else 0)


MAX_MHZ = 10_000
"""No logic is as fast as that."""


def device(key: str) -> Device:
    """A card by its short name.

    Raises:
        TargetError: FX402, there is no card of that name.

    Example:
        >>> device("u280").part
        'xcu280-fsvh2892-2L-e'
    """
    known = _devices()
    if key.lower() not in known:
        raise TargetError(
            "FX402",
            f"Device {key} not supported. Available devices: {', '.join(known)}",
            hint=did_you_mean(key.lower(), known),
        )
    return known[key.lower()]


def devices() -> list[Device]:
    """All cards, in the order of the database."""
    return list(_devices().values())


def part_numbers() -> dict[str, str]:
    """The part number of every card, by its short name."""
    return {key: card.part for key, card in _devices().items()}


CLOCKS: tuple[tuple[float, float], ...] = ((0.50, 300.0), (0.70, 250.0), (1.0, 225.0))
"""MHz that designs reached, by the share of the fullest resource.

The published ones: 292 and 304 with floorplans (FlexLLM), 280 (EdgeLLM), 245 to 250 (Allo, StreamTensor), 225
(FlightLLM), 200 (DFX) [published, secondary]; the steps are [derived] from them.
"""


def check_clock(mhz: float | None) -> None:
    """Refuse a clock that no card has; None is the card's usual one.

    Raises:
        UsageError: FX703.
    """
    if mhz is not None and not 0 < mhz <= MAX_MHZ:
        hint = f"more than 0 and at most {MAX_MHZ} MHz; without one, the clock that the card usually has"
        raise UsageError("FX703", f"a clock of {mhz:g} MHz", hint=hint)


def achievable_mhz(card: Device, utilization: float, floorplanned: bool = True) -> float:
    """The clock to expect of a design that uses that share of its fullest resource.

    Args:
        card: its `default_mhz` is not exceeded.
        utilization: between 0 and 1.
        floorplanned: without a floorplan nothing is expected above the second step.
    """
    steps = CLOCKS if floorplanned else CLOCKS[1:]
    reached = next((mhz for share, mhz in steps if utilization < share), CLOCKS[-1][1])
    return min(reached, card.default_mhz)


@cache
def _devices() -> Mapping[str, Device]:
    text = (files(__package__ or "flexllm_allo.hardware") / "devices.toml").read_text()
    return {key: _parse(key, entry) for key, entry in tomllib.loads(text).items()}


def _parse(key: str, entry: dict[str, Any]) -> Device:
    counts = {name: Resources(**entry.pop(name)) for name in ("resources", "usable") if name in entry}
    memories = {name: OffChipMemory(**entry.pop(name)) for name in ("memory", "second") if name in entry}
    regions = {name: Resources(**entry.pop(name)) for name in list(entry) if name.startswith("SLR")}
    caps = Caps(**entry.pop("caps", {}))
    return Device(key=key, regions=regions, caps=caps, **memories, **counts, **entry)
