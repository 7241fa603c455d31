"""The project of a design in memory: code, memory map, test data and what the CPU makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.hls.emit import top_parameters
from ..backend.hls.interface import Flow, is_memory_port
from ..backend.hls.project import BuildPlan
from ..backend.hls.tapa_project import tapa_project
from ..backend.hls.testbench import Image
from ..backend.hls.vitis import vitis_project
from ..backend.llvm import LLVMModule
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop
from ..ir import nodes as ir
from ..ir.layout import element, laid_out, logical_shape
from ..models import Model
from ..quant.store.folder import COMPANIONS
from .bitstream import Bitstream, whole
from .memory_map import MemoryMap, memory_map
from .packing import manifest_entries

Arrays = dict[str, Any]
FLOWS: Mapping[str, Flow] = {"vitis_hls": "vitis", "tapa": "tapa"}
"""What the targets are called in the emitter."""
GOLDEN_BYTES = 64 << 20
"""Constants of the largest model whose project has a test bench with data."""
MODEL = "model"
"""Folder in the project with config.json and the tokenizer; while it is made, the quantized model."""


def plan_project(
    top: HybridTop | Bitstream,
    device: str = "u280",
    frequency: float | None = None,
    is_stored: bool = False,
    target: str = "vitis_hls",
) -> BuildPlan:
    """The project in memory, with test data: the arguments of a run, and what the CPU makes of them.

    The golden data is everything that ``generate`` writes: the tokens, how many, and the KV cache; or what a
    stage by itself does. A model of more than `GOLDEN_BYTES`, or without weights, gets none, and its test
    bench no constants.

    Args:
        frequency: clock in MHz; the card's usual one by default.
        is_stored: whether somebody writes the constants into files per channel, for the host program.
        target: one of `FLOWS`.

    Raises:
        BackendError: FX402, no such device, or the design does not fit into its memory.
    """
    made = whole(top) if isinstance(top, HybridTop) else top
    card = find_device(device)
    where = memory_map(made, card, frequency or card.default_mhz, made.run)
    data, golden = _test_data(made, where)
    images = _images(where) if is_stored else {}
    project: Callable[..., BuildPlan] = tapa_project
    if target == "vitis_hls":  # arrays of one port, which TAPA does not have
        project = partial(vitis_project, bundles={n: p.bundle for n, p in where.placements.items()})
    else:  # its program for simulation reads the files of channels
        data = {n: a for n, a in data.items() if n not in images or not images[n].filled}
    plan = project(
        made.top,
        device=device,
        frequency=where.frequency_mhz,
        data=data,
        golden=golden,
        placement={n: p.slot for n, p in where.placements.items()},
        images=images,
        trace=made.schedule.trace,
    )
    companions = _companions(made.model) if is_stored else {}
    return replace(plan, files={**plan.files, **companions}, details=_details(made, where, target))


def _details(made: Bitstream, where: MemoryMap, target: str) -> dict[str, Any]:
    """What the manifest says beside the files."""
    return {
        "target": target,
        "recipe": made.model.weights.recipe.name,
        "max_seq_len": made.model.max_seq_len,
        "makes_token": made.makes_token,
        "candidates": made.candidates,
        "cache": asdict(made.layout),
        "bandwidth": where.bandwidth(),
        "arguments": _arguments(made.top, FLOWS[target]),
        "tensors": manifest_entries(where),
    }


def _images(where: MemoryMap) -> dict[str, Image]:
    """The places of arguments in the files of channels."""
    files = where.files
    return {
        n: Image(p.file, p.slot.offset or 0, p.is_constant)
        for n, p in where.placements.items()
        if p.file in files
    }


def _test_data(made: Bitstream, where: MemoryMap) -> tuple[Arrays, Arrays]:
    """Every argument before a run and what it writes; of a large model only what differs from run to run."""
    constants = sum(p.slot.bytes for p in where.placements.values() if p.is_constant)
    if constants <= GOLDEN_BYTES and made.model.weights.tensors:
        return _golden(made)
    eps = np.asarray(made.model.config.rms_norm_eps, np.float32)
    return {"eps": eps, **{n: np.asarray(a) for n, a in made.run.items() if n not in made.written}}, {}


def _golden(made: Bitstream) -> tuple[Arrays, Arrays]:
    function, arguments = made.top.function(made.top.top), {**made.constants(), **made.run}
    before = {b.name: laid_out(b, arguments[b.name]) for b in function.inputs}
    after = {n: a.copy() if hasattr(a, "copy") else a for n, a in before.items()}
    result = LLVMModule(made.top)(*(after[b.name] for b in function.inputs))
    golden: dict[str, Any] = {n: after[n] for n in made.written}
    if function.outputs:
        golden[function.outputs[0].name] = np.array(result, np.int32)
    return {n: np.asarray(a) for n, a in before.items()}, golden


def _arguments(top: ir.Program, flow: Flow) -> list[dict[str, Any]]:
    """The arguments of the kernel in their order, for host programs that read the manifest."""
    function = top.function(top.top)
    names = top_parameters(top, flow)
    return [
        {
            "name": b.name,
            "kernel_name": name,
            "memory": is_memory_port(function, b),
            "type": str(b.dtype),
            "shape": list(b.shape),
            "element": str(element(b)),
            "elements": list(logical_shape(b)),
        }
        for b, name in zip(function.params, names, strict=True)
    ]


def _companions(model: Model) -> dict[str, bytes]:
    """config.json and the tokenizer, for the session that runs the project."""
    folder = Path(model.checkpoint.source)
    return {f"{MODEL}/{n}": (folder / n).read_bytes() for n in COMPANIONS if (folder / n).is_file()}


__all__ = ["FLOWS", "GOLDEN_BYTES", "MODEL", "plan_project"]
