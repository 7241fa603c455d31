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
from flexllm_allo.ir.dtypes import DType, Int
from flexllm_allo.ir.types import float32
from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.model import QuantizedModel, quantize_checkpoint

from . import llama as graph
from .hf import Checkpoint, load_checkpoint

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
        c, recipe = self.config, self.weights.recipe
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        return {
            "Ta": _dtype(recipe.activation),
            "Tw": _dtype(recipe.weight),
            "Th": _dtype(recipe.head),
            "Tc": _dtype(recipe.kv),
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
    def constants(self) -> dict[str, Any]:
        """What never changes between runs, by parameter name: weights, scales, tables, eps."""
        w = self.weights
        names = "embed attn_norm mlp_norm final_norm".split()
        linear = "wq wk wv wo w_gate w_up w_down w_head".split()
        arrays = {n: getattr(w, n) for n in [*names, *linear, *(f"{n}_scale" for n in linear)]}
        return {**arrays, "cosine": w.cos, "sine": w.sin, "eps": float(self.config.rms_norm_eps)}

    def cache(self) -> dict[str, np.ndarray[Any, Any]]:
        """An empty KV cache, by parameter name."""
        c = self.config
        shape = (c.num_hidden_layers, c.num_key_value_heads, self.max_seq_len)
        codes = np.int8 if self.weights.recipe.kv else np.float32
        return {
            "k_cache": np.zeros((*shape, c.head_dim), codes),
            "k_scale": np.zeros(shape, np.float32),
            "v_cache": np.zeros((*shape, c.head_dim), codes),
            "v_scale": np.zeros(shape, np.float32),
        }

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


def _dtype(fmt: IntFormat | None) -> DType:
    return float32 if fmt is None else Int(fmt.bits)


def load(folder: Path | str, recipe: str = "w8a8kv8", max_seq_len: int | None = None) -> Model:
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
    return Model(checkpoint, quantize_checkpoint(checkpoint, recipe, max_seq_len))
