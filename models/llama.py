"""Llama as a graph of kernel calls, for any shape, recipe and block of tokens.

`forward` runs a block of `T` tokens at position `pos` against the KV cache.  The two stages are two
instances of it: prefill with T > 1, over the prompt block by block, and decode with T = 1.
`generate` is the hybrid top: both stages, one copy of the weights, one KV cache.

Sizes: E hidden, W = heads x head size, U = KV heads x head size, I intermediate, V vocabulary,
L layers, C KV heads, S positions, D head size, P = D / 2, M stop tokens.
"""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from flexllm_allo import Bundle, params, template
from flexllm_allo.ir.types import float32, int32
from flexllm_allo.kernels.attention import append_cache, attention
from flexllm_allo.kernels.embedding import embedding, take_row
from flexllm_allo.kernels.linear import linear, linear_add
from flexllm_allo.kernels.mlp import swiglu_quantize
from flexllm_allo.kernels.norm import norm_quantize
from flexllm_allo.kernels.quantize import quantize
from flexllm_allo.kernels.rope import rope, split_heads
from flexllm_allo.kernels.sampling import greedy, is_stop

Ta, Tw, Th, Tc, T = params("Ta, Tw, Th, Tc, T")  # activations, weights, head, cache; tokens
E, W, U, I, V, L, C, S, D, P, M = params("E, W, U, I, V, L, C, S, D, P, M")


class Vocabulary(Bundle):
    """Tokens to vectors, and back to logits."""

    embed: float32[V, E]
    final_norm: float32[E]
    w_head: Th[V, E]
    w_head_scale: float32[V]


class Tables(Bundle):
    """What all layers share."""

    eps: float32
    cosine: float32[S, P]
    sine: float32[S, P]


class Attention(Bundle):
    """The weights of an attention: [out, in] with a scale per output channel."""

    attn_norm: float32[E]
    wq: Tw[W, E]
    wq_scale: float32[W]
    wk: Tw[U, E]
    wk_scale: float32[U]
    wv: Tw[U, E]
    wv_scale: float32[U]
    wo: Tw[E, W]
    wo_scale: float32[E]


class Mlp(Bundle):
    """The weights of a feed-forward network."""

    mlp_norm: float32[E]
    w_gate: Tw[I, E]
    w_gate_scale: float32[I]
    w_up: Tw[I, E]
    w_up_scale: float32[I]
    w_down: Tw[E, I]
    w_down_scale: float32[E]


class Cache(Bundle):
    """Keys and values of a layer, as codes with a scale per head and position."""

    k_cache: Tc[C, S, D]
    k_scale: float32[C, S]
    v_cache: Tc[C, S, D]
    v_scale: float32[C, S]


@template(Ta)
def self_attention(
    x: float32[T, E], n: int32, pos: int32, tables: Tables, w: Attention, cache: Cache
) -> float32[T, E]:
    """x + o_proj(attention(norm(x))); appends the block's keys and values to the cache."""
    a, a_scale = norm_quantize[Ta](x, w.attn_norm, tables.eps)
    q = linear(a, a_scale, w.wq, w.wq_scale)
    k = linear(a, a_scale, w.wk, w.wk_scale)
    v = linear(a, a_scale, w.wv, w.wv_scale)
    q_heads = rope[W // D](q, tables.cosine, tables.sine, pos)
    k_heads = rope[C](k, tables.cosine, tables.sine, pos)
    v_heads = split_heads[C](v)
    qc, qc_scale = quantize[Tc](q_heads)
    kc, kc_scale = quantize[Tc](k_heads)
    vc, vc_scale = quantize[Tc](v_heads)
    append_cache(kc, kc_scale, pos, n, cache.k_cache, cache.k_scale)
    append_cache(vc, vc_scale, pos, n, cache.v_cache, cache.v_scale)
    mixed = attention[W // D, T](qc, qc_scale, cache, pos, n)
    m, m_scale = quantize[Ta](mixed)
    y = linear_add(m, m_scale, w.wo, w.wo_scale, x)
    return y


@template(Ta)
def mlp(x: float32[T, E], eps: float32, w: Mlp) -> float32[T, E]:
    """x + down_proj(silu(gate_proj(norm(x))) * up_proj(norm(x)))."""
    a, a_scale = norm_quantize[Ta](x, w.mlp_norm, eps)
    gate = linear(a, a_scale, w.w_gate, w.w_gate_scale)
    up = linear(a, a_scale, w.w_up, w.w_up_scale)
    h, h_scale = swiglu_quantize[Ta](gate, up)
    y = linear_add(h, h_scale, w.w_down, w.w_down_scale, x)
    return y


@template(Ta, T)
def forward(
    tokens: int32[T], n: int32, pos: int32, embed: float32[V, E], tables: Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: Cache[L],
) -> float32[T, E]:  # fmt: skip
    """The residual stream after all layers for n of T tokens at positions pos .. pos + n - 1."""
    x = embedding(tokens, n, embed)
    for l in range(L, name="layer"):
        y = self_attention[Ta](x, n, pos, tables, attentions[l], cache[l])
        x = mlp[Ta](y, tables.eps, mlps[l])
    return x


@template(Ta)
def head(x: float32[T, E], eps: float32, vocabulary: Vocabulary) -> float32[T, V]:
    """Logits of a block: lm_head(norm(x))."""
    a, a_scale = norm_quantize[Ta](x, vocabulary.final_norm, eps)
    logits = linear(a, a_scale, vocabulary.w_head, vocabulary.w_head_scale)
    return logits


@template(Ta, T)
def score(
    tokens: int32[T], n: int32, pos: int32, vocabulary: Vocabulary, tables: Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: Cache[L],
) -> float32[T, V]:  # fmt: skip
    """Logits of every token of a block (rows past n are padding): what perplexity is made of."""
    x = forward[Ta, T](tokens, n, pos, vocabulary.embed, tables, attentions, mlps, cache)
    logits = head[Ta](x, tables.eps, vocabulary)
    return logits


@template(Ta, T)
def prefill(
    prompt: int32[S], n_prompt: int32, vocabulary: Vocabulary, tables: Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: Cache[L],
) -> int32:  # fmt: skip
    """Run the prompt through the layers in blocks of T tokens; the last block may be shorter.

    Returns the first new token. Works for every length from 1 to S.
    """
    last: float32[1, E] = 0.0
    for b in range((n_prompt + T - 1) // T, name="block"):
        n: int32 = min(T, n_prompt - b * T)
        tokens: int32[T] = 0
        for t in range(n, name="fetch"):
            tokens[t] = prompt[b * T + t]
        x = forward[Ta, T](tokens, n, b * T, vocabulary.embed, tables, attentions, mlps, cache)
        last = take_row(x, n - 1)
    logits = head[Ta](last, tables.eps, vocabulary)
    return greedy(logits)


@template(Ta)
def decode(
    token: int32, pos: int32, vocabulary: Vocabulary, tables: Tables, attentions: Attention[L],
    mlps: Mlp[L], cache: Cache[L],
) -> int32:  # fmt: skip
    """The token after `token`, which stands at position `pos`."""
    tokens: int32[1] = 0
    tokens[0] = token
    x = forward[Ta, 1](tokens, 1, pos, vocabulary.embed, tables, attentions, mlps, cache)
    logits = head[Ta](x, tables.eps, vocabulary)
    return greedy(logits)


@template(Ta, T)
def generate(
    prompt: int32[S], n_prompt: int32, max_new_tokens: int32, stop: int32[M],
    vocabulary: Vocabulary, tables: Tables, attentions: Attention[L], mlps: Mlp[L], cache: Cache[L],
    tokens: int32[S],
) -> int32:  # fmt: skip
    """The hybrid top: prefill, then decode until a stop token, `max_new_tokens` or the end of the context.

    Writes the new tokens (a stop token included) to `tokens` and returns how many there are.
    """
    token: int32 = prefill[Ta, T](prompt, n_prompt, vocabulary, tables, attentions, mlps, cache)
    count: int32 = 0
    more: int32 = 1
    while count < max_new_tokens and more == 1:
        tokens[count] = token
        pos: int32 = n_prompt + count
        count += 1
        if is_stop(token, stop) == 1 or pos >= S:
            more = 0
        if count < max_new_tokens and more == 1:
            token = decode[Ta](token, pos, vocabulary, tables, attentions, mlps, cache)
    return count
