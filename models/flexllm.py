"""The Llama of FlexLLM's published U280 design, on our kernels where the structure is the same.

Prefill takes two passes over the blocks of a layer, keys and values first, then everything from the queries
to the down projection; so attention is over all keys of the prompt. Four-bit weights in the layout of
`kernels.flexllm.Array`, attention with fixed scales. Like FlexLLM's, this prefill makes no token: the last
token of a prompt is the first that decode takes.

Sizes as in `models.llama`; KP keys and VP elements of a value at once.
"""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportUnboundVariable=false
from __future__ import annotations

from flexllm_allo import Bundle, params, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8
from flexllm_allo.kernels.embedding import embedding, load_rows, store_rows
from flexllm_allo.kernels.flexllm_attention import (
    append_packs,
    append_parts,
    mix_values,
    read_keys,
    read_values,
    score_keys,
    softmax,
)
from flexllm_allo.kernels.lanes import add_kept, hadamard_lanes, keep_lanes
from flexllm_allo.kernels.mlp import swiglu
from flexllm_allo.kernels.norm import norm_quantize
from flexllm_allo.kernels.quantize import quantize_static
from flexllm_allo.kernels.rope import angles, rope, split_heads

R, T = params("R, T")  # operators of the recipe; tokens
E, W, U, I, V, L, C, S, D, P, H, KP, VP = params("E, W, U, I, V, L, C, S, D, P, H, KP, VP")


class Tables(Bundle):
    """What all layers share."""

    eps: float32
    cosine: float32[S, P]
    sine: float32[S, P]


class Attention(Bundle):
    """An attention: norm, weights, and the scales of its codes."""

    attn_norm: R.Norm[E]
    attn: R.attn.Site[E]
    wq: R.wq.Weight[W, E]
    wk: R.wk.Weight[U, E]
    wv: R.wv.Weight[U, E]
    scales: R.Scales[W // D, C]
    out: R.out.Site[W]
    wo: R.wo.Weight[E, W]


class Cache(Bundle):
    """Codes of keys in packs of KP neighbours, and of values in parts of VP elements."""

    k_codes: R.cache.dtype[C, (S + KP - 1) // KP, D, KP]
    v_codes: R.cache.dtype[C, D // VP, S, VP]


class Mlp(Bundle):
    """A feed-forward network: norm and weights."""

    mlp_norm: R.Norm[E]
    mlp: R.mlp.Site[E]
    w_gate: R.w_gate.Weight[I, E]
    w_up: R.w_up.Weight[I, E]
    down: R.down.inner.Site[I]
    w_down: R.w_down.Weight[E, I]


@template(R, KP, VP)
def keys_values(x: float32[T, E], n: int32, pos: int32, tables: Tables, w: Attention, cache: Cache):
    """The first pass over a block: its keys and values go to the cache."""
    a, a_terms = norm_quantize[R, R.attn](x, w.attn_norm, tables.eps, w.attn)
    k = R.wk.linear[R.wk.ports, R.wk.channels, R.wk.word](a, a_terms, w.wk)
    v = R.wv.linear[R.wv.ports, R.wv.channels, R.wv.word](a, a_terms, w.wv)
    cosine, sine = angles[T](tables.cosine, tables.sine, pos)
    k_heads = rope[C](k, cosine, sine)
    v_heads = split_heads[C](v)
    k_codes = quantize_static[R.cache](k_heads, w.scales.k_scale)
    v_codes = quantize_static[R.cache](v_heads, w.scales.v_scale)
    append_packs(k_codes, pos, n, cache.k_codes)
    append_parts(v_codes, pos, n, cache.v_codes)


@template(R, T, KP, VP)
def attend(
    q: float32[T * H, D], pos: int32, n: int32, scales: R.Scales[H, C], cache: Cache
) -> float32[T, H * D]:
    """Attention of a block over the first n positions of the cache."""
    packs: Stream[R.cache.dtype[KP], 64]
    score: Stream[float32[T], 64]
    codes: Stream[uint8[T], 64]
    parts: Stream[R.cache.dtype[VP], 64]
    q_codes = quantize_static[R.query](q, scales.q_scale)
    read_keys[H](cache.k_codes, n, packs)
    score_keys[R.cache.dtype, H, T, KP](q_codes, packs, scales.q_scale, scales.k_scale, n, score)
    softmax[H, T, S](score, scales.p_scale, pos, n, codes)
    read_values[H, VP](cache.v_codes, n, parts)
    mixed = mix_values[R.cache.dtype, VP, H, T, S, D](codes, parts, scales.p_scale, scales.v_scale, n)
    return mixed


@template(R, KP, VP)
def layer(
    x: float32[T, E], pos: int32, n: int32, tables: Tables, w: Attention, m: Mlp, cache: Cache
) -> float32[T, E]:
    """The second pass over a block, from the queries on; n positions of the cache are keys."""
    around: Stream[float32[T], 8 * E]
    after: Stream[float32[T], 8 * E]
    first = keep_lanes(x, around)
    a, a_terms = norm_quantize[R, R.attn](first, w.attn_norm, tables.eps, w.attn)
    q = R.wq.linear[R.wq.ports, R.wq.channels, R.wq.word](a, a_terms, w.wq)
    cosine, sine = angles[T](tables.cosine, tables.sine, pos)
    q_heads = rope[W // D](q, cosine, sine)
    mixed = attend[R, T, KP, VP](q_heads, pos, n, w.scales, cache)
    o, o_terms = R.out.quantize[R.out](mixed, w.out)
    attended = R.wo.linear[R.wo.ports, R.wo.channels, R.wo.word](o, o_terms, w.wo)
    summed = add_kept(around, attended)
    y = keep_lanes(summed, after)
    b, b_terms = norm_quantize[R, R.mlp](y, m.mlp_norm, tables.eps, m.mlp)
    gate = R.w_gate.linear[R.w_gate.ports, R.w_gate.channels, R.w_gate.word](b, b_terms, m.w_gate)
    up = R.w_up.linear[R.w_up.ports, R.w_up.channels, R.w_up.word](b, b_terms, m.w_up)
    hidden = swiglu(gate, up)
    turned = hadamard_lanes(hidden)
    h, h_terms = R.down.inner.quantize[R.down.inner](turned, m.down)
    down = R.w_down.linear[R.w_down.ports, R.w_down.channels, R.w_down.word](h, h_terms, m.w_down)
    z = add_kept(after, down)
    return z


@template(R, T, KP, VP)
def prefill(
    prompt: int32[S], n_prompt: int32, embed: float32[V, E], tables: Tables, attentions: Attention[L],
    mlps: Mlp[L], cache: Cache[L], stream: float32[S, E],
):  # fmt: skip
    """Run the prompt through the layers: each takes two passes over the blocks."""
    for e in range((n_prompt + T - 1) // T, name="embed"):
        first = embedding[T](prompt, e * T, min(T, n_prompt - e * T), embed)
        store_rows(first, min(T, n_prompt - e * T), e * T, stream)
    for l in range(L, name="layer"):
        for b_kv in range((n_prompt + T - 1) // T, name="keys_values"):
            x_kv = load_rows[T](stream, min(T, n_prompt - b_kv * T), b_kv * T)
            keys_values[R, KP, VP](
                x_kv, min(T, n_prompt - b_kv * T), b_kv * T, tables, attentions[l], cache[l]
            )
        for b in range((n_prompt + T - 1) // T, name="block"):
            x = load_rows[T](stream, min(T, n_prompt - b * T), b * T)
            z = layer[R, KP, VP](x, b * T, n_prompt, tables, attentions[l], mlps[l], cache[l])
            store_rows(z, min(T, n_prompt - b * T), b * T, stream)
