"""Headers that are compiled once: nothing changes but the time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.hls import csim, precompiled
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.hls.precompiled import HEADERS, WORTHWHILE
from flexllm_allo.backend.hls.toolchain import Tool, find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.ir.types import int32


def kernel(A: int32[4]) -> int32[4]:
    B: int32[4] = 0
    for i in range(4):
        B[i] = A[i] * 3
    return B


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiled, "_seen", {})
    monkeypatch.setattr(precompiled, "_made", {})


def gnu() -> Tool:
    try:
        tool = find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    if tool.name != "g++":
        pytest.skip("another compiler than g++")
    return tool


@pytest.mark.parametrize("flow", ["vitis", "tapa"])
def test_every_kernel_names_the_headers_itself(flow: str) -> None:
    """So none that it lacks is found thanks to the compiled ones."""
    named = emit(allo.customize(kernel).program, flow).splitlines()  # type: ignore[arg-type]
    named = [line.replace('"flexllm_numerics.h"', "<flexllm_numerics.h>") for line in named]
    assert HEADERS.count("\n") == 10
    assert set(HEADERS.splitlines()) <= set(named)


def test_the_second_kernel_reads_them_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    gnu()
    commands: list[list[str]] = []
    run = csim.run_tool

    def noted(command: list[str], *more: object) -> Path:
        commands.append([*command, "-H"])  # tells which headers it reads, `!` those that are compiled
        return run(commands[-1], *more)  # type: ignore[arg-type]

    monkeypatch.setattr(csim, "run_tool", noted)
    program = allo.customize(kernel).program
    for number in range(1, WORTHWHILE + 2):
        module = CSimModule(program)
        assert module(np.arange(4, dtype=np.int32)).tolist() == [0, 3, 6, 9]
        log = (module.folder / "csim.log").read_text()
        assert ("-include" in commands[-1]) == (number >= WORTHWHILE)
        assert ("\n! " in f"\n{log}") == (number >= WORTHWHILE)
    assert len(precompiled._made) == 1


def test_other_flags_are_other_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(precompiled, "_make", made.append)
    for flags in (["-O1"], ["-O2"], ["-O1"], ["-O1"], ["-O2"]):
        precompiled.precompiled(Tool("g++", Path("g++")), flags)
    assert made == [("g++", "-O1"), ("g++", "-O2")]


def test_what_cannot_be_compiled_is_left_to_the_kernel() -> None:
    tool = gnu()
    for _ in range(3):
        assert precompiled.precompiled(tool, ["-I/no/such/folder"]) == []


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers of a process that runs stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(precompiled, "run_tool", lambda command, folder, log: (folder / command[-1]).touch())
    for _ in range(WORTHWHILE):
        precompiled.precompiled(Tool("g++", Path("g++")), ["-O1"])
    (used,) = tmp_path.iterdir()
    killed, making = (tmp_path / f"{precompiled._PREFIX}{name}" for name in ("killed", "making"))
    for folder in (killed, making):
        folder.mkdir()
    (killed / "headers.h.gch").touch()
    for _ in range(WORTHWHILE):
        precompiled.precompiled(Tool("g++", Path("g++")), ["-O2"])
    left = set(tmp_path.iterdir())
    assert len(left) == 3
    assert {used, making} < left


def test_clang_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiled, "_make", lambda key: pytest.fail("made"))
    for _ in range(3):
        assert precompiled.precompiled(Tool("clang++", Path("/usr/bin/clang++")), []) == []
