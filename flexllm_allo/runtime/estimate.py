"""Estimates of models: the design of a preset for a checkpoint or an architecture, on a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import BackendError, UsageError, did_you_mean
from ..estimate.result import Estimate
from ..hardware.devices import Device
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop
from ..models import Model, architecture, load
from ..models.presets import PRESETS as ARCHITECTURES
from . import flexllm
from .build import hardware_top, run_arguments
from .memory_map import memory_map

DESIGNS: Mapping[str, Callable[[Model], HybridTop]] = {"default": hardware_top}
"""The designs by name, each with its own parallelism and memory words; `default` is what `build` writes."""


def estimate_model(
    directory: Path,
    device: str = "u280",
    prompt: int = 1024,
    new_tokens: int = 128,
    *,
    preset: str = "default",
    clock_mhz: float | None = None,
    recipe: str | None = None,
    max_seq_len: int | None = None,
) -> Estimate:
    """What a model's design will do, without any tool of the vendor.

    Args:
        directory: a Hugging Face folder, a quantized one, or the name of an architecture.
        prompt, new_tokens: lengths of the run.
        preset: one of `DESIGNS`, or ``flexllm-u280``.
        max_seq_len: positions of the KV cache; by default as many as the run takes.

    Raises:
        UsageError: FX703, there is no such preset, or the run does not fit the context.
        EstimateError: the design cannot be estimated.
    """
    if preset not in (*DESIGNS, flexllm.PRESET):
        hint = did_you_mean(preset, [*DESIGNS, flexllm.PRESET])
        raise UsageError("FX703", f'there is no preset "{preset}"', hint=hint)
    length = max_seq_len or prompt + new_tokens
    if prompt < 1 or new_tokens < 1 or prompt + new_tokens > length:
        raise UsageError(
            "FX703",
            f"a prompt of {prompt} and {new_tokens} new tokens in a context of {length}",
            hint="at least one of each, together at most --max-seq-len",
        )
    card = find_device(device)
    named = str(directory) in ARCHITECTURES and not directory.exists()
    recipe = flexllm.RECIPE if preset == flexllm.PRESET and named else recipe
    model = architecture(str(directory), recipe, length) if named else load(directory, recipe, length)
    if preset == flexllm.PRESET:
        found = flexllm.estimate_flexllm(model, device, prompt, new_tokens, clock_mhz)
        return replace(found, design=f"{directory} ({preset})")
    top = DESIGNS[preset](model)
    mhz = clock_mhz or card.default_mhz
    return top.schedule.estimate(
        device,
        clock_mhz=mhz,
        new_tokens=new_tokens,
        n_prompt=prompt,
        placement=placement(top, card, mhz),
        reconfigured=top.mode == "reconfigured",
        design=f"{directory} ({preset})",
    )


def placement(top: HybridTop, card: Device, mhz: float) -> dict[str, list[str]]:
    """The channels of every argument; nothing where the memory is not known to hold the design."""
    try:
        plan = memory_map(top, card, mhz, run_arguments(top.model))
    except BackendError:
        return {}
    return {
        name: [f"{p.slot.memory}[{p.slot.first + i}]" for i in range(p.slot.channels)]
        for name, p in plan.placements.items()
    }


__all__ = ["DESIGNS", "estimate_model"]
