"""Stages of a preset, estimated: what a search weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...estimate.estimator import estimate
from ...estimate.result import Estimate
from ...estimate.search import Candidate
from ...hardware.devices import Device, Resources
from ...ir import nodes as ir
from ...models import Model
from ...schedules.common import ELEMENTWISE
from ..estimate import placement
from ..preset import Preset, StagePreset, preset_top, stage_bitstream

KNOBS = {
    **dict.fromkeys(("linear", "engine"), "linear"),
    **dict.fromkeys(("scores", "mix", "score_rows", "mix_rows", "read_rows"), "attention"),
    "weigh": "softmax",
    **dict.fromkeys((*ELEMENTWISE, "butterfly"), "lanes"),
    **dict.fromkeys(("rms_norm_blocks", "quantize_blocks", "take"), "lanes"),
}
"""The knob that shapes a kernel."""


def candidate(
    preset: Preset,
    model: Model,
    stage: str,
    card: Device,
    mhz: float,
    scalars: Mapping[str, Any],
    *,
    placed: bool = False,
) -> Candidate:
    """``prefill`` or ``decode`` of a preset by itself, wherever its stages are.

    Args:
        mhz: the clock.
        scalars: of the call that is estimated, such as ``n_prompt`` or ``pos``.
        placed: whether its arrays must have a place in the memory of the card.

    Raises:
        BackendError: FX402, they have none.
        FlexError: there is no such design.
    """
    made = stage_bitstream(preset, model, stage)
    if placed:
        placement(made, card, mhz)
    found = estimate(made.schedule.program, card.key, clock_mhz=mhz, **scalars)
    used = found.resources, found.modules[-1].resources
    return _candidate(getattr(preset, stage), found, stage, made.schedule.program, *used)


def shared_candidates(
    preset: Preset, model: Model, card: Device, mhz: float, prompt: int, pos: int, *, placed: bool = False
) -> tuple[Candidate, Candidate]:
    """Both stages of a preset whose decode runs on the engines of prefill; either takes all of these.

    Args:
        mhz: the clock.
        prompt: tokens of it.
        pos: the position of the token that is estimated.
        placed: as for `candidate`.
    """
    made = preset_top(preset, model)
    if placed:
        placement(made, card, mhz)
    top = made.top
    whole = estimate(top, card.key, clock_mhz=mhz, new_tokens=2, n_prompt=prompt)
    token = estimate(top.with_top("decode"), card.key, clock_mhz=mhz, pos=pos)
    used = whole.resources, whole.modules[-1].resources
    return (
        _candidate(preset.prefill, whole, "prefill", top, *used),
        _candidate(preset.decode, token, "decode", top, *used),
    )


def _candidate(
    chosen: StagePreset, found: Estimate, stage: str, program: ir.Program, used: Resources, ports: Resources
) -> Candidate:
    """A stage with the figures of an estimate; its resources are those of all that is on the card with it."""
    phase = found.phases[stage]
    return Candidate(
        chosen.schedule,
        chosen.parameters,
        cycles=phase.cycles,
        bytes=phase.bytes,
        resources=used,
        ports=ports,
        busy=_busy(found, stage, {f.name: f.origin for f in program.functions}),
        binds=found.binds,
    )


def _busy(found: Estimate, phase: str, origins: Mapping[str, str]) -> dict[str, float]:
    """The cycles of the slowest kernel that each knob shapes; those of attention take turns."""
    copies = Counter(module.name.partition("#")[0] for module in found.modules)
    busy: dict[str, float] = {}
    for row in (row for row in found.stages if row.phase == phase):
        knob = KNOBS.get(origins.get(row.name, ""), "")
        cycles = row.cycles / max(1, copies[row.name])
        busy[knob] = busy.get(knob, 0.0) + cycles if knob == "attention" else max(busy.get(knob, 0.0), cycles)
    return busy


__all__ = ["candidate", "shared_candidates"]
