"""A checkpoint under a recipe, ready to become hardware: its program and the data that program takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flexllm_allo.customize import lower_all
from flexllm_allo.errors import ModelError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.quantize import quantize
from flexllm_allo.quant.recipes import Recipe

from . import llama as graph
from .arrays import constant_arrays
from .hf import Checkpoint, load_checkpoint
from .operators import Operators, operators

STOP_TOKENS = 4
"""Entries of the design's table of stop tokens; unused ones are -1."""


@dataclass(frozen=True)
class Model:
    """A Llama whose weights have the formats of a recipe."""

    checkpoint: Checkpoint
    weights: QuantizedModel

    @property
    def config(self) -> Any:
        return self.checkpoint.config

    @property
    def max_seq_len(self) -> int:
        return self.weights.max_seq_len

    def program(self, token_parallel: int) -> ir.Program:
        """Both stages as one unscheduled program: ``generate`` on top, ``score`` for either stage.

        Args:
            token_parallel: tokens in a prefill block.
        """
        sizes = self._sizes()
        kernels: Any = graph  # kernels have types of their own, which no checker knows
        scoring = {k: v for k, v in sizes.items() if k != "M"}
        tops: list[tuple[Any, dict[str, Any]]] = [
            (kernels.generate, {**sizes, "T": token_parallel}),
            (kernels.score, {**scoring, "T": token_parallel}),
            (kernels.score, {**scoring, "T": 1}),
        ]
        return lower_all(tops)

    def _sizes(self) -> dict[str, Any]:
        """Template arguments of `llama.generate` but the block size."""
        c = self.config
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        return {
            "R": self.operators,
            "E": c.hidden_size,
            "W": heads * c.head_dim,
            "U": kv * c.head_dim,
            "I": c.intermediate_size,
            "V": c.vocab_size,
            "L": c.num_hidden_layers,
            "C": kv,
            "S": self.max_seq_len,
            "D": c.head_dim,
            "P": c.head_dim // 2,
            "M": STOP_TOKENS,
        }

    @cached_property
    def operators(self) -> Operators:
        """The kernels and types of the recipe."""
        return operators(self.weights.recipe)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """What never changes between runs, by parameter name: weights, scales, tables, eps."""
        return constant_arrays(self.weights)

    def cache(self) -> dict[str, np.ndarray[Any, Any]]:
        """An empty KV cache, by parameter name."""
        c, fmt = self.config, self.weights.recipe.kv
        shape = (c.num_hidden_layers, c.num_key_value_heads, self.max_seq_len)
        dtype = np.float32 if fmt is None else np.int8 if fmt.signed else np.uint8
        made: dict[str, np.ndarray[Any, Any]] = {}
        for kind in ("k", "v"):
            made[f"{kind}_codes"] = np.zeros((*shape, c.head_dim), dtype)
            if fmt is None or fmt.dynamic:
                made[f"{kind}_terms"] = np.zeros((*shape, self.operators.cache.terms), np.float32)
        return made

    def stop_table(self) -> np.ndarray[Any, Any]:
        """The stop tokens as the design takes them.

        Raises:
            ModelError: FX603, more of them than the design has room for.
        """
        stops = self.config.eos_token_ids
        if len(stops) > STOP_TOKENS:
            raise ModelError("FX603", f"{len(stops)} stop tokens, the design holds {STOP_TOKENS}")
        table = np.full(STOP_TOKENS, -1, np.int32)
        table[: len(stops)] = stops
        return table


def load(folder: Path | str, recipe: str | Recipe = "w8a8kv8", max_seq_len: int | None = None) -> Model:
    """A Hugging Face Llama folder under a recipe.

    Args:
        folder: holds config.json, one or more *.safetensors, tokenizer.json.
        recipe: a name in `flexllm_allo.quant.recipes`.
        max_seq_len: positions of the KV cache; the model's own context by default.

    Raises:
        ModelError: FX601..FX605, files missing or damaged, tensors missing, model not supported.
        QuantError: FX604, no such recipe.
    """
    checkpoint = load_checkpoint(Path(folder))
    return Model(checkpoint, quantize(checkpoint, recipe, max_seq_len=max_seq_len))
