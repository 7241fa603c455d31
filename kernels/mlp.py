"""Elementwise parts of a decoder layer."""

from __future__ import annotations

from flexllm_allo import exp, grid, params, template
from flexllm_allo.ir.types import float32

T, N = params("T, N")


@template(T, N)
def swiglu(gate: float32[T, N], up: float32[T, N]) -> float32[T, N]:
    """silu(gate) * up, silu(g) = g / (1 + exp(-g))."""
    Y: float32[T, N]
    for t, i in grid(T, N, name="gate"):
        g: float32 = gate[t, i]
        Y[t, i] = g / (1.0 + exp(-g)) * up[t, i]
    return Y


@template(T, N)
def residual(X: float32[T, N], Y: float32[T, N]) -> float32[T, N]:
    """X + Y."""
    Z: float32[T, N]
    for t, i in grid(T, N, name="add"):
        Z[t, i] = X[t, i] + Y[t, i]
    return Z
