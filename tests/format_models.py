"""Small Llamas whose weights are random codes of any format: no recipe has to be computed for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from flexllm_allo.models import Model
from flexllm_allo.models.hf import Checkpoint
from flexllm_allo.models.spec import LlamaConfig, rope_tables
from flexllm_allo.quant import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_KV,
    INT8_WEIGHT,
    IntFormat,
    QuantizedModel,
    Recipe,
)
from flexllm_allo.quant.formats import NM, FloatFormat, ProgressiveFormat, WeightFormat
from flexllm_allo.quant.passes import FoldNorms, LowRank, Outliers, Rotate, Rtn, StaticScales
from flexllm_allo.quant.recipes import SITES
from flexllm_allo.quant.weight import QuantizedWeight

VOCABULARY = 50
PLAIN = LlamaConfig(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=32,
)  # fmt: skip
PALEY = PLAIN.model_copy(update=dict(hidden_size=48, intermediate_size=96, head_dim=12))
"""Sizes m * 2^k: every Hadamard transform has a Paley matrix."""

UINT4 = IntFormat(4, "per_token", dynamic=True, zero="float")
UINT4_ZERO = replace(UINT4, zero="integer")
UINT8 = replace(UINT4, bits=8)
HALF = FloatFormat(16)
KV4 = IntFormat(4, "per_token_and_head", dynamic=True, zero="integer")
KV4_MINIMUM = replace(KV4, zero="float")
KV4_SYMMETRIC = replace(INT8_KV, bits=4)
STATIC_KV = IntFormat(8, "per_head", full_range=True)
GROUP = IntFormat(4, "per_group", full_range=True, group=16, scale="float16")
GROUP8 = IntFormat(8, "per_group", group=16)
ZERO = IntFormat(3, "per_group", zero="integer", group=16)
ZERO_ROW = IntFormat(3, "per_channel", zero="integer")
QOQ = ProgressiveFormat(4, 16)
SPARSE = IntFormat(2, "per_group", zero="integer", group=16, sparsity=NM(2, 4, "3bit"))
SPARSE_PAIRS = replace(SPARSE, sparsity=NM(2, 4, "2bit"))
SPARSE_ROW = replace(SPARSE, granularity="per_channel", bits=4, group=0)

WEIGHTS: dict[str, WeightFormat | None] = {
    "float": None, "int8": INT8_WEIGHT, "int4": INT4_WEIGHT, "int4 group": GROUP, "int8 group": GROUP8,
    "uint3 group": ZERO, "uint3 row": ZERO_ROW, "progressive": QOQ, "sparse": SPARSE,
    "sparse, 2-bit index": SPARSE_PAIRS, "sparse row": SPARSE_ROW,
}  # fmt: skip
ACTIVATIONS = {
    "int8": INT8_ACTIVATION, "uint4 minimum": UINT4, "uint4 zero": UINT4_ZERO, "uint8": UINT8, "half": HALF,
    "float": None,
}  # fmt: skip
CACHES = {
    "float": None, "int8": INT8_KV, "int4": KV4_SYMMETRIC, "uint4 zero": KV4, "uint4 minimum": KV4_MINIMUM,
    "static": STATIC_KV,
}  # fmt: skip

ROUNDED = (Rtn(),)
SIDE = (Outliers(3), Rtn(), LowRank(2))
TURNED = (FoldNorms(), Rotate(r3=True, r4=True, out=True), Rtn())


def recipe(
    weight: WeightFormat | None,
    activation: Any,
    kv: IntFormat | None,
    head: Any,
    passes: Any = ROUNDED,
    **more: Any,
) -> Recipe:
    """A recipe without a name; a static cache gets its scales."""
    static = (StaticScales(),) if kv is STATIC_KV else ()
    return Recipe("case", weight, activation, kv, head, passes=(*passes, *static), **more)


COMBINATIONS: dict[str, tuple[LlamaConfig, Recipe]] = {
    "w4a4kv8 static": (PLAIN, recipe(INT4_WEIGHT, UINT4, STATIC_KV, INT4_WEIGHT)),
    "w4a4kv4": (PLAIN, recipe(INT4_WEIGHT, UINT4_ZERO, KV4, INT8_WEIGHT)),
    "progressive": (PLAIN, recipe(QOQ, INT8_ACTIVATION, KV4, INT8_WEIGHT)),
    "progressive, asymmetric inputs": (PLAIN, recipe(QOQ, UINT8, KV4_MINIMUM, QOQ)),
    "sparse, 2-bit index": (PLAIN, recipe(SPARSE_PAIRS, UINT4, KV4, SPARSE_ROW)),
    "w4a16": (PLAIN, recipe(GROUP, HALF, None, None)),
    "w8a16 rows": (PLAIN, recipe(INT8_WEIGHT, HALF, INT8_KV, INT8_WEIGHT)),
    "sparse a16": (PLAIN, recipe(SPARSE, HALF, KV4, ZERO)),
    "progressive a16": (PLAIN, recipe(QOQ, HALF, KV4_SYMMETRIC, ZERO_ROW)),
    "weights alone": (PLAIN, recipe(GROUP, None, None, INT8_WEIGHT)),
    "cache alone": (PLAIN, recipe(None, None, KV4, None)),
    "inputs alone": (PLAIN, recipe(None, INT8_ACTIVATION, STATIC_KV, None)),
    "zero points": (PLAIN, recipe(ZERO, UINT4, KV4_SYMMETRIC, ZERO_ROW)),
    "formats by kind": (
        PLAIN,
        recipe(INT4_WEIGHT, UINT4_ZERO, INT8_KV, INT8_WEIGHT, kinds=dict(wk=QOQ, wo=GROUP8, w_down=SPARSE)),
    ),
    "outliers": (PLAIN, recipe(GROUP, UINT4, INT8_KV, INT8_WEIGHT, (Outliers(3), Rtn()))),
    "low rank": (PLAIN, recipe(QOQ, UINT4_ZERO, INT8_KV, INT8_WEIGHT, (Rtn(), LowRank(2)))),
    "outliers and low rank": (PLAIN, recipe(INT8_WEIGHT, INT8_ACTIVATION, INT8_KV, INT8_WEIGHT, SIDE)),
    "sparse, outliers and low rank": (PLAIN, recipe(SPARSE, UINT4, KV4, ZERO, SIDE)),
    "half, outliers and low rank": (PLAIN, recipe(GROUP, HALF, STATIC_KV, None, SIDE)),
    "rotated": (PLAIN, recipe(INT4_WEIGHT, UINT4_ZERO, KV4, INT8_WEIGHT, TURNED)),
    "rotated, Paley sizes": (PALEY, recipe(INT4_WEIGHT, UINT4, STATIC_KV, INT4_WEIGHT, TURNED)),
    "rotated, side, Paley sizes": (
        PALEY, recipe(SPARSE, INT8_ACTIVATION, KV4, INT8_WEIGHT, (*TURNED[:2], *SIDE))
    ),
}  # fmt: skip


def integer_only(made: Recipe) -> bool:
    """Whether every sum of products is one of integers, so that it has one value in any order."""
    formats = (made.weight, made.head, made.kv, *made.kinds.values())
    return None not in formats and isinstance(made.activation, IntFormat)


def random_weight(
    fmt: WeightFormat | None, rows: int, width: int, rng: np.random.Generator
) -> QuantizedWeight:
    """Any codes that the format has, with scales that keep the size of what is multiplied."""
    if fmt is None:
        values = rng.standard_normal((rows, width)) * width**-0.5
        return QuantizedWeight(None, values.astype(np.float32), np.ones((rows, 1), np.float32))
    groups = fmt.groups(width)
    sparse = isinstance(fmt, IntFormat) and fmt.sparsity is not None
    codes = rng.integers(fmt.low, fmt.high + 1, (rows, width // 2 if sparse else width))
    zero = None if fmt.signed else rng.integers(0, fmt.high + 1, (rows, groups)).astype(np.uint8)
    step, index = None, None
    if isinstance(fmt, ProgressiveFormat):
        step = rng.integers(1, 9, (rows, groups)).astype(np.uint8)  # at most 8 * 15: an int8
    if sparse:
        index = np.stack([np.sort(rng.permutation(4)[:2]) for _ in range(rows * width // 4)])
        index = index.astype(np.uint8).reshape(rows, -1)
    stored = codes.astype(np.int8 if fmt.signed else np.uint8)
    scales = np.ones((rows, 1 if step is not None else groups), np.float32)
    made = QuantizedWeight(fmt, stored, scales, zero, step, index)
    size = rng.uniform(0.5, 1.5, scales.shape) / (made.integers().std() * width**0.5)
    return replace(
        made, scale=size.astype(np.float16 if fmt.scale == "float16" else np.float32).astype(np.float32)
    )


def random_tensors(config: LlamaConfig, made: Recipe, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """The tensors of a model under a recipe, by name."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    rows = dict(
        wq=queries, wk=keys, wv=keys, wo=hidden, w_gate=inner, w_up=inner, w_down=hidden, w_head=VOCABULARY
    )
    widths = dict(attn=hidden, out=queries, mlp=hidden, down=inner, head=hidden)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def site(prefix: str, name: str) -> Iterator[tuple[str, Any]]:
        width = widths[name]
        rounds = made.rounds(name)  # float weights need no corrections
        outliers = made.find(Outliers) if rounds else None
        low_rank = made.find(LowRank) if rounds else None
        columns = np.sort(rng.permutation(width)[: outliers.count if outliers else 0]).astype(np.int32)
        rank = low_rank.rank if low_rank else 0
        if outliers:
            yield f"{prefix}{name}.outliers", columns
        if low_rank:
            yield f"{prefix}{name}.low_rank", floats(rank, width) * np.float32(width**-0.5)
        for kind in SITES[name]:
            yield prefix + kind, random_weight(made.weight_of(kind), rows[kind], width, rng)
            if outliers or low_rank:
                yield (
                    f"{prefix}{kind}.side",
                    floats(rows[kind], len(columns) + rank) * np.float32(width**-0.5),
                )

    yield "embed", floats(VOCABULARY, hidden)
    yield "final_norm", 1 + floats(hidden) / 5
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}."
        for norm in ("attn_norm", "mlp_norm"):
            yield prefix + norm, 1 + floats(hidden) / 5
        for name in widths:
            if name != "head":
                yield from site(prefix, name)
        if made.find(StaticScales):
            heads = dict(
                q=config.num_attention_heads, k=config.num_key_value_heads, v=config.num_key_value_heads
            )
            for kind, count in heads.items():
                yield f"{prefix}{kind}_scale", rng.uniform(0.015, 0.03, count).astype(np.float32)
            largest = rng.uniform(0.4, 1, config.num_attention_heads)  # probabilities above it are clamped
            yield f"{prefix}p_scale", (largest / 255).astype(np.float32)
    yield from site("", "head")


def random_model(name: str, seed: int = 0) -> Model:
    """A model of one of the combinations."""
    config, made = COMBINATIONS[name]
    tensors = dict(random_tensors(config, made, np.random.default_rng(seed)))
    cosines, sines = rope_tables(config, config.max_position_embeddings)
    checkpoint: Any = Checkpoint(config, {}, "random codes", lambda: None)  # type: ignore[arg-type]
    return Model(checkpoint, QuantizedModel(config, made, tensors, cosines, sines))


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()
