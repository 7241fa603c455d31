"""GPU baselines (`gpus.toml`): what the hardware allows, and what frameworks were reported to reach."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ..errors import TargetError, did_you_mean


@dataclass(frozen=True, slots=True)
class GpuRow:
    """A reported rate of a framework; ``eager`` runs layer by layer, ``vllm`` captured graphs."""

    kind: Literal["eager", "vllm"]
    model: str
    format: str
    tokens_per_second: float
    source: str
    power_w: float | None = None
    prefill_tokens: int | None = None
    prefill_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its product brief, with the reported rows."""

    key: str
    name: str
    gb_per_s: float
    bf16_tflops: float
    int8_tops: float
    power_w: float
    source: str
    rows: tuple[GpuRow, ...] = ()

    def roofline_tokens_per_second(self, bytes_per_token: float) -> float:
        """Decode of one sequence if it did nothing but read: no framework reaches it."""
        return self.gb_per_s * 1e9 / bytes_per_token


def gpu(key: str) -> Gpu:
    """A GPU by its short name.

    Raises:
        TargetError: FX402, there is none of that name.

    Example:
        >>> gpu("h200").gb_per_s
        4800.0
    """
    known = _gpus()
    if key.lower() not in known:
        raise TargetError("FX402", f"there is no GPU {key}", hint=did_you_mean(key.lower(), known))
    return known[key.lower()]


def gpus() -> list[Gpu]:
    """All GPUs, in the order of the database."""
    return list(_gpus().values())


@cache
def _gpus() -> Mapping[str, Gpu]:
    text = (files(__package__ or "flexllm_allo.hardware") / "gpus.toml").read_text()
    return {key: _parse(key, entry) for key, entry in tomllib.loads(text).items()}


def _parse(key: str, entry: dict[str, Any]) -> Gpu:
    rows = tuple(GpuRow(**row) for row in entry.pop("rows", ()))
    return Gpu(key=key, rows=rows, **entry)
