"""Estimates of models: the design of a preset for a checkpoint or an architecture, on a card."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BackendError, ModelError, UsageError, did_you_mean
from ..estimate.fit import Fit
from ..estimate.result import Estimate
from ..hardware.devices import Device, check_clock
from ..hardware.devices import device as find_device
from ..hybrid import HybridTop
from ..models import Model, architecture, load
from ..models.presets import PRESETS as ARCHITECTURES
from .bitstream import Bitstream
from .build import hardware_top
from .memory_map import memory_map
from .preset import Preset, get_preset, preset_bitstreams, preset_top

DESIGNS: Mapping[str, Callable[[Model], HybridTop]] = {"default": hardware_top}
"""The designs by name, each with its own parallelism and memory words; `default` is what `build` writes."""


def estimate_model(
    directory: Path,
    device: str | None = None,
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
        device: the card; by default that of the preset, or u280. So are the clock and the recipe.
        prompt, new_tokens: lengths of the run.
        preset: one of `DESIGNS`, or a preset by name or file (`runtime.preset`).
        max_seq_len: positions of the KV cache; by default as many as the run takes.

    Raises:
        UsageError: FX703, there is no such preset or clock, or the run does not fit the context.
        EstimateError: the design cannot be estimated.
    """
    check_clock(clock_mhz)
    chosen = None if preset in DESIGNS else get_preset(preset)
    if chosen is not None:
        device, recipe = device or chosen.device, recipe or chosen.recipe_for(directory)
        clock_mhz = clock_mhz or (None if device == chosen.device else find_device(device).default_mhz)
    card = find_device(device or "u280")
    model = open_model(directory, recipe, prompt, new_tokens, max_seq_len)
    design = f"{directory} ({preset})"
    if chosen:
        return estimate_preset(chosen, model, card, prompt, new_tokens, clock_mhz, design)
    return estimate_top(
        DESIGNS[preset](model), card, prompt, new_tokens, clock_mhz or card.default_mhz, design
    )


def open_model(
    directory: Path, recipe: str | None, prompt: int, new_tokens: int, max_seq_len: int | None = None
) -> Model:
    """A checkpoint or an architecture, with a context for a run of those lengths.

    Raises:
        UsageError: FX703, the run does not fit the context.
        ModelError: FX601, there is none.
    """
    length = max_seq_len or prompt + new_tokens
    if prompt < 1 or new_tokens < 1 or prompt + new_tokens > length:
        raise UsageError(
            "FX703",
            f"a prompt of {prompt} and {new_tokens} new tokens in a context of {length}",
            hint="at least one of each, together at most --max-seq-len",
        )
    if _is_named(directory):
        return architecture(str(directory), recipe, length)
    if not directory.exists():
        hint = did_you_mean(str(directory), ARCHITECTURES)
        raise ModelError("FX601", f"there is neither a folder nor an architecture {directory}", hint=hint)
    return load(directory, recipe, length)


def _is_named(directory: Path) -> bool:
    """Whether it is the name of an architecture, not a folder."""
    return str(directory) in ARCHITECTURES and not directory.exists()


def estimate_preset(
    preset: Preset, model: Model, card: Device, prompt: int, new_tokens: int, mhz: float | None, design: str
) -> Estimate:
    """The estimate of a run on the design of a preset.

    Args:
        mhz: the clock of both stages; by default that of the preset.
    """
    if not preset.has_own_kernels:
        top = preset_top(preset, model)
        return estimate_top(top, card, prompt, new_tokens, mhz or preset.clock_mhz, design)
    if preset.max_prompt and prompt > preset.max_prompt:
        hint = "raise max_prompt in the preset"
        raise UsageError("FX703", f"the prefill of {preset.name} holds {preset.max_prompt} tokens", hint=hint)
    made = preset_bitstreams(preset, model)
    late = 0 if made["prefill"].makes_token else 1  # the last token of the prompt is left to decode
    first, rest = (
        estimate_placed(made[name], card, mhz or preset.clock_of(name), design, **lengths)
        for name, lengths in (
            ("prefill", {"n_prompt": prompt}),
            ("decode", {"n_prompt": prompt - late, "new_tokens": new_tokens + late}),
        )
    )
    return _on_others(joined(first, rest, prompt), made.values(), mhz or preset.clock_mhz)


def joined(prefill: Estimate, decode: Estimate, prompt: int) -> Estimate:
    """One answer for two bitstreams: what is on the device, and its power, are decode's, if that runs."""
    note = f"prefill is a bitstream of its own, at {prefill.clock_mhz:g} MHz: {shares(prefill.utilization)}"
    waits = [line for line in prefill.notes if line.startswith("prefill: ")]
    fits = (("prefill", prefill.fit), ("decode", decode.fit))
    fit = Fit(
        tuple(replace(excess, where=name) for name, fit in fits for excess in fit.exceeded),
        tuple(f"{name}: {line}" for name, fit in fits for line in fit.unplaced),
        others=tuple(key for key in prefill.fit.others if key in decode.fit.others),
    )
    return replace(
        decode if decode.main.cycles else prefill,
        phases={"prefill": replace(prefill.phases["prefill"], tokens=prompt), **decode.phases},
        stages=(*prefill.stages, *decode.stages),
        notes=(*decode.notes, *waits, note),
        fit=fit,
    )


def shares(utilization: Mapping[str, float]) -> str:
    """Utilization in words."""
    return ", ".join(f"{name} {share:.0%}" for name, share in utilization.items())


def estimate_top(
    top: HybridTop, card: Device, prompt: int, new_tokens: int, mhz: float, design: str
) -> Estimate:
    """The estimate of a run on a design, with its arrays placed in the memory of the card."""
    lengths = {"n_prompt": prompt, "new_tokens": new_tokens}
    found = estimate_placed(top, card, mhz, design, reconfigured=top.mode == "reconfigured", **lengths)
    return _on_others(found, [top], mhz)


def _on_others(found: Estimate, made: Collection[HybridTop | Bitstream], mhz: float) -> Estimate:
    """Of a design that does not fit, only those other cards whose memory holds it as well."""
    if found.fit:
        return found
    held = tuple(key for key in found.fit.others if all(_placed(one, find_device(key), mhz) for one in made))
    return replace(found, fit=replace(found.fit, others=held))


def _placed(made: HybridTop | Bitstream, card: Device, mhz: float) -> bool:
    try:
        return bool(placement(made, card, mhz))
    except BackendError:
        return False


def estimate_placed(
    made: HybridTop | Bitstream, card: Device, mhz: float, design: str, **options: Any
) -> Estimate:
    """The estimate of what is on the device at one time; it says so if its arrays cannot be placed.

    Args:
        options: of `estimate`.
    """
    try:
        places, unplaced = placement(made, card, mhz), ()
    except BackendError as error:
        hint = f" ({error.hint})" if error.hint else ""
        places, unplaced = {}, (f"{error.message}{hint}",)
    found = made.schedule.estimate(card.key, clock_mhz=mhz, placement=places, design=design, **options)
    note = ("the bandwidth of channels is not known, for the memory does not hold the design",)
    return replace(
        found,
        fit=replace(found.fit, unplaced=unplaced),
        notes=(*found.notes, *(note if unplaced else ())),
    )


def placement(made: HybridTop | Bitstream, card: Device, mhz: float) -> dict[str, list[str]]:
    """The channels of every argument.

    Raises:
        BackendError: FX402, the memory of the card does not hold the design, or has too few ports.
    """
    plan = memory_map(made, card, mhz, ())
    return {
        name: [f"{p.slot.memory}[{p.slot.first + i}]" for i in range(p.slot.channels)]
        for name, p in plan.placements.items()
    }


__all__ = ["DESIGNS", "estimate_model", "estimate_top", "open_model"]
