"""A small quantized model, and what the tests of the store do with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flexllm_allo.errors import FlexError
from flexllm_allo.quant.formats import INT4_WEIGHT, INT8_WEIGHT, NM, IntFormat, ProgressiveFormat
from flexllm_allo.quant.integer.progressive import quantize_progressive
from flexllm_allo.quant.integer.rounding import round_weight
from flexllm_allo.quant.recipes import Recipe, recipes
from flexllm_allo.quant.store.folder import Source, write_quantized
from flexllm_allo.quant.store.manifest import MANIFEST
from flexllm_allo.quant.weight import QuantizedWeight

LAYERS = 3
FORMATS = [
    INT4_WEIGHT,
    INT8_WEIGHT,
    IntFormat(3, "per_channel"),
    IntFormat(5, "per_group", zero="integer", group=16),
    IntFormat(4, "per_group", full_range=True, group=8, scale="float16"),
    IntFormat(2, "per_group", zero="integer", group=16, sparsity=NM(2, 4, "3bit")),
    IntFormat(8, "per_channel", sparsity=NM(1, 4)),
    ProgressiveFormat(4, 16),
    None,
]
Tensors = dict[str, "QuantizedWeight | np.ndarray"]


def weight(seed: int, shape=(6, 32), fmt=INT4_WEIGHT) -> QuantizedWeight:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if fmt is None:
        return QuantizedWeight(None, values, np.ones((shape[0], 1), np.float32))
    return (
        quantize_progressive(values, fmt) if isinstance(fmt, ProgressiveFormat) else round_weight(values, fmt)
    )


def model(seed: int = 0, layers: int = LAYERS) -> Tensors:
    """A small model's tensors, file by file."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {"embed": rng.normal(size=(7, 32)).astype(np.float32)}
    for i in range(layers):
        tensors[f"layers.{i}.attn_norm"] = np.ones(32, np.float32)
        tensors[f"layers.{i}.wq"] = weight(seed + i)
        tensors[f"layers.{i}.attn.outliers"] = np.array([3, 5], np.int32)
        tensors[f"layers.{i}.w_down"] = weight(seed + i, (32, 48), FORMATS[i])
    return tensors | {"final_norm": np.ones(32, np.float32), "w_head": weight(seed, fmt=INT8_WEIGHT)}


def float_model(tmp_path: Path) -> Source:
    """A folder that looks like a float model."""
    folder = tmp_path / "float"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 32}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("not copied")
    return Source.of(folder)


RECIPE = recipes["w4a8kv8"]


def write(out: Path, source: Source, tensors: Tensors, recipe: Recipe = RECIPE, calibration=None) -> None:
    def stream(done: frozenset[str]) -> Iterator:
        yield from ((name, value) for name, value in tensors.items() if name not in done)

    write_quantized(out, source, recipe, stream, calibration)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def refusal(code: str, call: Callable[[], object]) -> str:
    with pytest.raises(FlexError) as caught:
        call()
    assert caught.value.code == code
    return str(caught.value)


def edited(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
