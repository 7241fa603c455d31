"""Kernels that take all tokens of a block side by side, element after element: FlexLLM's vectors of tokens.

The sums of every token run in the order of the kernels that take token after token, so the bits are theirs.
"""

from __future__ import annotations

from flexllm_allo import grid, params, round, sqrt, template
from flexllm_allo.ir.types import Stream, float32
from flexllm_allo.paley import hadamard_base

A, T, E, K, N = params("A, T, E, K, N")


@template(T, E)
def rms_norm_lanes(X: float32[T, E], gamma: float32[E], eps: float32) -> float32[T, E]:
    """`rms_norm`."""
    total: float32[T] = 0.0
    row: float32[T, E]
    for e_sum, t_sum in grid(E, T, name="square"):
        x: float32 = X[t_sum, e_sum]
        row[t_sum, e_sum] = x
        total[t_sum] += x * x
    inverse: float32[T]
    for t in range(T, name="root"):
        inverse[t] = 1.0 / sqrt(total[t] / E + eps)
    Y: float32[T, E]
    for e_out, t_out in grid(E, T, name="normalize"):
        Y[t_out, e_out] = row[t_out, e_out] * inverse[t_out] * gamma[e_out]
    return Y


@template(A, T, K)
def quantize_lanes(X: float32[T, K]) -> (A.dtype[T, K], float32[T, 2]):
    """`quantize_minimum`."""
    row: float32[T, K]
    low: float32[T] = 3.4028234e38
    high: float32[T] = -3.4028234e38
    for k_peak, t_peak in grid(K, T, name="peak"):
        x: float32 = X[t_peak, k_peak]
        row[t_peak, k_peak] = x
        low[t_peak] = min(low[t_peak], x)
        high[t_peak] = max(high[t_peak], x)
    terms: float32[T, 2]
    for t in range(T, name="step"):
        step: float32 = (high[t] - low[t]) / (2**A.dtype.bits - 1)
        if step == 0.0:
            step = 1.0
        terms[t, 0] = step
        terms[t, 1] = low[t]
    Q: A.dtype[T, K]
    for k_code, t_code in grid(K, T, name="code"):
        Q[t_code, k_code] = int(round((row[t_code, k_code] - terms[t_code, 1]) / terms[t_code, 0]))
    return Q, terms


@template(T, N)
def hadamard_lanes(X: float32[T, N]) -> float32[T, N]:
    """`hadamard` of a power of two, one stage after the other: a perfect shuffle, then butterflies."""
    row: float32[T, N]
    for i_in, t_in in grid(N, T, name="load"):
        row[t_in, i_in] = X[t_in, i_in]
    for _ in range(hadamard_base(N)[1], name="stage"):
        dealt: float32[T, N]
        for i_deal, t_deal in grid(N, T, name="shuffle"):
            dealt[t_deal, i_deal % 2 * (N // 2) + i_deal // 2] = row[t_deal, i_deal]
        for i, t in grid(N // 2, T, name="butterfly"):
            a: float32 = dealt[t, i]
            b: float32 = dealt[t, N // 2 + i]
            row[t, i] = a + b
            row[t, N // 2 + i] = a - b
    Y: float32[T, N]
    for i_out, t_out in grid(N, T, name="scale"):
        Y[t_out, i_out] = row[t_out, i_out] * N**-0.5
    return Y


@template(T, N)
def keep_lanes(X: float32[T, N], kept: Stream[float32[T], 8 * N]) -> float32[T, N]:
    """X, which also waits in a FIFO for several blocks: what goes around the operators in between."""
    Y: float32[T, N]
    for i in range(N, name="element"):
        beat: float32[T]
        for t in range(T, name="token"):
            beat[t] = X[t, i]
            Y[t, i] = X[t, i]
        kept.put(beat)
    return Y


@template(T, N)
def add_kept(kept: Stream[float32[T], 8 * N], Y: float32[T, N]) -> float32[T, N]:
    """`residual` of what `keep_lanes` kept."""
    Z: float32[T, N]
    for i in range(N, name="element"):
        beat: float32[T] = kept.get()
        for t in range(T, name="token"):
            Z[t, i] = beat[t] + Y[t, i]
    return Z
