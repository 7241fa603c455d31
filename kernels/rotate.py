"""Operators with an online Hadamard rotation, which spreads outliers before quantization."""

from __future__ import annotations

from flexllm_allo import params, template
from flexllm_allo.ir.types import float32

from .hadamard import hadamard
from .rope import rope

A, R, K, H, T, W, P = params("A, R, K, H, T, W, P")


@template(A)
def rotate_quantize(X: float32[R, K], site: A.Site[K]) -> (A.dtype[R, K], float32[R, A.terms]):
    """The rows rotated, then quantized by the rule inside `A`."""
    rotated = hadamard(X)
    codes, terms = A.inner.quantize[A.inner](rotated, site)
    return codes, terms


@template(H, T, W, P)
def rope_rotate(X: float32[T, W], cosine: float32[T, P], sine: float32[T, P]) -> float32[T * H, W // H]:
    """`rope`, then every head rotated: scores stay, while the keys become easier to quantize."""
    heads = rope[H](X, cosine, sine)
    rotated = hadamard(heads)
    return rotated
