"""Rotary position embedding, and the split of a projection into heads."""

from __future__ import annotations

from flexllm_allo import grid, params, template
from flexllm_allo.ir.types import float32, int32

H, T, W, S, P = params("H, T, W, S, P")  # heads, tokens, width, positions, pairs


@template(H, T, W, S, P)
def rope(X: float32[T, W], cosine: float32[S, P], sine: float32[S, P], pos: int32) -> float32[T * H, W // H]:
    """Rotate the pairs (i, i + D/2) of every head by the angle of its token's position.

    X holds T tokens of H heads side by side; row t * H + h of the result is head h of token t.
    `cosine` and `sine` are tables over positions (Hugging Face's half-split convention). Positions
    at or past S, which only padding has, are left as they are.
    """
    Y: float32[T * H, W // H]
    for t, h, i in grid(T, H, P, name="pair"):
        low: float32 = X[t, h * (W // H) + i]
        high: float32 = X[t, h * (W // H) + P + i]
        c: float32 = 1.0
        s: float32 = 0.0
        if pos + t < S:
            c = cosine[pos + t, i]
            s = sine[pos + t, i]
        Y[t * H + h, i] = low * c - high * s
        Y[t * H + h, P + i] = high * c + low * s
    return Y


@template(H, T, W)
def split_heads(X: float32[T, W]) -> float32[T * H, W // H]:
    """Row t * H + h of the result is head h of token t."""
    Y: float32[T * H, W // H]
    for t, h, d in grid(T, H, W // H, name="head"):
        Y[t * H + h, d] = X[t, h * (W // H) + d]
    return Y
