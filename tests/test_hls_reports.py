"""Reading Vitis HLS' synthesis report; the stored file follows the documented format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexllm_allo.backend.hls.reports import Interval, Usage, parse_csynth
from flexllm_allo.errors import ToolError

REPORT = Path(__file__).parent / "goldens" / "csynth.xml"


def test_parse() -> None:
    report = parse_csynth(REPORT)
    assert (report.version, report.part, report.top) == ("2022.2", "xcu280-fsvh2892-2L-e", "two_layers")
    assert (report.target_ns, report.estimated_ns) == (3.33, 2.433)
    assert report.latency == Interval(330, 402)
    assert report.interval == Interval(331, 403)
    assert [(loop.name, loop.depth) for loop in report.loops] == [
        ("l_load_i", 0),
        ("l_j", 1),
        ("l_tail_i", 0),
    ]
    inner, tail = report.loops[1], report.loops[2]
    assert (inner.pipeline_ii, inner.pipeline_depth, inner.trip_count) == (1, 2, Interval(4, 4))
    assert (tail.pipeline_ii, tail.trip_count, tail.latency) == (None, Interval(1, 10), Interval(8, 80))
    assert report.resources["DSP"] == Usage(16, 9024)
    assert report.resources["DSP"].share == pytest.approx(16 / 9024)
    assert "DSP48E" not in report.resources
    json.dumps(report.as_dict())


def test_broken_reports_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"there is no synthesis report x\.xml"):
        parse_csynth(tmp_path / "x.xml")
    broken = tmp_path / "broken.xml"
    broken.write_text("<profile>")
    with pytest.raises(ToolError, match="is not XML"):
        parse_csynth(broken)
    broken.write_text("<html/>")
    with pytest.raises(ToolError, match="is not a report"):
        parse_csynth(broken)
