"""A checkpoint as a Vitis HLS project: the hybrid top, packed weights, golden data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.hls import steps
from ..backend.hls.emit import top_parameters
from ..backend.hls.interface import is_memory_port
from ..backend.hls.project import BuildPlan, is_current, staged_project, write_files
from ..backend.hls.testbench import Image
from ..backend.hls.vitis import vitis_project
from ..backend.llvm import LLVMModule
from ..errors import BackendError, did_you_mean
from ..hardware.devices import Device
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop, hybrid
from ..ir.layout import laid_out
from ..models import Model, architecture, load
from ..models.arrays import constant_parts
from ..models.presets import PRESETS
from ..models.sampling import Sampling
from ..quant.recipes import DEFAULT_RECIPE
from ..quant.store.folder import COMPANIONS, is_quantized
from ..quant.store.manifest import MANIFEST as QUANTIZATION
from ..schedules import decode, prefill
from ..staging import StagedFolder
from .memory_map import memory_map
from .packing import manifest_entries, pack
from .preset import DEFAULT, get_preset, preset_top
from .quantize import quantized_copy
from .words import WORD_ROWS, weight_words

OnStep = Callable[[int, int | None], None]
MODES = ("csim", "csyn", "csynth", "cosim", "sw_emu", "hw_emu", "hw")
GOLDEN_PROMPT = 11
"""Tokens of the test bench's prompt: no multiple of a block, so that the last block is short."""
GOLDEN_TOKENS = 6
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
    is taken up again by the next one; until the new project is complete, the old one stays as it is.

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
    card = find_device(device)
    total = 3 + (mode is not None)
    with staged_project(Path(os.path.abspath(out))) as staged:
        model, source = _open(Path(directory), staged, recipe, max_seq_len)
        on_step(1, total)
        top = preset_top(chosen, model) if chosen else hardware_top(model)
        plan = plan_project(top, device, frequency=frequency, is_stored=True)
        on_step(2, total)
        if source is not None:
            plan = _with_weights(plan, top, card, staged, source)
        staged.keep_only(plan.written)
        if not is_current(plan, staged.out):
            write_files(staged, plan)
            staged.commit()
        else:
            staged.keep_only([])
        on_step(3, total)
    if mode is not None:
        run_step(staged.out, plan, mode)
        on_step(4, total)
    return staged.out


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
    plan: BuildPlan, top: HybridTop, card: Device, staged: StagedFolder, source: str
) -> BuildPlan:
    """The plan with the packed weights, which are written here."""
    weights = top.model.weights
    where = memory_map(top, card, plan.frequency_mhz, run_arguments(top.model))
    packed = pack(staged, where, lambda name: constant_parts(weights, name), source, keep=[MODEL])
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
    """A table of what the steps run so far said of a project; empty if none has a report."""
    return steps.update_report(project).text()


def plan_project(
    top: HybridTop,
    device: str = "u280",
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
    frequency: float | None = None,
    is_stored: bool = False,
    sampling: Sampling | None = None,
) -> BuildPlan:
    """The project in memory, with test data: a prompt, and what the CPU makes of it.

    The golden data is everything ``generate`` writes: the tokens, how many, and the KV cache. A model of more
    than `GOLDEN_BYTES`, or without weights, gets none, and its test bench no constants.

    Args:
        prompt: tokens of the test bench's prompt; pseudo-random ones by default.
        new_tokens: tokens to generate in the test bench.
        frequency: clock in MHz; the card's usual one by default.
        sampling: how they are chosen; greedy by default.
        is_stored: whether somebody writes the constants into files per channel, for the host program.

    Raises:
        BackendError: FX402, no such device, or the design does not fit into its memory.
    """
    card = find_device(device)
    run = run_arguments(top.model, prompt, new_tokens, sampling)
    where = memory_map(top, card, frequency or card.default_mhz, run)
    constants = sum(p.slot.bytes for p in where.placements.values() if p.is_constant)
    if constants <= GOLDEN_BYTES and top.model.weights.tensors:
        data, golden = _golden(top, {**top.model.constants, **run})
    else:
        eps = np.asarray(top.model.config.rms_norm_eps, np.float32)
        data = {"eps": eps, **{n: np.asarray(a) for n, a in run.items() if n not in top.model.cache()}}
        golden = {}
    files = where.files
    images = {
        n: Image(p.file, p.slot.offset or 0, p.is_constant)
        for n, p in where.placements.items()
        if is_stored and p.file in files
    }
    plan = vitis_project(
        top.top,
        device=device,
        frequency=where.frequency_mhz,
        data=data,
        golden=golden,
        bundles={n: p.bundle for n, p in where.placements.items()},
        placement={n: p.slot for n, p in where.placements.items()},
        images=images,
        trace=top.schedule.trace,
    )
    details = {
        "recipe": top.model.weights.recipe.name,
        "max_seq_len": top.model.max_seq_len,
        "bandwidth": where.bandwidth(),
        "arguments": _arguments(top),
        "tensors": manifest_entries(where),
    }
    companions = _companions(top.model) if is_stored else {}
    return replace(plan, files={**plan.files, **companions}, details=details)


def _golden(top: HybridTop, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every argument before ``generate``, and what it writes."""
    function = top.top.function(top.top.top)
    before = {b.name: laid_out(b, arguments[b.name]) for b in function.inputs}
    after = {n: a.copy() if hasattr(a, "copy") else a for n, a in before.items()}
    count = LLVMModule(top.top)(*(after[b.name] for b in function.inputs))
    written = ("tokens", *top.model.cache())
    golden: dict[str, Any] = {n: after[n] for n in written}
    golden[function.outputs[0].name] = np.array(count, np.int32)
    return {n: np.asarray(a) for n, a in before.items()}, golden


def _arguments(top: HybridTop) -> list[dict[str, Any]]:
    """The arguments of the kernel in their order, for host programs that read the manifest."""
    function = top.top.function(top.top.top)
    names = top_parameters(top.top, "vitis")
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


def run_arguments(
    model: Model,
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """The arguments of ``generate`` that differ from run to run, by name."""
    size = model.max_seq_len
    random = np.random.default_rng(0).integers(0, model.config.vocab_size, min(GOLDEN_PROMPT, size))
    tokens = random if prompt is None else np.array(prompt)
    padded = np.zeros(size, np.int32)
    padded[: len(tokens)] = tokens
    return {
        **(sampling or Sampling()).arguments(),
        **model.cache(),
        "prompt": padded,
        "n_prompt": len(tokens),
        "max_new_tokens": min(new_tokens, size),
        "stop": model.stop_table(),
        "tokens": np.zeros(size, np.int32),
    }


def golden_arguments(
    model: Model,
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """Arguments of ``generate`` by name."""
    return {**model.constants, **run_arguments(model, prompt, new_tokens, sampling)}
