"""Timing and co-simulation reports, written by hand in the layout of the tools' documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexllm_allo.backend.hls.reports import Interval
from flexllm_allo.backend.hls.timing_reports import parse_cosim, parse_timing
from flexllm_allo.errors import ToolError

GOLDENS = Path(__file__).parent / "goldens"


def test_timing_is_read_by_column() -> None:
    report = parse_timing(GOLDENS / "timing_summary.rpt")
    assert (report.wns, report.tns, report.whs, report.failing_endpoints) == (-0.092, -3.417, 0.010, 61)
    assert not report.is_met
    assert report.achieved_mhz(300.0) == pytest.approx(1000 / (1000 / 300 + 0.092))
    assert report.as_dict()["is_met"] is False


def test_columns_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "t.rpt"
    path.write_text(
        "  WHS(ns)  TNS Failing Endpoints  TNS(ns)  WNS(ns)\n  -----  ----  ---  ---\n  0.1  0  0.0  0.5\n"
    )
    assert parse_timing(path).wns == 0.5
    assert parse_timing(path).is_met
    path.write_text("  WHS(ns)  WNS(ns)\n  -----  ---\n  0.1  0.5\n")
    with pytest.raises(ToolError, match=r"no column TNS\(ns\)"):
        parse_timing(path)


def test_cosim_is_read_by_column() -> None:
    (report,) = parse_cosim(GOLDENS / "cosim.rpt")
    assert report.language == "Verilog"
    assert report.has_passed
    assert report.latency == Interval(327, 341)
    assert report.interval == Interval(None, None)


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_timing, "no design timing summary"), (parse_cosim, "no report")]
)
def test_other_files_are_refused(tmp_path: Path, parse, text: str) -> None:
    with pytest.raises(ToolError, match=r"there is no report x\.rpt"):
        parse(tmp_path / "x.rpt")
    (tmp_path / "x.rpt").write_text("hello | world\n")
    with pytest.raises(ToolError, match=text) as caught:
        parse(tmp_path / "x.rpt")
    assert caught.value.code == "FX502"
