"""Running TAPA on a written project."""

from __future__ import annotations

import os
from pathlib import Path

from .steps import is_done, needed, record, tried
from .toolchain import find_tapa, find_vpp


def run_tapa(folder: Path, top: str) -> Path:
    """High-level synthesis of every task; the kernel object.

    Raises:
        ToolError: FX501 TAPA is not installed (the project stays as it is); FX502 it failed.
    """
    needed(find_tapa, folder)
    product = folder / f"{top}.xo"
    if not is_done(folder, "tapa", [product]):
        tried("tapa", ["make", "--no-print-directory", "--always-make", "xo"], folder, "tapa.log", None)
        record(folder, "tapa")
    return product


def run_tapa_link(folder: Path, top: str, target: str) -> Path:
    """Link the kernel object for emulation or a card; the ``.xclbin``.

    Raises:
        ToolError: FX501 Vitis is not installed; FX502 the linker failed.
    """
    needed(find_vpp, folder)
    step, product = f"link_{target}", folder / f"{top}.{target}.xclbin"
    command = ["make", "--no-print-directory", "xclbin", f"TARGET={target}"]
    if platform := os.environ.get("XDEVICE"):
        command.append(f"PLATFORM={platform}")
    if not is_done(folder, step, [product]):
        tried(step, command, folder, f"{step}.log", None)
        record(folder, step)
    return product


def run_design(folder: Path, product: Path, mode: str) -> None:
    """Compile the host program with TAPA and run a design on the data; it writes ``out_<name>.bin``.

    Raises:
        ToolError: FX501, FX502.
    """
    needed(find_tapa, folder)
    tried("host", ["make", "--no-print-directory", "host"], folder, "host_build.log", None)
    environment = dict(os.environ)
    if mode == "hw_emu":
        tried("emconfig", ["make", "--no-print-directory", "emconfig.json"], folder, "emconfig.log", None)
        environment["XCL_EMULATION_MODE"] = mode
    tried(mode, ["./host", "data", product.name], folder, "host.log", environment)


__all__ = ["run_design", "run_tapa", "run_tapa_link"]
