"""Timing and co-simulation reports, written by hand in the layout of the tools' documentation."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import hls_programs as programs
import pytest

from flexllm_allo.backend.hls.build_report import REPORT, SOLUTION
from flexllm_allo.backend.hls.project import write_project
from flexllm_allo.backend.hls.reports import Interval
from flexllm_allo.backend.hls.steps import run_cosim, run_csynth, run_link, update_report
from flexllm_allo.backend.hls.timing_reports import parse_cosim, parse_timing
from flexllm_allo.backend.hls.vitis import vitis_project
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


# ------------------------------------------------------------------------------ one report of a build

TOOL = """case "$STEP" in
  cosim) mkdir -p {sim}; cp "{goldens}/cosim.rpt" {sim}/two_layers_cosim.rpt ;;
  *) mkdir -p {syn}; cp "{goldens}/csynth.xml" {syn}/two_layers_csynth.xml; touch two_layers.xo ;;
esac
"""
LINKER = """mkdir -p _x/reports/link/imp
cp "{goldens}/timing_summary.rpt" _x/reports/link/imp/impl_1_hw_bb_locked_timing_summary_routed.rpt
touch two_layers.hw.xclbin
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and stubs of the tools that leave the stored reports."""
    tools = tmp_path / "bin"
    tools.mkdir()
    places = {"goldens": GOLDENS, "sim": SOLUTION / "sim/report", "syn": SOLUTION / "syn/report"}
    for name, script in (("vitis_hls", TOOL), ("v++", LINKER)):
        (tools / name).write_text("#!/bin/sh\n" + script.format(**places))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return write_project(vitis_project(programs.two_layers(), frequency=300), tmp_path / "p")


def written(project: Path) -> dict[str, Any]:
    return json.loads((project / REPORT).read_text())


def test_every_step_adds_to_the_report(project: Path) -> None:
    assert run_csynth(project, "two_layers").latency == Interval(330, 402)
    first = written(project)
    assert first["synthesis"]["latency"] == {"minimum": 330, "maximum": 402}
    assert (first["cosim"], first["timing"]) == ([], None)
    (verilog,) = run_cosim(project, "two_layers")
    assert verilog.latency == Interval(327, 341)
    assert written(project)["cosim"][0]["has_passed"] is True
    run_link(project, "two_layers", "hw")
    last = written(project)
    assert last["timing"]["wns"] == -0.092
    assert (last["schema"], last["top"], last["frequency_mhz"]) == (1, "two_layers", 300.0)
    assert list(last) == ["schema", "top", "frequency_mhz", "synthesis", "cosim", "timing"]
    text = re.sub(" +", " ", update_report(project).text())
    for line in (
        "| csynth: latency | 330 to 402 cycles (estimated)",
        "| cosim: Verilog | Pass, 327 to 341 cycles (simulated)",
        "| link: timing | not met, 61 endpoints fail",
        "| link: clock | 291.9 of 300 MHz",
    ):
        assert line in text


def test_reports_of_an_older_kernel_do_not_count(project: Path) -> None:
    run_csynth(project, "two_layers")
    run_cosim(project, "two_layers")
    kernel = project / "kernel.cpp"
    kernel.write_text(kernel.read_text() + "// changed\n")
    report = update_report(project)
    assert (report.synthesis, report.cosim, report.timing) == (None, (), None)
    assert update_report(project).text() == ""


def test_a_failed_simulation_is_an_error(project: Path) -> None:
    tool = project.parent / "bin" / "vitis_hls"
    tool.write_text(tool.read_text() + f"sed -i s/Pass/Fail/ {SOLUTION}/sim/report/two_layers_cosim.rpt\n")
    with pytest.raises(ToolError, match="FX502: step cosim: Verilog ended with Fail") as caught:
        run_cosim(project, "two_layers")
    assert "cosim.log; make csim compares" in caught.value.hint
    assert written(project)["cosim"][0]["status"] == "Fail"


def test_a_step_without_its_report_is_not_finished(project: Path) -> None:
    tool = project.parent / "bin" / "vitis_hls"
    script = tool.read_text()
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(ToolError, match=r"there is no synthesis report two_layers_csynth\.xml"):
        run_csynth(project, "two_layers")
    tool.write_text(script)
    assert run_csynth(project, "two_layers").latency.minimum == 330
