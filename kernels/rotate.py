"""Operators with an online Hadamard rotation, which spreads outliers over all channels before quantization."""

from __future__ import annotations

from flexllm_allo import params, template
from flexllm_allo.ir.types import float32, int32

from .hadamard import hadamard
from .rope import rope

A, R, K, H, T, W, S, P = params("A, R, K, H, T, W, S, P")


@template(A)
def rotate_quantize(X: float32[R, K], site: A.Site[K]) -> (A.dtype[R, K], float32[R, A.terms]):
    """The rows rotated, then quantized by the rule inside `A`."""
    rotated = hadamard(X)
    codes, terms = A.inner.quantize[A.inner](rotated, site)
    return codes, terms


@template(H, T, W, S, P)
def rope_rotate(
    X: float32[T, W], cosine: float32[S, P], sine: float32[S, P], pos: int32
) -> float32[T * H, W // H]:
    """`rope`, then every head rotated: scores stay, while the keys become easier to quantize."""
    heads = rope[H](X, cosine, sine, pos)
    rotated = hadamard(heads)
    return rotated
