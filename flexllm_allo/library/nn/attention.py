"""Attention: all heads of a sequence, decode steps over a KV cache, and rotary position embedding.

The original leaves out the factor 1 / sqrt(d) and sizes the scores of a decode step by the head; here the
factor is applied and scores have the length of the sequence.
"""

from __future__ import annotations

from ... import dsl, meta_if, params, template
from ...ir.types import int32
from ..systolic import systolic
from .rowwise import softmax

Ty, H, L, D, M0, M1, B = params("Ty, H, L, D, M0, M1, B")
Causal, Scaled = params("Causal, Scaled")


@template(
    Ty, H, L, D, M0, M1, Causal, Scaled,
    default={"Causal": "0", "Scaled": "1"}, where=("D % H == 0",),
)  # fmt: skip
def scaled_dot_product_attention(Q: Ty[L, D], K: Ty[L, D], V: Ty[L, D]) -> Ty[L, D]:
    """softmax(Q K^T / sqrt(D / H)) V for H heads side by side; products on M0 x M1 systolic arrays.

    Causal = 1: row i attends to rows 0 .. i only. Scaled = 0: without the division.
    """
    Z: Ty[L, D]
    for h in dsl.grid(H, name="head"):
        Q_h: Ty[L, D // H]
        K_h: Ty[D // H, L]
        V_h: Ty[L, D // H]
        for i, j in dsl.grid(L, D // H, name="mha_split"):
            Q_h[i, j] = Q[i, h * (D // H) + j]
            K_h[j, i] = K[i, h * (D // H) + j]
            V_h[i, j] = V[i, h * (D // H) + j]
        S: Ty[L, L] = 0
        systolic[Ty, Ty, Ty, L, D // H, L, M0, M1, "QKT"](Q_h, K_h, S)
        with meta_if(Scaled):
            for i, j in dsl.grid(L, L, name="scale"):
                S[i, j] = S[i, j] * (D // H) ** -0.5
        with meta_if(Causal):
            for i, j in dsl.grid(L, L, name="mask"):
                if j > i:
                    S[i, j] = -1e30
        P = softmax[Ty, L](S)
        Y: Ty[L, D // H] = 0
        systolic[Ty, Ty, Ty, L, L, D // H, M0, M1, "YV"](P, V_h, Y)
        for i, j in dsl.grid(L, D // H, name="mha_merge"):
            Z[i, h * (D // H) + j] = Y[i, j]
    return Z


@template(Ty, B, H, L, D)
def KVCache(inp: Ty[B, H, 1, D], cache: Ty[B, H, L, D], n_tokens: int32) -> Ty[B, H, L, D]:
    """The cache with row n_tokens set to the new token; rows past L are dropped."""
    updated: Ty[B, H, L, D]
    for b, h, p, d in dsl.grid(B, H, L, D, name="append"):
        updated[b, h, p, d] = inp[b, h, 0, d] if p == n_tokens else cache[b, h, p, d]
    return updated


@template(Ty, B, H, L, D)
def CoreAttention(
    q: Ty[B, H, 1, D], k_cache: Ty[B, H, L, D], v_cache: Ty[B, H, L, D], n_tokens: int32
) -> Ty[B, H, 1, D]:
    """softmax(q K^T / sqrt(D)) V of one token over rows 0 .. n_tokens of the cache."""
    out: Ty[B, H, 1, D] = 0
    for b, h in dsl.grid(B, H, name="head"):
        score: Ty[L] = 0
        peak: Ty = -1e30
        total: Ty = 0
        for p in range(min(n_tokens + 1, L), name="qk"):
            dot: Ty = 0
            for d in dsl.reduction(D, name="dot"):
                dot += q[b, h, 0, d] * k_cache[b, h, p, d]
            score[p] = dot * D**-0.5
            peak = max(peak, score[p])
        for p in range(min(n_tokens + 1, L), name="exp_sum"):
            e: Ty = dsl.exp(score[p] - peak)
            score[p] = e
            total += e
        for p in range(min(n_tokens + 1, L), name="av"):
            weight: Ty = score[p] / total
            for d in dsl.grid(D):
                out[b, h, 0, d] += weight * v_cache[b, h, p, d]
    return out


@template(Ty, H, L, D, where=("D % (2 * H) == 0",))
def RoPE(X: Ty[L, D], cos: Ty[L, D // H // 2], sin: Ty[L, D // H // 2]) -> Ty[L, D]:
    """Rotate the pairs (i, i + d/2) of every head of width d = D / H by its position's angle.

    Hugging Face's half-split convention (Su et al.: RoFormer, 2021).
    """
    Y: Ty[L, D]
    for h in dsl.grid(H, name="head"):
        low: Ty[L, D // H // 2]
        high: Ty[L, D // H // 2]
        new_low: Ty[L, D // H // 2]
        new_high: Ty[L, D // H // 2]
        for i, j in dsl.grid(L, D // H // 2, name="rope_split_1"):
            low[i, j] = X[i, h * (D // H) + j]
        for i, j in dsl.grid(L, D // H // 2, name="rope_split_2"):
            high[i, j] = X[i, h * (D // H) + D // H // 2 + j]
        for i, j in dsl.grid(L, D // H // 2, name="rotary_1"):
            new_low[i, j] = low[i, j] * cos[i, j] - high[i, j] * sin[i, j]
        for i, j in dsl.grid(L, D // H // 2, name="rotary_2"):
            new_high[i, j] = high[i, j] * cos[i, j] + low[i, j] * sin[i, j]
        for i, j in dsl.grid(L, D // H // 2, name="rotary_merge_1"):
            Y[i, h * (D // H) + j] = new_low[i, j]
        for i, j in dsl.grid(L, D // H // 2, name="rotary_merge_2"):
            Y[i, h * (D // H) + D // H // 2 + j] = new_high[i, j]
    return Y
