"""Attention of one token that reads keys and values once: all heads side by side, a position per cycle.

Every KV head has a memory port of its own for its keys, and one for its values; the query heads of its group
share what it reads. Scores pass through a softmax to the sums of values, position by position: only its two
sums, over all positions, have to be known before the first probability is.
"""

from __future__ import annotations

from flexllm_allo import Bundle, Self, exp, grid, meta_for, params, round, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8

B, F, H, C, M, S, D, Tq, Tc = params("B, F, H, C, M, S, D, Tq, Tc")
SUMS = 4
"""Partial sums of a softmax: as many as a float adder has stages, so that one term is added per cycle."""


class HeadCache(Bundle, of="C, S, D"):
    """Codes of keys and values of every head in memories of their own; keys in turn in `key_ports`."""

    k: Self.cache.dtype[(S + Self.key_ports - 1) // Self.key_ports, D][C * Self.key_ports]
    v: Self.cache.dtype[S, D][C]


def read_rows(rows: Tc[S, D], n: int32, out: Stream[Tc[D], 64]):
    """Send the first n rows."""
    for s in range(n, name="position"):
        row: Tc[D]
        for d in range(D, name="element"):
            row[d] = rows[s, d]
        out.put(row)


@template(Tc, C, B)
def score_rows(Q: Tq[H, D], keys: Stream[Tc[D], 64][C * B], q_scale: float32[H], k_scale: float32[C],
               n: int32, scores: Stream[float32[H], 64]):  # fmt: skip
    """Send the scores of all queries with one key after the other; a head's come from B ports in turn."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = q_scale[h] * k_scale[h // (H // C)]
    q: Tq[H, D]
    for h_q, d_q in grid(H, D, name="load"):
        q[h_q, d_q] = Q[h_q, d_q]
    for s in range((n + B - 1) // B, name="position"):
        with meta_for(B) as b:
            if s * B + b < n:
                dot: int32[H] = 0
                with meta_for(C) as c:
                    key: Tc[D] = keys[c * B + b].get()
                    for j, d in grid(H // C, D, name="product"):
                        dot[c * (H // C) + j] += q[c * (H // C) + j, d] * key[d]
                score: float32[H]
                for h_out in range(H, name="scale"):
                    x: float32 = dot[h_out] * step[h_out]
                    score[h_out] = x * D**-0.5
                scores.put(score)


@template(S, H)
def softmax_rows(scores: Stream[float32[H], 64], p_scale: float32[H], n: int32, codes: Stream[uint8[H], 64]):
    """Probabilities as codes round(p / p_scale), clamped above, position by position."""
    row: float32[H, (S + SUMS - 1) // SUMS * SUMS]
    top: float32[H]
    part: float32[H, SUMS]
    for h_0, i_0 in grid(H, SUMS, name="clear"):
        top[h_0] = -3.0e38
        part[h_0, i_0] = 0.0
    for s_top in range(n, name="largest"):
        score: float32[H] = scores.get()
        for h_top in range(H, name="head"):
            row[h_top, s_top] = score[h_top]
            top[h_top] = max(top[h_top], score[h_top])
    for s_exp in range((n + SUMS - 1) // SUMS, name="exponential"):
        for i, h in grid(SUMS, H, name="head"):
            y: float32 = 0.0
            if s_exp * SUMS + i < n:
                y = exp(row[h, s_exp * SUMS + i] - top[h])
            row[h, s_exp * SUMS + i] = y
            part[h, i] += y
    total: float32[H]
    for h_sum in range(H, name="sum"):
        total[h_sum] = (part[h_sum, 0] + part[h_sum, 1]) + (part[h_sum, 2] + part[h_sum, 3])
    for s_out in range(n, name="quotient"):
        code: uint8[H]
        for h_out in range(H, name="head"):
            p: float32 = round(row[h_out, s_out] / total[h_out] / p_scale[h_out])
            code[h_out] = int(min(p, 255.0))
        codes.put(code)


@template(Tc, C, H, D)
def mix_rows(codes: Stream[uint8[H], 64], values: Stream[Tc[D], 64][C], p_scale: float32[H],
             v_scale: float32[C], n: int32) -> float32[1, H * D]:  # fmt: skip
    """Probabilities times values, one position after the other."""
    acc: int32[H, D]
    for h_0, d_0 in grid(H, D, name="clear"):
        acc[h_0, d_0] = 0
    for _ in range(n, name="position"):
        code: uint8[H] = codes.get()
        with meta_for(C) as c:
            value: Tc[D] = values[c].get()
            for j, d in grid(H // C, D, name="product"):
                acc[c * (H // C) + j, d] += code[c * (H // C) + j] * value[d]
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = p_scale[h] * v_scale[h // (H // C)]
    Y: float32[1, H * D]
    for h_out, d_out in grid(H, D, name="scale"):
        Y[0, h_out * D + d_out] = acc[h_out, d_out] * step[h_out]
    return Y


@template(C, B)
def append_rows(k: Tc[C, D], v: Tc[C, D], pos: int32, K: Tc[M, D][C * B], V: Tc[S, D][C]):
    """Keys and values of a position, all heads at once."""
    for d in range(D, name="element"):
        with meta_for(C) as c:
            with meta_for(B) as b:
                if pos % B == b:
                    K[c * B + b][pos // B, d] = k[c, d]
            V[c][pos, d] = v[c, d]


@template(F, C, B)
def attend_rows(
    q: Tq[H, D], n: int32, scales: F.Scales[H, C], K: Tc[M, D][C * B], V: Tc[S, D][C]
) -> float32[1, H * D]:
    """Attention of one token over the first n positions, with fixed scales."""
    keys: Stream[Tc[D], 64][C * B]
    values: Stream[Tc[D], F.prefetch][C]  # may all wait for the first probability
    scores: Stream[float32[H], 64]
    codes: Stream[uint8[H], 64]
    with meta_for(C) as c:
        with meta_for(B) as b:
            read_rows(K[c * B + b], (n + B - 1 - b) // B, keys[c * B + b])
    score_rows[Tc, C, B](q, keys, scales.q_scale, scales.k_scale, n, scores)
    softmax_rows[S, H](scores, scales.p_scale, n, codes)
    with meta_for(C) as c_v:
        read_rows(V[c_v], n, values[c_v])
    mixed = mix_rows[Tc, C, H, D](codes, values, scales.p_scale, scales.v_scale, n)
    return mixed


@template(F, C)
def attend_heads(
    q: F.query.dtype[H, D], k: F.cache.dtype[C, D], v: F.cache.dtype[C, D], pos: int32,
    scales: F.Scales[H, C], cache: F.HeadCache[C, S, D],
) -> float32[1, H * D]:  # fmt: skip
    """Append the key and value of a token to the cache, and attend."""
    append_rows[C, F.key_ports](k, v, pos, cache.k, cache.v)
    mixed = attend_rows[F, C, F.key_ports](q, pos + 1, scales, cache.k, cache.v)
    return mixed
