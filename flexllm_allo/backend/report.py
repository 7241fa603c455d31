"""``allo.backend.report``: synthesis reports as the tables that Allo's programs print."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ToolError, UsageError, did_you_mean
from ..lazy import unsupported
from .hls.reports import Interval, LoopReport, SynthesisReport, parse_csynth

parse_js = unsupported("parse_js", "there is no Intel target", "parse_xml reads the reports of Vitis HLS")

_INTERVALS = {"Trip Count": "trip_count", "Latency": "latency", "Iteration Latency": "iteration_latency"}
_COUNTS = {"Pipeline II": "pipeline_ii", "Pipeline Depth": "pipeline_depth"}
MISSING = "N/A"


class Displayer:
    """The loops of a report as a table: one row per loop, inner loops prefixed ``+``, ``++``.

    A column with ranges is split into ``Min ...`` and ``Max ...``.

    Args:
        unit: the unit of the latencies.

    Example:
        >>> table = parse_xml("gemm.prj", "Vitis HLS", top="gemm")
        >>> table.get_max("Latency")[0]
        ('l_S_i_j_0_i', 4096, 0)
    """

    def __init__(self, unit: str = "cycles") -> None:
        self.unit = unit
        self.columns: list[str] = []
        self.rows: list[tuple[str, int, dict[str, int | None]]] = []

    def init_table(self, obj: SynthesisReport) -> None:
        """Fix the columns by what the loops of a report have."""
        self.columns = []
        for title, field in _INTERVALS.items():
            ranges = any(_differs(getattr(loop, field)) for loop in obj.loops)
            self.columns += [f"Min {title}", f"Max {title}"] if ranges else [title]
        self.columns += list(_COUNTS)

    def collect_data(self, obj: SynthesisReport) -> None:
        """Take over the loops of a report as rows."""
        self.rows = [(loop.name, loop.depth, self._cells(loop)) for loop in obj.loops]

    def _cells(self, loop: LoopReport) -> dict[str, int | None]:
        cells: dict[str, int | None] = {}
        for title, field in _INTERVALS.items():
            value: Interval = getattr(loop, field)
            if title in self.columns:
                cells[title] = value.maximum
            else:
                cells[f"Min {title}"], cells[f"Max {title}"] = value.minimum, value.maximum
        for title, field in _COUNTS.items():
            cells[title] = getattr(loop, field)
        return cells

    def display(
        self,
        loops: Sequence[str] | None = None,
        level: int | None = None,
        cols: Sequence[str] | None = None,
    ) -> str:
        """Print the chosen rows and columns, and return the text.

        Args:
            loops: names of loops; all by default.
            level: the deepest level of nesting shown.
            cols: names of columns; all by default.

        Raises:
            UsageError: FX703, there is no such loop or column.
        """
        for name in cols or ():
            self._check(name, self.columns, "column")
        for name in loops or ():
            self._check(name, [row[0] for row in self.rows], "loop")
        shown = [
            row
            for row in self.rows
            if (loops is None or row[0] in loops) and (level is None or row[1] <= level)
        ]
        titles = list(cols or self.columns)
        body = [["+" * depth + name, *(_text(cells[t]) for t in titles)] for name, depth, cells in shown]
        text = table(["", *titles], body) + f"* Units in {self.unit}\n"
        sys.stdout.write(text)
        return text

    def get_max(self, col: str) -> list[tuple[str, int, int]]:
        """``(loop, value, level)`` by decreasing value of a column.

        Raises:
            UsageError: FX703, there is no such column.
        """
        self._check(col, self.columns, "column")
        found = [
            (name, value, depth) for name, depth, cells in self.rows if (value := cells[col]) is not None
        ]
        return sorted(found, key=lambda row: -row[1])

    def _check(self, name: str, known: list[str], what: str) -> None:
        if name not in known:
            raise UsageError("FX703", f'the report has no {what} "{name}"', hint=did_you_mean(name, known))


def _differs(value: Interval) -> bool:
    return value.minimum != value.maximum


def _text(value: int | None) -> str:
    return MISSING if value is None else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a table with aligned columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = "+" + "+".join("-" * (w + 2) for w in widths) + "+"
    lines = [
        "|" + "|".join(f" {cell:<{w}} " for cell, w in zip(row, widths, strict=True)) + "|"
        for row in [header, *rows]
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def summary(report: SynthesisReport, prod_name: str) -> str:
    """Clock, latency and resources of a report as a table."""

    def interval(value: Interval) -> str:
        return f"Min {_text(value.minimum)}; Max {_text(value.maximum)}"

    rows = [
        ["HLS Version", f"{prod_name} {report.version}"],
        ["Target device", report.part],
        ["Top Model Name", report.top],
        ["Target CP", f"{report.target_ns:.2f} ns"],
        ["Estimated CP", f"{report.estimated_ns:.3f} ns"],
        ["Latency (cycles)", interval(report.latency)],
        ["Interval (cycles)", interval(report.interval)],
    ]
    used = [
        [kind, str(usage.used), str(usage.available), f"{usage.share:.0%}"]
        for kind, usage in report.resources.items()
    ]
    return table(["", "Result"], rows) + table(["Type", "Used", "Total", "Util"], used)


def parse_xml(path: str | Path, prod_name: str, top: str = "top", print_flag: bool = False) -> Displayer:
    """Read the synthesis report of a project, and write it to ``report.json`` there.

    Args:
        path: the project.
        prod_name: the name of the tool, shown in the first table.
        print_flag: print both tables.

    Raises:
        ToolError: a RuntimeError; FX502, there is no report, or it is not one of csynth.
    """
    folder = Path(path)
    source = folder / "out.prj" / "solution1" / "syn" / "report" / f"{top}_csynth.xml"
    if not source.is_file():
        raise ToolError("FX502", f"Cannot find {source.name}, run csyn first", hint='build with mode="csyn"')
    report = parse_csynth(source)
    content = {"profile": _as_data(ET.parse(source).getroot())}
    (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    shown = Displayer()
    shown.init_table(report)
    shown.collect_data(report)
    if print_flag:
        sys.stdout.write(summary(report, prod_name))
        shown.display()
    return shown


def _as_data(element: ET.Element) -> Any:
    """An XML element as dicts; repeated tags become lists."""
    if not len(element):
        return (element.text or "").strip()
    out: dict[str, Any] = {}
    for child in element:
        value = _as_data(child)
        if child.tag in out:
            known = out[child.tag]
            out[child.tag] = [*known, value] if isinstance(known, list) else [known, value]  # pyright: ignore
        else:
            out[child.tag] = value
    return out


def report_stats(target: Any, folder: str | Path) -> Displayer:
    """The report of a project; `target` has a ``tool.name`` (Vivado or Vitis HLS) and a ``top``."""
    return parse_xml(folder, str(target.tool.name), top=str(getattr(target, "top", "top")))
