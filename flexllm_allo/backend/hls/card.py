"""One call of a linked design on a card or in emulation: arguments go through files to the host program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ir import nodes as ir
from ..arguments import bind, unbind
from ..effects import Effects
from .csim import csim_dtype, from_csim
from .emit import top_parameters
from .steps import run_host
from .vitis import vitis_project


def run_on_card(
    program: ir.Program,
    project: Path,
    xclbin: Path,
    mode: str,
    args: Sequence[object],
    options: Mapping[str, Any],
) -> Any:
    """Call the top function of a project on NumPy arrays, by the convention of every module.

    Args:
        xclbin: the linked design.
        mode: ``"sw_emu"``, ``"hw_emu"`` or ``"hw"``.
        options: what the project was written with, for `vitis_project`.

    Raises:
        ArgumentError: FX401, the arguments do not fit.
        ToolError: FX501, FX502, the host program cannot be built, or failed.
    """
    top = program.function(program.top)
    stored = Effects(program).stored(top)
    bound = bind(top, args, stored)
    data = {b.name: np.asarray(value) for b, value in zip(top.inputs, args, strict=False)}
    settings: dict[str, Any] = {**options, "data": data, "golden": None}
    plan = vitis_project(program, **settings)
    for name, content in plan.files.items():
        if name == "host.cpp" or name.startswith("data/"):
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_bytes(content)
    run_host(project, xclbin, mode)
    names = top_parameters(program, "vitis")
    for name, buffer, raw in zip(names, top.params, bound.raws, strict=True):
        if buffer.name in stored:
            content = (project / f"out_{name}.bin").read_bytes()
            from_csim(buffer, np.frombuffer(content, csim_dtype(buffer)).reshape(raw.shape), raw)
    return unbind(bound)
