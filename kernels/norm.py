"""Normalization."""

from __future__ import annotations

from math import gcd

from flexllm_allo import Bundle, grid, params, sqrt, template
from flexllm_allo.ir.types import float32

A, F, T, E, H, W, D = params("A, F, T, E, H, W, D")


SUMS = 4
"""Tokens whose sums take turns, at most: the latency of an adder."""


class NoNorm(Bundle, of="E"):
    """Nothing is normalized."""


class RmsNorm(Bundle, of="E"):
    """What `rms_norm` learns."""

    gain: float32[E]


class LayerNorm(Bundle, of="E"):
    """What `layer_norm` learns."""

    gain: float32[E]
    bias: float32[E]


@template(T, E)
def rms_norm(X: float32[T, E], gamma: float32[E], eps: float32) -> float32[T, E]:
    """Y = X / sqrt(mean(X**2) + eps) * gamma per token; the sum runs in index order.

    The sums of a few tokens take turns, so that none waits for its adder.
    """
    Y: float32[T, E]
    for t in range(T // gcd(T, SUMS), name="token"):
        row: float32[gcd(T, SUMS), E]
        total: float32[gcd(T, SUMS)] = 0.0
        for e_sum, i_sum in grid(E, gcd(T, SUMS), name="square"):
            x: float32 = X[t * gcd(T, SUMS) + i_sum, e_sum]
            row[i_sum, e_sum] = x
            total[i_sum] += x * x
        for i in range(gcd(T, SUMS), name="inverse"):
            inverse: float32 = 1.0 / sqrt(total[i] / E + eps)
            for e_out in range(E, name="normalize"):
                Y[t * gcd(T, SUMS) + i, e_out] = row[i, e_out] * inverse * gamma[e_out]
    return Y


@template(T, E)
def layer_norm(X: float32[T, E], gamma: float32[E], beta: float32[E], eps: float32) -> float32[T, E]:
    """Y = (X - mean(X)) / sqrt(var(X) + eps) * gamma + beta per token; the sums run in index order."""
    Y: float32[T, E]
    for t in range(T, name="token"):
        row: float32[E]
        total: float32 = 0.0
        for e_sum in range(E, name="sum"):
            x: float32 = X[t, e_sum]
            row[e_sum] = x
            total += x
        mean: float32 = total / E
        square: float32 = 0.0
        for e_square in range(E, name="square"):
            d: float32 = row[e_square] - mean
            row[e_square] = d
            square += d * d
        inverse: float32 = 1.0 / sqrt(square / E + eps)
        for e_out in range(E, name="normalize"):
            Y[t, e_out] = row[e_out] * inverse * gamma[e_out] + beta[e_out]
    return Y


@template(H, T, W, D)
def norm_heads(X: float32[T, W], gamma: float32[D], eps: float32):
    """`rms_norm` of each of the H heads of D = W / H elements in a row, in place; they share the gain."""
    for t, h in grid(T, H, name="head"):
        total: float32 = 0.0
        for d_sum in range(D, name="square"):
            total += X[t, h * D + d_sum] * X[t, h * D + d_sum]
        inverse: float32 = 1.0 / sqrt(total / D + eps)
        for d_out in range(D, name="normalize"):
            X[t, h * D + d_out] = X[t, h * D + d_out] * inverse * gamma[d_out]


@template(F, A)
def norm_quantize(
    X: float32[T, E], norm: F.Norm[E], eps: float32, site: A.Site[E]
) -> (A.dtype[T, E], float32[T, A.terms]):
    """A norm, then the quantization of an `Activation`: what every linear layer of a decoder reads.

    `F` says which: ``F.norm(X, *norm, eps)``.
    """
    normed = F.norm(X, norm, eps)
    codes, terms = A.quantize[A](normed, site)
    return codes, terms
