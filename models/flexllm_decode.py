"""Decode of FlexLLM's U280 design: one engine for all linear layers, eight KV heads side by side.

Everything takes turns but what is inside an operator: weights arrive while they are multiplied, and the parts
of attention follow each other through the heads of a group. Keys and values are one layer. Sizes as in
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

from .flexllm import Mlp, Tables

A, M, R, BP, TB, KP, VP = params("A, M, R, BP, TB, KP, VP")
E, W, U, I, V, L, C, S, D, P, H, N = params("E, W, U, I, V, L, C, S, D, P, H, N")
TOP = 5
"""Logits that are kept of every lane."""


class Attention(Bundle):
    """An attention: norm, weights, and the scales of its codes; keys and values are one weight."""

    attn_norm: R.Norm[E]
    wq: R.wq.Weight[W, E]
    wkv: R.wkv.Weight[2 * U, E]
    scales: R.Scales[H, C]
    wo: R.wo.Weight[E, W]


class Vocabulary(Bundle):
    """Tokens to vectors, and back to logits."""

    embed: float32[V, E]
    final_norm: R.Norm[E]
    w_head: R.w_head.Weight[V, E]


class Cache(Bundle):
    """Codes of keys, and of values in parts of VP elements, of every head."""

    k_0: R.cache.dtype[S, D]
    k_1: R.cache.dtype[S, D]
    k_2: R.cache.dtype[S, D]
    k_3: R.cache.dtype[S, D]
    k_4: R.cache.dtype[S, D]
    k_5: R.cache.dtype[S, D]
    k_6: R.cache.dtype[S, D]
    k_7: R.cache.dtype[S, D]
    v_0: R.cache.dtype[D // VP, S, VP]
    v_1: R.cache.dtype[D // VP, S, VP]
    v_2: R.cache.dtype[D // VP, S, VP]
    v_3: R.cache.dtype[D // VP, S, VP]
    v_4: R.cache.dtype[D // VP, S, VP]
    v_5: R.cache.dtype[D // VP, S, VP]
    v_6: R.cache.dtype[D // VP, S, VP]
    v_7: R.cache.dtype[D // VP, S, VP]


@template(A, TB)
def norm_codes(x: float32[1, E], gain: float32[E], eps: float32) -> (A.dtype[1, E], float32[1, 2]):
    """A norm, then the codes that linear layers read."""
    normed = rms_norm_blocks[TB](x, gain, eps)
    codes, terms = quantize_blocks[A, TB](normed)
    return codes, terms


@template(N)
def halves(X: float32[1, M]) -> (float32[1, N], float32[1, N]):
    """The first and the second half of a vector."""
    Y: float32[1, N]
    Z: float32[1, N]
    for i in range(N, name="element"):
        Y[0, i] = X[0, i]
        Z[0, i] = X[0, N + i]
    return Y, Z


@template(R, VP)
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
    rows: Stream[R.cache.dtype[D], 64][LANES]
    score: Stream[float32[LANES], 64]
    codes: Stream[uint8[LANES], 64]
    parts: Stream[R.cache.dtype[VP], 64][LANES]
    read_head_keys[H // C, KP](cache.k_0, n, rows[0])
    read_head_keys[H // C, KP](cache.k_1, n, rows[1])
    read_head_keys[H // C, KP](cache.k_2, n, rows[2])
    read_head_keys[H // C, KP](cache.k_3, n, rows[3])
    read_head_keys[H // C, KP](cache.k_4, n, rows[4])
    read_head_keys[H // C, KP](cache.k_5, n, rows[5])
    read_head_keys[H // C, KP](cache.k_6, n, rows[6])
    read_head_keys[H // C, KP](cache.k_7, n, rows[7])
    score_heads[R.cache.dtype, KP](q, rows, scales.q_scale, scales.k_scale, n, score)
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


@template(R, TB, BP, KP, VP, U)
def layer(x: float32[1, E], pos: int32, tables: Tables, w: Attention, m: Mlp, cache: Cache) -> float32[1, E]:
    """A layer, operator after operator."""
    a, a_terms = norm_codes[R.attn, TB](x, w.attn_norm, tables.eps)
    kv = R.wkv.linear[R.wkv.channels, R.wkv.word](a, a_terms, w.wkv)
    q = R.wq.linear[R.wq.channels, R.wq.word](a, a_terms, w.wq)
    k, v = halves[U](kv)
    cosine, sine = angles[1](tables.cosine, tables.sine, pos)
    q_heads = rope[H](q, cosine, sine)
    k_heads = rope[C](k, cosine, sine)
    v_heads = split_heads[C](v)
    q_codes = quantize_static[R.query](q_heads, w.scales.q_scale)
    k_codes = quantize_static[R.cache](k_heads, w.scales.k_scale)
    v_codes = quantize_static[R.cache](v_heads, w.scales.v_scale)
    append_heads[R, VP](k_codes, v_codes, pos, cache)
    mixed = attend_heads[R, KP, VP, S](q_codes, pos + 1, w.scales, cache)
    o, o_terms = quantize_blocks[R.out, TB](mixed)
    attended = R.wo.linear[R.wo.channels, R.wo.word](o, o_terms, w.wo)
    y = residual(x, attended)
    b, b_terms = norm_codes[R.mlp, TB](y, m.mlp_norm, tables.eps)
    gate = R.w_gate.linear[R.w_gate.channels, R.w_gate.word](b, b_terms, m.w_gate)
    up = R.w_up.linear[R.w_up.channels, R.w_up.word](b, b_terms, m.w_up)
    hidden = swiglu(gate, up)
    turned = hadamard_lanes(hidden)
    h, h_terms = quantize_blocks[R.down.inner, BP](turned)
    down = R.w_down.linear[R.w_down.channels, R.w_down.word](h, h_terms, m.w_down)
    z = residual(y, down)
    return z


@template(R, TB, BP, KP, VP)
def decode(
    token: int32, pos: int32, sampling: Sampling, vocabulary: Vocabulary, tables: Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: Cache[L],
) -> int32:  # fmt: skip
    """The token after `token`, which stands at position `pos`."""
    x = load_rows[1](vocabulary.embed, 1, token)
    for l in range(L, name="layer"):
        x = layer[R, TB, BP, KP, VP, U](x, pos, tables, attentions[l], mlps[l], cache[l])
    a, terms = norm_codes[R.head, TB](x, vocabulary.final_norm, tables.eps)
    logits = R.w_head.linear[R.w_head.channels, R.w_head.word](a, terms, vocabulary.w_head)
    value, tokens = largest[TOP, BP](logits)
    chosen: int32 = sample[BP * TOP, TOP](value, pos + 1, sampling)
    return tokens[chosen]
