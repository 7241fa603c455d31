"""From a scheduled program to something that runs or is emitted: the targets by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from .errors import DeadlockError, EstimateError, StreamWarning, TargetError, did_you_mean
from .ir import nodes as ir
from .ir.merge import merge_instances

TARGETS = ("interpreter", "llvm", "simulator", "vhls", "vitis_hls", "vivado_hls", "tapa")
FOREIGN = ("aie", "catapult", "ihls", "pynq", "xls", "xlscc")
"""Allo's targets that belong to tools this engine does not write for."""


def build(
    program: ir.Program,
    target: str | None = None,
    mode: str | None = None,
    project: str | Path | None = None,
    configs: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Build a program.

    Args:
        target: None or "llvm" (the CPU), "interpreter" or "simulator" (the checked reference),
            "vhls" (HLS C++ text), "vitis_hls" or "vivado_hls" (a project), "tapa" (text, or a project).
        mode: for HLS targets, e.g. "csim", "csyn", "hw".
        project: folder of the HLS project.
        configs: options of the HLS project, such as the device and the clock.
        options: further options of the HLS backend (Allo's ``wrap_io``, ``use_memory``).

    Raises:
        TargetError: FX402, no such target.
        DeadlockError: FX303, for HLS targets: FIFOs so shallow that the design would stop. For C
            simulation, whose FIFOs have no limit, it is a warning; on the CPU a run says so.
    """
    # Each backend is imported when it is asked for: LLVM and the HLS project are heavy.
    match target:
        case None | "llvm":
            from .backend.llvm import LLVMModule

            return LLVMModule(merge_instances(program))
        case "interpreter" | "simulator":
            from .backend.interpreter import Interpreter

            return Interpreter(program)
        case "vhls" | "vitis_hls" | "vivado_hls":
            from .backend.hls.module import HLSModule

            _check_streams(program, mode)
            merged = merge_instances(program)
            return HLSModule(merged, target=target, mode=mode, project=project, configs=configs, **options)
        case "tapa":
            from .backend.hls.tapa_module import TapaModule

            merged = merge_instances(program)
            return TapaModule(merged, mode=mode, project=project, configs=configs, **options)
        case _:
            hint = 'build with target="vitis_hls"' if target in FOREIGN else did_you_mean(target, TARGETS)
            raise TargetError("FX402", f"Target {target} is not supported", hint=hint)


def _check_streams(program: ir.Program, mode: str | None) -> None:
    """Refuse hardware that would stop; C simulation has FIFOs without limit, so it only warns."""
    from .estimate.fifo.analysis import check_streams

    try:
        check_streams(program)
    except EstimateError:
        return  # what depends on data shows in a run only
    except DeadlockError as error:
        if mode != "csim":
            raise
        warnings.warn(f"hardware would stop, unlike C simulation: {error}", StreamWarning, stacklevel=4)
