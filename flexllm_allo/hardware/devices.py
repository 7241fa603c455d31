"""The database of FPGA cards (`devices.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import TargetError, did_you_mean


@dataclass(frozen=True, slots=True)
class Resources:
    """Counts of logic, multipliers and on-chip memories (BRAM in units of 18 Kbit)."""

    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int


@dataclass(frozen=True, slots=True)
class OffChipMemory:
    """Off-chip memory: `channels` of `channel_bytes` each, whose ports are in the region `slr`.

    `channel_gb_per_s` is None where the database does not know it; `ports` is how many AXI masters of
    kernels the memory takes, None if there is no fixed number.
    """

    kind: str
    channels: int
    channel_bytes: int
    channel_gb_per_s: float | None = None
    slr: str = "SLR0"
    ports: int | None = None

    @property
    def total_bytes(self) -> int:
        return self.channels * self.channel_bytes


@dataclass(frozen=True, slots=True)
class Device:
    """A card. `resources` are those of the die, `usable` what the platform's shell leaves.

    Both are None for boards that projects can be written for, but of which nothing more is known here.
    `second` is a larger and slower memory beside the first; `versal` says which link flow the card takes.
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

    @property
    def memories(self) -> tuple[OffChipMemory, ...]:
        """The memories of the card, the fastest first."""
        return (self.memory,) if self.second is None else (self.memory, self.second)


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


@cache
def _devices() -> Mapping[str, Device]:
    text = (files(__package__ or "flexllm_allo.hardware") / "devices.toml").read_text()
    return {key: _parse(key, entry) for key, entry in tomllib.loads(text).items()}


def _parse(key: str, entry: dict[str, Any]) -> Device:
    counts = {name: Resources(**entry.pop(name)) for name in ("resources", "usable") if name in entry}
    memories = {name: OffChipMemory(**entry.pop(name)) for name in ("memory", "second") if name in entry}
    return Device(key=key, **memories, **counts, **entry)
