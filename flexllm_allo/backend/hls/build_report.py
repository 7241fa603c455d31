"""What the tools said of a project, step by step, in one schema: ``build_report.json`` and a table."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..report import table
from .reports import Interval, SynthesisReport, parse_csynth
from .timing_reports import CosimReport, TimingReport, parse_cosim, parse_timing

REPORT = "build_report.json"
SCHEMA = 1
SOLUTION = Path("out.prj", "solution1")
TIMING = (
    "_x/**/*timing_summary*routed*.rpt",
    "_x/**/*timing_summary*.rpt",
    "out.prj/**/*timing_summary*.rpt",
)
"""Where v++ leaves the timing summary, the one of the routed design first."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What is known of a project; None or empty for steps that were not run.

    Attributes:
        frequency_mhz: the clock that was asked for.
        synthesis: of high-level synthesis: an estimate.
        cosim: cycles of C/RTL co-simulation, one entry per language.
        timing: of the placed and routed design.
    """

    top: str
    frequency_mhz: float | None
    synthesis: SynthesisReport | None = None
    cosim: tuple[CosimReport, ...] = ()
    timing: TimingReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schema": SCHEMA,
            "top": self.top,
            "frequency_mhz": self.frequency_mhz,
            "synthesis": self.synthesis and self.synthesis.as_dict(),
            "cosim": [entry.as_dict() for entry in self.cosim],
            "timing": self.timing and self.timing.as_dict(),
        }

    def text(self) -> str:
        """A table of the main figures; empty if no step was run."""
        rows = [*self._synthesis_rows(), *self._cosim_rows(), *self._timing_rows()]
        return table(["", self.top], rows) if rows else ""

    def _synthesis_rows(self) -> list[list[str]]:
        report = self.synthesis
        if report is None:
            return []
        rows = [
            ["csynth: part", report.part],
            ["csynth: clock", f"{report.estimated_ns:g} of {report.target_ns:g} ns (estimated)"],
            ["csynth: latency", f"{_cycles(report.latency)} (estimated)"],
        ]
        for kind, usage in report.resources.items():
            rows.append([f"csynth: {kind}", f"{usage.used} of {usage.available} ({usage.share:.0%})"])
        return rows

    def _cosim_rows(self) -> list[list[str]]:
        return [[f"cosim: {r.language}", f"{r.status}, {_cycles(r.latency)} (simulated)"] for r in self.cosim]

    def _timing_rows(self) -> list[list[str]]:
        report = self.timing
        if report is None:
            return []
        rows = [
            [
                "link: timing",
                "met" if report.is_met else f"not met, {report.failing_endpoints} endpoints fail",
            ],
            ["link: slack", f"setup {report.wns:g} ns, hold {report.whs:g} ns"],
        ]
        if self.frequency_mhz is not None:
            reached = f"{report.achieved_mhz(self.frequency_mhz):.1f} of {self.frequency_mhz:g} MHz"
            rows.append(["link: clock", reached])
        return rows


def collect(folder: Path, top: str, frequency_mhz: float | None, finished: Set[str]) -> BuildReport:
    """Read what the finished steps left.

    Raises:
        ToolError: FX502, a report is something else.
    """
    synthesis, cosim = folder / csynth_report(top), folder / cosim_report(top)
    timing = find_timing(folder) if "link_hw" in finished else None
    return BuildReport(
        top,
        frequency_mhz,
        parse_csynth(synthesis) if {"csynth", "export"} & finished and synthesis.is_file() else None,
        parse_cosim(cosim) if "cosim" in finished and cosim.is_file() else (),
        parse_timing(timing) if timing is not None else None,
    )


def write_report(folder: Path, report: BuildReport) -> None:
    """Write ``build_report.json``, in one step."""
    temporary = folder / f".{REPORT}.tmp"
    temporary.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    temporary.replace(folder / REPORT)


def csynth_report(top: str) -> Path:
    """Where in a project Vitis HLS leaves the report of synthesis."""
    return SOLUTION / "syn" / "report" / f"{top}_csynth.xml"


def cosim_report(top: str) -> Path:
    """Where in a project Vitis HLS leaves the report of co-simulation."""
    return SOLUTION / "sim" / "report" / f"{top}_cosim.rpt"


def find_timing(folder: Path) -> Path | None:
    """The timing summary of the linked design, if the linker left one (emulation has none)."""
    for pattern in TIMING:
        if found := sorted(folder.glob(pattern)):
            return found[-1]  # after routing and physical optimisation, by their names
    return None


def _cycles(value: Interval) -> str:
    if value.minimum == value.maximum:
        return "unknown" if value.minimum is None else f"{value.minimum} cycles"
    low, high = ("?" if n is None else n for n in (value.minimum, value.maximum))
    return f"{low} to {high} cycles"


__all__ = ["REPORT", "BuildReport", "collect", "cosim_report", "csynth_report", "write_report"]
