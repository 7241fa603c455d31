"""The session on a card and the host program, with stand-ins for XRT that run the compiled kernel."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError, UsageError
from flexllm_allo.models import load
from flexllm_allo.runtime.build import build_project, hardware_top
from flexllm_allo.runtime.session import Session
from flexllm_allo.runtime.xrt_session import XrtSession

TINY = Path(__file__).parent.parent / "models" / "tiny"
STANDIN = Path(__file__).parent / "xrt_standin"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("xrt") / "p"
    return build_project(TINY, out, recipe="w4a8kv8", max_seq_len=64)


class Bo:
    """Memory of the card, and views into it; nothing counts before it is synchronised."""

    normal = 0

    def __init__(self, parent: Any, size: int, flags_or_offset: int, group: int | None = None) -> None:
        if isinstance(parent, Bo):
            self.host = parent.host[flags_or_offset : flags_or_offset + size]
            self.device = parent.device[flags_or_offset : flags_or_offset + size]
        else:
            self.host, self.device = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        assert len(self.device) == size

    def write(self, data: np.ndarray, offset: int) -> None:
        self.host[offset : offset + len(data)] = data

    def read(self, size: int, offset: int) -> np.ndarray:
        return self.host[offset : offset + size]

    def sync(self, direction: str, size: int, offset: int) -> None:
        source, target = (self.host, self.device) if direction == "to" else (self.device, self.host)
        target[offset : offset + size] = source[offset : offset + size]


class Run:
    def __init__(self, kernel: Any) -> None:
        self.kernel, self.args = kernel, {}

    def set_arg(self, index: int, value: Any) -> None:
        self.args[index] = value

    def start(self) -> None:
        self.kernel(self.args)

    def wait(self) -> None:
        pass


def standin(module: CSimModule) -> SimpleNamespace:
    """A module pyxrt whose kernel is the compiled C++ of the design."""

    def run(args: dict[int, Any]) -> None:
        keep, pointers = [], []
        for buffer, (_, value) in zip(module.top.params, sorted(args.items()), strict=True):
            if not isinstance(value, Bo):
                value = np.array([value], np.float32 if buffer.dtype.is_float else np.int32)
            raw = value.device if isinstance(value, Bo) else value
            keep.append(raw)
            pointers.append(raw.ctypes.data)
        message = ctypes.create_string_buffer(100)
        assert module._library.flexllm_run((ctypes.c_void_p * len(pointers))(*pointers), message, 100) == 0

    class Kernel:
        def __init__(self, device: Any, uuid: Any, name: str) -> None:
            assert name == "generate"

        def group_id(self, index: int) -> int:
            return index

        def __call__(self, args: dict[int, Any]) -> None:
            run(args)

    directions = SimpleNamespace(XCL_BO_SYNC_BO_TO_DEVICE="to", XCL_BO_SYNC_BO_FROM_DEVICE="from")
    device = SimpleNamespace(load_xclbin=lambda xclbin: f"uuid of {xclbin}")
    return SimpleNamespace(
        device=lambda index: device, xclbin=str, kernel=Kernel, bo=Bo, run=Run, xclBOSyncDirection=directions
    )


def test_the_card_answers_what_the_cpu_answers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(TINY, "w4a8kv8", 64)
    try:
        module = CSimModule(hardware_top(model).top)
    except ToolError:
        pytest.skip("no C++ compiler or no ap_int headers")
    monkeypatch.setitem(sys.modules, "pyxrt", standin(module))
    (project / "generate.hw.xclbin").write_bytes(b"")
    session, cpu = XrtSession(project), Session(model)
    for text in ("The import statement", "A"):  # the second finds the cache of the first
        prompt = session.encode(text)
        assert prompt == cpu.encode(text)
        seen: list[int] = []
        result = session.generate(prompt, 7, seen.append)
        assert result.tokens == seen == cpu.generate(prompt, 7).tokens
        assert session.decode(result.tokens) == cpu.decode(result.tokens)
    talk, said = session.conversation(), list[int]()
    for turn in ([5, 9, 13], [7]):  # every turn runs all of it
        said += turn
        assert talk.send(turn, 3).tokens == cpu.generate(said, 3).tokens
        said = talk.said
    with pytest.raises(UsageError, match="FX701: the prompt is empty"):
        session.generate([], 3)
    for token in (-1, 2048):  # the card would look elsewhere in its memory
        with pytest.raises(UsageError, match=f"FX703: there is no token {token}"):
            session.generate([1, token], 3)
    with pytest.raises(UsageError, match="the prompt has 65 tokens"):
        session.generate([1] * 65, 3)
    session.close()


def test_what_is_missing_is_said(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(ToolError, match="pyxrt, is not installed"):
        XrtSession(project)
    monkeypatch.setitem(sys.modules, "pyxrt", SimpleNamespace())
    with pytest.raises(ToolError, match=r"there is no .*other\.xclbin"):
        XrtSession(project, tmp_path / "other.xclbin")
    shape = build_project(Path("llama-3.2-1b"), tmp_path / "shape", recipe="w4a8kv8", max_seq_len=16)
    with pytest.raises(UsageError, match="has no weights"):
        XrtSession(shape)
    with pytest.raises(UsageError, match=r"FX703: there is no project .*nothing"):
        XrtSession(tmp_path / "nothing")


def test_the_manifest_lists_the_arguments_of_the_kernel(project: Path) -> None:
    arguments = json.loads((project / "manifest.json").read_text())["arguments"]
    header = (project / "kernel.h").read_text()
    at = [re.search(rf"[ *]{a['kernel_name']}\b", header).start() for a in arguments]
    assert at == sorted(at)


def test_the_host_program_loads_channels_and_generates(project: Path, tmp_path: Path) -> None:
    model = load(TINY, "w4a8kv8", 64)
    try:
        CSimModule(hardware_top(model).top, tmp_path)
    except ToolError:
        pytest.skip("no C++ compiler or no ap_int headers")
    command = [str(find_compiler().path), "-std=c++17", "-O1", f"-I{STANDIN}", str(project / "host.cpp")]
    command += ["-o", "host", "./csim.so", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(command, cwd=tmp_path, check=True)

    def host(*options: object) -> subprocess.CompletedProcess[str]:
        words = ["./host", "x.xclbin", "--data", str(project / "data"), "--weights", *map(str, options)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = host(project)
    assert done.returncode == 0, done.stderr
    assert "tokens: equal" in done.stdout
    assert done.stdout.endswith("PASS\n")
    prompt = model.checkpoint.encode("The import statement")
    text = ",".join(map(str, prompt))
    chosen = (f"prompt={text}", f"n_prompt={len(prompt)}", "max_new_tokens=5", "--print", "tokens")
    printed = host(project, *chosen).stdout.splitlines()[1].split(",")
    assert [int(token) for token in printed[:5]] == Session(model).generate(prompt, 5).tokens
    missing = host(tmp_path)
    assert missing.returncode == 1
    assert "cannot read" in missing.stderr
    assert "prompt holds 64 elements" in host(project, "prompt=" + ",".join(["1"] * 65)).stderr
    assert "unknown option what" in host(project, "what").stderr
