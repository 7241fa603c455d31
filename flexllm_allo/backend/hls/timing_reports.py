"""Reports of the later steps as data, read by column name: timing of Vivado, and C/RTL co-simulation."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ToolError
from .reports import Interval


@dataclass(frozen=True, slots=True)
class TimingReport:
    """The design timing summary. Slack in ns; negative where a path is too slow.

    Attributes:
        wns, tns: worst and total negative slack of setup.
        whs: worst hold slack.
        failing_endpoints: of setup.
    """

    wns: float
    tns: float
    whs: float
    failing_endpoints: int

    @property
    def is_met(self) -> bool:
        return self.wns >= 0 and self.whs >= 0

    def achieved_mhz(self, target_mhz: float) -> float:
        """The clock the setup paths would take, given the one they were routed for."""
        return 1e3 / (1e3 / target_mhz - self.wns)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "is_met": self.is_met}


@dataclass(frozen=True, slots=True)
class CosimReport:
    """What co-simulation says of one language.

    Attributes:
        language: ``Verilog`` or ``VHDL``.
        status: ``Pass``, ``Fail`` or ``NA``.
        latency, interval: cycles, least and most.
    """

    language: str
    status: str
    latency: Interval
    interval: Interval

    @property
    def has_passed(self) -> bool:
        return self.status.lower() == "pass"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "has_passed": self.has_passed}


def parse_timing(path: str | Path) -> TimingReport:
    """Read the ``Design Timing Summary`` of a ``*_timing_summary*.rpt``.

    Raises:
        ToolError: FX502, the file is missing or has no such table.
    """
    lines = _lines(Path(path), "hw")
    for number, line in enumerate(lines):
        names = re.split(r"\s{2,}", line.strip())
        if "WNS(ns)" not in names:
            continue
        for below in lines[number + 1 :]:
            values = below.split()
            if len(values) == len(names) and not set(below) <= set("- \n"):
                row = dict(zip(names, values, strict=True))
                return TimingReport(
                    wns=_slack(row, "WNS(ns)"),
                    tns=_slack(row, "TNS(ns)"),
                    whs=_slack(row, "WHS(ns)"),
                    failing_endpoints=int(_slack(row, "TNS Failing Endpoints")),
                )
    raise ToolError(
        "FX502", f"{Path(path).name} has no design timing summary", hint="run the link step again"
    )


def parse_cosim(path: str | Path) -> tuple[CosimReport, ...]:
    """Read ``<top>_cosim.rpt``: the languages that were simulated.

    Raises:
        ToolError: FX502, the file is missing or has no such table.
    """
    path = Path(path)
    lines = _lines(path, "cosim")
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if "|" in line]
    below = next((n for n, row in enumerate(rows) if "min" in row), 0)
    if below == 0 or not any("RTL" in line and "Status" in line for line in lines):
        raise ToolError("FX502", f"{path.name} is no report of cosim", hint="run cosim again")
    groups = _columns(rows[below - 1], rows[below])
    found: list[CosimReport] = []
    for row in rows[below + 1 :]:
        cells = dict(zip(groups, row, strict=False))
        if cells.get("Status", "NA") != "NA":
            found.append(
                CosimReport(
                    row[0],
                    cells["Status"],
                    Interval(_count(cells, "Latency min"), _count(cells, "Latency max")),
                    Interval(_count(cells, "Interval min"), _count(cells, "Interval max")),
                )
            )
    return tuple(found)


def _columns(above: list[str], names: list[str]) -> list[str]:
    """The names of columns, whose header takes three lines: language, status, ``Latency min`` and so on."""
    headings = iter([cell.partition("(")[0].strip() for cell in above if "(" in cell])
    out = ["RTL", "Status"]
    heading = ""
    for name in names[2:]:
        if name == "min":
            heading = next(headings, "")
        out.append(f"{heading} {name}")
    return out


def _lines(path: Path, step: str) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        raise ToolError("FX502", f"there is no report {path.name}", hint=f"run {step} first") from None


def _slack(row: dict[str, str], name: str) -> float:
    try:
        return float(row[name])
    except (KeyError, ValueError):
        raise ToolError("FX502", f"the timing summary has no column {name}") from None


def _count(cells: dict[str, str], name: str) -> int | None:
    text = cells.get(name, "")
    return int(text) if text.isdigit() else None
