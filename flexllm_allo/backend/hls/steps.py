"""Running the tools on a written project: C simulation, synthesis, linking."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ...errors import BackendError, ToolError
from .build_report import BuildReport, collect, cosim_report, csynth_report, write_report
from .project import MANIFEST
from .reports import SynthesisReport, parse_csynth
from .timing_reports import CosimReport, parse_cosim
from .toolchain import Tool, find_ap_headers, find_compiler, find_vitis_hls, find_vpp, find_xrt, run_tool

LINK_TARGETS = ("sw_emu", "hw_emu", "hw")
RECORDS = "steps.json"
"""In the project: finished steps, and the digest of what each worked on."""


def run_csim(project: str | Path) -> str:
    """Compile and run the project's test bench with the host's compiler; its last line.

    Raises:
        ToolError: FX501 no compiler; FX502 it does not compile, or a result differs.
    """
    folder = Path(project)
    environment = dict(os.environ, CXX=str(find_compiler().path))
    with suppress(ToolError):  # programs of native types compile without these headers
        environment["AP_TYPES"] = str(find_ap_headers().path)
    log = folder / "csim.log"
    try:
        run_tool(["make", "--no-print-directory", "csim"], folder, log.name, environment=environment)
    except ToolError as error:
        lines = [line for line in _lines(log) if "differ" in line or line.startswith(("FAIL", "ERROR"))]
        if lines and error.code == "FX502" and "error:" not in error.message:
            raise ToolError("FX502", f"C simulation failed: {lines[0]}", hint=error.hint) from None
        raise
    return _lines(log)[-1]


def run_csynth(project: str | Path, top: str) -> SynthesisReport:
    """High-level synthesis of the project, and its report.

    Raises:
        ToolError: FX501 Vitis HLS is not installed (the project stays as it is); FX502 it failed.
    """
    folder = Path(project)
    path = folder / csynth_report(top)
    if not is_done(folder, "csynth", [path]):
        _run_step(folder, "csynth")
        parse_csynth(path)  # a step without its report is not finished
        record(folder, "csynth")
    report = update_report(folder).synthesis
    assert report is not None
    return report


def run_cosim(project: str | Path, top: str) -> tuple[CosimReport, ...]:
    """C/RTL co-simulation of the project; what it says of each language.

    It is run every time, for its data may have changed.

    Raises:
        ToolError: FX501 Vitis HLS is not installed; FX502 it failed, or results differ.
    """
    folder = Path(project)
    log = _run_step(folder, "cosim")
    languages = parse_cosim(folder / cosim_report(top))
    record(folder, "cosim")
    update_report(folder)
    failed = [r for r in languages if not r.has_passed]
    if failed:
        raise ToolError(
            "FX502",
            f"step cosim: {failed[0].language} ended with {failed[0].status}",
            hint=f"the full log is {log}; make csim compares the C++ with the same data",
        )
    return languages


def update_report(project: str | Path) -> BuildReport:
    """Read the reports of all steps that are finished on this very project; ``build_report.json`` has them.

    Raises:
        ToolError: FX502, a report is something else.
    """
    folder = Path(project)
    manifest = json.loads((folder / MANIFEST).read_text())
    finished = {step for step in _records(folder) if is_done(folder, step, [])}
    report = collect(folder, manifest["top"], manifest["frequency_mhz"], finished)
    write_report(folder, report)
    return report


def run_export(project: str | Path) -> Path:
    """Synthesis of the project and export of the kernel object; the path of the log."""
    return _run_step(Path(project), "export")


def _run_step(folder: Path, step: str) -> Path:
    """One step of ``run.tcl``; the path of its log."""
    tool = needed(find_vitis_hls, folder)
    command = [str(tool.path), "-f", "run.tcl"]
    if tool.name == "vitis-run":
        command = [str(tool.path), "--mode", "hls", "--tcl", "run.tcl"]
    return tried(step, command, folder, f"{step}.log", dict(os.environ, STEP=step))


def tried(step: str, command: list[str], folder: Path, log: str, environment: dict[str, str] | None) -> Path:
    """Run a tool; its failure names the step."""
    try:
        return run_tool(command, folder, log, environment=environment)
    except ToolError as error:
        hint = "; ".join(filter(None, [error.hint, f"the next run goes on with step {step}"]))
        raise ToolError(error.code, f"step {step}: {error.message}", hint=hint) from None


def is_done(folder: Path, step: str, products: list[Path]) -> bool:
    """Whether a step was finished on this very project, and what it made is there."""
    return _records(folder).get(step) == _inputs(folder) and all(path.is_file() for path in products)


def record(folder: Path, step: str) -> None:
    """Remember that a step is finished, and for which project (the digest of its manifest)."""
    content = {**_records(folder), step: _inputs(folder)}
    temporary = folder / f".{RECORDS}.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(folder / RECORDS)


def _records(folder: Path) -> dict[str, str]:
    try:
        content: Any = json.loads((folder / RECORDS).read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, str]", content) if isinstance(content, dict) else {}


def _inputs(folder: Path) -> str:
    """The digest of the files that the manifest lists, as they are now."""
    digest = hashlib.sha256()
    manifest = folder / MANIFEST
    names: list[str] = sorted(json.loads(manifest.read_text())["files"]) if manifest.is_file() else []
    for name in names:
        if not name.startswith(("data/", "weights/", "host.cpp")):  # synthesis reads none of these
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()


def run_link(project: str | Path, top: str, target: str = "hw") -> Path:
    """Compile and link the project for a card or for emulation; the path of the ``.xclbin``.

    Args:
        target: ``"sw_emu"``, ``"hw_emu"`` or ``"hw"``.

    Raises:
        ToolError: FX501 Vitis is not installed; FX502 a step failed.
    """
    if target not in LINK_TARGETS:
        raise BackendError(
            "FX402", f'"{target}" is no target to link for', hint="one of " + ", ".join(LINK_TARGETS)
        )
    folder = Path(project)
    needed(find_vitis_hls, folder)
    needed(find_vpp, folder)
    if not is_done(folder, "export", [folder / f"{top}.xo"]):  # make would take an .xo of another kernel
        _run_step(folder, "export")
        record(folder, "export")
    command = ["make", "--no-print-directory", "xclbin", f"TARGET={target}"]
    if platform := os.environ.get("XDEVICE"):
        command.append(f"PLATFORM={platform}")
    product = folder / f"{top}.{target}.xclbin"
    if not is_done(folder, f"link_{target}", [product]):
        tried(f"link_{target}", command, folder, f"link_{target}.log", None)
        record(folder, f"link_{target}")
    update_report(folder)
    return product


def run_host(project: str | Path, xclbin: Path, target: str) -> None:
    """Compile the host program and run it on the data of the project; it writes ``out_<name>.bin``.

    Raises:
        ToolError: FX501 no compiler or XRT; FX502 the host program does not compile, or failed.
    """
    folder = Path(project)
    environment = dict(os.environ, CXX=str(find_compiler().path))
    environment.setdefault("XILINX_XRT", str(find_xrt().path))
    tried("host", ["make", "host"], folder, "host_build.log", environment)
    if target != "hw":
        environment["XCL_EMULATION_MODE"] = target
        tried("emconfig", ["make", "emconfig"], folder, "emconfig.log", environment)
    tried(target, ["./host", xclbin.name], folder, "host.log", environment)


def needed(find: Callable[[], Tool], folder: Path) -> Tool:
    """A tool of Vitis, or an error that says that the project is there all the same."""
    try:
        return find()
    except ToolError as error:
        raise ToolError(
            "FX501", f"{error.message}; the finished project is in {folder}", hint=error.hint
        ) from None


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines() if log.is_file() else []
