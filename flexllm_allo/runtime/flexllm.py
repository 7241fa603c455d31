"""FlexLLM's published U280 design: two bitstreams, one for each stage, at their published parallelism."""

from __future__ import annotations

from ..models import Model
from ..models.flexllm_model import Decode, Prefill
from ..schedule.schedule import Schedule
from ..schedules import flexllm

PREFILL_MHZ, DECODE_MHZ = 304.0, 292.0
"""Clocks of the published bitstreams on the U280."""


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
    flexllm.memory_words(s, size.channels, size.value)
    flexllm.decode(size.block, size.vector).apply(s, [f.name for f in s.program.functions])
    return s
