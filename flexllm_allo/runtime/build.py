"""A checkpoint as a Vitis HLS project: the hybrid top, packed weights, golden data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.hls import steps
from ..backend.hls.project import BuildPlan, check_folder, write_project
from ..backend.hls.vitis import vitis_project
from ..backend.llvm import LLVMModule
from ..errors import BackendError, did_you_mean
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop, Words, hybrid
from ..ir.layout import laid_out
from ..kernels import linear as linear_kernels
from ..models import Model, load
from ..schedules import decode, prefill

OnStep = Callable[[int, int | None], None]
MODES = ("csim", "csyn", "csynth", "cosim", "sw_emu", "hw_emu", "hw")
WORD_ROWS = 64
"""Rows of a weight in one memory word: 512 bits at 8 bits per weight."""
GOLDEN_PROMPT = 11
"""Tokens of the test bench's prompt: no multiple of a block, so that the last block is short."""
GOLDEN_TOKENS = 6
LINEAR_KINDS = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down", "w_head")


def hardware_top(model: Model, token_parallel: int = 8, weight_parallel: int = 16) -> HybridTop:
    """The design `build_project` writes: spatial prefill, temporal decode, weights in words of rows."""
    first = prefill.spatial(token_parallel, weight_parallel)
    return hybrid(model, first, decode.temporal(WORD_ROWS), weight_words(model))


def weight_words(model: Model) -> dict[str, Words]:
    """The memory words of every integer weight: rows side by side where a whole row has one scale.

    Weights with scales per group are multiplied row by row, so their words lie along the row.
    """
    layout: dict[str, Words] = {}
    by_rows: Any = getattr(linear_kernels, "linear")  # noqa: B009
    for kind in LINEAR_KINDS:
        storage: linear_kernels.Linear = getattr(model.operators, kind)
        if not storage.dtype.is_float and storage.Weight is not linear_kernels.NoWeight:
            along = "rows" if storage.linear is by_rows else "columns"
            layout[f"{kind}_codes"] = Words(WORD_ROWS, along)
    return layout


def build_project(
    directory: Path,
    out: Path,
    *,
    recipe: str | None = None,
    device: str = "u280",
    target: str = "vitis_hls",
    mode: str | None = None,
    max_seq_len: int | None = None,
    on_step: OnStep = lambda _done, _total: None,
) -> Path:
    """Write the project of a checkpoint's hybrid top; with a mode, run that step of the tools too.

    Args:
        directory: a Hugging Face Llama folder.
        out: the project's folder; an existing one is replaced only if it is a project of ours.
        mode: None (write only), csim, csynth, cosim, sw_emu, hw_emu or hw.
        max_seq_len: positions of the KV cache; the model's own context by default.
        on_step: called with (steps done, steps in all).

    Raises:
        BackendError: FX402, no such target, mode or device.
        UsageError: FX702, the folder cannot be written or is not ours.
        ToolError: FX501, the step's tool is not installed (the project stays); FX502, it failed.
    """
    _check(target, mode)
    find_device(device)
    check_folder(out)
    total = 3 + (mode is not None)
    model = load(directory, recipe, max_seq_len)
    on_step(1, total)
    top = hardware_top(model)
    plan = plan_project(top, device)
    on_step(2, total)
    project = write_project(plan, out)
    on_step(3, total)
    if mode is not None:
        run_step(project, plan, mode)
        on_step(4, total)
    return project


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
            return steps.run_cosim(project)
        case _:
            return steps.run_link(project, plan.top, mode)


def plan_project(
    top: HybridTop,
    device: str = "u280",
    prompt: Sequence[int] | None = None,
    new_tokens: int = GOLDEN_TOKENS,
) -> BuildPlan:
    """The project in memory, with test data: a prompt, and what the CPU makes of it.

    The golden data is everything ``generate`` writes: the tokens, how many, and the KV cache.

    Args:
        prompt: tokens of the test bench's prompt; pseudo-random ones by default.
        new_tokens: tokens to generate in the test bench.
    """
    arguments = golden_arguments(top.model, prompt, new_tokens)
    function = top.top.function(top.top.top)
    before = {b.name: laid_out(b, arguments[b.name]) for b in function.inputs}
    after = {n: a.copy() if hasattr(a, "copy") else a for n, a in before.items()}
    count = LLVMModule(top.top)(*(after[b.name] for b in function.inputs))
    written = ("tokens", *top.model.cache())
    golden: dict[str, Any] = {n: after[n] for n in written}
    golden[function.outputs[0].name] = np.array(count, np.int32)
    data = {n: np.asarray(a) for n, a in before.items()}
    return vitis_project(top.top, device=device, data=data, golden=golden)


def golden_arguments(
    model: Model, prompt: Sequence[int] | None = None, new_tokens: int = GOLDEN_TOKENS
) -> dict[str, Any]:
    """Arguments of ``generate`` by name."""
    size = model.max_seq_len
    random = np.random.default_rng(0).integers(0, model.config.vocab_size, min(GOLDEN_PROMPT, size))
    tokens = random if prompt is None else np.array(prompt)
    padded = np.zeros(size, np.int32)
    padded[: len(tokens)] = tokens
    return {
        **model.constants,
        **model.cache(),
        "prompt": padded,
        "n_prompt": len(tokens),
        "max_new_tokens": min(new_tokens, size),
        "stop": model.stop_table(),
        "tokens": np.zeros(size, np.int32),
    }
