"""A checkpoint under a recipe, ready to become hardware: its program and the data that program takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flexllm_allo.customize import lower_all
from flexllm_allo.errors import ModelError, QuantError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.quant.check import check_recipe
from flexllm_allo.quant.model import QuantizedModel
from flexllm_allo.quant.quantize import quantize, sequence_length
from flexllm_allo.quant.recipes import DEFAULT_RECIPE, Recipe, get_recipe
from flexllm_allo.quant.store.folder import is_quantized, read_quantized

from . import llama as graph
from . import scoring
from .arrays import constant_arrays
from .calibrate import Calibration, calibration_data
from .hf import Checkpoint, checkpoint_without_weights, load_checkpoint
from .operators import Operators, operators

STOP_TOKENS = 4
"""Entries of the design's table of stop tokens; unused ones are -1."""


@dataclass(frozen=True)
class Model:
    """A Llama whose weights have the formats of a recipe.

    Attributes:
        checkpoint: configuration and tokenizer.
        weights: the tensors.
        calibration: which text was looked at (digest of the tokens, samples, seed), or None.
    """

    checkpoint: Checkpoint
    weights: QuantizedModel
    calibration: Mapping[str, Any] | None = None

    @property
    def config(self) -> Any:
        return self.checkpoint.config

    @property
    def max_seq_len(self) -> int:
        return self.weights.max_seq_len

    def shortened(self, positions: int) -> Model:
        """The same model with a context of so many positions, if it has more and they are not 0."""
        if not 0 < positions < self.max_seq_len:
            return self
        if positions not in self._shorter:
            tables = {"cos": self.weights.cos[:positions], "sin": self.weights.sin[:positions]}
            self._shorter[positions] = replace(self, weights=replace(self.weights, **tables))
        return self._shorter[positions]

    @cached_property
    def _shorter(self) -> dict[int, Model]:
        return {}

    def program(self, token_parallel: int, decode_parallel: int = 1) -> ir.Program:
        """Both stages as one unscheduled program: ``generate`` on top, ``score`` for either stage.

        Args:
            token_parallel: tokens in a prefill block.
            decode_parallel: tokens in a block of decode, of which one is a token.
        """
        blocks = token_parallel, decode_parallel
        if blocks not in self._programs:
            self._programs[blocks] = self._lowered(*blocks)
        return self._programs[blocks]

    @cached_property
    def _programs(self) -> dict[tuple[int, int], ir.Program]:
        """Those that were lowered: a search schedules one in many ways."""
        return {}

    def _lowered(self, token_parallel: int, decode_parallel: int) -> ir.Program:
        sizes = self._sizes()
        kernels: Any = graph  # kernels have types of their own, which no checker knows
        scores: Any = scoring
        scored = {k: v for k, v in sizes.items() if k != "M"}
        tops: list[tuple[Any, dict[str, Any]]] = [
            (kernels.generate, {**sizes, "T": token_parallel, "B": decode_parallel}),
            (scores.score, {**scored, "T": token_parallel}),
            (scores.score, {**scored, "T": decode_parallel}),
        ]
        return lower_all(tops)

    def _sizes(self) -> dict[str, Any]:
        """Template arguments of `llama.generate` but the block size."""
        c = self.config
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        sizes = {
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
            "M": STOP_TOKENS,
        }
        return sizes | {"P": c.head_dim // 2} if self.operators.rotary else sizes

    @cached_property
    def operators(self) -> Operators:
        """The kernels and types of the recipe and the family."""
        c = self.config
        return operators(self.weights.recipe, c.architecture, self.window)

    @property
    def window(self) -> int:
        """Tokens that a token sees, itself included; 0 where the whole context is within the window."""
        wanted = self.config.sliding_window
        return wanted if wanted is not None and wanted < self.max_seq_len else 0

    @cached_property
    def constants(self) -> dict[str, Any]:
        """What never changes between runs, by parameter name: weights, scales, tables, eps.

        Raises:
            ModelError: FX602, the model is an architecture without weights.
        """
        self.check_weights()
        return constant_arrays(self.weights)

    def laid_out(self, params: Iterable[ir.Buffer]) -> dict[str, Any]:
        """`constants` as the memories of a scheduled design hold them; nothing of it is kept here.

        Args:
            params: the parameters of a function that takes them all.

        Raises:
            ModelError: FX602, the model is an architecture without weights.
        """
        self.check_weights()
        memories = {p.name: p for p in params}

        def lay(name: str, array: Any) -> Any:
            memory = memories.get(name)
            if memory is None or memory.words == 1:
                return array
            return laid_out(replace(memory, shape=memory.shape[-array.ndim :]), array)

        return constant_arrays(self.weights, lay)

    def check_weights(self) -> None:
        """Refuse a model that is an architecture only.

        Raises:
            ModelError: FX602.
        """
        if not self.weights.tensors:
            raise ModelError(
                "FX602", f"{self.checkpoint.source} has no weights", hint="load a checkpoint of this shape"
            )

    def cache(self) -> dict[str, np.ndarray[Any, Any]]:
        """What runs write beside the tokens, by name: an empty KV cache, and the residual stream."""
        c, fmt = self.config, self.weights.recipe.kv
        shape = (c.num_hidden_layers, c.num_key_value_heads, self.max_seq_len)
        dtype = np.float32 if fmt is None else np.int8 if fmt.signed else np.uint8
        made: dict[str, np.ndarray[Any, Any]] = {}
        for kind in ("k", "v"):
            made[f"{kind}_codes"] = np.zeros((*shape, c.head_dim), dtype)
            if fmt is None or fmt.dynamic:
                made[f"{kind}_terms"] = np.zeros((*shape, self.operators.cache.terms), np.float32)
        made["stream"] = np.zeros((self.max_seq_len, c.hidden_size), np.float32)
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


def load(
    folder: Path | str,
    recipe: str | Recipe | None = None,
    max_seq_len: int | None = None,
    calibration: Calibration | None = None,
) -> Model:
    """A Hugging Face Llama folder under a recipe, or what `flexllm quantize` made of one.

    Args:
        folder: holds config.json, one or more *.safetensors, tokenizer.json.
        recipe: a recipe, its name in `flexllm_allo.quant.recipes`, or a TOML file; by default w8a8kv8, or
            the recipe of a folder that is quantized already.
        max_seq_len: positions of the KV cache; the model's own context by default.
        calibration: text for recipes that look at activations; the shipped one by default.

    Raises:
        ModelError: FX601..FX605, files missing or damaged, tensors missing, model not supported.
        QuantError: FX604, no such recipe, or the folder has another one; FX606..FX608.
    """
    found = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if is_quantized(folder):
        return _load_quantized(Path(folder), found, max_seq_len)
    found = found or get_recipe(DEFAULT_RECIPE)
    check_recipe(found)
    checkpoint = load_checkpoint(Path(folder))
    samples, settings = calibration_data(checkpoint, found, calibration)
    return Model(checkpoint, quantize(checkpoint, found, samples, max_seq_len), settings)


def _load_quantized(folder: Path, recipe: Recipe | None, max_seq_len: int | None) -> Model:
    stored = read_quantized(folder)
    if recipe is not None and recipe != stored.recipe:
        raise QuantError(
            "FX604",
            f"{folder} is quantized with recipe {stored.recipe.name!r}, not {recipe.name!r}",
            hint="leave the recipe out, or quantize the float model anew",
        )
    checkpoint = checkpoint_without_weights(folder)
    length = sequence_length(checkpoint.config, max_seq_len)
    cos, sin = checkpoint.rope_tables(length)
    weights = QuantizedModel(checkpoint.config, stored.recipe, stored.tensors, cos, sin)
    return Model(checkpoint, weights, stored.calibration)
