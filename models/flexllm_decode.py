"""Decode of FlexLLM's U280 design: one engine for all linear layers, eight KV heads side by side.

Everything takes turns but what is inside an operator: weights arrive while they are multiplied, and the parts
of attention follow each other through the heads of a group. Keys and values are one linear layer. Sizes as in
`models.flexllm`; BP input channels and TB elements of other operators at once.
"""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportUnboundVariable=false
from __future__ import annotations

from flexllm_allo import Bundle, params, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8
from flexllm_allo.kernels.blocks import largest, quantize_blocks, rms_norm_blocks
from flexllm_allo.kernels.embedding import load_rows
from flexllm_allo.kernels.flexllm_engine import linear_engine, take
from flexllm_allo.kernels.flexllm_heads import (
    LANES,
    append_head,
    mix_heads,
    read_head_keys,
    read_head_values,
    score_heads,
    softmax_heads,
)
from flexllm_allo.kernels.lanes import hadamard_lanes
from flexllm_allo.kernels.linear import residual
from flexllm_allo.kernels.mlp import swiglu
from flexllm_allo.kernels.quantize import quantize_static
from flexllm_allo.kernels.rope import angles, rope, split_heads
from flexllm_allo.kernels.sampling import Sampling, sample

from .flexllm import Tables

A, R, BP, TB, KP, VP = params("A, R, BP, TB, KP, VP")
E, W, U, I, V, L, C, S, D, P, H, N = params("E, W, U, I, V, L, C, S, D, P, H, N")
TOP = 5
"""Logits that are kept of every lane."""


class Engine(Bundle):
    """The weights of all linear layers, as the ports of the engine read them, and their terms."""

    port_0: R.weight[R.plan.beats, R.plan.channels]
    port_1: R.weight[R.plan.beats, R.plan.channels]
    port_2: R.weight[R.plan.beats, R.plan.channels]
    port_3: R.weight[R.plan.beats, R.plan.channels]
    port_4: R.weight[R.plan.beats, R.plan.channels]
    port_5: R.weight[R.plan.beats, R.plan.channels]
    port_6: R.weight[R.plan.beats, R.plan.channels]
    port_7: R.weight[R.plan.beats, R.plan.channels]
    port_8: R.weight[R.plan.beats, R.plan.channels]
    port_9: R.weight[R.plan.beats, R.plan.channels]
    port_10: R.weight[R.plan.beats, R.plan.channels]
    port_11: R.weight[R.plan.beats, R.plan.channels]
    port_12: R.weight[R.plan.beats, R.plan.channels]
    port_13: R.weight[R.plan.beats, R.plan.channels]
    port_14: R.weight[R.plan.beats, R.plan.channels]
    port_15: R.weight[R.plan.beats, R.plan.channels]
    terms: float32[R.plan.rows, 2]


class Layer(Bundle):
    """Norms, and the scales of an attention's codes."""

    attn_norm: R.Norm[E]
    mlp_norm: R.Norm[E]
    scales: R.Scales[H, C]


class Vocabulary(Bundle):
    """Tokens to vectors; the norm in front of the logits."""

    embed: float32[V, E]
    final_norm: R.Norm[E]


class Cache(Bundle):
    """Codes of keys in packs of KP neighbours, and of values in parts of VP elements, of every head."""

    k_0: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_1: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_2: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_3: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_4: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_5: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_6: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    k_7: R.cache.dtype[(S + KP - 1) // KP, D, KP]
    v_0: R.cache.dtype[D // VP, S, VP]
    v_1: R.cache.dtype[D // VP, S, VP]
    v_2: R.cache.dtype[D // VP, S, VP]
    v_3: R.cache.dtype[D // VP, S, VP]
    v_4: R.cache.dtype[D // VP, S, VP]
    v_5: R.cache.dtype[D // VP, S, VP]
    v_6: R.cache.dtype[D // VP, S, VP]
    v_7: R.cache.dtype[D // VP, S, VP]


@template(A, TB, N)
def norm_codes(x: float32[1, E], gain: float32[E], eps: float32) -> (A.dtype[1, N], float32[1, 2]):
    """A norm, then the codes that the engine reads."""
    normed = rms_norm_blocks[TB](x, gain, eps)
    codes, terms = quantize_blocks[A, TB, N](normed)
    return codes, terms


@template(R, KP, VP)
def append_heads(k: R.cache.dtype[C, D], v: R.cache.dtype[C, D], pos: int32, cache: Cache):
    """Keys and values of all heads at a position."""
    append_head(k, v, pos, 0, cache.k_0, cache.v_0)
    append_head(k, v, pos, 1, cache.k_1, cache.v_1)
    append_head(k, v, pos, 2, cache.k_2, cache.v_2)
    append_head(k, v, pos, 3, cache.k_3, cache.v_3)
    append_head(k, v, pos, 4, cache.k_4, cache.v_4)
    append_head(k, v, pos, 5, cache.k_5, cache.v_5)
    append_head(k, v, pos, 6, cache.k_6, cache.v_6)
    append_head(k, v, pos, 7, cache.k_7, cache.v_7)


@template(R, KP, VP, S)
def attend_heads(q: R.query.dtype[H, D], n: int32, scales: R.Scales[H, C], cache: Cache) -> float32[1, H * D]:
    """Attention of one token over n positions of the cache."""
    packs: Stream[R.cache.dtype[KP], 64][LANES]
    score: Stream[float32[LANES], 64]
    codes: Stream[uint8[LANES], 64]
    parts: Stream[R.cache.dtype[VP], 64][LANES]
    read_head_keys[H // C](cache.k_0, n, packs[0])
    read_head_keys[H // C](cache.k_1, n, packs[1])
    read_head_keys[H // C](cache.k_2, n, packs[2])
    read_head_keys[H // C](cache.k_3, n, packs[3])
    read_head_keys[H // C](cache.k_4, n, packs[4])
    read_head_keys[H // C](cache.k_5, n, packs[5])
    read_head_keys[H // C](cache.k_6, n, packs[6])
    read_head_keys[H // C](cache.k_7, n, packs[7])
    score_heads[R.cache.dtype, KP](q, packs, scales.q_scale, scales.k_scale, n, score)
    softmax_heads[S, H](score, scales.p_scale, n, codes)
    read_head_values[H // C](cache.v_0, n, parts[0])
    read_head_values[H // C](cache.v_1, n, parts[1])
    read_head_values[H // C](cache.v_2, n, parts[2])
    read_head_values[H // C](cache.v_3, n, parts[3])
    read_head_values[H // C](cache.v_4, n, parts[4])
    read_head_values[H // C](cache.v_5, n, parts[5])
    read_head_values[H // C](cache.v_6, n, parts[6])
    read_head_values[H // C](cache.v_7, n, parts[7])
    mixed = mix_heads[R.cache.dtype, VP, H, S, D](codes, parts, scales.p_scale, scales.v_scale, n)
    return mixed


@template(R, TB, BP, KP, VP, C)
def layer(
    x: float32[1, E], l: int32, pos: int32, tables: Tables, w: Layer, weights: Engine, cache: Cache,
    y: float32[1, N],
) -> float32[1, E]:  # fmt: skip
    """Layer l, operator after operator; the engine's sums are in y."""
    beat: int32 = l * R.plan.layer_beats
    row: int32 = l * R.plan.layer_rows
    a, a_terms = norm_codes[R.attn, TB, R.plan.inputs](x, w.attn_norm, tables.eps)
    linear_engine[BP](a, a_terms, weights, beat, row, E, R.plan.kv.tiles, y)
    k = take[R.plan.kv.rows // 2](y, 0)
    v = take[R.plan.kv.rows // 2](y, R.plan.kv.rows // 2)
    linear_engine[BP](a, a_terms, weights, beat + R.plan.q.beat, row + R.plan.q.row, E, R.plan.q.tiles, y)
    q = take[R.plan.q.rows](y, 0)
    cosine, sine = angles[1](tables.cosine, tables.sine, pos)
    q_heads = rope[H](q, cosine, sine)
    k_heads = rope[C](k, cosine, sine)
    v_heads = split_heads[C](v)
    q_codes = quantize_static[R.query](q_heads, w.scales.q_scale)
    k_codes = quantize_static[R.cache](k_heads, w.scales.k_scale)
    v_codes = quantize_static[R.cache](v_heads, w.scales.v_scale)
    append_heads[R, KP, VP](k_codes, v_codes, pos, cache)
    mixed = attend_heads[R, KP, VP, S](q_codes, pos + 1, w.scales, cache)
    o, o_terms = quantize_blocks[R.out, TB, R.plan.inputs](mixed)
    linear_engine[BP](
        o, o_terms, weights, beat + R.plan.o.beat, row + R.plan.o.row, R.plan.q.rows, R.plan.o.tiles, y
    )
    attended = take[E](y, 0)
    z = residual(x, attended)
    b, b_terms = norm_codes[R.mlp, TB, R.plan.inputs](z, w.mlp_norm, tables.eps)
    linear_engine[BP](
        b, b_terms, weights, beat + R.plan.gate.beat, row + R.plan.gate.row, E, R.plan.gate.tiles, y
    )
    gate = take[R.plan.gate.rows](y, 0)
    linear_engine[BP](b, b_terms, weights, beat + R.plan.up.beat, row + R.plan.up.row, E, R.plan.up.tiles, y)
    up = take[R.plan.up.rows](y, 0)
    hidden = swiglu(gate, up)
    turned = hadamard_lanes(hidden)
    h, h_terms = quantize_blocks[R.down.inner, BP, R.plan.inputs](turned)
    linear_engine[BP](
        h, h_terms, weights, beat + R.plan.down.beat, row + R.plan.down.row, R.plan.up.rows,
        R.plan.down.tiles, y,
    )  # fmt: skip
    down = take[E](y, 0)
    out = residual(z, down)
    return out


@template(R, TB, BP, KP, VP, C)
def decode(
    token: int32, pos: int32, sampling: Sampling, vocabulary: Vocabulary, tables: Tables,
    layers: Layer[L], weights: Engine, cache: Cache[L],
) -> int32:  # fmt: skip
    """The token after `token`, which stands at position `pos`."""
    y: float32[1, R.plan.outputs]
    x = load_rows[1](vocabulary.embed, 1, token)
    for l in range(L, name="layer"):
        x = layer[R, TB, BP, KP, VP, C](x, l, pos, tables, layers[l], weights, cache[l], y)
    a, terms = norm_codes[R.head, TB, R.plan.inputs](x, vocabulary.final_norm, tables.eps)
    linear_engine[BP](
        a, terms, weights, L * R.plan.layer_beats, L * R.plan.layer_rows, E, R.plan.head.tiles, y
    )
    value, tokens = largest[TOP, BP, V](y)
    chosen: int32 = sample[BP * TOP, TOP](value, pos + 1, sampling)
    return tokens[chosen]
