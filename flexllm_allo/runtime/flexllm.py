"""FlexLLM's published U280 design: a bitstream for each stage, at the published parallelism and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..estimate.result import Estimate
from ..models import Model
from ..models.flexllm_model import Decode, Prefill
from ..schedule.schedule import Schedule
from ..schedules import flexllm

PRESET, RECIPE = "flexllm-u280", "w4a4kv8"
PREFILL_MHZ, DECODE_MHZ = 304.0, 292.0
"""Clocks that the published bitstreams reached on the U280."""


class Bitstreams(NamedTuple):
    """Two designs that take turns on the device; the KV cache is laid out anew in between."""

    prefill: Schedule
    decode: Schedule


def flexllm_u280(model: Model, prefill: Prefill | None = None, decode: Decode | None = None) -> Bitstreams:
    """Both bitstreams for a model, of FlexLLM's recipe.

    Args:
        prefill, decode: another parallelism than that of the U280 design.
    """
    return Bitstreams(prefill_design(model, prefill), decode_design(model, decode))


def prefill_design(model: Model, size: Prefill | None = None) -> Schedule:
    """The bitstream of prefill, ``prefill(prompt, n_prompt, ...)``."""
    size = size or Prefill()
    s = Schedule(size.program(model))
    flexllm.memory_words(s, size.attention_word, size.value)
    flexllm.prefill(size.token).apply(s, [f.name for f in s.program.functions])
    return s


def decode_design(model: Model, size: Decode | None = None) -> Schedule:
    """The bitstream of decode, ``decode(token, pos, ...)``."""
    size = size or Decode()
    s = Schedule(size.program(model))
    flexllm.memory_words(s, size.channels, size.value, size.vector)
    heads = model.config.num_key_value_heads
    flexllm.decode(size.block, size.vector, heads, size.ports).apply(s, [f.name for f in s.program.functions])
    return s


def estimate_flexllm(
    model: Model, device: str, prompt: int, new_tokens: int, clock_mhz: float | None = None
) -> Estimate:
    """What the design does with a prompt, of which decode takes the last token, as prefill makes none.

    Args:
        clock_mhz: of both bitstreams; by default the published clocks.
    """
    made = flexllm_u280(model)
    first = made.prefill.estimate(device, clock_mhz=clock_mhz or PREFILL_MHZ, n_prompt=prompt)
    rest = made.decode.estimate(
        device, clock_mhz=clock_mhz or DECODE_MHZ, n_prompt=prompt - 1, new_tokens=new_tokens + 1
    )
    return joined(first, rest, prompt)


def joined(prefill: Estimate, decode: Estimate, prompt: int) -> Estimate:
    """One answer for two bitstreams: what is on the device, and its power, are decode's."""
    note = f"prefill is a bitstream of its own, at {prefill.clock_mhz:g} MHz: {shares(prefill.utilization)}"
    return replace(
        decode,
        phases={"prefill": replace(prefill.phases["prefill"], tokens=prompt), **decode.phases},
        stages=(*prefill.stages, *decode.stages),
        notes=(*decode.notes, note),
    )


def shares(utilization: Mapping[str, float]) -> str:
    """Utilization in words."""
    return ", ".join(f"{name} {share:.0%}" for name, share in utilization.items())


__all__ = [
    "DECODE_MHZ", "PREFILL_MHZ", "PRESET", "RECIPE", "Bitstreams", "decode_design", "estimate_flexllm",
    "flexllm_u280", "prefill_design",
]  # fmt: skip
