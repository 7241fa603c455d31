"""`TapaModule`: what ``s.build(target="tapa", ...)`` returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TargetError
from ...ir import nodes as ir
from ..arguments import bind, unbind
from ..effects import Effects
from .csim import csim_dtype, from_csim
from .emit import top_parameters
from .interface import Flow
from .module import HLSModule
from .project import BuildPlan
from .tapa_project import tapa_project
from .tapa_steps import run_design, run_tapa, run_tapa_link

MODES = ("csim", "csyn", "csynth", "fast_hw_emu", "hw_emu", "hw")
CONFIGS = ("data", "device", "frequency", "golden", "hbm_mapping")


class TapaModule(HLSModule):
    """TAPA C++ of a program: the processes of its dataflow functions are tasks.

    Args:
        program: the scheduled IR.
        mode: None for text or a project only; ``"csim"`` to be called like any module (a thread per task,
            FIFOs of their declared depth); ``"csyn"`` to compile the tasks when called; ``"fast_hw_emu"``,
            ``"hw_emu"``, ``"hw"`` to run the result.
        project: the folder to write the project to.
        configs: `device`, `frequency`, `hbm_mapping`, `data`, `golden` as of `tapa_project`.
        top_func_name: another function of the program as the top one.

    Example:
        >>> print(TapaModule(program).hls_code)
    """

    targets = ("tapa",)
    modes = MODES
    known_configs = CONFIGS

    def __init__(
        self,
        program: ir.Program,
        target: str = "tapa",
        mode: str | None = None,
        project: str | Path | None = None,
        configs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        options.pop("wrap_io", None)  # copies to the chip are up to the schedule
        super().__init__(program, target, mode, project, configs, wrap_io=False, **options)

    @property
    def host_code(self) -> str:
        """The host program of the project."""
        return self._plan().files["tapa_host.cpp"].decode()

    @property
    def tapa_host(self) -> str:
        """`host_code` under the name it has in Allo."""
        return self.host_code

    def _flow(self) -> Flow:
        return "tapa"

    def _plan(self) -> BuildPlan:
        return tapa_project(self.program, **self._options())

    def _run_mode(self, *args: object) -> Any:
        """``csyn`` gives the kernel object's path; the others run on `args`, or give what was linked."""
        assert self.project is not None
        assert self.mode is not None
        folder, top = Path(self.project), self.top_func_name
        if self.mode in ("csyn", "csynth") and args:
            raise TargetError("FX402", f"mode {self.mode} takes no arguments", hint="give none")
        product = run_tapa(folder, top)
        if self.mode in ("hw_emu", "hw"):
            product = run_tapa_link(folder, top, self.mode)
        return self._run_design(folder, product, args) if args else product

    def _run_design(self, folder: Path, product: Path, args: tuple[object, ...]) -> Any:
        """Arguments go through files to the host program and back."""
        top = self.program.function(self.program.top)
        stored = Effects(self.program).stored(top)
        bound = bind(top, args, stored)
        data = {b.name: np.asarray(value) for b, value in zip(top.inputs, args, strict=False)}
        settings: dict[str, Any] = {**self._options(), "data": data, "golden": None}
        plan = tapa_project(self.program, **settings)
        for name, content in plan.files.items():
            if name == "tapa_host.cpp" or name.startswith("data/"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        run_design(folder, product, self.mode or "")
        names = top_parameters(self.program, "tapa")
        for name, buffer, raw in zip(names, top.params, bound.raws, strict=True):
            if buffer.name in stored:
                content = (folder / f"out_{name}.bin").read_bytes()
                from_csim(buffer, np.frombuffer(content, csim_dtype(buffer)).reshape(raw.shape), raw)
        return unbind(bound)


__all__ = ["TapaModule"]
