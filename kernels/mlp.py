"""Elementwise parts of a decoder layer."""

from __future__ import annotations

from flexllm_allo import exp, grid, params, template
from flexllm_allo.ir.types import float32

A, T, N = params("A, T, N")


@template(T, N)
def swiglu(gate: float32[T, N], up: float32[T, N]) -> float32[T, N]:
    """silu(gate) * up, silu(g) = g / (1 + exp(-g))."""
    Y: float32[T, N]
    for t, i in grid(T, N, name="gate"):
        g: float32 = gate[t, i]
        Y[t, i] = g / (1.0 + exp(-g)) * up[t, i]
    return Y


@template(A)
def swiglu_quantize(
    gate: float32[T, N], up: float32[T, N], site: A.Site[N]
) -> (A.dtype[T, N], float32[T, A.terms]):
    """`swiglu`, then the quantization of an `Activation`: what the down projection reads."""
    hidden = swiglu(gate, up)
    codes, terms = A.quantize[A](hidden, site)
    return codes, terms
