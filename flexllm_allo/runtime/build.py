"""A checkpoint as a project of Vitis HLS or TAPA: the hybrid top, packed weights, golden data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from ..backend.hls import steps
from ..backend.hls.project import (
    MANIFEST,
    BuildPlan,
    check_folder,
    is_current,
    staged_project,
    write_files,
)
from ..errors import BackendError, UsageError, did_you_mean
from ..hardware.devices import Device, check_clock
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop, hybrid
from ..models import Model, architecture, load
from ..models.presets import PRESETS
from ..quant.recipes import DEFAULT_RECIPE
from ..quant.store.folder import is_quantized
from ..quant.store.manifest import MANIFEST as QUANTIZATION
from ..schedules import decode, prefill
from ..staging import StagedFolder
from .bitstream import Bitstream, whole
from .memory_map import memory_map
from .packing import manifest_entries, pack
from .preset import DEFAULT, Preset, get_preset, preset_bitstream
from .project_plan import FLOWS, MODEL, plan_project
from .quantize import quantized_copy
from .words import WORD_ROWS, weight_words

OnStep = Callable[[int, int | None], None]
STAGES = ("prefill", "decode")
MODES = ("csim", "csyn", "csynth", "cosim", "sw_emu", "hw_emu", "hw")


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
        target: vitis_hls, or tapa.
        mode: None (write only), csim, csynth, cosim, sw_emu, hw_emu or hw; of TAPA None or csim.
        max_seq_len: positions of the KV cache; the model's own context by default.
        frequency: clock in MHz; the preset's of each stage by default, else the card's usual one.
        preset: a design by name or file (`runtime.preset`), which also gives the device, the recipe and the
            clock where they are not given; `hardware_top` on a u280 by default.
        on_step: called with (steps done, steps in all).

    Raises:
        BackendError: FX402, no such target, mode or device, or the design does not fit into its memory.
        UsageError: FX702, the folder cannot be written, is not ours, or another process is writing it; FX703,
            there is no such preset or clock.
        ToolError: FX501, the step's tool is not installed (the project stays); FX502, it failed.
    """
    _check(target, mode)
    check_clock(frequency)
    chosen = get_preset(preset) if preset not in (None, DEFAULT) else None
    order = _Order(chosen, device or (chosen.device if chosen else "u280"), frequency, target)
    recipe = recipe or (chosen.recipe_for(directory) if chosen else None)
    folders = project_folders(out, chosen)
    _check_folders(out, folders)
    steps_done = count(1)
    total = 1 + len(folders) * (2 + (mode is not None))

    def step() -> None:
        on_step(next(steps_done), total)

    plans = _write(order, folders, Path(directory), recipe, max_seq_len, step)
    if mode is not None:
        for name, folder in folders.items():
            run_step(folder, plans[name], mode)
            step()
    return Path(os.path.abspath(out))


@dataclass(frozen=True)
class _Order:
    """What is built: a design for a card."""

    preset: Preset | None
    device: str
    frequency: float | None
    target: str

    def clock(self, name: str) -> float | None:
        """Of a bitstream in MHz; None for the card's usual one, which another card than the preset's has."""
        if self.frequency or self.preset is None or self.device != self.preset.device:
            return self.frequency
        return self.preset.clock_of(name) if name in STAGES else self.preset.clock_mhz

    def bitstream(self, model: Model, name: str) -> Bitstream:
        if self.preset is None:
            return whole(hardware_top(model))
        return preset_bitstream(self.preset, model, name)

    def plan(self, made: Bitstream) -> BuildPlan:
        return plan_project(made, self.device, self.clock(made.name), is_stored=True, target=self.target)


def _write(
    order: _Order,
    folders: Mapping[str, Path],
    directory: Path,
    recipe: str | None,
    max_seq_len: int | None,
    step: Callable[[], None],
) -> dict[str, BuildPlan]:
    """Write all projects. The model is quantized once, into the folder that is completed last."""
    *earlier, last = folders
    plans: dict[str, BuildPlan] = {}
    with staged_project(folders[last]) as keeper:
        model, source = _open(directory, keeper, recipe, max_seq_len)
        step()
        for name in earlier:
            with staged_project(folders[name]) as staged:
                plans[name] = _write_one(order, model, name, staged, source, step)
        plans[last] = _write_one(order, model, last, keeper, source, step)
    return plans


def _write_one(
    order: _Order, model: Model, name: str, staged: StagedFolder, source: str | None, step: Callable[[], None]
) -> BuildPlan:
    """Plan the project of a bitstream, pack its weights and put it in its place."""
    made = order.bitstream(model, name)
    plan = order.plan(made)
    step()
    if source is not None:
        plan = _with_weights(plan, made, find_device(order.device), staged, source)
    _commit(staged, plan)
    step()
    return plan


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
    details = {**plan.details, "model": source, "tensors": manifest_entries(where, packed.tensors)}
    return replace(plan, written=packed.files, details=details)


def _check(target: str, mode: str | None) -> None:
    if target not in FLOWS:
        raise BackendError("FX402", f'no target "{target}"', hint=did_you_mean(target, FLOWS))
    if mode is not None and mode not in MODES:
        raise BackendError("FX402", f'no mode "{mode}"', hint=did_you_mean(mode, MODES))
    if target == "tapa" and mode not in (None, "csim"):
        hint = "csim, or none; make in the project runs the tools of TAPA and Vitis: make csynth, make hw"
        raise BackendError("FX402", f'no mode "{mode}" of target "tapa"', hint=hint)


def _check_folders(out: Path, folders: Mapping[str, Path]) -> None:
    """Refuse folders that cannot be written, all of them before the work; projects do not lie in others."""
    for folder in folders.values():
        check_folder(folder)
    if len(folders) > 1 and (out / MANIFEST).exists():
        raise UsageError(
            "FX702",
            f'"{out}" is a project, whose design is on the card by itself; this one has two that take turns',
            hint="name a new folder, or one that an earlier build of such a design wrote",
        )


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
