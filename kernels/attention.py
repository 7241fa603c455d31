"""Grouped-query attention over a quantized KV cache."""

from __future__ import annotations

from flexllm_allo import Bundle, Self, exp, meta_else, meta_if, params, reduction, round, template
from flexllm_allo.ir.types import UInt, float32, int32

from .linear import accumulator
from .quantize import quantize_static

B, F, H, T, Tq, Tc, KV, S, D, P, R = params("B, F, H, T, Tq, Tc, KV, S, D, P, R")


class DynamicCache(Bundle, of="KV, S, D"):
    """Keys and values of a layer as codes, with terms (scale, maybe offset) per head and position."""

    k_codes: Self.cache.dtype[KV, S, D]
    k_terms: float32[KV, S, Self.cache.terms]
    v_codes: Self.cache.dtype[KV, S, D]
    v_terms: float32[KV, S, Self.cache.terms]


class StaticCache(Bundle, of="KV, S, D"):
    """Keys and values of a layer as codes; their scales are fixed."""

    k_codes: Self.cache.dtype[KV, S, D]
    v_codes: Self.cache.dtype[KV, S, D]


class NoScales(Bundle, of="H, KV"):
    """Dynamic attention computes its scales."""


class StaticScales(Bundle, of="H, KV"):
    """Scales of queries, keys, values and probabilities, fixed per head."""

    q_scale: float32[H]
    k_scale: float32[KV]
    v_scale: float32[KV]
    p_scale: float32[H]


@template(Tc, R, KV, S, D)
def append_cache(
    codes: Tc[R, D],
    terms: float32[R, P],
    pos: int32,
    n: int32,
    cache: Tc[KV, S, D],
    cache_terms: float32[KV, S, P],
):
    """Write n tokens (R = T * KV rows of codes) into the cache from position `pos` on."""
    for t in range(n, name="token"):
        for h in range(KV, name="head"):
            for p in range(P, name="term"):
                cache_terms[h, pos + t, p] = terms[t * KV + h, p]
            for d in range(D, name="element"):
                cache[h, pos + t, d] = codes[t * KV + h, d]


@template(Tc, R, KV, S, D)
def append_codes(codes: Tc[R, D], pos: int32, n: int32, cache: Tc[KV, S, D]):
    """`append_cache` for codes whose scale is fixed."""
    for t in range(n, name="token"):
        for h in range(KV, name="head"):
            for d in range(D, name="element"):
                cache[h, pos + t, d] = codes[t * KV + h, d]


@template(B, H, T, Tq, Tc, KV, S, D)
def attention(
    Q: Tq[T * H, D],
    q_terms: float32[T * H, 1],
    K: Tc[KV, S, D],
    k_terms: float32[KV, S, P],
    V: Tc[KV, S, D],
    v_terms: float32[KV, S, P],
    pos: int32,
    n: int32,
) -> float32[T, H * D]:
    """softmax(Q K^T / sqrt(D)) V for n tokens at positions pos .. pos + n - 1, causal.

    Token t reads the cache up to its own position only (no masked work), and only the last B positions
    of that, if B is not 0 (a sliding window). The H // KV query heads
    of a group share one K and V. With integer caches both products are integer: the probabilities
    times the scales of V are quantized per row, in the type of Q, before they meet V. Offsets of an
    asymmetric cache (P = 2) are added in float: that of a key times the sum of the query, those of the
    values weighted by the probabilities. Rows past n are zero.
    """
    Y: float32[T, H * D] = 0.0
    for t in range(n, name="token"):
        first: int32 = 0
        with meta_if(B > 0):
            first = max(pos + t + 1 - B, 0)
        for h in range(H, name="head"):
            score: float32[S]
            top: float32 = -3.0e38
            q_sum: accumulator(Tq, Tc) = 0
            with meta_if(P == 2):
                for d_sum in range(D, name="q_sum"):
                    q_sum += Q[t * H + h, d_sum]
            for s_qk in range(first, pos + t + 1, name="qk"):
                dot: accumulator(Tq, Tc) = 0
                for d_qk in reduction(D, name="qk_dot"):
                    dot += Q[t * H + h, d_qk] * K[h // (H // KV), s_qk, d_qk]
                x: float32 = dot * (q_terms[t * H + h, 0] * k_terms[h // (H // KV), s_qk, 0])
                with meta_if(P == 2):
                    x += (q_sum * q_terms[t * H + h, 0]) * k_terms[h // (H // KV), s_qk, 1]
                x = x * D**-0.5
                score[s_qk] = x
                top = max(top, x)
            total: float32 = 0.0
            for s_exp in range(first, pos + t + 1, name="exp"):
                e: float32 = exp(score[s_exp] - top)
                score[s_exp] = e
                total += e
            peak: float32 = 0.0
            offset: float32 = 0.0
            for s_w in range(first, pos + t + 1, name="weigh"):
                p: float32 = score[s_w] / total
                w: float32 = p * v_terms[h // (H // KV), s_w, 0]
                with meta_if(P == 2):
                    offset += p * v_terms[h // (H // KV), s_w, 1]
                score[s_w] = w
                peak = max(peak, w)
            acc: accumulator(Tq, Tc)[D] = 0
            step: float32 = 1.0
            with meta_if(Tc.is_float):
                for s_av in range(first, pos + t + 1, name="av"):
                    for d_av in range(D, name="av_element"):
                        acc[d_av] += score[s_av] * V[h // (H // KV), s_av, d_av]
            with meta_else():
                step = peak / (2 ** (Tq.bits - 1) - 1)
                if step == 0.0:
                    step = 1.0
                for s_av in range(first, pos + t + 1, name="av"):
                    code: Tq = int(round(score[s_av] / step))
                    for d_av in range(D, name="av_element"):
                        acc[d_av] += code * V[h // (H // KV), s_av, d_av]
            for d_out in range(D, name="out"):
                y: float32 = acc[d_out] * step
                with meta_if(P == 2):
                    y += offset
                Y[t, h * D + d_out] = y
    return Y


@template(B, H, T, Tq, Tc, KV, S, D)
def attention_static(
    Q: Tq[T * H, D],
    K: Tc[KV, S, D],
    V: Tc[KV, S, D],
    q_scale: float32[H],
    k_scale: float32[KV],
    v_scale: float32[KV],
    p_scale: float32[H],
    pos: int32,
    n: int32,
) -> float32[T, H * D]:
    """`attention` with scales that are fixed per head, those of the probabilities too (FlexLLM).

    Probabilities become unsigned 8-bit codes round(p / p_scale), clamped above.
    """
    Y: float32[T, H * D] = 0.0
    for t in range(n, name="token"):
        first: int32 = 0
        with meta_if(B > 0):
            first = max(pos + t + 1 - B, 0)
        for h in range(H, name="head"):
            score: float32[S]
            top: float32 = -3.0e38
            for s_qk in range(first, pos + t + 1, name="qk"):
                dot: int32 = 0
                for d_qk in reduction(D, name="qk_dot"):
                    dot += Q[t * H + h, d_qk] * K[h // (H // KV), s_qk, d_qk]
                x: float32 = dot * (q_scale[h] * k_scale[h // (H // KV)]) * D**-0.5
                score[s_qk] = x
                top = max(top, x)
            total: float32 = 0.0
            for s_exp in range(first, pos + t + 1, name="exp"):
                e: float32 = exp(score[s_exp] - top)
                score[s_exp] = e
                total += e
            acc: int32[D] = 0
            for s_av in range(first, pos + t + 1, name="av"):
                p: float32 = round(score[s_av] / total / p_scale[h])
                code: UInt(8) = int(min(p, 255.0))
                for d_av in range(D, name="av_element"):
                    acc[d_av] += code * V[h // (H // KV), s_av, d_av]
            for d_out in range(D, name="out"):
                Y[t, h * D + d_out] = acc[d_out] * (p_scale[h] * v_scale[h // (H // KV)])
    return Y


@template(F, H, T)
def attend(
    q: float32[T * H, D], k: float32[R, D], v: float32[R, D], pos: int32, n: int32, cache: F.Cache[KV, S, D]
) -> float32[T, H * D]:
    """Quantize a block's queries, keys and values, append to the cache, and attend.

    `F` says how: ``F.query`` and ``F.cache`` are `Activation`s, ``F.window`` is how far a token sees.
    """
    qc, q_terms = F.query.quantize[F.query](q)
    kc, k_terms = F.cache.quantize[F.cache](k)
    vc, v_terms = F.cache.quantize[F.cache](v)
    append_cache(kc, k_terms, pos, n, cache.k_codes, cache.k_terms)
    append_cache(vc, v_terms, pos, n, cache.v_codes, cache.v_terms)
    mixed = attention[F.window, H, T](qc, q_terms, cache, pos, n)
    return mixed


@template(F, H, T)
def attend_static(
    q: float32[T * H, D], k: float32[R, D], v: float32[R, D], pos: int32, n: int32,
    cache: F.Cache[KV, S, D], scales: F.Scales[H, KV],
) -> float32[T, H * D]:  # fmt: skip
    """`attend` with fixed scales."""
    qc = quantize_static[F.query](q, scales.q_scale)
    kc = quantize_static[F.cache](k, scales.k_scale)
    vc = quantize_static[F.cache](v, scales.v_scale)
    append_codes(kc, pos, n, cache.k_codes)
    append_codes(vc, pos, n, cache.v_codes)
    mixed = attention_static[F.window, H, T](qc, cache, scales, pos, n)
    return mixed
