"""Kernels with random sizes and inputs: what `test_kernels` runs under every schedule and backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from flexllm_allo.ir.types import Int, UInt, float16, float32, int8
from flexllm_allo.kernels import attention, embedding, grouped, mlp, norm, quantize, rope, rotate, sampling
from flexllm_allo.kernels import linear as dense
from flexllm_allo.kernels.linear import ChannelWeight, Linear
from flexllm_allo.kernels.quantize import Activation
from flexllm_allo.models.operators import operators
from flexllm_allo.quant.architecture import Architecture
from flexllm_allo.quant.formats import INT8_KV, IntFormat
from flexllm_allo.quant.passes import StaticScales
from flexllm_allo.quant.recipes import Recipe

size = st.integers(1, 9)
wide = st.integers(1, 40)  # beyond the depth of the FIFOs, so that both ends wait
Sizes = dict[str, Any]
Inputs = Callable[[np.random.Generator, Sizes], list[Any]]


@dataclass(frozen=True)
class Case:
    """A kernel, a strategy for its template arguments, and inputs for an instance."""

    kernel: Callable[..., Any]
    sizes: Any
    inputs: Inputs


# ------------------------------------------------------------------------------------ values


def codes(rng: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    """Any value of the type."""
    if dtype.is_float:
        return rng.standard_normal(shape).astype(np.float16 if dtype.bits == 16 else np.float32)
    if not dtype.signed:
        return rng.integers(0, 2**dtype.bits, shape).astype(np.uint8)
    top = 2 ** (dtype.bits - 1)
    return rng.integers(-top, top, shape).astype(np.int8)


def real(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3)
    return np.where(rng.random(shape) < 0.1, 0.0, values).astype(np.float32)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.random(shape) + 0.01).astype(np.float32)


def terms(rng: np.random.Generator, scales: int, *shape: int) -> np.ndarray:
    """Terms [..., P], the first `scales` of them positive."""
    made = real(rng, *shape)
    made[..., :scales] = positive(rng, *shape[:-1], scales)
    return made


def tokens_at(rng: np.random.Generator, b: Sizes, most: int) -> tuple[int, int]:
    """A position in the cache, and how many tokens there are from it on."""
    n = int(rng.integers(1, most + 1))
    return int(rng.integers(0, b["S"] - n + 1)), n


# ---------------------------------------------------------------------------- linear layers


def linear_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    return [
        codes(rng, b["Tx"], b["T"], b["K"]), terms(rng, 1, b["T"], b["P"]),
        codes(rng, b["Tw"], b["N"], b["K"]), terms(rng, 1, b["N"], b["P"]),
    ]  # fmt: skip


def group_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    """Of `linear_group`, `linear_zero`, `linear_progressive` and `linear_sparse`, by the sizes they have."""
    groups = b["G"] if "G" in b else b["Q"] - b["P"] + 1
    made = [codes(rng, b["Tx"], b["T"], b["K"]), terms(rng, 1, b["T"], b["P"])]
    if "Ti" in b:
        index = rng.integers(0, 6, (b["N"], b["K"] // 4)).astype(np.uint8)
        if b["Ti"].bits == 2:
            pairs = np.stack([grouped.FIRST, grouped.SECOND], -1).astype(np.uint8)
            index = pairs[index].reshape(b["N"], -1)
        made += [codes(rng, b["Tw"], b["N"], b["K"] // 2), index]
    elif "Q" not in b:
        made += progressive_codes(rng, b["N"], b["K"], groups)
    else:
        made += [codes(rng, b["Tw"], b["N"], b["K"])]
    if "G" in b and "Q" in b:
        made += [codes(rng, b["Tw"], b["N"], groups)]
    scales = groups if "Q" in b else 1
    return [*made, terms(rng, scales, b["N"], scales + b["P"] - 1)]


def progressive_codes(rng: np.random.Generator, rows: int, width: int, groups: int) -> list[np.ndarray]:
    """Codes, zeros and steps whose products are int8, as quantizing within +-119 makes them."""
    step = rng.integers(1, 17, (rows, groups))
    zero = rng.integers(0, 16, (rows, groups))
    most = np.minimum(15, zero + 127 // step)  # (code - zero) * step <= 127
    least = np.maximum(0, zero - 127 // step)
    spread = [np.repeat(a, width // groups, axis=1) for a in (least, most)]
    made = rng.integers(spread[0], spread[1] + 1)
    return [a.astype(np.uint8) for a in (made, zero, step)]


activations = st.sampled_from([int8, UInt(4), UInt(8), float16])
any_activation = st.sampled_from([int8, UInt(4), float16, float32])
term_counts = st.integers(1, 4)
weights = st.sampled_from([int8, Int(4)])


@st.composite
def group_sizes(draw: Any, storage: str) -> Sizes:
    """T tokens, N rows of G groups; sparse weights have groups of fours."""
    groups, rows, tokens, extra = draw(st.integers(1, 3)), draw(size), draw(size), draw(term_counts)
    width = draw(st.integers(1, 3)) * 4 if storage == "sparse" else draw(st.integers(1, 8))
    sizes = dict(Tx=draw(any_activation), T=tokens, N=rows, K=groups * width, P=extra)
    kinds = [Int(4), int8, Int(3)] if storage == "group" else [UInt(4), UInt(2), UInt(3)]
    if storage == "progressive":
        return sizes | dict(Tw=UInt(4), G=groups)
    sizes |= dict(Tw=draw(st.sampled_from(kinds)), Q=groups + extra - 1)
    if storage == "group":
        return sizes
    sizes["G"] = groups
    if storage == "sparse":
        sizes |= dict(Ti=draw(st.sampled_from([UInt(2), UInt(3)])), H=sizes["K"] // 2, J=0)
        sizes["J"] = sizes["K"] // (2 if sizes["Ti"].bits == 2 else 4)
    return sizes


LAYERS = {
    "channel": Linear(Int(4), dense.linear, ChannelWeight),
    "group": Linear(Int(4), grouped.linear_group, grouped.GroupWeight, group=4),
    "zero": Linear(UInt(3), grouped.linear_zero, grouped.ZeroWeight, group=4),
    "progressive": Linear(UInt(4), grouped.linear_progressive, grouped.ProgressiveWeight, group=4),
    "sparse": Linear(UInt(2), grouped.linear_sparse, grouped.SparseWeight, group=4, index=UInt(3)),
}
"""A storage of every kind."""


@st.composite
def layer_sizes(draw: Any) -> Sizes:
    """Sizes of `linear_add` for any storage."""
    extra = draw(st.integers(0, 2))
    layer = replace(draw(st.sampled_from(list(LAYERS.values()))), extra=extra)
    width = 4 * draw(st.integers(1, 3))
    return dict(F=layer, Tx=draw(activations), T=draw(size), N=draw(wide), K=width, P=1 + extra)


def layer_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    layer = b["F"]
    sizes = {k: v for k, v in b.items() if k != "F"} | dict(Tw=layer.dtype)
    groups = layer.groups(b["K"])
    if layer.linear is dense.linear:
        made = linear_inputs(rng, sizes)
    else:
        if layer.linear is not grouped.linear_progressive:
            sizes["Q"] = layer.terms(b["K"])
        if layer.linear is not grouped.linear_group:
            sizes["G"] = groups
        if layer.index is not None:
            sizes["Ti"] = layer.index
        made = group_inputs(rng, sizes)
    return [*made, real(rng, b["T"], b["N"])]


# ------------------------------------------------------------------------------ quantization

KEEP = Activation(float16, quantize.keep)
SYMMETRIC = Activation(int8, quantize.quantize)
MINIMUM = Activation(UInt(4), quantize.quantize_minimum, offset=True)
ZERO = Activation(UInt(4), quantize.quantize_zero, offset=True)
PLAIN = [KEEP, replace(KEEP, dtype=float32), SYMMETRIC, replace(SYMMETRIC, dtype=Int(4)),
         MINIMUM, replace(MINIMUM, dtype=UInt(8)), ZERO, replace(ZERO, dtype=UInt(8))]  # fmt: skip


def with_outliers(inner: Activation, count: int) -> Activation:
    return replace(inner, quantize=quantize.quantize_outliers, Site=quantize.OutlierSite,
                   outliers=count, inner=inner)  # fmt: skip


def with_low_rank(inner: Activation, rank: int) -> Activation:
    return replace(inner, quantize=quantize.quantize_low_rank, Site=quantize.LowRankSite,
                   rank=rank, inner=inner)  # fmt: skip


def with_both(inner: Activation, count: int, rank: int) -> Activation:
    return replace(with_outliers(inner, count), quantize=quantize.quantize_mixed, Site=quantize.MixedSite,
                   rank=rank, inner=with_outliers(inner, count))  # fmt: skip


def rotated(inner: Activation) -> Activation:
    return replace(inner, quantize=rotate.rotate_quantize, inner=inner)


def biased(inner: Activation) -> Activation:
    return replace(inner, quantize=quantize.quantize_biased, biased=True, inner=inner)


@st.composite
def activation(draw: Any) -> Activation:
    """Any way to quantize an input, rotations aside."""
    plain, count, rank = draw(st.sampled_from(PLAIN)), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    if count and rank:
        return with_both(plain, count, rank)
    return with_outliers(plain, count) if count else with_low_rank(plain, rank) if rank else plain


def quantizers(kernel: Callable[..., Any]) -> Any:
    return st.sampled_from([a for a in PLAIN if a.quantize is kernel])


def site_inputs(rng: np.random.Generator, a: Activation, width: int) -> list[Any]:
    """The arrays of ``a.Site[width]``; no two outliers are one channel."""
    made: list[Any] = []
    if a.outliers:
        made.append(rng.permutation(width)[: a.outliers].astype(np.int32))
    if a.rank:
        made.append(real(rng, a.rank, width))
    return made


def quantize_inputs(rows: str, width: str) -> Inputs:
    return lambda rng, b: [real(rng, b[rows], b[width]), *site_inputs(rng, b["A"], b[width])]


def with_site(build: Callable[..., Activation], *counts: int) -> Any:
    """Sizes of a kernel that does more than quantize, around any plain quantizer."""
    return st.sampled_from([build(plain, *counts) for plain in PLAIN])


def logits(rng: np.random.Generator, count: int) -> np.ndarray:
    """[1, V], some of them equal."""
    return rng.standard_normal((1, count)).round(1).astype(np.float32)


# --------------------------------------------------------------------------------- attention

ASYMMETRIC = IntFormat(4, "per_token_and_head", dynamic=True, zero="integer")
CACHES = [None, INT8_KV, ASYMMETRIC, replace(ASYMMETRIC, zero="float"), replace(INT8_KV, bits=4)]
STATIC = IntFormat(8, "per_head", full_range=True)


@st.composite
def head_sizes(draw: Any) -> Sizes:
    kv, group, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    window = draw(st.integers(0, 4))
    return dict(L=window, H=kv * group, T=tokens, KV=kv, S=draw(st.integers(tokens, 9)), D=draw(size))


@st.composite
def attention_sizes(draw: Any) -> Sizes:
    kinds = [(int8, int8, 1), (float32, float32, 1), (Int(4), Int(4), 1), (int8, UInt(4), 2),
             (int8, UInt(8), 2), (int8, Int(4), 1)]  # fmt: skip
    query, cache, count = draw(st.sampled_from(kinds))
    return draw(head_sizes()) | dict(Tq=query, Tc=cache, P=count)


def attention_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    cache, rows = (b["KV"], b["S"]), b["T"] * b["KV"]
    return [
        codes(rng, b["Tq"], b["T"] * b["H"], b["D"]), positive(rng, b["T"] * b["H"], 1),
        codes(rng, b["Tc"], rows, b["D"]), terms(rng, 1, rows, b["P"]),
        codes(rng, b["Tc"], rows, b["D"]), terms(rng, 1, rows, b["P"]),
        codes(rng, b["Tc"], *cache, b["D"]), terms(rng, 1, *cache, b["P"]),
        codes(rng, b["Tc"], *cache, b["D"]), terms(rng, 1, *cache, b["P"]),
        *tokens_at(rng, b, b["T"]),
    ]  # fmt: skip


def static_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    """Scales of probabilities from those that clamp at 255 to those that round to 0."""
    cache, rows = (b["KV"], b["S"], b["D"]), b["T"] * b["KV"]
    return [
        codes(rng, b["Tq"], b["T"] * b["H"], b["D"]),
        codes(rng, b["Tc"], rows, b["D"]), codes(rng, b["Tc"], rows, b["D"]),
        codes(rng, b["Tc"], *cache), codes(rng, b["Tc"], *cache),
        *fixed_scales(rng, b), *tokens_at(rng, b, b["T"]),
    ]  # fmt: skip


def fixed_scales(rng: np.random.Generator, b: Sizes) -> list[np.ndarray]:
    probability = (10.0 ** rng.uniform(-3.5, 0.5, b["H"])).astype(np.float32)
    return [positive(rng, b["H"]), positive(rng, b["KV"]), positive(rng, b["KV"]), probability]


def recipe_with(kv: IntFormat | None, window: int = 0) -> Any:
    static = () if kv is None or kv.dynamic else (StaticScales(),)
    return operators(Recipe("case", None, None, kv, None, passes=static), window=window)


NO_RECIPE = Recipe("case", None, None, None, None, passes=())
FAMILIES = [operators(NO_RECIPE), operators(NO_RECIPE, Architecture(norm="layer"))]


@st.composite
def attend_sizes(draw: Any, formats: list[IntFormat | None]) -> Sizes:
    sizes = draw(head_sizes())
    made = recipe_with(draw(st.sampled_from(formats)), sizes.pop("L"))
    return sizes | dict(F=made, R=sizes["T"] * sizes["KV"])


def attend_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    f, shape = b["F"], (b["KV"], b["S"])
    made: list[Any] = [
        real(rng, b["T"] * b["H"], b["D"]),
        real(rng, b["R"], b["D"]),
        real(rng, b["R"], b["D"]),
    ]
    made += tokens_at(rng, b, b["T"])
    for _ in "kv":
        made.append(codes(rng, f.cache.dtype, *shape, b["D"]))
        if f.Cache is attention.DynamicCache:
            made.append(terms(rng, 1, *shape, f.cache.terms))
    return [*made, *fixed_scales(rng, b)] if f.Cache is attention.StaticCache else made


@st.composite
def append_sizes(draw: Any) -> Sizes:
    heads, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from([int8, UInt(4), float32]))
    return dict(Tc=kind, G=heads, R=heads * tokens, S=draw(st.integers(tokens, 9)), D=draw(size))


def append_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    new, cache = codes(rng, b["Tc"], b["R"], b["D"]), codes(rng, b["Tc"], b["S"], b["D"])
    return [new, int(rng.integers(b["G"])), *tokens_at(rng, b, b["R"] // b["G"]), cache]


# ------------------------------------------------------------------------------------ the rest


@st.composite
def rope_sizes(draw: Any, pairs: Any) -> Sizes:
    heads, half = draw(st.integers(1, 3)), draw(pairs)
    return dict(H=heads, T=draw(st.integers(1, 4)), W=2 * half * heads, P=half)


def rope_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    return [real(rng, b["T"], b["W"]), real(rng, b["T"], b["P"]), real(rng, b["T"], b["P"])]


def rows_at(rng: np.random.Generator, b: Sizes) -> list[int]:
    """How many rows of a block count, and where they are in a stream of S."""
    n = int(rng.integers(1, min(b["T"], b["S"]) + 1))
    return [n, int(rng.integers(0, b["S"] - n + 1))]


def angles_inputs(rng: np.random.Generator, b: Sizes) -> list[Any]:
    return [real(rng, b["S"], b["P"]), real(rng, b["S"], b["P"]), int(rng.integers(0, 9))]


def fixed(**sizes: Any) -> Any:
    return st.fixed_dictionaries(sizes)


def quantizer(kernel: Callable[..., Any]) -> Case:
    return Case(kernel, fixed(A=quantizers(kernel), R=size, K=size), quantize_inputs("R", "K"))


hadamard_width = st.sampled_from([1, 2, 4, 8, 12, 16, 24, 32])
enough = st.integers(3, 12)  # columns for three outliers

CASES = {
    "linear": Case(
        dense.linear, fixed(Tx=activations, Tw=weights, T=size, N=size, K=size, P=term_counts), linear_inputs
    ),
    "linear_add": Case(dense.linear_add, layer_sizes(), layer_inputs),
    "linear_group": Case(grouped.linear_group, group_sizes("group"), group_inputs),
    "linear_zero": Case(grouped.linear_zero, group_sizes("zero"), group_inputs),
    "linear_progressive": Case(grouped.linear_progressive, group_sizes("progressive"), group_inputs),
    "linear_sparse": Case(grouped.linear_sparse, group_sizes("sparse"), group_inputs),
    "keep": quantizer(quantize.keep),
    "quantize": quantizer(quantize.quantize),
    "quantize_minimum": quantizer(quantize.quantize_minimum),
    "quantize_zero": quantizer(quantize.quantize_zero),
    "quantize_static": Case(
        quantize.quantize_static,
        fixed(A=quantizers(quantize.quantize), R=size, K=size, H=size),
        lambda rng, b: [real(rng, b["R"], b["K"]), positive(rng, b["H"])],
    ),
    "take_columns": Case(
        quantize.take_columns,
        fixed(R=size, K=enough, C=st.integers(1, 3)),
        lambda rng, b: [real(rng, b["R"], b["K"]), rng.permutation(b["K"])[: b["C"]].astype(np.int32)],
    ),
    "project": Case(
        quantize.project,
        fixed(R=size, K=size, U=size),
        lambda rng, b: [real(rng, b["R"], b["K"]), real(rng, b["U"], b["K"])],
    ),
    "join_terms": Case(
        quantize.join_terms,
        fixed(R=size, P=size, C=size),
        lambda rng, b: [real(rng, b["R"], b["P"]), real(rng, b["R"], b["C"])],
    ),
    "quantize_outliers": Case(
        quantize.quantize_outliers,
        fixed(A=with_site(with_outliers, 3), R=size, K=enough, C=st.just(3)),
        quantize_inputs("R", "K"),
    ),
    "quantize_low_rank": Case(
        quantize.quantize_low_rank,
        fixed(A=with_site(with_low_rank, 2), R=size, K=size, U=st.just(2)),
        quantize_inputs("R", "K"),
    ),
    "quantize_mixed": Case(
        quantize.quantize_mixed,
        fixed(A=with_site(with_both, 3, 2), R=size, K=enough, C=st.just(3), U=st.just(2)),
        quantize_inputs("R", "K"),
    ),
    "rotate_quantize": Case(
        rotate.rotate_quantize,
        fixed(A=activation().map(rotated), R=size, K=st.sampled_from([4, 8, 12, 16, 24, 32])),
        quantize_inputs("R", "K"),
    ),
    "rms_norm": Case(
        norm.rms_norm,
        fixed(T=size, E=size),
        lambda rng, b: [real(rng, b["T"], b["E"]), real(rng, b["E"]), 1e-5],
    ),
    "layer_norm": Case(
        norm.layer_norm,
        fixed(T=size, E=size),
        lambda rng, b: [real(rng, b["T"], b["E"]), real(rng, b["E"]), real(rng, b["E"]), 1e-5],
    ),
    "norm_heads": Case(
        norm.norm_heads,
        st.tuples(size, size, size).map(lambda s: dict(H=s[0], T=s[1], W=s[0] * s[2], D=s[2])),
        lambda rng, b: [real(rng, b["T"], b["W"]), real(rng, b["D"]), 1e-5],
    ),
    "norm_quantize": Case(
        norm.norm_quantize,
        fixed(F=st.sampled_from(FAMILIES), A=activation(), T=size, E=st.integers(3, 40)),
        lambda rng, b: [
            real(rng, b["T"], b["E"]), *(real(rng, b["E"]) for _ in b["F"].Norm.__annotations__), 1e-5,
            *site_inputs(rng, b["A"], b["E"]),
        ],
    ),
    "quantize_biased": Case(
        quantize.quantize_biased,
        fixed(A=activation().map(biased), R=size, K=st.integers(3, 40)),
        quantize_inputs("R", "K"),
    ),
    "append_one": Case(
        quantize.append_one, fixed(R=size, P=size), lambda rng, b: [real(rng, b["R"], b["P"])]
    ),
    "gelu": Case(mlp.gelu, fixed(T=size, N=size), lambda rng, b: [real(rng, b["T"], b["N"])]),
    "gelu_quantize": Case(
        mlp.gelu_quantize,
        fixed(A=activation(), T=size, N=st.integers(3, 40)),
        lambda rng, b: [real(rng, b["T"], b["N"]), *site_inputs(rng, b["A"], b["N"])],
    ),
    "swiglu_quantize": Case(
        mlp.swiglu_quantize,
        fixed(A=activation(), T=size, N=st.integers(3, 40)),
        lambda rng, b: [
            real(rng, b["T"], b["N"]), real(rng, b["T"], b["N"]), *site_inputs(rng, b["A"], b["N"])
        ],
    ),
    "angles": Case(rope.angles, fixed(T=st.integers(1, 4), S=size, P=st.integers(1, 4)), angles_inputs),
    "rope": Case(rope.rope, rope_sizes(st.integers(1, 4)), rope_inputs),
    "rope_rotate": Case(rotate.rope_rotate, rope_sizes(st.sampled_from([1, 2, 4, 6])), rope_inputs),
    "split_heads": Case(
        rope.split_heads,
        st.tuples(size, size, size).map(lambda s: dict(H=s[0], T=s[1], W=s[0] * s[2])),
        lambda rng, b: [real(rng, b["T"], b["W"])],
    ),
    "append_codes": Case(attention.append_codes, append_sizes(), append_inputs),
    "attention": Case(attention.attention, attention_sizes(), attention_inputs),
    "attention_static": Case(
        attention.attention_static, head_sizes().map(lambda s: s | dict(Tq=int8, Tc=int8)), static_inputs
    ),
    "attend": Case(attention.attend, attend_sizes(CACHES), attend_inputs),
    "attend_static": Case(attention.attend_static, attend_sizes([STATIC]), attend_inputs),
    "embedding": Case(
        embedding.embedding,
        fixed(T=size, N=st.just(9), V=size, E=size),
        lambda rng, b: [
            rng.integers(0, b["V"], b["N"]).astype(np.int32), *rows_at(rng, b | {"S": b["N"]})[::-1],
            real(rng, b["V"], b["E"]),
        ],
    ),
    "add_positions": Case(
        embedding.add_positions,
        st.tuples(size, size, size).map(lambda s: dict(T=s[0], S=max(s[0], s[1]), E=s[2])),
        lambda rng, b: [
            real(rng, b["T"], b["E"]), *reversed(tokens_at(rng, b, b["T"])), real(rng, b["S"], b["E"])
        ],
    ),
    "load_rows": Case(
        embedding.load_rows,
        fixed(T=size, S=st.just(9), E=size),
        lambda rng, b: [real(rng, b["S"], b["E"]), *rows_at(rng, b)],
    ),
    "store_rows": Case(
        embedding.store_rows,
        fixed(T=size, S=st.just(9), E=size),
        lambda rng, b: [real(rng, b["T"], b["E"]), *rows_at(rng, b), real(rng, b["S"], b["E"])],
    ),
    "candidates": Case(
        sampling.candidates,
        fixed(V=wide, K=size),
        lambda rng, b: [logits(rng, b["V"]), int(rng.integers(1, b["K"] + 1))],
    ),
    "sample": Case(
        sampling.sample,
        fixed(V=wide, K=size),
        lambda rng, b: [
            logits(rng, b["V"]), int(rng.integers(0, 99)), float(rng.choice([0, 0.3, 1, 3])),
            int(rng.integers(0, b["K"] + 2)), float(rng.choice([0.1, 0.9, 1])), int(rng.integers(-99, 99)),
        ],
    ),
    "is_stop": Case(
        sampling.is_stop,
        fixed(M=size),
        lambda rng, b: [int(rng.integers(0, 9)), rng.integers(-1, 9, b["M"]).astype(np.int32)],
    ),
}  # fmt: skip

COMPOSED = {
    "rotate_quantize": dict(A=rotated(SYMMETRIC), R=1, K=24),
    "swiglu_quantize": dict(A=SYMMETRIC, T=1, N=1),
    "linear_add": dict(F=LAYERS["channel"], Tx=int8, T=1, N=1, K=1, P=1),
    "attention": dict(L=0, H=1, T=1, KV=1, S=1, D=1, Tq=int8, Tc=UInt(4), P=2),
    "attention_static": dict(L=0, H=1, T=1, KV=1, S=1, D=1, Tq=int8, Tc=int8),
}
"""An instance of the cases that call kernels without a case of their own."""
