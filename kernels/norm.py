"""Normalization."""

from __future__ import annotations

from flexllm_allo import params, sqrt, template
from flexllm_allo.ir.types import float32

T, E = params("T, E")


@template(T, E)
def rms_norm(X: float32[T, E], gamma: float32[E], eps: float32) -> float32[T, E]:
    """Y = X / sqrt(mean(X**2) + eps) * gamma per token; the sum runs in index order."""
    Y: float32[T, E]
    for t in range(T, name="token"):
        row: float32[E]
        total: float32 = 0.0
        for e in range(E, name="square"):
            x: float32 = X[t, e]
            row[e] = x
            total += x * x
        inverse: float32 = 1.0 / sqrt(total / E + eps)
        for e in range(E, name="normalize"):
            Y[t, e] = row[e] * inverse * gamma[e]
    return Y
