"""What is installed on this machine, and what each missing thing would enable."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..backend.hls import toolchain
from ..errors import ToolError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for.

    Attributes:
        name: what it is.
        found: its version and place, or None.
        enables: what works only with it.
        install: how to get it; empty when it is there.
    """

    name: str
    found: str | None
    enables: str
    install: str = ""


def diagnose() -> list[Check]:
    """Look for everything the library can use, without heavy imports."""
    csim = "C simulation of the HLS code (--mode csim)"
    oracles = "live Hugging Face models, comparison with them in tests"
    return [
        Check("Python", platform.python_version(), "everything"),
        _llvm("running kernels and models on the CPU"),
        _tool("g++", toolchain.find_compiler, csim),
        _tool("ap_int headers", toolchain.find_ap_headers, csim),
        _tool(
            "Vitis HLS", toolchain.find_vitis_hls, "synthesis reports and RTL co-simulation (--mode csynth)"
        ),
        _tool("v++", toolchain.find_vpp, "linking the design to an xclbin"),
        _tool("XRT", toolchain.find_xrt, "running an xclbin on a card"),
        _package("torch", oracles),
        _package("transformers", oracles),
    ]


def _tool(name: str, find: Callable[[], toolchain.Tool], enables: str) -> Check:
    try:
        tool = find()
    except ToolError as error:
        return Check(name, None, enables, error.hint)
    return Check(name, " ".join(filter(None, (tool.version, str(tool.path)))), enables)


def _package(name: str, enables: str) -> Check:
    try:
        return Check(name, version(name), enables)
    except PackageNotFoundError:
        return Check(name, None, enables, "pip install 'flexllm-allo[hf]'")


def _llvm(enables: str) -> Check:
    try:
        binding: Any = import_module("llvmlite.binding")
    except ImportError as error:
        return Check("LLVM", None, enables, f"pip install llvmlite ({error})")
    return Check(
        "LLVM", f"{'.'.join(map(str, binding.llvm_version_info))} (llvmlite {version('llvmlite')})", enables
    )
