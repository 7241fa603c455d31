"""Normalization of the heads of queries and keys."""

from __future__ import annotations

from flexllm_allo import Bundle, params, sqrt, template
from flexllm_allo.ir.types import float32

H, T, W, D = params("H, T, W, D")


class NoHeadNorm(Bundle, of="D"):
    """Heads stay as they are."""


class HeadNorm(Bundle, of="D"):
    """What `norm_heads` learns."""

    gain: float32[D]


@template(H, T, W, D)
def norm_heads(X: float32[T, W], gain: float32[D], eps: float32):
    """RMSNorm of every one of the H heads of D = W / H elements, in place, with one gain for all heads."""
    for t in range(T, name="token"):
        for h in range(H, name="head"):
            total: float32 = 0.0
            for d_sum in range(D, name="square"):
                total += X[t, h * D + d_sum] * X[t, h * D + d_sum]
            inverse: float32 = 1.0 / sqrt(total / D + eps)
            for d_out in range(D, name="normalize"):
                X[t, h * D + d_out] = X[t, h * D + d_out] * inverse * gain[d_out]
