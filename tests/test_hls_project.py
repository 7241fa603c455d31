"""Vitis projects: contents, atomic writing, C simulation by make, and stubs in place of Vitis."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import hls_programs as programs
import numpy as np
import pytest

from flexllm_allo.backend.hls import toolchain
from flexllm_allo.backend.hls.module import HLSModule
from flexllm_allo.backend.hls.placement import place
from flexllm_allo.backend.hls.project import BuildPlan, write_project
from flexllm_allo.backend.hls.steps import (
    run_cosim,
    run_csim,
    run_csynth,
    run_export,
    run_host,
    run_link,
)
from flexllm_allo.backend.hls.vitis import vitis_project
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ArgumentError, BackendError, ToolError, UsageError
from flexllm_allo.hardware.devices import device
from flexllm_allo.ir import nodes as ir

REPORT = Path(__file__).parent / "goldens" / "csynth.xml"


def plan(program: ir.Program | None = None) -> BuildPlan:
    program = program or programs.two_layers()
    random = np.random.default_rng(0)
    top = program.function(program.top)
    data: dict[str, np.ndarray] = {}
    for buffer in top.inputs:
        if buffer.dtype.is_fixed:
            data[buffer.name] = random.standard_normal(buffer.shape) * 20
        else:
            data[buffer.name] = random.integers(0, 2 if not buffer.shape else 100, buffer.shape, np.int32)
    results = Interpreter(program)(*data.values())
    results = results if isinstance(results, list) else [results]
    golden = {b.name: np.asarray(r) for b, r in zip(top.outputs, results, strict=True)}
    return vitis_project(program, data=data, golden=golden)


def test_files_and_manifest(tmp_path: Path) -> None:
    out = write_project(plan(), tmp_path / "p")
    manifest = json.loads((out / "manifest.json").read_text())
    present = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert present == set(manifest["files"]) | {"manifest.json"}
    wanted = {
        "kernel.cpp", "kernel.h", "flexllm_numerics.h", "run.tcl", "hls_config.cfg", "two_layers.cfg",
        "Makefile", "testbench.cpp", "host.cpp", "README.md", "data/X.bin", "data/layer.bin",
        "data/golden_Y.bin",
        "data/golden_first.bin", "shim/hls_stream.h",
    }  # fmt: skip
    assert wanted <= present
    assert (manifest["top"], manifest["device"], manifest["schema"]) == ("two_layers", "u280", 1)
    script = (out / "run.tcl").read_text()
    assert "set_part {xcu280-fsvh2892-2L-e}" in script
    assert "create_clock -period 3.33" in script
    connectivity = (out / "two_layers.cfg").read_text()
    assert "nk=two_layers:1:two_layers_1" in connectivity
    assert len(re.findall(r"sp=two_layers_1\.\w+:HBM\[\d+\]", connectivity)) == 4


def test_rebuild_is_byte_identical_and_names_no_place(tmp_path: Path) -> None:
    first, second = write_project(plan(), tmp_path / "a"), write_project(plan(), tmp_path / "b")
    for path in first.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert data == (second / path.relative_to(first)).read_bytes()
            assert str(tmp_path).encode() not in data
            assert str(Path(__file__).parent.parent).encode() not in data
    write_project(plan(), first)  # our own folder is replaced
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="not a project of this tool"):
        write_project(plan(), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "important"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        write_project(plan(), tmp_path / "file")
    with pytest.raises(UsageError, match="cannot write"):
        write_project(plan(), tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    write_project(plan(), tmp_path / "empty")


def test_data_is_checked() -> None:
    program = programs.two_layers()
    with pytest.raises(ArgumentError, match="'V' is not an input"):
        vitis_project(program, data={"V": np.zeros(3)})
    with pytest.raises(ArgumentError, match="should be int8"):
        vitis_project(program, data={"X": np.zeros((3, 3), np.int8)})
    with pytest.raises(BackendError, match="Device u28 not supported") as caught:
        vitis_project(program, device="u28")
    assert "u280" in caught.value.hint


@pytest.fixture
def compiler() -> None:
    try:
        toolchain.find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")


@pytest.mark.usefixtures("compiler")
def test_make_csim_passes_and_notices_one_wrong_byte(tmp_path: Path) -> None:
    out = write_project(plan(), tmp_path / "p")
    assert run_csim(out) == "PASS"
    golden = out / "data" / "golden_Y.bin"
    data = bytearray(golden.read_bytes())
    data[17] ^= 4
    golden.write_bytes(data)
    with pytest.raises(ToolError, match=r"Y: 1 of 128 elements differ, the first at 4") as caught:
        run_csim(out)
    assert caught.value.code == "FX502"
    assert "csim.log" in caught.value.hint


@pytest.mark.usefixtures("compiler")
def test_make_csim_with_fixed_point(tmp_path: Path) -> None:
    try:
        toolchain.find_ap_headers()
    except ToolError:
        pytest.skip("no ap_fixed headers")
    assert run_csim(write_project(plan(programs.producer_consumer()), tmp_path / "p")) == "PASS"


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def no_vitis(monkeypatch: pytest.MonkeyPatch) -> None:
    real = toolchain.shutil.which
    hidden = {"vitis_hls", "vitis-run", "v++"}
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name in hidden else real(name))


@pytest.mark.usefixtures("no_vitis")
def test_without_vitis_the_project_stays(tmp_path: Path) -> None:
    module = HLSModule(programs.two_layers(), "vitis_hls", "csyn", tmp_path / "p")
    assert module.project == str(tmp_path / "p")
    with pytest.raises(ToolError, match="vitis_hls and vitis-run") as caught:
        module()
    assert caught.value.code == "FX501"
    assert "the finished project is in" in caught.value.message
    assert (tmp_path / "p" / "kernel.cpp").is_file()
    with pytest.raises(ToolError, match="not available"):
        run_link(tmp_path / "p", "two_layers", "hw")


def test_vitis_is_called_with_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_project(plan(), tmp_path / "p")
    report = "out.prj/solution1/syn/report"
    stub(
        tmp_path / "bin", "vitis_hls",
        f'echo "$@ STEP=$STEP" > called\nmkdir -p {report}\ncp "{REPORT}" {report}/two_layers_csynth.xml\n'
        '[ "$STEP" != export ] || touch two_layers.xo\n',
    )  # fmt: skip
    stub(tmp_path / "bin", "v++", 'echo "$@" > linked\ntouch two_layers.hw.xclbin\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert run_csynth(out, "two_layers").latency.minimum == 330
    assert (out / "called").read_text().strip() == "-f run.tcl STEP=csynth"
    assert run_link(out, "two_layers", "hw").is_file()
    assert (out / "called").read_text().strip() == "-f run.tcl STEP=export"
    linked = (out / "linked").read_text()
    assert "-t hw --platform xilinx_u280" in linked
    assert "--config two_layers.cfg --kernel_frequency 300 two_layers.xo -o two_layers.hw.xclbin" in linked
    with pytest.raises(BackendError, match="no target"):
        run_link(out, "two_layers", "fpga")


def test_a_failing_tool_shows_its_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_project(plan(), tmp_path / "p")
    stub(
        tmp_path / "bin", "vitis_hls", 'echo "INFO: hello"\necho "ERROR: [HLS 200-70] no such part"\nexit 1\n'
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ToolError, match=r"vitis_hls failed: ERROR: \[HLS 200-70\] no such part") as caught:
        run_csynth(out, "two_layers")
    assert "csynth.log" in caught.value.hint


def test_placement_is_balanced_and_checked() -> None:
    card = device("u280")
    mega = 1 << 20
    sizes = {f"w{i}": (i + 1) * mega for i in range(40)}
    placed = place(sizes, card, {"w0": 31, "w1": "DDR[0]"})
    assert str(placed["w0"]) == "HBM[31]"
    assert str(placed["w1"]) == "DDR[0]"
    load: dict[str, int] = {}
    for name, slot in sorted(placed.items(), key=lambda item: item[1].offset):
        assert slot.offset == load.get(str(slot), 0)
        load[str(slot)] = load.get(str(slot), 0) + sizes[name]
    assert max(load.values()) == 40 * mega
    big = place({"kv": 700 * mega, "w": 200 * mega}, card)
    assert {name: str(slot) for name, slot in big.items()} == {"kv": "HBM[0:2]", "w": "HBM[3]"}
    with pytest.raises(BackendError, match="does not fit into the memory") as caught:
        place({"huge": 99000 * mega}, card)
    assert f"{99000 * mega - (32 << 30) - (8 << 30)} too many" in caught.value.message


def test_what_is_seldom_read_goes_to_the_second_memory() -> None:
    card, mega = device("u280"), 1 << 20
    placed = place({"embed": 1002 * mega, "w": 128 * mega}, card, traffic={"embed": 8192, "w": 128 * mega})
    assert {name: str(slot) for name, slot in placed.items()} == {"embed": "DDR[0]", "w": "HBM[0]"}
    rest = place({f"w{i}": 256 * mega for i in range(33)}, card)
    assert sum(slot.memory == "DDR" for slot in rest.values()) == 1  # the one that HBM has no room for


def test_fixed_places_are_checked() -> None:
    card = device("u280")
    with pytest.raises(BackendError, match="is no memory channel"):
        place({"a": 1}, card, {"a": 32})
    with pytest.raises(BackendError, match='no memory argument "b"'):
        place({"a": 1}, card, {"b": 0})


@pytest.mark.parametrize("program", ["vitis_hls", "vitis-run"])
def test_finished_steps_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """With the tools of 2022.2 to 2024.1 (vitis_hls) and of later releases (vitis-run)."""
    out = write_project(plan(), tmp_path / "p")
    tools = tmp_path / "bin"
    stub(tools, program, 'echo "$@ STEP=$STEP" >> called\ntouch two_layers.xo\n')
    stub(
        tools, "v++", '[ -e license ] || { echo "ERROR: [v++ 60-1] no license"; exit 1; }\ntouch "${@: -1}"\n'
    )
    path = tools / "v++"
    path.write_text(path.read_text().replace("#!/bin/sh", "#!/bin/bash"))
    real = toolchain.shutil.which
    others = {"vitis_hls", "vitis-run"} - {program}
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name in others else real(name))
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(
        ToolError, match=r"step link_hw: make failed: ERROR: \[v\+\+ 60-1\] no license"
    ) as caught:
        run_link(out, "two_layers", "hw")
    assert "link_hw.log" in caught.value.hint
    assert "goes on with step link_hw" in caught.value.hint
    (out / "license").touch()
    assert run_link(out, "two_layers", "hw").is_file()
    arguments = "-f run.tcl" if program == "vitis_hls" else "--mode hls --tcl run.tcl"
    assert (out / "called").read_text() == f"{arguments} STEP=export\n"  # once, before the failure
    (out / "kernel.cpp").write_text((out / "kernel.cpp").read_text() + "// changed\n")
    run_link(out, "two_layers", "hw")
    assert (out / "called").read_text().count("STEP=export") == 2


def test_the_link_of_a_versal_card_is_packaged() -> None:
    files = vitis_project(programs.two_layers(), device="v80").files
    makefile, readme = files["Makefile"].decode(), files["README.md"].decode()
    assert "-o $@\n\ntwo_layers.$(TARGET).xclbin: two_layers.$(TARGET).xsa\n\tv++ -p -t $(TARGET)" in makefile
    assert "were never run on a card of this kind" in readme
    assert b"part=xcv80-lsva4737" in files["hls_config.cfg"]
    assert "never run" not in vitis_project(programs.two_layers()).files["README.md"].decode()


VENDOR = """echo 'INFO: [v++ 60-1548] Creating build summary session'
echo 'WARNING: [v++ 60-1600] a warning'
echo 'ERROR: [v++ 60-300] Failed to build kernel(ip) two_layers'
echo 'ERROR: [v++ 60-599] Kernel compilation failed to complete'
exit 1
"""


@pytest.mark.parametrize(
    ("step", "run"),
    [
        ("csynth", lambda out: run_csynth(out, "two_layers")),
        ("cosim", lambda out: run_cosim(out, "two_layers")),
        ("export", lambda out: run_export(out)),
        ("link_hw_emu", lambda out: run_link(out, "two_layers", "hw_emu")),
        ("host", lambda out: run_host(out, out / "two_layers.hw.xclbin", "hw")),
    ],
)
def test_a_failure_shows_step_first_error_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, run: Callable[[Path], object]
) -> None:
    """Of several errors the first, not the warnings and not the errors that follow from it."""
    out = write_project(plan(), tmp_path / "p")
    tools = tmp_path / "bin"
    fails = {"vitis_hls": step in ("csynth", "cosim", "export"), "v++": True, "make": step == "host"}
    for name, failing in fails.items():
        if name != "make" or failing:
            stub(tools, name, VENDOR if failing else "touch two_layers.xo\n")
    (tmp_path / "xrt" / "include").mkdir(parents=True)
    monkeypatch.setenv("XILINX_XRT", str(tmp_path / "xrt"))
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ToolError) as caught:
        run(out)
    failed = {"link_hw_emu": "make", "host": "make"}.get(step, "vitis_hls")
    assert caught.value.code == "FX502"
    assert caught.value.message == (
        f"step {step}: {failed} failed: ERROR: [v++ 60-300] Failed to build kernel(ip) two_layers"
    )
    log = "host_build.log" if step == "host" else f"{step}.log"
    assert caught.value.hint == f"the full log is {out / log}; the next run goes on with step {step}"
    assert "60-599" in (out / log).read_text()
