"""Grouped-query attention over a quantized KV cache."""

from __future__ import annotations

from flexllm_allo import Bundle, Self, exp, grid, meta_else, meta_if, params, round, template
from flexllm_allo.ir.types import UInt, float32, int32

from .linear import accumulator
from .quantize import quantize_static

F, H, T, Tq, Tc, Tp, Ta, KV, S, D, P, R, G, B, W, L, C, N, M = params(
    "F, H, T, Tq, Tc, Tp, Ta, KV, S, D, P, R, G, B, W, L, C, N, M"
)


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


@template(G, R, S, D)
def append_codes(codes: Tc[R, D], head: int32, pos: int32, n: int32, cache: Tc[S, D]):
    """Write a head's codes of n tokens (rows t * G + head, of G heads) into its cache, from `pos` on."""
    for t in range(n, name="token"):
        for d in range(D, name="element"):
            cache[pos + t, d] = codes[t * G + head, d]


@template(L, G, T)
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

    A query sees the last L positions up to its own, or all of them if L is 0.
    The keys have terms each (B = S) or one for all (B = 1).
    """
    score: float32[S, T, G]
    top: float32[T, G] = -3.0e38
    q: Tq[T, G, D]
    for t_q, j_q, d_q in grid(T, G, D, name="query"):
        q[t_q, j_q, d_q] = Q[t_q * (R // T) + group * G + j_q, d_q]
    first: int32 = 0
    with meta_if(L > 0):
        first = max(pos + 1 - L, 0)
    for s in range(first, pos + n, name="key"):
        at: int32 = 0
        with meta_if(B > 1):
            at = s
        terms: float32[P]
        for p in range(P, name="terms"):
            terms[p] = k_terms[at, p]
        row: Tc[D]
        for d_row in range(D, name="row"):
            row[d_row] = K[s, d_row]
        dot: Ta[T, G] = 0
        for d, t, j in grid(D, T, G, name="dot"):
            dot[t, j] += q[t, j, d] * row[d]
        for t_s, j_s in grid(T, G, name="scale"):
            r: int32 = t_s * (R // T) + group * G + j_s
            x: float32 = dot[t_s, j_s] * (q_terms[r, 0] * terms[0])
            with meta_if(P == 2):
                x += (q_sums[r] * q_terms[r, 0]) * terms[1]
            x = x * D**-0.5
            score[s, t_s, j_s] = x
            before: int32 = -1
            with meta_if(L > 0):
                before = min(pos + t_s, pos + n - 1) - L
            if s > before and s <= pos + t_s:
                top[t_s, j_s] = max(top[t_s, j_s], x)
    return score, top


@template(L, Tp, T, G)
def weigh(
    score: float32[S, T, G], top: float32[T, G], v_terms: float32[B, P], pos: int32, n: int32
) -> (float32[S, T, G], float32[T, G], float32[T, G]):
    """Probabilities times the scales of the values, zero for positions that a query does not see.

    With them their step as codes of type `Tp`, and the offsets of the values weighted by the probabilities.
    The values have terms each (B = S) or one for all (B = 1).
    """
    weight: float32[S, T, G]
    total: float32[T, G] = 0.0
    first: int32 = 0
    with meta_if(L > 0):
        first = max(pos + 1 - L, 0)
    for s_e in range(first, pos + n, name="seen"):
        for t_e, j_e in grid(T, G, name="exp"):
            before: int32 = -1
            with meta_if(L > 0):
                before = min(pos + t_e, pos + n - 1) - L
            y: float32 = 0.0
            if s_e > before and s_e <= pos + t_e:
                y = exp(score[s_e, t_e, j_e] - top[t_e, j_e])
            weight[s_e, t_e, j_e] = y
            total[t_e, j_e] += y
    peak: float32[T, G] = 0.0
    offset: float32[T, G] = 0.0
    for s in range(first, pos + n, name="scaled"):
        for t, j in grid(T, G, name="weight"):
            at: int32 = 0
            with meta_if(B > 1):
                at = s
            p: float32 = weight[s, t, j] / total[t, j]
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


@template(L, Tp, Ta, P)
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
    """Codes round(weight / step) of type `Tp`, clamped above, times values: a group's columns of Y.

    Rows past n are zero.
    """
    acc: Ta[T, G, D] = 0
    first: int32 = 0
    with meta_if(L > 0):
        first = max(pos + 1 - L, 0)
    for s in range(first, pos + n, name="value"):
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
    for t_y in range(T, name="token"):
        for j_y, d_y in grid(G, D, name="out"):
            y: float32 = 0.0
            if t_y < n:
                y = acc[t_y, j_y, d_y] * scale[t_y, j_y]
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


@template(L, G, T, C)
def keys(
    Q: Tq[R, D], q_terms: float32[R, 1], q_sums: Ta[R], new: Tc[N, D], new_terms: float32[M, P],
    K: Tc[S, D], k_terms: float32[B, P], group: int32, pos: int32, n: int32,
) -> (float32[S, T, G], float32[T, G]):  # fmt: skip
    """Append a head's keys (of C heads) to its cache, with terms if they have them each; then `scores`."""
    append_codes[C](new, group, pos, n, K)
    with meta_if(B > 1):
        append_codes[C](new_terms, group, pos, n, k_terms)
    score, top = scores[L, G, T](Q, q_terms, q_sums, K, k_terms, group, pos, n)
    return score, top


@template(L, Tp, C)
def weights(
    score: float32[S, T, G], top: float32[T, G], new_terms: float32[M, P], v_terms: float32[B, P],
    group: int32, pos: int32, n: int32,
) -> (float32[S, T, G], float32[T, G], float32[T, G]):  # fmt: skip
    """Append the terms of a head's values, if they have them each; then `weigh`."""
    with meta_if(B > 1):
        append_codes[C](new_terms, group, pos, n, v_terms)
    weight, step, offset = weigh[L, Tp](score, top, v_terms, pos, n)
    return weight, step, offset


@template(L, Tp, Ta, P, C)
def values(
    weight: float32[S, T, G], step: float32[T, G], scale: float32[T, G], offset: float32[T, G],
    new: Tc[N, D], V: Tc[S, D], group: int32, pos: int32, n: int32, Y: float32[T, W],
):  # fmt: skip
    """Append the values of a head to its cache; then `mix`."""
    append_codes[C](new, group, pos, n, V)
    mix[L, Tp, Ta, P](weight, step, scale, offset, V, group, pos, n, Y)


@template(L, H, T, Tq, Tc, KV, S, D)
def attention(
    Q: Tq[T * H, D], q_terms: float32[T * H, 1],
    new_k: Tc[T * KV, D], new_k_terms: float32[T * KV, P],
    new_v: Tc[T * KV, D], new_v_terms: float32[T * KV, P],
    K: Tc[KV, S, D], k_terms: float32[KV, S, P], V: Tc[KV, S, D], v_terms: float32[KV, S, P],
    pos: int32, n: int32,
) -> float32[T, H * D]:  # fmt: skip
    """softmax(Q K^T / sqrt(D)) V for n tokens at positions pos .. pos + n - 1, causal.

    The new tokens' keys and values enter the cache first, head by head: who reads a cache also writes it, so
    the three steps of a head may overlap with those of the next.
    Every row of K and V up to the block's last position is read once, for all tokens of the block and
    all H // KV query heads of its group; a query's own position ends its sum. If L is not 0 (a sliding
    window), a query sees the last L positions only, and rows that none of the block sees are not read.
    With integer caches both products are integer: the probabilities times the scales of V are quantized
    per row, in the type of Q, before they meet V. That needs the largest of the whole row, so an online
    softmax, which rescales sums of products with V as it goes, cannot give these bits; scores wait on the
    chip instead, K and V never do. Offsets of an asymmetric cache (P = 2) are added in float: that of a
    key times the sum of the query, those of the values weighted by the probabilities. Rows past n are
    zero.
    """
    Y: float32[T, H * D]
    q_sums: accumulator(Tq, Tc)[T * H]
    with meta_if(P == 2):
        q_sums = row_sums[accumulator(Tq, Tc)](Q)
    for g in range(KV, name="head"):
        score, top = keys[L, H // KV, T, KV](
            Q, q_terms, q_sums, new_k, new_k_terms, K[g], k_terms[g], g, pos, n
        )
        weight, step, offset = weights[L, Tq, KV](score, top, new_v_terms, v_terms[g], g, pos, n)
        values[L, Tq, accumulator(Tq, Tc), P, KV](weight, step, step, offset, new_v, V[g], g, pos, n, Y)
    return Y


@template(T, G)
def fixed_steps(p_scale: float32[H], v_scale: float32[KV], group: int32) -> (float32[T, G], float32[T, G]):
    """The step of a group's probabilities, and what a sum of their codes with values is scaled by."""
    step: float32[T, G]
    scale: float32[T, G]
    for t, j in grid(T, G, name="step"):
        step[t, j] = p_scale[group * G + j]
        scale[t, j] = step[t, j] * v_scale[group]
    return step, scale


@template(L, H, T, Tq, Tc, KV, S, D)
def attention_static(
    Q: Tq[T * H, D], new_k: Tc[T * KV, D], new_v: Tc[T * KV, D], K: Tc[KV, S, D], V: Tc[KV, S, D],
    q_scale: float32[H], k_scale: float32[KV], v_scale: float32[KV], p_scale: float32[H],
    pos: int32, n: int32,
) -> float32[T, H * D]:  # fmt: skip
    """`attention` with scales that are fixed per head, those of the probabilities too (FlexLLM).

    Probabilities become unsigned 8-bit codes round(p / p_scale), clamped above.
    """
    Y: float32[T, H * D]
    q_sums: int32[T * H]
    q_terms: float32[T * H, 1]
    for t, h in grid(T, H, name="query"):
        q_terms[t * H + h, 0] = q_scale[h] * k_scale[h // (H // KV)]
    k_one: float32[1, 1] = 1.0
    v_one: float32[1, 1] = 1.0
    for g in range(KV, name="head"):
        score, top = keys[L, H // KV, T, KV](Q, q_terms, q_sums, new_k, k_one, K[g], k_one, g, pos, n)
        weight, _, offset = weights[L, UInt(8), KV](score, top, v_one, v_one, g, pos, n)
        step, scale = fixed_steps[T, H // KV](p_scale, v_scale, g)
        values[L, UInt(8), int32, 1, KV](weight, step, scale, offset, new_v, V[g], g, pos, n, Y)
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
    mixed = attention[F.window, H, T](qc, q_terms, kc, k_terms, vc, v_terms, cache, pos, n)
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
    mixed = attention_static[F.window, H, T](qc, kc, vc, cache, scales, pos, n)
    return mixed
