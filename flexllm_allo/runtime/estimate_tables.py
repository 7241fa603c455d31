"""An estimate as the tables that ``flexllm estimate`` prints."""

from __future__ import annotations

from typing import Any

from ..estimate.result import Estimate, LoopTiming, StageTiming
from ..hardware.devices import RESOURCES

STAGE_ROWS, LOOP_ROWS = 12, 12
"""Rows shown of each phase; the JSON has all."""


def tables(found: Estimate) -> list[tuple[str, Any]]:
    """The summary (name -> value), then per phase the slowest stages and loops."""
    out: list[tuple[str, Any]] = [(f"{found.design} on {found.device} (estimated)", _summary(found))]
    for phase in found.phases:
        rows = sorted((s for s in found.stages if s.phase == phase), key=lambda s: -s.cycles)
        total = max(1, found.phases[phase].cycles)
        out.append((f"{phase}: stages", [_stage(row, total) for row in rows[:STAGE_ROWS]]))
        loops = [(row, loop) for row in rows for loop in row.loops if loop.ii is not None]
        loops.sort(key=lambda pair: -pair[1].cycles)
        out.append((f"{phase}: loops", [_loop(row, loop, total) for row, loop in loops[:LOOP_ROWS]]))
    return out


def _summary(found: Estimate) -> dict[str, str]:
    rows = {"clock": f"{found.clock_mhz:g} MHz"}
    for name, phase in found.phases.items():
        each = f", {phase.tokens:,} tokens" if phase.tokens else ""
        rows[name] = f"{phase.seconds:,.4g} s, {phase.cycles:,} cycles{each}"
    if found.tokens_per_second is not None:
        rows["tokens per second"] = f"{found.tokens_per_second:,.1f}"
    used = found.resources
    for name, label in RESOURCES.items():
        share = f" ({found.utilization[name]:.1%})" if name in found.utilization else ""
        rows[label] = f"{getattr(used, name):,}{share}"
    rows["bandwidth"] = f"{found.bandwidth_gbs:,.1f} GB/s"
    rows["power"] = f"{found.power_w:.1f} W"
    if found.energy_per_token_j is not None:
        rows["energy per token"] = f"{found.energy_per_token_j:.3g} J"
    rows["binds"] = found.binds
    return rows


def _stage(row: StageTiming, total: int) -> dict[str, str]:
    return {
        "stage": row.name,
        "cycles": f"{row.cycles:,}",
        "share": f"{row.cycles / total:.1%}",
        "kernel": _line(row.kernel),
        "schedule": _line(row.schedule),
    }


def _loop(stage: StageTiming, loop: LoopTiming, total: int) -> dict[str, str]:
    return {
        "loop": f"{stage.name}: {loop.loop}",
        "cycles": f"{loop.cycles:,}",
        "share": f"{loop.cycles / total:.1%}",
        "trips": f"{loop.trips:,}",
        "II": str(loop.ii),
        "depth": str(loop.depth),
        "reason": loop.reason,
        "kernel": _line(loop.kernel),
    }


def _line(span: Any) -> str:
    return f"{span.file.rpartition('/')[2]}:{span.line}" if span is not None and span.line else ""


__all__ = ["tables"]
