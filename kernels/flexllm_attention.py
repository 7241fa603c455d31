"""FlexLLM's attention of a block of tokens: one query head after the other, over all N keys of the prompt.

Three processes, joined by FIFOs whose words hold all tokens of the block: KP keys meet the queries of a head
at once; a softmax of three passes; VP elements of a value meet the probabilities at once. What lies behind a
token is computed and not used, so that the cycles do not depend on the position.
"""

from __future__ import annotations

from flexllm_allo import exp, grid, params, round, template
from flexllm_allo.ir.types import Stream, float32, int32, uint8

C, H, M, T, Tq, Tc, KV, S, D, R, KP, VP = params("C, H, M, T, Tq, Tc, KV, S, D, R, KP, VP")
SUMS = 4
"""Partial sums of a softmax: as many as a float adder has stages, so that one term is added per cycle."""


@template(Tc, R, KV, M, D, KP)
def append_packs(codes: Tc[R, D], pos: int32, n: int32, cache: Tc[KV, M, D, KP]):
    """`append_codes` for keys, of which KP neighbours are side by side: the others of a pack stay."""
    for t in range(n, name="token"):
        for h in range(KV, name="head"):
            for d in range(D, name="element"):
                cache[h, (pos + t) // KP, d, (pos + t) % KP] = codes[t * KV + h, d]


@template(H)
def read_keys(K: Tc[KV, M, D, KP], n: int32, packs: Stream[Tc[KP], 64]):
    """Send one element of KP keys after the other, for every query head."""
    for h in range(H, name="head"):
        for s in range((n + KP - 1) // KP, name="tile"):
            for d in range(D, name="element"):
                pack: Tc[KP]
                for i in range(KP, name="lane"):
                    pack[i] = K[h // (H // KV), s, d, i]
                packs.put(pack)


@template(Tc, T, KP)
def dots(Q: Tq[R, D], packs: Stream[Tc[KP], 64], h: int32) -> int32[T, KP]:
    """Products of a head's queries with KP keys."""
    acc: int32[T, KP]
    for t_0, i_0 in grid(T, KP, name="clear"):
        acc[t_0, i_0] = 0
    for d in range(D, name="element"):
        pack: Tc[KP] = packs.get()
        for t, i in grid(T, KP, name="product"):
            acc[t, i] += Q[t * (R // T) + h, d] * pack[i]
    return acc


@template(KP, D, T)
def send_scores(acc: int32[T, KP], step: float32[H], h: int32, first: int32, n: int32,
                score: Stream[float32[T], 64]):  # fmt: skip
    """Scores of KP keys from `first` on, those past n left out."""
    for i in range(KP, name="key"):
        beat: float32[T]
        for t in range(T, name="token"):
            x: float32 = acc[t, i] * step[h]
            beat[t] = x * D**-0.5
        if first + i < n:
            score.put(beat)


@template(Tc, H, T, KP)
def score_keys(Q: Tq[R, D], packs: Stream[Tc[KP], 64], q_scale: float32[H], k_scale: float32[KV], n: int32,
               score: Stream[float32[T], 64]):  # fmt: skip
    """Send the scores of all keys, head by head."""
    step: float32[H]
    for h in range(H, name="step"):
        step[h] = q_scale[h] * k_scale[h // (H // KV)]
    for i in range(H * ((n + KP - 1) // KP), name="tile"):
        acc = dots[Tc, T, KP](Q, packs, i // ((n + KP - 1) // KP))
        send_scores[KP, D, T](acc, step, i // ((n + KP - 1) // KP), i % ((n + KP - 1) // KP) * KP, n, score)


@template(H, T, S)
def softmax(score: Stream[float32[T], 64], p_scale: float32[H], pos: int32, n: int32,
            codes: Stream[uint8[T], 64]):  # fmt: skip
    """Probabilities as codes round(p / p_scale), head by head: largest, exponentials and sums, quotients."""
    for h in range(H, name="head"):
        step: float32 = p_scale[h]
        row: float32[T, (S + SUMS - 1) // SUMS * SUMS]
        top: float32[T]
        part: float32[T, SUMS]
        for t_0, j_0 in grid(T, SUMS, name="clear"):
            top[t_0] = -3.0e38
            part[t_0, j_0] = 0.0
        for s_top in range(n, name="largest"):
            beat: float32[T] = score.get()
            for t_top in range(T, name="token"):
                row[t_top, s_top] = beat[t_top]
                if s_top <= pos + t_top:
                    top[t_top] = max(top[t_top], beat[t_top])
        for s_exp in range((n + SUMS - 1) // SUMS, name="exponential"):
            for j, t in grid(SUMS, T, name="token"):
                y: float32 = 0.0
                if s_exp * SUMS + j < n and s_exp * SUMS + j <= pos + t:
                    y = exp(row[t, s_exp * SUMS + j] - top[t])
                row[t, s_exp * SUMS + j] = y
                part[t, j] += y
        total: float32[T]
        for t_sum in range(T, name="sum"):
            total[t_sum] = (part[t_sum, 0] + part[t_sum, 1]) + (part[t_sum, 2] + part[t_sum, 3])
        for s_out in range(n, name="quotient"):
            code: uint8[T]
            for t_out in range(T, name="token"):
                p: float32 = round(row[t_out, s_out] / total[t_out] / step)
                code[t_out] = int(min(p, 255.0))
            codes.put(code)


@template(Tc, R, KV, S, D, VP)
def append_parts(codes: Tc[R, D], pos: int32, n: int32, cache: Tc[KV, D // VP, S, VP]):
    """`append_packs` for values in parts of VP elements; parts of neighbouring tokens are neighbours."""
    for t in range(n, name="token"):
        for h in range(KV, name="head"):
            for c in range(D // VP, name="part"):
                for j in range(VP, name="element"):
                    cache[h, c, pos + t, j] = codes[t * KV + h, c * VP + j]


@template(H, VP)
def read_values(V: Tc[KV, C, S, VP], n: int32, parts: Stream[Tc[VP], 64]):
    """Send VP elements of all values, then the next VP, for every query head."""
    for h in range(H, name="head"):
        for c in range(C, name="part"):
            for s in range(n, name="value"):
                part: Tc[VP]
                for j in range(VP, name="lane"):
                    part[j] = V[h // (H // KV), c, s, j]
                parts.put(part)


@template(Tc, VP, H, T, S, D)
def mix_values(codes: Stream[uint8[T], 64], parts: Stream[Tc[VP], 64], p_scale: float32[H],
               v_scale: float32[KV], n: int32) -> float32[T, H * D]:  # fmt: skip
    """Probabilities times values, head by head: load the probabilities, then VP elements at a time."""
    step: float32[H]
    for h_step in range(H, name="step"):
        step[h_step] = p_scale[h_step] * v_scale[h_step // (H // KV)]
    Y: float32[T, H * D]
    for h in range(H, name="head"):
        p: uint8[T, S]
        for s_in in range(n, name="load"):
            code: uint8[T] = codes.get()
            for t_in in range(T, name="token"):
                p[t_in, s_in] = code[t_in]
        for c in range(D // VP, name="part"):
            acc: int32[T, VP]
            for t_0, j_0 in grid(T, VP, name="clear"):
                acc[t_0, j_0] = 0
            for s in range(n, name="value"):
                row: Tc[VP] = parts.get()
                for t, j in grid(T, VP, name="product"):
                    acc[t, j] += p[t, s] * row[j]
            for j_out in range(VP, name="drain"):
                for t_out in range(T, name="token"):
                    Y[t_out, h * D + c * VP + j_out] = acc[t_out, j_out] * step[h]
    return Y
