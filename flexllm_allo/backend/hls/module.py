"""`HLSModule`: what ``s.build(target="vhls")`` and ``s.build(target="vitis_hls", ...)`` return."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import BackendError, UsageError, did_you_mean
from ...ir import nodes as ir
from . import steps
from .csim import CSimModule
from .emit import emit, top_name
from .project import write_project
from .reports import SynthesisReport
from .vitis import vitis_project

MODES = ("csim", "csyn", "csynth", "cosim", "sw_emu", "hw_emu", "hw")
ALLO_OPTIONS = ("use_memory", "wrap_io")
CONFIGS = ("bundles", "data", "device", "frequency", "golden", "hbm_mapping")


class HLSModule:
    """HLS C++ of a program, and what can be done with it.

    Args:
        program: the scheduled IR.
        target: ``"vhls"`` (text with plain arrays) or ``"vitis_hls"`` (AXI ports, projects).
        mode: None for text or a project only; ``"csim"`` to be called like any module; ``"csyn"``
            (synthesis), ``"cosim"``, ``"sw_emu"``, ``"hw_emu"``, ``"hw"`` to run Vitis when called.
        project: the folder to write the project to.
        options: Allo's `wrap_io` and `use_memory`, accepted and without effect: the top function
            accesses its arrays directly, and copies to the chip are up to the schedule (`buffer_at`).
        configs: `device`, `frequency`, `hbm_mapping`, `bundles`, `data`, `golden` as of `vitis_project`.

    Example:
        >>> print(HLSModule(program).hls_code)
    """

    def __init__(
        self,
        program: ir.Program,
        target: str = "vhls",
        mode: str | None = None,
        project: str | Path | None = None,
        configs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.program, self.target, self.mode = program, target, mode
        self.configs = dict(configs or {})
        self._check(options)
        self.project = Path(project) if project is not None else None
        self.hls_code = emit(program, "vhls" if target == "vhls" else "vitis", self.configs.get("bundles"))
        self.top_func_name = top_name(program)
        if self.project is None and target != "vhls" and mode not in (None, "csim"):
            self.project = Path(tempfile.mkdtemp(prefix=f"{self.top_func_name}-")) / "project"
        if self.project is not None:
            self.write(self.project)

    def _check(self, options: Mapping[str, Any]) -> None:
        if self.target not in ("vhls", "vitis_hls"):
            raise BackendError("FX402", f"Target {self.target} is not supported", hint="vhls or vitis_hls")
        if self.mode is not None and self.mode not in MODES:
            raise BackendError("FX402", f"Invalid mode {self.mode}", hint=did_you_mean(self.mode, MODES))
        if self.mode not in (None, "csim") and self.target == "vhls":
            raise BackendError("FX402", f"mode {self.mode} needs a project", hint='use target="vitis_hls"')
        for name in options:
            if name not in ALLO_OPTIONS:
                raise UsageError("FX703", f'unknown option "{name}"', hint=did_you_mean(name, ALLO_OPTIONS))
        for name in self.configs:
            if name not in CONFIGS:
                raise UsageError(
                    "FX703", f'unknown entry "{name}" in configs', hint=did_you_mean(name, CONFIGS)
                )

    def __str__(self) -> str:
        return self.hls_code

    def __repr__(self) -> str:
        if self.mode is None:
            return self.hls_code
        return f"HLSModule({self.top_func_name}, {self.mode}, {self.project})"

    def __call__(self, *args: object) -> Any:
        """Run the mode: ``csim`` takes arguments and returns results, the others take none.

        ``csyn`` returns the synthesis report, ``cosim`` the path of its log, the rest the ``.xclbin``.
        """
        if self.mode == "csim":
            return self._simulation(*args)
        if self.mode is None:
            raise BackendError("FX402", "this module is text only", hint='build with mode="csim" to call it')
        if args:
            raise BackendError(
                "FX402", f"mode {self.mode} takes no arguments", hint="give data and golden in configs"
            )
        assert self.project is not None
        match self.mode:
            case "csyn" | "csynth":
                return self.synthesize()
            case "cosim":
                return steps.run_cosim(self.project)
            case _:
                return steps.run_link(self.project, self.top_func_name, self.mode)

    @cached_property
    def _simulation(self) -> CSimModule:
        return CSimModule(self.program)

    def write(self, folder: str | Path) -> Path:
        """Write the Vitis project (see `vitis_project`) to a folder."""
        known = {k: v for k, v in self.configs.items() if k != "hbm_mapping"}
        plan = vitis_project(self.program, memory=self.configs.get("hbm_mapping"), **known)
        return write_project(plan, folder)

    def synthesize(self) -> SynthesisReport:
        """Run high-level synthesis on the written project."""
        if self.project is None:
            raise BackendError("FX402", "there is no project to synthesize", hint="build with project=folder")
        return steps.run_csynth(self.project, self.top_func_name)
