"""Power of a design: ``static + f * (c_dsp * DSP + c_lut * LUT + c_bram * BRAM) + e * bandwidth``.

The constants are of the technology and of the class of card (`power.toml`), never of a design. Estimated: a
board reading also depends on its temperature and on how much the data toggle, which this model does not know.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from ..errors import EstimateError
from ..hardware.devices import Device, Resources
from ..hardware.devices import device as find_device

TOLERANCE = 0.10
"""How near the model comes to the board readings of designs whose resources and bandwidth are known."""


@dataclass(frozen=True, slots=True)
class Power:
    """The three terms, in watts."""

    static_w: float
    fabric_w: float
    memory_w: float

    @property
    def total_w(self) -> float:
        return self.static_w + self.fabric_w + self.memory_w


@dataclass(frozen=True, slots=True)
class Anchor:
    """A published reading; `resources` are None where they were not published."""

    name: str
    device: str
    watts: float
    mhz: float
    gb_per_s: float
    source: str
    resources: Resources | None = None
    basis: str = "board"
    fit: bool = False

    @property
    def card(self) -> Device:
        return find_device(self.device)


@dataclass(frozen=True, slots=True)
class _Constants:
    static_w: float
    dsp_pj: float
    lut_pj: float
    bram_pj: float
    memory_pj_per_byte: float


def power(card: Device, resources: Resources, mhz: float, gb_per_s: float) -> Power:
    """The power of a design.

    Args:
        card: the device.
        resources: that the design takes.
        mhz: its clock.
        gb_per_s: that it moves through off-chip memory.

    Raises:
        EstimateError: FX911, there are no constants for this card.

    Example:
        >>> from flexllm_allo.hardware.devices import Resources, device
        >>> nothing = Resources(lut=0, ff=0, dsp=0, bram18=0, uram=0)
        >>> power(device("u280"), nothing, 300, 100).memory_w
        4.0
    """
    c = _constants(card)
    per_cycle = (
        c.dsp_pj * resources.dsp
        + c.lut_pj * resources.lut
        + c.bram_pj * (resources.bram18 + 2 * resources.uram)
    )
    return Power(c.static_w, per_cycle * mhz * 1e6 * 1e-12, c.memory_pj_per_byte * gb_per_s * 1e9 * 1e-12)


def anchors() -> tuple[Anchor, ...]:
    """The published readings."""
    return tuple(_anchor(dict(entry)) for entry in _data()["anchor"])


def fitted_static_w(family: str) -> float | None:
    """The static term that fits the anchors of a family best; None where it has none to fit."""
    rest = [
        a.watts - (p := power(a.card, a.resources, a.mhz, a.gb_per_s)).fabric_w - p.memory_w
        for a in anchors()
        if a.fit and a.resources and a.card.power_family == family
    ]
    return fmean(rest) if rest else None


def power_families() -> Mapping[str, str]:
    """The families and where their static term is from."""
    return {name: entry["source"] for name, entry in _data()["family"].items()}


def _constants(card: Device) -> _Constants:
    if card.power_family is None:
        raise EstimateError(
            "FX911",
            f"nothing is known of the power of the {card.name}",
            hint="add a `power_family` to it in hardware/devices.toml: " + ", ".join(power_families()),
        )
    data = _data()
    family = data["family"][card.power_family]
    fabric = data["fabric"][family["fabric"]]
    memory = data["memory"][card.memory.kind]
    return _Constants(
        family["static_w"], fabric["dsp_pj"], fabric["lut_pj"], fabric["bram_pj"], memory["pj_per_byte"]
    )


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((files(__package__ or "flexllm_allo.estimate") / "power.toml").read_text())


def _anchor(entry: dict[str, Any]) -> Anchor:
    known = {"resources": Resources(**entry.pop("resources"))} if "resources" in entry else {}
    return Anchor(**known, **entry)
