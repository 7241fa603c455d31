"""Elementwise parts of a decoder layer."""

from __future__ import annotations

from flexllm_allo import exp, grid, params, template
from flexllm_allo.ir.types import float32

A, T, N = params("A, T, N")
GELU_LINEAR = 1.5957691216057308  # 2 sqrt(2 / pi)
GELU_CUBIC = 0.07135481627260025  # 0.044715 times it


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


@template(T, N)
def gelu(X: float32[T, N]) -> float32[T, N]:
    """The tanh form of GELU (Hugging Face's ``gelu_new``).

    x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). Since (1 + tanh(u)) / 2 is the logistic
    function of 2 u, `exp` is all it takes.
    """
    Y: float32[T, N]
    for t, i in grid(T, N, name="gelu"):
        x: float32 = X[t, i]
        double_u: float32 = x * (GELU_LINEAR + GELU_CUBIC * (x * x))
        Y[t, i] = x / (1.0 + exp(-double_u))
    return Y


@template(A)
def gelu_quantize(X: float32[T, N], site: A.Site[N]) -> (A.dtype[T, N], float32[T, A.terms]):
    """`gelu`, then the quantization of an `Activation`."""
    hidden = gelu(X)
    codes, terms = A.quantize[A](hidden, site)
    return codes, terms
