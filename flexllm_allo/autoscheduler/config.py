"""``AutoschedulerConfig``: what the original's autoscheduler is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class AutoschedulerConfig:
    """Limits and kind of a search; the ``with_`` methods return a changed copy."""

    kind: str = "combined"
    dsp_limit: int = 2560
    tiling_limit: int = 4
    mem_r_ports: int = 1
    mem_w_ports: int = 1
    dsp_factors: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    debug_point: str | None = None
    verify: bool = False
    debug_lp: bool = False
    verbose: bool = False

    @classmethod
    def builder(cls) -> AutoschedulerConfig:
        """The defaults, to be changed by the ``with_`` methods."""
        return cls()

    def with_kind(self, kind: str) -> AutoschedulerConfig:
        return self._with(kind=kind)

    def with_dsp_limit(self, limit: int) -> AutoschedulerConfig:
        return self._with(dsp_limit=limit)

    def with_tiling_limit(self, limit: int) -> AutoschedulerConfig:
        return self._with(tiling_limit=limit)

    def with_mem_r_ports(self, ports: int) -> AutoschedulerConfig:
        return self._with(mem_r_ports=ports)

    def with_mem_w_ports(self, ports: int) -> AutoschedulerConfig:
        return self._with(mem_w_ports=ports)

    def with_dsp_factors(self, factors: Mapping[str, int]) -> AutoschedulerConfig:
        return self._with(dsp_factors=dict(factors))

    def with_debug_point(self, point: str | None) -> AutoschedulerConfig:
        return self._with(debug_point=point)

    def with_verbose(self, verbose: bool = True) -> AutoschedulerConfig:
        return self._with(verbose=verbose)

    def enable_verify(self) -> AutoschedulerConfig:
        return self._with(verify=True)

    def enable_debug_lp(self) -> AutoschedulerConfig:
        return self._with(debug_lp=True)

    def _with(self, **changes: Any) -> AutoschedulerConfig:
        return replace(self, **changes)
