"""FlexLLM's attention of one token: all KV heads side by side, the query heads of their groups in turn.

`kernels.flexllm_attention` with KV heads as lanes instead of tokens, each with keys, values and ports of its
own; there are eight.
"""

from __future__ import annotations

from flexllm_allo import Bundle, Self, exp, grid, meta_for, params, round, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8

from .flexllm_attention import SUMS

LANES = 8
F, C, G, H, KV, M, Tq, Tc, S, D, KP, VP = params("F, C, G, H, KV, M, Tq, Tc, S, D, KP, VP")


class PackedCache(Bundle, of="C, S, D"):
    """Codes of keys in packs of neighbours, and of values in parts, of every head."""

    k: Self.cache.dtype[(S + Self.key - 1) // Self.key, D, Self.key][C]
    v: Self.cache.dtype[D // Self.value, S, Self.value][C]


@template(Tc, H, M, S, D, KP, VP)
def append_head(k: Tc[H, D], v: Tc[H, D], pos: int32, g: int32, K: Tc[M, D, KP], V: Tc[C, S, VP]):
    """Key and value of head g at a position; the other keys of a pack stay."""
    for d in range(D, name="key"):
        K[pos // KP, d, pos % KP] = k[g, d]
    for c in range(D // VP, name="part"):
        for j in range(VP, name="value"):
            V[c, pos, j] = v[g, c * VP + j]


@template(G)
def read_head_keys(K: Tc[M, D, KP], n: int32, packs: Stream[Tc[KP], 64]):
    """Send one element of KP keys of a head after the other, G times."""
    for _ in range(G, name="again"):
        for s in range((n + KP - 1) // KP, name="tile"):
            for d in range(D, name="element"):
                pack: Tc[KP]
                for i in range(KP, name="lane"):
                    pack[i] = K[s, d, i]
                packs.put(pack)


@template(Tc, KP)
def dots_heads(Q: Tq[H, D], packs: Stream[Tc[KP], 64][LANES], j: int32) -> int32[LANES, KP]:
    """Products of query j of every group with KP keys of its head."""
    acc: int32[LANES, KP]
    for g_0, i_0 in grid(LANES, KP, name="clear"):
        acc[g_0, i_0] = 0
    for d in range(D, name="element"):
        with meta_for(LANES) as g:
            pack: Tc[KP] = packs[g].get()
            for i in range(KP, name="product"):
                acc[g, i] += Q[g * (H // LANES) + j, d] * pack[i]
    return acc


@template(KP, D)
def send_heads(acc: int32[LANES, KP], step: float32[H], j: int32, first: int32, n: int32,
               score: Stream[float32[LANES], 64]):  # fmt: skip
    """Scores of KP keys from `first` on, those past n left out."""
    for i in range(KP, name="key"):
        beat: float32[LANES]
        for g in range(LANES, name="head"):
            x: float32 = acc[g, i] * step[g * (H // LANES) + j]
            beat[g] = x * D**-0.5
        if first + i < n:
            score.put(beat)


@template(Tc, KP)
def score_heads(Q: Tq[H, D], packs: Stream[Tc[KP], 64][LANES], q_scale: float32[H], k_scale: float32[LANES],
                n: int32, score: Stream[float32[LANES], 64]):  # fmt: skip
    """Send the scores of all keys for one query of each group after the other."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = q_scale[h] * k_scale[h // (H // LANES)]
    for i in range(H // LANES * ((n + KP - 1) // KP), name="tile"):
        acc = dots_heads[Tc, KP](Q, packs, i // ((n + KP - 1) // KP))
        send_heads[KP, D](acc, step, i // ((n + KP - 1) // KP), i % ((n + KP - 1) // KP) * KP, n, score)


@template(S, H)
def softmax_heads(score: Stream[float32[LANES], 64], p_scale: float32[H], n: int32,
                  codes: Stream[uint8[LANES], 64]):  # fmt: skip
    """Probabilities as codes round(p / p_scale): largest, exponentials and sums, quotients."""
    for j in range(H // LANES, name="query"):
        step: float32[LANES]
        for g_step in range(LANES, name="step"):
            step[g_step] = p_scale[g_step * (H // LANES) + j]
        row: float32[LANES, (S + SUMS - 1) // SUMS * SUMS]
        top: float32[LANES]
        part: float32[LANES, SUMS]
        for g_0, i_0 in grid(LANES, SUMS, name="clear"):
            top[g_0] = -3.0e38
            part[g_0, i_0] = 0.0
        for s_top in range(n, name="largest"):
            beat: float32[LANES] = score.get()
            for g_top in range(LANES, name="head"):
                row[g_top, s_top] = beat[g_top]
                top[g_top] = max(top[g_top], beat[g_top])
        for s_exp in range((n + SUMS - 1) // SUMS, name="exponential"):
            for i, g in grid(SUMS, LANES, name="head"):
                y: float32 = 0.0
                if s_exp * SUMS + i < n:
                    y = exp(row[g, s_exp * SUMS + i] - top[g])
                row[g, s_exp * SUMS + i] = y
                part[g, i] += y
        total: float32[LANES]
        for g_sum in range(LANES, name="sum"):
            total[g_sum] = (part[g_sum, 0] + part[g_sum, 1]) + (part[g_sum, 2] + part[g_sum, 3])
        for s_out in range(n, name="quotient"):
            code: uint8[LANES]
            for g_out in range(LANES, name="head"):
                p: float32 = round(row[g_out, s_out] / total[g_out] / step[g_out])
                code[g_out] = int(min(p, 255.0))
            codes.put(code)


@template(G)
def read_head_values(V: Tc[C, S, VP], n: int32, parts: Stream[Tc[VP], 64]):
    """Send VP elements of all values of a head, then the next VP, G times."""
    for _ in range(G, name="again"):
        for c in range(C, name="part"):
            for s in range(n, name="value"):
                part: Tc[VP]
                for d in range(VP, name="lane"):
                    part[d] = V[c, s, d]
                parts.put(part)


@template(Tc, VP, H, S, D)
def mix_heads(codes: Stream[uint8[LANES], 64], parts: Stream[Tc[VP], 64][LANES], p_scale: float32[H],
              v_scale: float32[LANES], n: int32) -> float32[1, H * D]:  # fmt: skip
    """Probabilities times values: load the probabilities, then VP elements at a time."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = p_scale[h] * v_scale[h // (H // LANES)]
    Y: float32[1, H * D]
    for j in range(H // LANES, name="query"):
        p: uint8[LANES, S]
        for s_in in range(n, name="load"):
            code: uint8[LANES] = codes.get()
            for g_in in range(LANES, name="head"):
                p[g_in, s_in] = code[g_in]
        for c in range(D // VP, name="part"):
            acc: int32[LANES, VP]
            for g_0, d_0 in grid(LANES, VP, name="clear"):
                acc[g_0, d_0] = 0
            for s in range(n, name="value"):
                with meta_for(LANES) as g:
                    row: Tc[VP] = parts[g].get()
                    for d in range(VP, name="product"):
                        acc[g, d] += p[g, s] * row[d]
            for g_out in range(LANES, name="drain"):
                for d_out in range(VP, name="element"):
                    Y[0, (g_out * (H // LANES) + j) * D + c * VP + d_out] = (
                        acc[g_out, d_out] * step[g_out * (H // LANES) + j]
                    )
    return Y


@template(KV, M, D, KP, C, S, VP)
def append_heads(k: Tc[KV, D], v: Tc[KV, D], pos: int32, K: Tc[M, D, KP][KV], V: Tc[C, S, VP][KV]):
    """Keys and values of all heads at a position."""
    with meta_for(KV) as g:
        append_head(k, v, pos, g, K[g], V[g])


@template(F, KV)
def mix_packs(
    q: Tq[H, D], n: int32, scales: F.Scales[H, KV], K: Tc[M, D, KP][KV], V: Tc[C, S, VP][KV]
) -> float32[1, H * D]:
    """Attention of one token over the first n positions, with fixed scales."""
    packs: Stream[Tc[KP], 64][LANES]
    score: Stream[float32[LANES], 64]
    codes: Stream[uint8[LANES], 64]
    parts: Stream[Tc[VP], 64][LANES]
    with meta_for(KV) as g:
        read_head_keys[H // KV](K[g], n, packs[g])
    score_heads[Tc, KP](q, packs, scales.q_scale, scales.k_scale, n, score)
    softmax_heads[S, H](score, scales.p_scale, n, codes)
    with meta_for(KV) as g_v:
        read_head_values[H // KV](V[g_v], n, parts[g_v])
    mixed = mix_heads[Tc, VP, H, S, D](codes, parts, scales.p_scale, scales.v_scale, n)
    return mixed


@template(F, C)
def attend_packs(
    q: F.query.dtype[H, D], k: F.cache.dtype[C, D], v: F.cache.dtype[C, D], pos: int32,
    scales: F.Scales[H, C], cache: F.HeadCache[C, S, D],
) -> float32[1, H * D]:  # fmt: skip
    """Append the key and value of a token to the cache, and attend."""
    append_heads[C](k, v, pos, cache.k, cache.v)
    mixed = mix_packs[F, C](q, pos + 1, scales, cache.k, cache.v)
    return mixed
