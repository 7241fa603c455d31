"""Linear layers whose weights share scales in groups along the row, and weights that are unpacked first.

The formula is that of `linear`, with a scale per group: products are summed per group as integers
(floats, if the activations are), times the scale of the group in float, group after group. A group's
weights are read once for all tokens of the block.

G groups in a row, Q = G + P - 1 terms per output channel: the scales, then what is added in float.
"""

from __future__ import annotations

from flexllm_allo import Bundle, grid, meta_else, meta_for, meta_if, params, template
from flexllm_allo.ir.types import Int, UInt, float32, int8, uint8

from .linear import accumulator

Tx, Tw, Ti, T, N, K, P, Q, G, H, J = params("Tx, Tw, Ti, T, N, K, P, Q, G, H, J")


class GroupWeight(Bundle, of="N, K"):
    """Symmetric codes with a scale per group."""

    codes: Self.dtype[N, K]
    terms: float32[N, Self.terms(K)]


class ZeroWeight(Bundle, of="N, K"):
    """Unsigned codes with a scale and a zero point per group."""

    codes: Self.dtype[N, K]
    zero: Self.dtype[N, Self.groups(K)]
    terms: float32[N, Self.terms(K)]


class ProgressiveWeight(Bundle, of="N, K"):
    """Unsigned codes that integer arithmetic turns into int8 (QoQ), and a scale per output channel."""

    codes: Self.dtype[N, K]
    zero: Self.dtype[N, Self.groups(K)]
    step: uint8[N, Self.groups(K)]
    terms: float32[N, 1 + Self.extra]


class SparseWeight(Bundle, of="N, K"):
    """2:4 sparse: two codes of four weights, their positions, and a scale and a zero point per group.

    Positions are two bits a code, or a three-bit pattern (`FIRST`, `SECOND`) a pair.
    """

    codes: Self.dtype[N, K // 2]
    index: Self.index[N, K // 2 if Self.index.bits == 2 else K // 4]
    zero: Self.dtype[N, Self.groups(K)]
    terms: float32[N, Self.terms(K)]


FIRST = [0, 0, 0, 1, 1, 2, 0, 0]
SECOND = [1, 2, 3, 2, 3, 3, 0, 0]
"""The six ways to keep two of four, in order; patterns 6 and 7 do not occur."""


@template(Tx, Tw, T, N, K)
def linear_group(
    X: Tx[T, K], x_terms: float32[T, P], W: Tw[N, K], w_terms: float32[N, Q]
) -> float32[T, N]:
    """Symmetric weights; with float activations of any width products are float32."""
    Y: float32[T, N]
    for n in range(N, name="row"):
        total: float32[T] = 0.0
        for g in range(Q - P + 1, name="group"):
            part: accumulator(Tx, Tw)[T] = 0
            for k, t in grid(K // (Q - P + 1), T, name="mac"):
                with meta_if(Tx.is_float):
                    x: float32 = X[t, g * (K // (Q - P + 1)) + k]
                    part[t] += x * W[n, g * (K // (Q - P + 1)) + k]
                with meta_else():
                    part[t] += X[t, g * (K // (Q - P + 1)) + k] * W[n, g * (K // (Q - P + 1)) + k]
            for t_g in range(T, name="scale"):
                total[t_g] += part[t_g] * w_terms[n, g]
        for t_y in range(T, name="token"):
            y: float32 = total[t_y] * x_terms[t_y, 0]
            with meta_for(1, P) as j:
                y += x_terms[t_y, j] * w_terms[n, Q - P + j]
            Y[t_y, n] = y
    return Y


@template(Tx, Tw, T, N, K)
def linear_zero(
    X: Tx[T, K], x_terms: float32[T, P], W: Tw[N, K], zero: Tw[N, G], w_terms: float32[N, Q]
) -> float32[T, N]:
    """Asymmetric weights: code less zero point is what is multiplied."""
    Y: float32[T, N]
    for n in range(N, name="row"):
        total: float32[T] = 0.0
        for g in range(G, name="group"):
            part: accumulator(Tx, Tw)[T] = 0
            for k, t in grid(K // G, T, name="mac"):
                w: Int(Tw.bits + 1) = W[n, g * (K // G) + k] - zero[n, g]
                with meta_if(Tx.is_float):
                    x: float32 = X[t, g * (K // G) + k]
                    part[t] += x * w
                with meta_else():
                    part[t] += X[t, g * (K // G) + k] * w
            for t_g in range(T, name="scale"):
                total[t_g] += part[t_g] * w_terms[n, g]
        for t_y in range(T, name="token"):
            y: float32 = total[t_y] * x_terms[t_y, 0]
            with meta_for(1, P) as j:
                y += x_terms[t_y, j] * w_terms[n, Q - P + j]
            Y[t_y, n] = y
    return Y


@template(Tx, Tw, T, N, K)
def linear_progressive(
    X: Tx[T, K], x_terms: float32[T, P], W: Tw[N, K], zero: Tw[N, G], step: uint8[N, G],
    w_terms: float32[N, P],
) -> float32[T, N]:  # fmt: skip
    """Two-level weights: (code - zero) * step is an int8, so that one int8 product serves all formats."""
    Y: float32[T, N]
    for n in range(N, name="row"):
        acc: accumulator(Tx, Tw)[T] = 0
        for g in range(G, name="group"):
            for k, t in grid(K // G, T, name="mac"):
                w: int8 = (W[n, g * (K // G) + k] - zero[n, g]) * step[n, g]
                with meta_if(Tx.is_float):
                    x: float32 = X[t, g * (K // G) + k]
                    acc[t] += x * w
                with meta_else():
                    acc[t] += X[t, g * (K // G) + k] * w
        for t_y in range(T, name="token"):
            y: float32 = acc[t_y] * (x_terms[t_y, 0] * w_terms[n, 0])
            with meta_for(1, P) as j:
                y += x_terms[t_y, j] * w_terms[n, j]
            Y[t_y, n] = y
    return Y


@template(Tx, Tw, Ti, T, N, K)
def linear_sparse(
    X: Tx[T, K], x_terms: float32[T, P], W: Tw[N, H], index: Ti[N, J], zero: Tw[N, G],
    w_terms: float32[N, Q],
) -> float32[T, N]:  # fmt: skip
    """2:4 sparse weights: H = K / 2 codes meet the inputs at their positions, half the products."""
    first: UInt(2)[8] = FIRST
    second: UInt(2)[8] = SECOND
    Y: float32[T, N]
    for n in range(N, name="row"):
        total: float32[T] = 0.0
        for g in range(G, name="group"):
            part: accumulator(Tx, Tw)[T] = 0
            for q, t in grid(K // G // 4, T, name="mac"):
                a: UInt(2) = 0
                b: UInt(2) = 0
                with meta_if(Ti.bits == 2):
                    a = index[n, (g * (K // G // 4) + q) * 2]
                    b = index[n, (g * (K // G // 4) + q) * 2 + 1]
                with meta_else():
                    a = first[index[n, g * (K // G // 4) + q]]
                    b = second[index[n, g * (K // G // 4) + q]]
                u: Int(Tw.bits + 1) = W[n, (g * (K // G // 4) + q) * 2] - zero[n, g]
                v: Int(Tw.bits + 1) = W[n, (g * (K // G // 4) + q) * 2 + 1] - zero[n, g]
                x: accumulator(Tx, Tw) = X[t, (g * (K // G // 4) + q) * 4 + a]
                z: accumulator(Tx, Tw) = X[t, (g * (K // G // 4) + q) * 4 + b]
                part[t] += x * u + z * v
            for t_g in range(T, name="scale"):
                total[t_g] += part[t_g] * w_terms[n, g]
        for t_y in range(T, name="token"):
            y: float32 = total[t_y] * x_terms[t_y, 0]
            with meta_for(1, P) as j:
                y += x_terms[t_y, j] * w_terms[n, Q - P + j]
            Y[t_y, n] = y
    return Y


__all__ = [
    "GroupWeight",
    "ProgressiveWeight",
    "SparseWeight",
    "ZeroWeight",
    "linear_group",
    "linear_progressive",
    "linear_sparse",
    "linear_zero",
]
