"""FlexLLM's attention of one token: W KV heads side by side, the query heads of their groups in turn.

`kernels.flexllm_attention` with heads as lanes instead of tokens, each lane with keys, values and ports of
its own.  Where a model has more KV heads than lanes, a lane has several neighbours, which take turns.
"""

from __future__ import annotations

from flexllm_allo import Bundle, Self, grid, meta_for, params, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8

from .heads import softmax_rows

F, B, C, G, H, KV, M, Tq, Tc, S, D, KP, VP, W = params("F, B, C, G, H, KV, M, Tq, Tc, S, D, KP, VP, W")


class PackedCache(Bundle, of="C, S, D"):
    """Codes of keys in packs of neighbours, and of values in parts; the heads of a lane follow each other."""

    k: Self.cache.dtype[Self.turns * ((S + Self.key - 1) // Self.key), D, Self.key][C // Self.turns]
    v: Self.cache.dtype[Self.turns * (D // Self.value), S, Self.value][C // Self.turns]


@template(B, Tc, H, M, S, D, KP, VP)
def append_lane(k: Tc[H, D], v: Tc[H, D], pos: int32, g: int32, K: Tc[M, D, KP], V: Tc[C, S, VP]):
    """Keys and values of the B heads of lane g at a position; the other keys of a pack stay."""
    for b_k, d in grid(B, D, name="key"):
        K[b_k * (M // B) + pos // KP, d, pos % KP] = k[g * B + b_k, d]
    for b, c in grid(B, C // B, name="part"):
        for j in range(VP, name="value"):
            V[b * (C // B) + c, pos, j] = v[g * B + b, c * VP + j]


@template(B, G)
def read_lane_keys(K: Tc[M, D, KP], n: int32, packs: Stream[Tc[KP], 64]):
    """Send one element of KP keys after the other, all of a head G times, of the B heads of a lane."""
    for b, _ in grid(B, G, name="again"):
        for s in range((n + KP - 1) // KP, name="tile"):
            for d in range(D, name="element"):
                pack: Tc[KP]
                for i in range(KP, name="lane"):
                    pack[i] = K[b * (M // B) + s, d, i]
                packs.put(pack)


@template(W, Tc, KP)
def dots_heads(Q: Tq[H, D], packs: Stream[Tc[KP], 64][W], j: int32) -> int32[W, KP]:
    """Products of query j of every lane with KP keys of its head."""
    acc: int32[W, KP]
    for g_0, i_0 in grid(W, KP, name="clear"):
        acc[g_0, i_0] = 0
    for d in range(D, name="element"):
        with meta_for(W) as g:
            pack: Tc[KP] = packs[g].get()
            for i in range(KP, name="product"):
                acc[g, i] += Q[g * (H // W) + j, d] * pack[i]
    return acc


@template(W, KP, D)
def send_heads(acc: int32[W, KP], step: float32[H], j: int32, first: int32, n: int32,
               score: Stream[float32[W], 64]):  # fmt: skip
    """Scores of KP keys from `first` on, those past n left out."""
    for i in range(KP, name="key"):
        beat: float32[W]
        for g in range(W, name="head"):
            x: float32 = acc[g, i] * step[g * (H // W) + j]
            beat[g] = x * D**-0.5
        if first + i < n:
            score.put(beat)


@template(W, Tc, KP)
def score_heads(Q: Tq[H, D], packs: Stream[Tc[KP], 64][W], q_scale: float32[H], k_scale: float32[KV],
                n: int32, score: Stream[float32[W], 64]):  # fmt: skip
    """Send the scores of all keys for one query of each lane after the other."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = q_scale[h] * k_scale[h // (H // KV)]
    for i in range(H // W * ((n + KP - 1) // KP), name="tile"):
        acc = dots_heads[W, Tc, KP](Q, packs, i // ((n + KP - 1) // KP))
        send_heads[W, KP, D](acc, step, i // ((n + KP - 1) // KP), i % ((n + KP - 1) // KP) * KP, n, score)


@template(W, S)
def softmax_heads(score: Stream[float32[W], 64], p_scale: float32[H], n: int32,
                  codes: Stream[uint8[W], 64]):  # fmt: skip
    """Probabilities of one query of each lane after the other."""
    for j in range(H // W, name="query"):
        step: float32[W]
        for g in range(W, name="step"):
            step[g] = p_scale[g * (H // W) + j]
        softmax_rows[S, W](score, step, n, codes)


@template(B, G)
def read_lane_values(V: Tc[C, S, VP], n: int32, parts: Stream[Tc[VP], 64]):
    """Send VP elements of all values, then the next VP, all of a head G times, of the B heads of a lane."""
    for b, _ in grid(B, G, name="again"):
        for c in range(C // B, name="part"):
            for s in range(n, name="value"):
                part: Tc[VP]
                for d in range(VP, name="lane"):
                    part[d] = V[b * (C // B) + c, s, d]
                parts.put(part)


@template(W, Tc, VP, H, S, D)
def mix_heads(codes: Stream[uint8[W], 64], parts: Stream[Tc[VP], 64][W], p_scale: float32[H],
              v_scale: float32[KV], n: int32) -> float32[1, H * D]:  # fmt: skip
    """Probabilities times values: load the probabilities, then VP elements at a time."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = p_scale[h] * v_scale[h // (H // KV)]
    Y: float32[1, H * D]
    for j in range(H // W, name="query"):
        p: uint8[W, S]
        for s_in in range(n, name="load"):
            code: uint8[W] = codes.get()
            for g_in in range(W, name="head"):
                p[g_in, s_in] = code[g_in]
        for c in range(D // VP, name="part"):
            acc: int32[W, VP]
            for g_0, d_0 in grid(W, VP, name="clear"):
                acc[g_0, d_0] = 0
            for s in range(n, name="value"):
                with meta_for(W) as g:
                    row: Tc[VP] = parts[g].get()
                    for d in range(VP, name="product"):
                        acc[g, d] += p[g, s] * row[d]
            for g_out in range(W, name="drain"):
                for d_out in range(VP, name="element"):
                    Y[0, (g_out * (H // W) + j) * D + c * VP + d_out] = (
                        acc[g_out, d_out] * step[g_out * (H // W) + j]
                    )
    return Y


@template(W, B, KV, M, D, KP, C, S, VP)
def append_lanes(k: Tc[KV, D], v: Tc[KV, D], pos: int32, K: Tc[M, D, KP][W], V: Tc[C, S, VP][W]):
    """Keys and values of all heads at a position."""
    with meta_for(W) as g:
        append_lane[B](k, v, pos, g, K[g], V[g])


@template(F, W, KV)
def mix_packs(
    q: Tq[H, D], n: int32, scales: F.Scales[H, KV], K: Tc[M, D, KP][W], V: Tc[C, S, VP][W]
) -> float32[1, H * D]:
    """Attention of one token over the first n positions, with fixed scales."""
    packs: Stream[Tc[KP], 64][W]
    score: Stream[float32[W], 64]
    codes: Stream[uint8[W], 64]
    parts: Stream[Tc[VP], 64][W]
    with meta_for(W) as g:
        read_lane_keys[F.turns, H // KV](K[g], n, packs[g])
    score_heads[W, Tc, KP](q, packs, scales.q_scale, scales.k_scale, n, score)
    softmax_heads[W, S](score, scales.p_scale, n, codes)
    with meta_for(W) as g_v:
        read_lane_values[F.turns, H // KV](V[g_v], n, parts[g_v])
    mixed = mix_heads[W, Tc, VP, H, S, D](codes, parts, scales.p_scale, scales.v_scale, n)
    return mixed


@template(F, C)
def attend_packs(
    q: F.query.dtype[H, D], k: F.cache.dtype[C, D], v: F.cache.dtype[C, D], pos: int32,
    scales: F.Scales[H, C], cache: F.HeadCache[C, S, D],
) -> float32[1, H * D]:  # fmt: skip
    """Append the key and value of a token to the cache, and attend."""
    append_lanes[C // F.turns, F.turns](k, v, pos, cache.k, cache.v)
    mixed = mix_packs[F, C // F.turns, C](q, pos + 1, scales, cache.k, cache.v)
    return mixed
