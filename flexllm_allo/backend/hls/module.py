"""`HLSModule`: what ``s.build(target="vhls")`` and ``s.build(target="vitis_hls", ...)`` return."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import BackendError, TargetError, UsageError, did_you_mean
from ...ir import nodes as ir
from ..effects import Effects
from ..signature import Signature
from . import steps
from .card import run_on_card
from .csim import CSimModule
from .emit import emit, top_name
from .interface import Flow
from .pragmas import check_directives, check_text
from .project import BuildPlan, write_project
from .reports import SynthesisReport
from .vitis import vitis_project
from .wrap_io import wrap_io as wrapped

TARGETS = ("vhls", "vitis_hls", "vivado_hls")
MODES = ("csim", "csyn", "csynth", "cosim", "impl", "debug", "custom", "sw_emu", "hw_emu", "hw")
ON_CARD = ("sw_emu", "hw_emu", "hw")
CONFIGS = ("bundles", "data", "device", "frequency", "golden", "hbm_mapping")
ALLO_CONFIGS = ("mappings", "mode", "num_output_args")


class HLSModule(Signature):
    """HLS C++ of a program, and what can be done with it.

    Args:
        program: the scheduled IR.
        target: ``"vhls"`` (text with plain arrays), ``"vitis_hls"`` or ``"vivado_hls"`` (AXI ports,
            projects).
        mode: None for text or a project only; ``"csim"`` to be called like any module; ``"csyn"``
            (synthesis), ``"cosim"``, ``"sw_emu"``, ``"hw_emu"``, ``"hw"`` to run Vitis when called.
        project: the folder to write the project to.
        configs: `device`, `frequency`, `hbm_mapping`, `bundles`, `data`, `golden` as of `vitis_project`.
        wrap_io: ``vitis_hls``: copy every array of the top function to the chip and back (see `wrap_io`
            of this package); otherwise it accesses memory directly, and copies are up to the schedule.
        top_func_name: another function of the program as the top one.
        use_memory, ext_libs, func_args, platform: accepted for Allo's programs, without effect.

    Example:
        >>> print(HLSModule(program).hls_code)
    """

    targets = TARGETS
    modes = MODES
    known_configs = CONFIGS

    def __init__(
        self,
        program: ir.Program,
        target: str = "vhls",
        mode: str | None = None,
        project: str | Path | None = None,
        configs: Mapping[str, Any] | None = None,
        wrap_io: bool = True,
        top_func_name: str | None = None,
        **accepted: Any,
    ) -> None:
        _check_options(accepted)
        self.target = target
        self.mode = mode
        self.configs = dict(configs or {})
        self._check()
        program = program.with_top(top_func_name)
        self.program = wrapped(program) if wrap_io and target == "vitis_hls" else program
        self.platform = "vivado_hls" if target == "vhls" else target
        self.ext_libs = [f.extern for f in program.functions if f.extern is not None]
        self.num_output_args = _output_count(program)
        self.project = str(project) if project is not None else None
        check_directives(self.program)
        self.hls_code = emit(self.program, self._flow(), self.configs.get("bundles"))
        check_text(self.hls_code)
        if self.project is None and target != "vhls" and mode not in (None, "csim"):
            self.project = os.path.join(tempfile.mkdtemp(prefix=f"{self.top_func_name}-"), "project")
        if self.project is not None:
            self.write(self.project)

    def _flow(self) -> Flow:
        """How the C++ is written."""
        text = self.target == "vhls" or (self.target == "vivado_hls" and self.mode is None)
        return "vhls" if text else "vitis"

    def _check(self) -> None:
        if self.target not in self.targets:
            hint = did_you_mean(self.target, self.targets)
            raise TargetError("FX402", f"Target {self.target} is not supported", hint=hint)
        if self.mode is not None and self.mode not in self.modes:
            raise TargetError("FX402", f"Invalid mode {self.mode}", hint=did_you_mean(self.mode, self.modes))
        if self.mode not in (None, "csim") and self.target == "vhls":
            raise TargetError("FX402", f"mode {self.mode} needs a project", hint='use target="vitis_hls"')
        for name in self.configs:
            if name not in self.known_configs + ALLO_CONFIGS:
                hint = did_you_mean(name, self.known_configs)
                raise UsageError("FX703", f'unknown entry "{name}" in configs', hint=hint)

    @property
    def top_func_name(self) -> str:
        """The C++ name of the top function."""
        return top_name(self.program)

    @property
    def func_args(self) -> list[tuple[str, tuple[int, ...]]]:
        """Short code of the element type and shape of every parameter, results included."""
        return [*self.in_types, *self.out_types]

    @property
    def args(self) -> list[tuple[str, tuple[int, ...]]]:
        """`func_args` under the name it has after a build in Allo."""
        return self.func_args

    @property
    def host_code(self) -> str:
        """The host program of the project."""
        return self._plan().files["host.cpp"].decode()

    def __str__(self) -> str:
        return self.hls_code

    def __repr__(self) -> str:
        if self.mode is None:
            return self.hls_code
        return f"HLSModule({self.top_func_name}, {self.mode}, {self.project})"

    def __call__(self, *args: object) -> Any:
        """Run the mode.

        ``csim`` takes arguments as every module does: the inputs, and if wanted an array for every
        result, which is then written in place.  So do ``sw_emu``, ``hw_emu`` and ``hw`` on the card;
        without arguments they return the path of the ``.xclbin``.  ``csyn`` returns the synthesis
        report, ``cosim`` what it says of each language; they take no arguments.

        Raises:
            ToolError: FX501, the tool of the mode is not installed; FX502, it failed.
        """
        if self.mode == "csim":
            return self._simulation(*args)
        if self.mode is None:
            raise TargetError("FX402", "this module is text only", hint='build with mode="csim" to call it')
        return self._run_mode(*args)

    def _run_mode(self, *args: object) -> Any:
        """Run the tools of the mode on the written project."""
        assert self.project is not None
        if self.mode in ON_CARD:
            xclbin = steps.run_link(self.project, self.top_func_name, self.mode)
            return self._run_on_card(xclbin, args) if args else xclbin
        if args:
            raise TargetError(
                "FX402", f"mode {self.mode} takes no arguments", hint="give data and golden in configs"
            )
        if self.mode == "cosim":
            return steps.run_cosim(self.project, self.top_func_name)
        return steps.run_export(self.project) if self.mode == "impl" else self.synthesize()

    @cached_property
    def _simulation(self) -> CSimModule:
        return CSimModule(self.program, flow=self._flow())

    def _run_on_card(self, xclbin: Path, args: tuple[object, ...]) -> Any:
        assert self.project is not None
        assert self.mode is not None
        return run_on_card(self.program, Path(self.project), xclbin, self.mode, args, self._options())

    def _options(self) -> dict[str, Any]:
        """The configuration by the names of `vitis_project`."""
        known = {k: v for k, v in self.configs.items() if k in self.known_configs and k != "hbm_mapping"}
        return {**known, "memory": self.configs.get("hbm_mapping")}

    def _plan(self) -> BuildPlan:
        return vitis_project(self.program, **self._options())

    def write(self, folder: str | Path) -> Path:
        """Write the Vitis project (see `vitis_project`) to a folder."""
        return write_project(self._plan(), folder)

    def synthesize(self) -> SynthesisReport:
        """Run high-level synthesis on the written project."""
        if self.project is None:
            raise BackendError("FX402", "there is no project to synthesize", hint="build with project=folder")
        return steps.run_csynth(self.project, self.top_func_name)


def _output_count(program: ir.Program) -> int:
    """The arguments of the top function that bring something back: results, else arrays it writes."""
    top = program.function(program.top)
    written = Effects(program).stored(top)
    return len(top.outputs) or sum(b.name in written for b in top.params)


ACCEPTED = ("ext_libs", "func_args", "platform", "use_memory")


def _check_options(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in ACCEPTED:
            hint = did_you_mean(name, ("wrap_io", *ACCEPTED))
            raise UsageError("FX703", f'unknown option "{name}"', hint=hint)
