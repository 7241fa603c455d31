"""The database of FPGA cards (`devices.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import BackendError, did_you_mean


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
    """Off-chip memory: `channels` of `channel_bytes` each, whose ports are in the region `slr`."""

    kind: str
    channels: int
    channel_bytes: int
    channel_gb_per_s: float
    slr: str


@dataclass(frozen=True, slots=True)
class Device:
    """A card. `resources` are those of the die, `usable` what the platform's shell leaves."""

    key: str
    name: str
    part: str
    platform: str
    slrs: int
    default_mhz: float
    memory: OffChipMemory
    resources: Resources
    usable: Resources


def device(key: str) -> Device:
    """A card by its short name.

    Raises:
        BackendError: FX402, there is no card of that name.

    Example:
        >>> device("u280").part
        'xcu280-fsvh2892-2L-e'
    """
    known = _devices()
    if key.lower() not in known:
        raise BackendError(
            "FX402", f'device "{key}" is not in the database', hint=did_you_mean(key.lower(), known)
        )
    return known[key.lower()]


@cache
def _devices() -> Mapping[str, Device]:
    text = (files(__package__ or "flexllm_allo.hardware") / "devices.toml").read_text()
    return {key: _parse(key, entry) for key, entry in tomllib.loads(text).items()}


def _parse(key: str, entry: dict[str, Any]) -> Device:
    return Device(
        key=key,
        memory=OffChipMemory(**entry.pop("memory")),
        resources=Resources(**entry.pop("resources")),
        usable=Resources(**entry.pop("usable")),
        **entry,
    )
