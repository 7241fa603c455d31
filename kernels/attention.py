"""Grouped-query attention over a quantized KV cache."""

from __future__ import annotations

from flexllm_allo import Bundle, Self, exp, grid, meta_else, meta_if, params, round, template
from flexllm_allo.ir.types import UInt, float32, int32

from .linear import accumulator
from .quantize import quantize_static

F, H, T, Tq, Tc, Tp, Ta, KV, S, D, P, R, G, B, W = params("F, H, T, Tq, Tc, Tp, Ta, KV, S, D, P, R, G, B, W")


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


@template(G, T)
def scores(
    Q: Tq[R, D],
    q_terms: float32[R, 1],
    q_sums: Ta[R],
    K: Tc[S, D],
    k_terms: float32[B, P],
    group: int32,
    pos: int32,
    n: int32,
) -> (float32[S, T, G], float32[T, G]):
    """Scaled products of a group's queries with the keys of its head, and the largest of every query.

    The keys have terms each (B = S) or one for all (B = 1).
    """
    score: float32[S, T, G]
    top: float32[T, G] = -3.0e38
    q: Tq[T, G, D]
    for t_q, j_q, d_q in grid(T, G, D, name="query"):
        q[t_q, j_q, d_q] = Q[t_q * (R // T) + group * G + j_q, d_q]
    for s in range(pos + n, name="key"):
        at: int32 = 0
        with meta_if(B > 1):
            at = s
        row: Tc[D]
        for d_row in range(D, name="row"):
            row[d_row] = K[s, d_row]
        dot: Ta[T, G] = 0
        for d, t, j in grid(D, T, G, name="dot"):
            dot[t, j] += q[t, j, d] * row[d]
        for t_s, j_s in grid(T, G, name="scale"):
            r: int32 = t_s * (R // T) + group * G + j_s
            x: float32 = dot[t_s, j_s] * (q_terms[r, 0] * k_terms[at, 0])
            with meta_if(P == 2):
                x += (q_sums[r] * q_terms[r, 0]) * k_terms[at, 1]
            x = x * D**-0.5
            score[s, t_s, j_s] = x
            if s <= pos + t_s:
                top[t_s, j_s] = max(top[t_s, j_s], x)
    return score, top


@template(Tp, T, G)
def weigh(
    score: float32[S, T, G], top: float32[T, G], v_terms: float32[B, P], pos: int32, n: int32
) -> (float32[S, T, G], float32[T, G], float32[T, G]):
    """Probabilities times the scales of the values, zero past the query's own position.

    With them their step as codes of type `Tp`, and the offsets of the values weighted by the probabilities.
    The values have terms each (B = S) or one for all (B = 1).
    """
    e: float32[S, T, G]
    total: float32[T, G] = 0.0
    for s_e, t_e, j_e in grid(pos + n, T, G, name="exp"):
        y: float32 = 0.0
        if s_e <= pos + t_e:
            y = exp(score[s_e, t_e, j_e] - top[t_e, j_e])
        e[s_e, t_e, j_e] = y
        total[t_e, j_e] += y
    weight: float32[S, T, G]
    peak: float32[T, G] = 0.0
    offset: float32[T, G] = 0.0
    for s, t, j in grid(pos + n, T, G, name="weight"):
        at: int32 = 0
        with meta_if(B > 1):
            at = s
        p: float32 = e[s, t, j] / total[t, j]
        w: float32 = p * v_terms[at, 0]
        with meta_if(P == 2):
            offset[t, j] += p * v_terms[at, 1]
        weight[s, t, j] = w
        peak[t, j] = max(peak[t, j], w)
    step: float32[T, G] = 1.0
    with meta_if(not Tp.is_float):
        for t_p, j_p in grid(T, G, name="step"):
            one: float32 = peak[t_p, j_p] / (2 ** (Tp.bits - 1) - 1)
            if one == 0.0:
                one = 1.0
            step[t_p, j_p] = one
    return weight, step, offset


@template(Tp, Ta, P)
def mix(
    weight: float32[S, T, G],
    step: float32[T, G],
    scale: float32[T, G],
    offset: float32[T, G],
    V: Tc[S, D],
    group: int32,
    pos: int32,
    n: int32,
    Y: float32[T, W],
):
    """Codes round(weight / step) of type `Tp`, clamped above, times values: a group's columns of Y."""
    acc: Ta[T, G, D] = 0
    for s in range(pos + n, name="value"):
        row: Tc[D]
        for d_row in range(D, name="row"):
            row[d_row] = V[s, d_row]
        code: Tp[T, G]
        for t_c, j_c in grid(T, G, name="code"):
            with meta_if(Tp.is_float):
                code[t_c, j_c] = weight[s, t_c, j_c]
            with meta_else():
                rounded: float32 = round(weight[s, t_c, j_c] / step[t_c, j_c])
                code[t_c, j_c] = int(min(rounded, 2.0 ** (Tp.bits - Tp.signed) - 1.0))
        for t, j, d in grid(T, G, D, name="mac"):
            acc[t, j, d] += code[t, j] * row[d]
    for t_y in range(n, name="token"):
        for j_y, d_y in grid(G, D, name="out"):
            y: float32 = acc[t_y, j_y, d_y] * scale[t_y, j_y]
            with meta_if(P == 2):
                y += offset[t_y, j_y]
            Y[t_y, (group * G + j_y) * D + d_y] = y


@template(Ta, R, D)
def row_sums(X: Tq[R, D]) -> Ta[R]:
    """The sum of every row."""
    total: Ta[R] = 0
    for r, d in grid(R, D, name="sum"):
        total[r] += X[r, d]
    return total


@template(H, T, Tq, Tc, KV, S, D)
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

    Every row of K and V up to the block's last position is read once, for all tokens of the block and
    all H // KV query heads of its group; a query's own position ends its sum. With integer caches both
    products are integer: the probabilities times the scales of V are quantized per row, in the type of Q,
    before they meet V. That needs the largest of the whole row, so an online softmax, which rescales sums of
    products with V as it goes, cannot give these bits; scores wait on the chip instead, K and V never do.
    Offsets of an asymmetric cache (P = 2) are added in float: that of a key times the sum of the query,
    those of the values weighted by the probabilities. Rows past n are zero.
    """
    Y: float32[T, H * D] = 0.0
    q_sums: accumulator(Tq, Tc)[T * H] = 0
    with meta_if(P == 2):
        q_sums = row_sums[accumulator(Tq, Tc)](Q)
    for g in range(KV, name="head"):
        score, top = scores[H // KV, T](Q, q_terms, q_sums, K[g], k_terms[g], g, pos, n)
        weight, step, offset = weigh[Tq, T](score, top, v_terms[g], pos, n)
        mix[Tq, accumulator(Tq, Tc), P](weight, step, step, offset, V[g], g, pos, n, Y)
    return Y


@template(H, T, Tq, Tc, KV, S, D)
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
    q_sums: int32[T * H] = 0
    q_terms: float32[T * H, 1]
    for t, h in grid(T, H, name="query"):
        q_terms[t * H + h, 0] = q_scale[h]
    one: float32[1, 1] = 1.0
    for g in range(KV, name="head"):
        k_term: float32[1, 1]
        k_term[0, 0] = k_scale[g]
        score, top = scores[H // KV, T](Q, q_terms, q_sums, K[g], k_term, g, pos, n)
        weight, _step, offset = weigh[UInt(8), T](score, top, one, pos, n)
        step: float32[T, H // KV]
        scale: float32[T, H // KV]
        for t, j in grid(T, H // KV, name="step"):
            step[t, j] = p_scale[g * (H // KV) + j]
            scale[t, j] = step[t, j] * v_scale[g]
        mix[UInt(8), int32, 1](weight, step, scale, offset, V[g], g, pos, n, Y)
    return Y


@template(F, H, T)
def attend(
    q: float32[T * H, D], k: float32[R, D], v: float32[R, D], pos: int32, n: int32, cache: F.Cache[KV, S, D]
) -> float32[T, H * D]:
    """Quantize a block's queries, keys and values, append to the cache, and attend.

    `F` says how: ``F.query`` and ``F.cache`` are `Activation`s.
    """
    qc, q_terms = F.query.quantize[F.query](q)
    kc, k_terms = F.cache.quantize[F.cache](k)
    vc, v_terms = F.cache.quantize[F.cache](v)
    append_cache(kc, k_terms, pos, n, cache.k_codes, cache.k_terms)
    append_cache(vc, v_terms, pos, n, cache.v_codes, cache.v_terms)
    mixed = attention[H, T](qc, q_terms, cache, pos, n)
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
    mixed = attention_static[H, T](qc, cache, scales, pos, n)
    return mixed
