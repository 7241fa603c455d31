"""Whether the kernel of a project is C++, without running it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flexllm_allo.backend.hls.toolchain import SHIM, find_ap_headers, find_compiler
from flexllm_allo.errors import ToolError


def check_syntax(project: Path) -> None:
    """Fail with what the compiler says; skip where there is none."""
    try:
        compiler, headers = find_compiler(), find_ap_headers()
    except ToolError:
        pytest.skip("no C++ compiler or no ap_int headers")
    includes = [f"-I{path}" for path in (SHIM, headers.path, SHIM / "fallback")]
    command = [str(compiler.path), "-fsyntax-only", "-std=c++17", "-Wno-unknown-pragmas", *includes]
    done = subprocess.run([*command, "kernel.cpp"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
