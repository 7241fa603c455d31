"""What is installed on this machine, and what each missing thing would enable."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for.

    Attributes:
        name: what it is.
        found: its version or place, or None.
        enables: what works with it only.
        install: how to get it.
    """

    name: str
    found: str | None
    enables: str
    install: str


def diagnose() -> list[Check]:
    """Look for everything the library can use, without heavy imports; tools only say their version."""
    return [
        Check("Python", platform.python_version(), "everything", "Python 3.11 or newer"),
        Check("LLVM", _llvm(), "running kernels and models on the CPU", "pip install llvmlite"),
        Check("g++", _compiler(), "C simulation of the HLS code (--mode csim)", "install a C++17 compiler"),
        Check(
            "ap_int headers",
            _ap_headers(),
            "C simulation of the HLS code (--mode csim)",
            "pip install --no-deps hls4ml, or a Vitis HLS installation",
        ),
        Check(
            "Vitis HLS",
            _program("vitis-run", "vitis_hls"),
            "synthesis reports (--mode csynth) and RTL co-simulation",
            "install AMD Vitis and source its settings64.sh",
        ),
        Check(
            "v++",
            _program("v++"),
            "linking an xclbin (--mode hw_emu, --mode hw)",
            "install AMD Vitis and source its settings64.sh",
        ),
        Check("XRT", _xrt(), "running an xclbin on a card", "install XRT and source its setup.sh"),
        Check(
            "torch",
            _distribution("torch"),
            "live models, calibration, test oracles",
            "pip install flexllm-allo[hf]",
        ),
        Check(
            "transformers",
            _distribution("transformers"),
            "live models, test oracles",
            "pip install flexllm-allo[hf]",
        ),
    ]


def _llvm() -> str | None:
    try:
        binding: Any = import_module("llvmlite.binding")
    except ImportError:
        return None
    return f"{'.'.join(map(str, binding.llvm_version_info))} (llvmlite {version('llvmlite')})"


def _distribution(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _program(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _compiler() -> str | None:
    path = _program("g++")
    return path and f"{_first_line([path, '--version'])} ({path})"


def _xrt() -> str | None:
    root = os.environ.get("XILINX_XRT")
    return root if root and Path(root).is_dir() else _program("xrt-smi", "xbutil")


def _ap_headers() -> str | None:
    from ..backend.hls.toolchain import find_ap_headers

    found = find_ap_headers()
    return None if found is None else str(found)


def _first_line(command: Sequence[str]) -> str:
    """The first line a tool prints, or a remark when it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "does not answer"
    return (done.stdout or done.stderr).strip().partition("\n")[0] or "unknown version"
