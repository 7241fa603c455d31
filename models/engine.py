"""Decode on one engine for all linear layers, KV heads side by side: FlexLLM's U280 design, and ours.

Everything takes turns but what is inside an operator: weights arrive while they are multiplied, and the parts
of attention follow each other. Keys and values are one linear layer. The operators say how heads attend, and
how the Hadamard transform is made. Sizes as in `models.flexllm`; BP input channels and TB elements of other
operators at once.
"""

# pyright: basic, reportInvalidTypeForm=false, reportUndefinedVariable=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportUnboundVariable=false
from __future__ import annotations

from flexllm_allo import Bundle, params, template
from flexllm_allo.ir.types import float32, int32
from flexllm_allo.kernels.blocks import largest, quantize_blocks, rms_norm_blocks
from flexllm_allo.kernels.embedding import embedding
from flexllm_allo.kernels.engine import linear_engine, take
from flexllm_allo.kernels.linear import residual
from flexllm_allo.kernels.mlp import swiglu
from flexllm_allo.kernels.quantize import quantize_static
from flexllm_allo.kernels.rope import angles, rope, split_heads
from flexllm_allo.kernels.sampling import Sampling, sample

from .flexllm import Tables

A, F, R, BP, TB = params("A, F, R, BP, TB")
E, V, L, C, S, D, P, H, K, N = params("E, V, L, C, S, D, P, H, K, N")
TOP = 5
"""Logits that are kept of every lane."""


class Engine(Bundle):
    """The weights of all linear layers, as the ports of the engine read them, and their terms."""

    port: R.weight[R.plan.beats, R.plan.channels][R.plan.ports]
    terms: float32[R.plan.rows // R.plan.group, 2 * R.plan.group]


class Layer(Bundle):
    """Norms, and the scales of an attention's codes."""

    attn_norm: R.Norm[E]
    mlp_norm: R.Norm[E]
    scales: R.Scales[H, C]


class Vocabulary(Bundle):
    """Tokens to vectors; the norm in front of the logits."""

    embed: float32[V, E]
    final_norm: R.Norm[E]


@template(A, TB, N)
def norm_codes(x: float32[1, E], gain: float32[E], eps: float32) -> (A.dtype[1, N], float32[1, 2]):
    """A norm, then the codes that the engine reads."""
    normed = rms_norm_blocks[TB](x, gain, eps)
    codes, terms = quantize_blocks[A, TB, N](normed)
    return codes, terms


@template(R, BP, F)
def on_engine(
    codes: R.attn.dtype[1, K], x_terms: float32[1, 2], weights: Engine, beat: int32, row: int32,
    y: float32[1, N],
):  # fmt: skip
    """The linear layer `F` of the plan, in the decoder layer whose beats and rows begin there."""
    linear_engine[BP, R.plan.ports, R.plan.split, R.plan.group](
        codes, x_terms, weights, beat + F.beat, row + F.row, F.size, F.second, F.tiles,
        F.tiles * R.plan.channels // F.split, y,
    )  # fmt: skip


@template(R, TB, BP, C)
def attention(
    x: float32[1, E], l: int32, pos: int32, tables: Tables, w: Layer, weights: Engine,
    cache: R.HeadCache[C, S, D], y: float32[1, N],
) -> float32[1, E]:  # fmt: skip
    """x + o_proj(attention(norm(x))) of layer l; the engine's sums are in y."""
    beat: int32 = l * R.plan.layer_beats
    row: int32 = l * R.plan.layer_rows
    a, a_terms = norm_codes[R.attn, TB, R.plan.inputs](x, w.attn_norm, tables.eps)
    on_engine[R, BP, R.plan.qkv](a, a_terms, weights, beat, row, y)
    q = take[H * D](y, 0)
    k = take[C * D](y, H * D)
    v = take[C * D](y, H * D + C * D)
    cosine, sine = angles[1](tables.cosine, tables.sine, pos)
    q_heads = rope[H](q, cosine, sine)
    k_heads = rope[C](k, cosine, sine)
    v_heads = split_heads[C](v)
    q_codes = quantize_static[R.query](q_heads, w.scales.q_scale)
    k_codes = quantize_static[R.cache](k_heads, w.scales.k_scale)
    v_codes = quantize_static[R.cache](v_heads, w.scales.v_scale)
    mixed = R.heads[R, C](q_codes, k_codes, v_codes, pos, w.scales, cache)
    o, o_terms = quantize_blocks[R.out, TB, R.plan.inputs](mixed)
    on_engine[R, BP, R.plan.o](o, o_terms, weights, beat, row, y)
    out = take[E](y, 0)
    z = residual(x, out)
    return z


@template(R, TB, BP)
def mlp(
    x: float32[1, E], l: int32, eps: float32, w: Layer, weights: Engine, y: float32[1, N]
) -> float32[1, E]:
    """x + down_proj(hadamard(silu(gate_proj(a)) * up_proj(a))) of layer l, a = norm(x)."""
    beat: int32 = l * R.plan.layer_beats
    row: int32 = l * R.plan.layer_rows
    a, a_terms = norm_codes[R.mlp, TB, R.plan.inputs](x, w.mlp_norm, eps)
    on_engine[R, BP, R.plan.gate](a, a_terms, weights, beat, row, y)
    gate = take[R.plan.gate.rows](y, 0)
    on_engine[R, BP, R.plan.up](a, a_terms, weights, beat, row, y)
    up = take[R.plan.up.rows](y, 0)
    hidden = swiglu(gate, up)
    turned = R.hadamard(hidden)
    h, h_terms = quantize_blocks[R.down.inner, BP, R.plan.inputs](turned)
    on_engine[R, BP, R.plan.down](h, h_terms, weights, beat, row, y)
    down = take[E](y, 0)
    z = residual(x, down)
    return z


@template(R, TB, BP, C)
def decode(
    token: int32, pos: int32, sampling: Sampling, vocabulary: Vocabulary, tables: Tables,
    layers: Layer[L], weights: Engine, cache: R.HeadCache[C, S, D][L],
) -> int32:  # fmt: skip
    """The token after `token`, which stands at position `pos`."""
    y: float32[1, R.plan.outputs]
    tokens: int32[1] = token
    x = embedding[1](tokens, 0, 1, vocabulary.embed)
    for l in range(L, name="layer"):
        z = attention[R, TB, BP, C](x, l, pos, tables, layers[l], weights, cache[l], y)
        x = mlp[R, TB, BP](z, l, tables.eps, layers[l], weights, y)
    a, terms = norm_codes[R.head, TB, R.plan.inputs](x, vocabulary.final_norm, tables.eps)
    beat: int32 = L * R.plan.layer_beats
    row: int32 = L * R.plan.layer_rows
    on_engine[R, BP, R.plan.head](a, terms, weights, beat, row, y)
    value, likely = largest[TOP, BP, V](y)
    chosen: int32 = sample[BP * TOP, TOP](value, pos + 1, sampling)
    return likely[chosen]
