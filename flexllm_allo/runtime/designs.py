"""Scheduled designs on kernels of their own: FlexLLM's prefill, and decode on an engine.

The preset ``flexllm-u280`` has both at their published parallelism: a bitstream for each stage, and the KV
cache laid out anew in between.
"""

from __future__ import annotations

from ..models import Model
from ..models.engine_model import Decode
from ..models.flexllm_model import Prefill
from ..schedule.schedule import Schedule
from ..schedules import engine, flexllm

GAINS = 16
"""Gains of a norm in a memory word: 512 bits."""


def prefill_design(model: Model, size: Prefill | None = None) -> Schedule:
    """The bitstream of prefill, ``prefill(prompt, n_prompt, ...)``."""
    size = size or Prefill()
    s = Schedule(size.program(model))
    flexllm.memory_words(s, size.attention_word, size.mlp_word, size.value)
    flexllm.prefill(size.token).apply(s, [f.name for f in s.program.functions])
    return s


def decode_design(model: Model, size: Decode | None = None) -> Schedule:
    """The bitstream of decode, ``decode(token, pos, ...)``."""
    size = size or Decode()
    s = Schedule(size.program(model))
    flexllm.memory_words(s, size.channels, size.channels, size.value, min(size.vector, GAINS))
    heads = model.config.num_key_value_heads
    stage = engine.decode(size.block, size.vector, heads, size.ports, size.side(model))
    stage.apply(s, [f.name for f in s.program.functions])
    return s


__all__ = ["decode_design", "prefill_design"]
