"""A decoder of the Llama family as a graph of kernel calls, for any shape, recipe and block of tokens.

`forward` runs a block of `T` tokens at position `pos` against the KV cache.  The two stages are two
instances of its layers: prefill with T > 1, layer by layer over the blocks of the prompt, and decode
with T = 1.
`generate` is the hybrid top: both stages, one copy of the weights, one KV cache.

Everything that depends on the recipe (types, storage of weights, the kernels that go with it) and on the
family is in the template argument `R`, a `models.operators.Operators`.  What a family lacks (a norm of the
heads, a gate) is a bundle without arrays, and no call.

Sizes: E hidden, W = heads x head size, U = KV heads x head size, I intermediate, V vocabulary,
L layers, C KV heads, S positions, D head size, P = D / 2, M stop tokens.
"""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from flexllm_allo import Bundle, meta_else, meta_if, params, template
from flexllm_allo.ir.types import float32, int32
from flexllm_allo.kernels.embedding import add_positions, embedding, load_rows, store_rows
from flexllm_allo.kernels.linear import linear_add, residual
from flexllm_allo.kernels.mlp import gelu_quantize, swiglu_quantize
from flexllm_allo.kernels.norm import norm_heads, norm_quantize
from flexllm_allo.kernels.rope import angles, split_heads
from flexllm_allo.kernels.sampling import CANDIDATES, Sampling, is_stop, sample

# R: operators of the recipe; T: tokens of a block
R, T, E, W, U, I, V, L, C, S, D, P, M, B = params("R, T, E, W, U, I, V, L, C, S, D, P, M, B")


class Vocabulary(Bundle):
    """Tokens to vectors, and back to logits."""

    embed: float32[V, E]
    final_norm: R.Norm[E]
    head: R.head.Site[E]
    w_head: R.w_head.Weight[V, E]


class Attention(Bundle):
    """An attention: norm, weights [out, in], and what quantization needs at its two inputs."""

    attn_norm: R.Norm[E]
    attn: R.attn.Site[E]
    wq: R.wq.Weight[W, E]
    wk: R.wk.Weight[U, E]
    wv: R.wv.Weight[U, E]
    q_norm: R.HeadNorm[D]
    k_norm: R.HeadNorm[D]
    scales: R.Scales[W // D, C]
    out: R.out.Site[W]
    wo: R.wo.Weight[E, W]


class Mlp(Bundle):
    """A feed-forward network: norm, weights, and what quantization needs at its two inputs."""

    mlp_norm: R.Norm[E]
    mlp: R.mlp.Site[E]
    w_gate: R.w_gate.Weight[I, E]
    w_up: R.w_up.Weight[I, E]
    down: R.down.Site[I]
    w_down: R.w_down.Weight[E, I]


@template(R)
def self_attention(
    x: float32[T, E], n: int32, pos: int32, tables: R.Tables, w: Attention, cache: R.Cache[C, S, D]
) -> float32[T, E]:
    """o_proj(attention(norm(x))); appends the block's keys and values to the cache."""
    a, a_terms = norm_quantize[R, R.attn](x, w.attn_norm, tables.eps, w.attn)
    q = R.wq.linear(a, a_terms, w.wq)
    k = R.wk.linear(a, a_terms, w.wk)
    v = R.wv.linear(a, a_terms, w.wv)
    with meta_if(R.qk_norm):
        norm_heads[W // D](q, w.q_norm, tables.eps)
        norm_heads[C](k, w.k_norm, tables.eps)
    q_heads: float32[T * (W // D), D]
    k_heads: float32[T * C, D]
    with meta_if(R.rotary):
        cosine, sine = angles[T](tables.cosine, tables.sine, pos)
        q_heads = R.rope[W // D](q, cosine, sine)
        k_heads = R.rope[C](k, cosine, sine)
    with meta_else():
        q_heads = split_heads[W // D](q)
        k_heads = split_heads[C](k)
    v_heads = split_heads[C](v)
    mixed = R.attend[R, W // D, T](q_heads, k_heads, v_heads, pos, n, cache, w.scales)
    m, m_terms = R.out.quantize[R.out](mixed, w.out)
    o = R.wo.linear(m, m_terms, w.wo)
    return o


@template(R)
def mlp(x: float32[T, E], eps: float32, w: Mlp) -> float32[T, E]:
    """x + down_proj(h), h = silu(gate_proj(a)) * up_proj(a) or gelu(up_proj(a)), a = norm(x)."""
    a, a_terms = norm_quantize[R, R.mlp](x, w.mlp_norm, eps, w.mlp)
    h: R.down.dtype[T, I]
    h_terms: float32[T, R.down.terms]
    with meta_if(R.gated):
        gate = R.w_gate.linear(a, a_terms, w.w_gate)
        up = R.w_up.linear(a, a_terms, w.w_up)
        h, h_terms = swiglu_quantize[R.down](gate, up, w.down)
    with meta_else():
        up = R.w_up.linear(a, a_terms, w.w_up)
        h, h_terms = gelu_quantize[R.down](up, w.down)
    return linear_add[R.w_down](h, h_terms, w.w_down, x)


@template(R, T)
def forward(
    tokens: int32[T], n: int32, pos: int32, embed: float32[V, E], tables: R.Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: R.Cache[C, S, D][L],
) -> float32[T, E]:  # fmt: skip
    """The residual stream after all layers for n of T tokens at positions pos .. pos + n - 1."""
    x = embedding[T](tokens, 0, n, embed)
    with meta_if(not R.rotary):
        add_positions(x, n, pos, tables.positions)
    for l in range(L, name="layer"):
        o = self_attention[R](x, n, pos, tables, attentions[l], cache[l])
        y = residual(x, o)
        x = mlp[R](y, tables.eps, mlps[l])
    return x


@template(R)
def head(x: float32[T, E], eps: float32, vocabulary: Vocabulary) -> float32[T, V]:
    """Logits of a block: lm_head(norm(x))."""
    a, terms = norm_quantize[R, R.head](x, vocabulary.final_norm, eps, vocabulary.head)
    logits = R.w_head.linear(a, terms, vocabulary.w_head)
    return logits


@template(R, T)
def prefill(
    prompt: int32[S], n_prompt: int32, sampling: Sampling, vocabulary: Vocabulary, tables: R.Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: R.Cache[C, S, D][L], stream: float32[S, E],
) -> int32:  # fmt: skip
    """Run the prompt through the layers, one after the other, in blocks of T tokens; the last may be shorter.

    Blocks follow each other through a layer, so its operators can work on several of them at once; between
    layers they wait in the residual stream, which is read again behind attention: what goes around that need
    not wait on the chip. Returns the first new token. Works for every length from 1 to S.
    """
    for e in range((n_prompt + T - 1) // T, name="embed"):
        first = embedding[T](prompt, e * T, min(T, n_prompt - e * T), vocabulary.embed)
        with meta_if(not R.rotary):
            add_positions(first, min(T, n_prompt - e * T), e * T, tables.positions)
        store_rows(first, min(T, n_prompt - e * T), e * T, stream)
    for l in range(L, name="layer"):
        for b in range((n_prompt + T - 1) // T, name="block"):
            x = load_rows[T](stream, min(T, n_prompt - b * T), b * T)
            o = self_attention[R](x, min(T, n_prompt - b * T), b * T, tables, attentions[l], cache[l])
            again = load_rows[T](stream, min(T, n_prompt - b * T), b * T)
            y = residual(again, o)
            z = mlp[R](y, tables.eps, mlps[l])
            store_rows(z, min(T, n_prompt - b * T), b * T, stream)
    last = load_rows[1](stream, 1, n_prompt - 1)
    logits = head[R](last, tables.eps, vocabulary)
    return sample[V, CANDIDATES](logits, n_prompt, sampling)


@template(R, T)
def decode(
    token: int32, pos: int32, sampling: Sampling, vocabulary: Vocabulary, tables: R.Tables,
    attentions: Attention[L], mlps: Mlp[L], cache: R.Cache[C, S, D][L],
) -> int32:  # fmt: skip
    """The token after `token`, which stands at position `pos`: the first one of a block of T."""
    tokens: int32[T] = 0
    tokens[0] = token
    x = forward[R, T](tokens, 1, pos, vocabulary.embed, tables, attentions, mlps, cache)
    last = load_rows[1](x, 1, 0)
    logits = head[R](last, tables.eps, vocabulary)
    return sample[V, CANDIDATES](logits, pos + 1, sampling)


@template(R, T, B)
def generate(
    prompt: int32[S], n_prompt: int32, max_new_tokens: int32, stop: int32[M], sampling: Sampling,
    vocabulary: Vocabulary, tables: R.Tables, attentions: Attention[L], mlps: Mlp[L],
    cache: R.Cache[C, S, D][L], stream: float32[S, E], tokens: int32[S],
) -> int32:  # fmt: skip
    """The hybrid top: prefill, then decode until a stop token, `max_new_tokens` or the end of the context.

    Writes the new tokens (a stop token included) to `tokens` and returns how many there are. Decode works
    on blocks of B tokens, of which one is a token: 1, or T to run on the engines of prefill. `stream` is
    where prefill keeps the residual stream.
    """
    token: int32 = prefill[R, T](
        prompt, n_prompt, sampling, vocabulary, tables, attentions, mlps, cache, stream
    )
    count: int32 = 0
    more: int32 = 1
    while count < max_new_tokens and more == 1:
        tokens[count] = token
        pos: int32 = n_prompt + count
        count += 1
        if is_stop(token, stop) == 1 or pos >= S:
            more = 0
        if count < max_new_tokens and more == 1:
            token = decode[R, B](token, pos, sampling, vocabulary, tables, attentions, mlps, cache)
    return count
