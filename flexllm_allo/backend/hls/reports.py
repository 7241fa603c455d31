"""Reports of Vitis HLS: ``<top>_csynth.xml`` as data."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ToolError

RESOURCES = ("BRAM_18K", "DSP", "DSP48E", "FF", "LUT", "URAM")


@dataclass(frozen=True, slots=True)
class Interval:
    """Cycles in the best and the worst case; None where the tool could not tell."""

    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True)
class LoopReport:
    """One loop. `depth` counts the loops around it."""

    name: str
    depth: int
    trip_count: Interval
    latency: Interval
    iteration_latency: Interval
    pipeline_ii: int | None
    pipeline_depth: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources used, and how many the device has."""

    used: int
    available: int

    @property
    def share(self) -> float:
        return self.used / self.available if self.available else 0.0


@dataclass(frozen=True, slots=True)
class SynthesisReport:
    """What synthesis says of one function.

    Attributes:
        target_ns, estimated_ns: clock period.
        latency, interval: cycles of one call, and between the starts of two.
        loops: in the order of the report, outer loops before inner ones.
        resources: by kind, those the report names.
    """

    version: str
    part: str
    top: str
    target_ns: float
    estimated_ns: float
    latency: Interval
    interval: Interval
    loops: tuple[LoopReport, ...]
    resources: dict[str, Usage]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def parse_csynth(path: str | Path) -> SynthesisReport:
    """Read a synthesis report by the names of its elements.

    Raises:
        ToolError: FX502, the file is missing or is not such a report.
    """
    path = Path(path)
    try:
        root = ET.parse(path).getroot()
    except OSError:
        raise ToolError(
            "FX502", f"there is no synthesis report {path.name}", hint="run csynth first"
        ) from None
    except ET.ParseError as error:
        raise ToolError("FX502", f"{path.name} is not XML: {error}", hint="run csynth again") from None
    if root.tag != "profile":
        raise ToolError("FX502", f"{path.name} is not a report of csynth (its root is <{root.tag}>)")
    overall = "PerformanceEstimates/SummaryOfOverallLatency"
    loops = root.find("PerformanceEstimates/SummaryOfLoopLatency")
    return SynthesisReport(
        version=_text(root, "ReportVersion/Version"),
        part=_text(root, "UserAssignments/Part"),
        top=_text(root, "UserAssignments/TopModelName"),
        target_ns=_number(root, "UserAssignments/TargetClockPeriod"),
        estimated_ns=_number(root, "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"),
        latency=Interval(
            _count(root, f"{overall}/Best-caseLatency"), _count(root, f"{overall}/Worst-caseLatency")
        ),
        interval=Interval(_count(root, f"{overall}/Interval-min"), _count(root, f"{overall}/Interval-max")),
        loops=tuple(_loops(loops, 0)) if loops is not None else (),
        resources=_resources(root),
    )


def _loops(parent: ET.Element, depth: int) -> list[LoopReport]:
    """Elements with a trip count are loops, named by their tags; inner loops are elements inside."""
    found: list[LoopReport] = []
    for element in parent:
        if element.find("TripCount") is None:
            continue
        found.append(
            LoopReport(
                name=_text(element, "Name") or element.tag,
                depth=depth,
                trip_count=_interval(element, "TripCount"),
                latency=_interval(element, "Latency"),
                iteration_latency=_interval(element, "IterationLatency"),
                pipeline_ii=_count(element, "PipelineII"),
                pipeline_depth=_count(element, "PipelineDepth"),
            )
        )
        found += _loops(element, depth + 1)
    return found


def _resources(root: ET.Element) -> dict[str, Usage]:
    used, available = root.find("AreaEstimates/Resources"), root.find("AreaEstimates/AvailableResources")
    if used is None:
        return {}
    out: dict[str, Usage] = {}
    for kind in RESOURCES:
        count = _count(used, kind)
        if count is not None:
            out[kind] = Usage(count, (_count(available, kind) or 0) if available is not None else 0)
    return out


def _interval(element: ET.Element, tag: str) -> Interval:
    """A plain number, or ``<range><min>..<max>..</range>``."""
    low, high = _count(element, f"{tag}/range/min"), _count(element, f"{tag}/range/max")
    if low is None and high is None:
        low = high = _count(element, tag)
    return Interval(low, high)


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _count(element: ET.Element, path: str) -> int | None:
    """A whole number; None for ``undef``, ``?`` and absent elements."""
    text = _text(element, path)
    return int(text) if text.isdigit() else None


def _number(element: ET.Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return 0.0
