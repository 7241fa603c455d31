"""Kernels of one token that take B neighbours of its vector side by side: FlexLLM's decode.

Every lane has sums of its own, which are added at the end: other bits than those of `kernels.norm`.
"""

from __future__ import annotations

from flexllm_allo import params, round, sqrt, template
from flexllm_allo.ir.types import float32, int32

A, B, E, K, M, N, V = params("A, B, E, K, M, N, V")
SUMS = 4
"""Partial sums of a lane: as many as a float adder has stages, so that one term is added per cycle."""


@template(B, E)
def rms_norm_blocks(X: float32[1, E], gamma: float32[E], eps: float32) -> float32[1, E]:
    """`rms_norm`."""
    part: float32[SUMS, B]
    for j_0 in range(SUMS, name="clear"):
        for b_0 in range(B, name="lane"):
            part[j_0, b_0] = 0.0
    for e_sum in range(E // (SUMS * B), name="square"):
        for j in range(SUMS, name="sum"):
            for b in range(B, name="lane"):
                x: float32 = X[0, (e_sum * SUMS + j) * B + b]
                part[j, b] += x * x
    total: float32 = 0.0
    for b_all in range(B, name="all"):
        total += (part[0, b_all] + part[1, b_all]) + (part[2, b_all] + part[3, b_all])
    inverse: float32 = 1.0 / sqrt(total / E + eps)
    Y: float32[1, E]
    for e in range(E // B, name="normalize"):
        for b_out in range(B, name="lane"):
            Y[0, e * B + b_out] = X[0, e * B + b_out] * inverse * gamma[e * B + b_out]
    return Y


@template(A, B, N)
def quantize_blocks(X: float32[1, K]) -> (A.dtype[1, N], float32[1, 2]):
    """`quantize_minimum`, bit for bit; there is room for N codes."""
    low: float32[B]
    high: float32[B]
    for b_0 in range(B, name="clear"):
        low[b_0] = 3.4028234e38
        high[b_0] = -3.4028234e38
    for k_peak in range(K // B, name="peak"):
        for b in range(B, name="lane"):
            low[b] = min(low[b], X[0, k_peak * B + b])
            high[b] = max(high[b], X[0, k_peak * B + b])
    least: float32 = 3.4028234e38
    most: float32 = -3.4028234e38
    for b_all in range(B, name="all"):
        least = min(least, low[b_all])
        most = max(most, high[b_all])
    step: float32 = (most - least) / (2**A.dtype.bits - 1)
    if step == 0.0:
        step = 1.0
    terms: float32[1, 2]
    terms[0, 0] = step
    terms[0, 1] = least
    Q: A.dtype[1, N]
    for k in range(K // B, name="code"):
        for b_out in range(B, name="lane"):
            Q[0, k * B + b_out] = int(round((X[0, k * B + b_out] - least) / step))
    return Q, terms


@template(M, B, V)
def largest(logits: float32[1, N]) -> (float32[1, B * M], int32[B * M]):
    """The M largest of the first V logits of every lane, and their tokens."""
    best: float32[M, B]
    at: int32[M, B]
    for i_0 in range(M, name="clear"):
        for b_0 in range(B, name="lane"):
            best[i_0, b_0] = -3.4028234e38
            at[i_0, b_0] = 0
    for v in range(V // B, name="logit"):
        for b in range(B, name="lane"):
            x: float32 = logits[0, v * B + b]
            for i in range(M - 1, name="entry"):
                if x > best[M - 2 - i, b]:
                    best[M - 1 - i, b] = best[M - 2 - i, b]
                    at[M - 1 - i, b] = at[M - 2 - i, b]
                elif x > best[M - 1 - i, b]:
                    best[M - 1 - i, b] = x
                    at[M - 1 - i, b] = v * B + b
            if x > best[0, b]:
                best[0, b] = x
                at[0, b] = v * B + b
    value: float32[1, B * M]
    token: int32[B * M]
    for b_out in range(B, name="out"):
        for i_out in range(M, name="entry"):
            value[0, b_out * M + i_out] = best[i_out, b_out]
            token[b_out * M + i_out] = at[i_out, b_out]
    return value, token
