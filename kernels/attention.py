"""Grouped-query attention over a quantized KV cache."""

from __future__ import annotations

from flexllm_allo import exp, grid, meta_else, meta_if, params, reduction, round, template
from flexllm_allo.ir.types import float32, int32

from .linear import accumulator

H, T, Tq, Tc, KV, S, D = params("H, T, Tq, Tc, KV, S, D")
R = params("R")


@template(Tc, R, KV, S, D)
def append_cache(
    codes: Tc[R, D], scale: float32[R], pos: int32, n: int32, cache: Tc[KV, S, D], cache_scale: float32[KV, S]
):
    """Write n tokens (R = T * KV rows of codes) into the cache from position `pos` on."""
    for t in range(n, name="token"):
        for h in range(KV, name="head"):
            cache_scale[h, pos + t] = scale[t * KV + h]
            for d in range(D, name="element"):
                cache[h, pos + t, d] = codes[t * KV + h, d]


@template(H, T, Tq, Tc, KV, S, D)
def attention(
    Q: Tq[T * H, D],
    q_scale: float32[T * H],
    K: Tc[KV, S, D],
    k_scale: float32[KV, S],
    V: Tc[KV, S, D],
    v_scale: float32[KV, S],
    pos: int32,
    n: int32,
) -> float32[T, H * D]:
    """softmax(Q K^T / sqrt(D)) V for n tokens at positions pos .. pos + n - 1, causal.

    Token t reads the cache up to its own position only (no masked work). The H // KV query heads
    of a group share one K and V. With integer caches both products are integer: the probabilities
    times v_scale are quantized per row before they meet V. Rows past n are zero.
    """
    Y: float32[T, H * D] = 0.0
    for t in range(n, name="token"):
        for h in range(H, name="head"):
            score: float32[S]
            top: float32 = -3.0e38
            for s in range(pos + t + 1, name="qk"):
                dot: accumulator(Tq, Tc) = 0
                for d in reduction(D, name="qk_dot"):
                    dot += Q[t * H + h, d] * K[h // (H // KV), s, d]
                x: float32 = dot * (q_scale[t * H + h] * k_scale[h // (H // KV), s]) * D**-0.5
                score[s] = x
                top = max(top, x)
            total: float32 = 0.0
            for s in range(pos + t + 1, name="exp"):
                e: float32 = exp(score[s] - top)
                score[s] = e
                total += e
            peak: float32 = 0.0
            for s in range(pos + t + 1, name="weigh"):
                w: float32 = score[s] / total * v_scale[h // (H // KV), s]
                score[s] = w
                peak = max(peak, w)
            acc: accumulator(Tq, Tc)[D] = 0
            step: float32 = 1.0
            with meta_if(Tc.is_float):
                for s in range(pos + t + 1, name="av"):
                    for d in range(D, name="av_element"):
                        acc[d] += score[s] * V[h // (H // KV), s, d]
            with meta_else():
                if peak > 0.0:
                    step = peak / (2 ** (Tc.bits - 1) - 1)
                for s in range(pos + t + 1, name="av"):
                    code: Tc = int(round(score[s] / step))
                    for d in range(D, name="av_element"):
                        acc[d] += code * V[h // (H // KV), s, d]
            for d in range(D, name="out"):
                Y[t, h * D + d] = acc[d] * step
    return Y
