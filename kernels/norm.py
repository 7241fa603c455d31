"""Normalization."""

from __future__ import annotations

from flexllm_allo import params, sqrt, template
from flexllm_allo.ir.types import float32

A, T, E = params("A, T, E")


@template(T, E)
def rms_norm(X: float32[T, E], gamma: float32[E], eps: float32) -> float32[T, E]:
    """Y = X / sqrt(mean(X**2) + eps) * gamma per token; the sum runs in index order."""
    Y: float32[T, E]
    for t in range(T, name="token"):
        row: float32[E]
        total: float32 = 0.0
        for e_sum in range(E, name="square"):
            x: float32 = X[t, e_sum]
            row[e_sum] = x
            total += x * x
        inverse: float32 = 1.0 / sqrt(total / E + eps)
        for e_out in range(E, name="normalize"):
            Y[t, e_out] = row[e_out] * inverse * gamma[e_out]
    return Y


@template(A)
def norm_quantize(
    X: float32[T, E], gamma: float32[E], eps: float32, site: A.Site[E]
) -> (A.dtype[T, E], float32[T, A.terms]):
    """`rms_norm`, then the quantization of an `Activation`: what every linear layer of a decoder reads."""
    normed = rms_norm(X, gamma, eps)
    codes, terms = A.quantize[A](normed, site)
    return codes, terms
