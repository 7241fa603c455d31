"""How many multiply-accumulates a DSP does in a cycle (`packing.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import TargetError, did_you_mean


@dataclass(frozen=True, slots=True)
class Packing:
    """`per_dsp` products of `weight` by `activation` bits in one DSP.

    `accumulations` is how many of each lane can be summed before the lanes must be unpacked, None if that is
    not the limit.
    """

    weight: int
    activation: int
    per_dsp: int
    source: str
    accumulations: int | None = None


@dataclass(frozen=True, slots=True)
class DspFamily:
    """A kind of DSP: its packings, and how many DSPs an fp32 multiply-add takes."""

    name: str
    fp32_dsps: int
    packings: tuple[Packing, ...]

    def packing(self, weight: int, activation: int) -> Packing | None:
        """The best packing whose operands are wide enough; None if there is none."""
        fit = [p for p in self.packings if p.weight >= weight and p.activation >= activation]
        return max(fit, key=lambda p: p.per_dsp, default=None)


def dsp_family(name: str) -> DspFamily:
    """A family by its name.

    Raises:
        TargetError: FX402, there is none of that name.

    Example:
        >>> dsp_family("DSP58").packing(8, 8).per_dsp
        3
    """
    known = _families()
    if name not in known:
        raise TargetError("FX402", f"there is no DSP family {name}", hint=did_you_mean(name, known))
    return known[name]


@cache
def _families() -> Mapping[str, DspFamily]:
    text = (files(__package__ or "flexllm_allo.hardware") / "packing.toml").read_text()
    return {name: _parse(name, entry) for name, entry in tomllib.loads(text).items()}


def _parse(name: str, entry: dict[str, Any]) -> DspFamily:
    return DspFamily(name, entry["fp32_dsps"], tuple(Packing(**row) for row in entry["macs"]))
