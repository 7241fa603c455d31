"""Grouped-query attention over a quantized KV cache."""

from __future__ import annotations

from flexllm_allo import exp, meta_else, meta_if, params, reduction, round, template
from flexllm_allo.ir.types import float32, int32

from .linear import accumulator

H, T, Tq, Tc, KV, S, D = params("H, T, Tq, Tc, KV, S, D")
R = params("R")


@template(Tc, R, KV, S, D)
def append_cache(
    codes: Tc[R, D],
    scale: float32[R],
    pos: int32,
    n: int32,
    cache: Tc[KV, S, D],
    cache_scale: float32[KV, S],
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
            for s_qk in range(pos + t + 1, name="qk"):
                dot: accumulator(Tq, Tc) = 0
                for d_qk in reduction(D, name="qk_dot"):
                    dot += Q[t * H + h, d_qk] * K[h // (H // KV), s_qk, d_qk]
                x: float32 = dot * (q_scale[t * H + h] * k_scale[h // (H // KV), s_qk]) * D**-0.5
                score[s_qk] = x
                top = max(top, x)
            total: float32 = 0.0
            for s_exp in range(pos + t + 1, name="exp"):
                e: float32 = exp(score[s_exp] - top)
                score[s_exp] = e
                total += e
            peak: float32 = 0.0
            for s_w in range(pos + t + 1, name="weigh"):
                w: float32 = score[s_w] / total * v_scale[h // (H // KV), s_w]
                score[s_w] = w
                peak = max(peak, w)
            acc: accumulator(Tq, Tc)[D] = 0
            step: float32 = 1.0
            with meta_if(Tc.is_float):
                for s_av in range(pos + t + 1, name="av"):
                    for d_av in range(D, name="av_element"):
                        acc[d_av] += score[s_av] * V[h // (H // KV), s_av, d_av]
            with meta_else():
                step = peak / (2 ** (Tc.bits - 1) - 1)
                if step == 0.0:
                    step = 1.0
                for s_av in range(pos + t + 1, name="av"):
                    code: Tc = int(round(score[s_av] / step))
                    for d_av in range(D, name="av_element"):
                        acc[d_av] += code * V[h // (H // KV), s_av, d_av]
            for d_out in range(D, name="out"):
                Y[t, h * D + d_out] = acc[d_out] * step
    return Y
