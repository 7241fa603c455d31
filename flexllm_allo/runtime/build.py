"""A checkpoint as a Vitis HLS project: the hybrid top, packed weights, golden data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.hls import steps
from ..backend.hls.emit import top_parameters
from ..backend.hls.interface import is_memory_port
from ..backend.hls.project import MANIFEST, BuildPlan, is_current, staged_project, write_files
from ..backend.hls.testbench import Image
from ..backend.hls.vitis import vitis_project
from ..backend.llvm import LLVMModule
from ..errors import BackendError, did_you_mean
from ..hardware.devices import Device
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop, hybrid
from ..ir import nodes as ir
from ..ir.layout import laid_out
from ..models import Model, architecture, load
from ..models.presets import PRESETS
from ..quant.recipes import DEFAULT_RECIPE
from ..quant.store.folder import COMPANIONS, is_quantized
from ..quant.store.manifest import MANIFEST as QUANTIZATION
from ..schedules import decode, prefill
from ..staging import StagedFolder
from .bitstream import Bitstream, whole
from .memory_map import memory_map
from .packing import manifest_entries, pack
from .preset import DEFAULT, Preset, get_preset, preset_bitstream
from .quantize import quantized_copy
from .words import WORD_ROWS, weight_words

OnStep = Callable[[int, int | None], None]
STAGES = ("prefill", "decode")
MODES = ("csim", "csyn", "csynth", "cosim", "sw_emu", "hw_emu", "hw")
GOLDEN_BYTES = 64 << 20
"""Constants of the largest model whose project has a test bench with data."""
MODEL = "model"
"""Folder in the project with config.json and the tokenizer; while it is made, the quantized model."""


def hardware_top(model: Model, token_parallel: int = 8, weight_parallel: int = 16) -> HybridTop:
    """The design `build_project` writes: spatial prefill, temporal decode, weights in words of rows."""
    first = prefill.spatial(token_parallel, weight_parallel)
    return hybrid(model, first, decode.temporal(WORD_ROWS), weight_words(model))


def build_project(
    directory: Path,
    out: Path,
    *,
    recipe: str | None = None,
    device: str | None = None,
    target: str = "vitis_hls",
    mode: str | None = None,
    max_seq_len: int | None = None,
    frequency: float | None = None,
    preset: str | None = None,
    on_step: OnStep = lambda _done, _total: None,
) -> Path:
    """Write the project of a checkpoint's hybrid top; with a mode, run that step of the tools too.

    Weights go into one file per memory channel, read and packed layer by layer. A run that was cut short
    is taken up again by the next one; until the new project is complete, the old one stays as it is. A design
    whose stages take turns on the card has a project for each, in the folders ``prefill`` and ``decode``.

    Args:
        directory: a Hugging Face Llama folder, one that `flexllm quantize` wrote, or the name of an
            architecture (`models.presets.PRESETS`), whose project then has no weights.
        out: the project's folder; an existing one is replaced only if it is a project of ours.
        mode: None (write only), csim, csynth, cosim, sw_emu, hw_emu or hw.
        max_seq_len: positions of the KV cache; the model's own context by default.
        frequency: clock in MHz; the card's usual one by default.
        preset: a design by name or file (`runtime.preset`), which also gives the device, the recipe and the
            clock where they are not given; `hardware_top` on a u280 by default.
        on_step: called with (steps done, steps in all).

    Raises:
        BackendError: FX402, no such target, mode or device, or the design does not fit into its memory.
        UsageError: FX702, the folder cannot be written, is not ours, or another process is writing it.
        ToolError: FX501, the step's tool is not installed (the project stays); FX502, it failed.
    """
    _check(target, mode)
    chosen = get_preset(preset) if preset not in (None, DEFAULT) else None
    if chosen:
        recipe = recipe or chosen.recipe_for(directory)
        frequency = frequency or (chosen.clock_mhz if device in (None, chosen.device) else None)
    device = device or (chosen.device if chosen else "u280")
    folders = project_folders(out, chosen)
    each = 3 + (mode is not None)
    for number, (name, folder) in enumerate(folders.items()):

        def step(done: int, first: int = number * each) -> None:
            on_step(first + done, each * len(folders))

        with staged_project(folder) as staged:
            model, source = _open(Path(directory), staged, recipe, max_seq_len)
            step(1)
            made = preset_bitstream(chosen, model, name) if chosen else whole(hardware_top(model))
            plan = plan_project(made, device, frequency=frequency, is_stored=True)
            step(2)
            if source is not None:
                plan = _with_weights(plan, made, find_device(device), staged, source)
            _commit(staged, plan)
            step(3)
        if mode is not None:
            run_step(staged.out, plan, mode)
            step(4)
    return Path(os.path.abspath(out))


def project_folders(out: Path, preset: Preset | None = None) -> dict[str, Path]:
    """The folders of a design's projects, by bitstream."""
    names = preset.bitstreams if preset else ("generate",)
    place = Path(os.path.abspath(out))
    return {name: place if len(names) == 1 else place / name for name in names}


def _commit(staged: StagedFolder, plan: BuildPlan) -> None:
    """Put the files in their place, unless the folder holds this very project already."""
    staged.keep_only(plan.written)
    if is_current(plan, staged.out):
        staged.keep_only([])
        return
    write_files(staged, plan)
    staged.commit()


def _open(
    directory: Path, staged: StagedFolder, recipe: str | None, max_seq_len: int | None
) -> tuple[Model, str | None]:
    """The model whose tensors are read when used, and the digest of what they are read from."""
    if str(directory) in PRESETS and not directory.exists():
        return architecture(str(directory), recipe, max_seq_len), None
    if not is_quantized(directory):
        directory, recipe = quantized_copy(directory, staged.path / MODEL, recipe or DEFAULT_RECIPE), None
    digest = hashlib.sha256((directory / QUANTIZATION).read_bytes()).hexdigest()
    return load(directory, recipe, max_seq_len), digest


def _with_weights(
    plan: BuildPlan, made: Bitstream, card: Device, staged: StagedFolder, source: str
) -> BuildPlan:
    """The plan with the packed weights, which are written here."""
    where = memory_map(made, card, plan.frequency_mhz, made.run)
    packed = pack(staged, where, made.parts, source, keep=[MODEL])
    details = {**plan.details, "tensors": manifest_entries(where, packed.tensors)}
    return replace(plan, written=packed.files, details=details)


def _check(target: str, mode: str | None) -> None:
    if target != "vitis_hls":
        raise BackendError("FX402", f'no target "{target}"', hint=did_you_mean(target, ["vitis_hls"]))
    if mode is not None and mode not in MODES:
        raise BackendError("FX402", f'no mode "{mode}"', hint=did_you_mean(mode, MODES))


def run_step(project: Path, plan: BuildPlan, mode: str) -> object:
    """Run one step of the tools on a written project."""
    match mode:
        case "csim":
            return steps.run_csim(project)
        case "csyn" | "csynth":
            return steps.run_csynth(project, plan.top)
        case "cosim":
            return steps.run_cosim(project, plan.top)
        case _:
            return steps.run_link(project, plan.top, mode)


def report_text(project: Path) -> str:
    """A table of what the steps run so far said of a project, or of each of those of a design's stages."""
    inside = [project / name for name in STAGES if (project / name / MANIFEST).is_file()]
    if (project / MANIFEST).is_file() or not inside:
        return steps.update_report(project).text()
    texts = {folder.name: steps.update_report(folder).text() for folder in inside}
    return "".join(f"{name}\n{text}" for name, text in texts.items() if text)


def plan_project(
    top: HybridTop | Bitstream, device: str = "u280", frequency: float | None = None, is_stored: bool = False
) -> BuildPlan:
    """The project in memory, with test data: the arguments of a run, and what the CPU makes of them.

    The golden data is everything that ``generate`` writes: the tokens, how many, and the KV cache; or what a
    stage by itself does. A model of more than `GOLDEN_BYTES`, or without weights, gets none, and its test
    bench no constants.

    Args:
        frequency: clock in MHz; the card's usual one by default.
        is_stored: whether somebody writes the constants into files per channel, for the host program.

    Raises:
        BackendError: FX402, no such device, or the design does not fit into its memory.
    """
    made = whole(top) if isinstance(top, HybridTop) else top
    card, model = find_device(device), made.model
    where = memory_map(made, card, frequency or card.default_mhz, made.run)
    constants = sum(p.slot.bytes for p in where.placements.values() if p.is_constant)
    if constants <= GOLDEN_BYTES and model.weights.tensors:
        data, golden = _golden(made)
    else:
        eps = np.asarray(model.config.rms_norm_eps, np.float32)
        data = {"eps": eps, **{n: np.asarray(a) for n, a in made.run.items() if n not in made.written}}
        golden = {}
    files = where.files
    images = {
        n: Image(p.file, p.slot.offset or 0, p.is_constant)
        for n, p in where.placements.items()
        if is_stored and p.file in files
    }
    plan = vitis_project(
        made.top,
        device=device,
        frequency=where.frequency_mhz,
        data=data,
        golden=golden,
        bundles={n: p.bundle for n, p in where.placements.items()},
        placement={n: p.slot for n, p in where.placements.items()},
        images=images,
        trace=made.schedule.trace,
    )
    details = {
        "recipe": model.weights.recipe.name,
        "max_seq_len": model.max_seq_len,
        "bandwidth": where.bandwidth(),
        "arguments": _arguments(made.top),
        "tensors": manifest_entries(where),
    }
    companions = _companions(model) if is_stored else {}
    return replace(plan, files={**plan.files, **companions}, details=details)


def _golden(made: Bitstream) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every argument before a run, and what it writes."""
    function, arguments = made.top.function(made.top.top), {**made.constants(), **made.run}
    before = {b.name: laid_out(b, arguments[b.name]) for b in function.inputs}
    after = {n: a.copy() if hasattr(a, "copy") else a for n, a in before.items()}
    result = LLVMModule(made.top)(*(after[b.name] for b in function.inputs))
    golden: dict[str, Any] = {n: after[n] for n in made.written}
    if function.outputs:
        golden[function.outputs[0].name] = np.array(result, np.int32)
    return {n: np.asarray(a) for n, a in before.items()}, golden


def _arguments(top: ir.Program) -> list[dict[str, Any]]:
    """The arguments of the kernel in their order, for host programs that read the manifest."""
    function = top.function(top.top)
    names = top_parameters(top, "vitis")
    return [
        {
            "name": b.name,
            "kernel_name": name,
            "memory": is_memory_port(function, b),
            "type": str(b.dtype),
            "shape": list(b.shape),
        }
        for b, name in zip(function.params, names, strict=True)
    ]


def _companions(model: Model) -> dict[str, bytes]:
    """config.json and the tokenizer, for the session that runs the project."""
    folder = Path(model.checkpoint.source)
    return {f"{MODEL}/{n}": (folder / n).read_bytes() for n in COMPANIONS if (folder / n).is_file()}
