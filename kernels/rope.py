"""Rotary position embedding, and the split of a projection into heads."""

from __future__ import annotations

from flexllm_allo import Bundle, grid, params, template
from flexllm_allo.ir.types import float32, int32

H, T, W, S, P = params("H, T, W, S, P")  # heads, tokens, width, positions, pairs


class RotaryTables(Bundle):
    """What all layers share: the rest of a norm, and angles by position."""

    eps: float32
    cosine: float32[S, P]
    sine: float32[S, P]


@template(T, S, P)
def angles(cosine: float32[S, P], sine: float32[S, P], pos: int32) -> (float32[T, P], float32[T, P]):
    """Rows pos .. pos + T - 1 of tables over positions; those past S, which only padding has, turn by 0."""
    c: float32[T, P] = 1.0
    s: float32[T, P] = 0.0
    for t in range(T, name="token"):
        if pos + t < S:
            for i in range(P, name="pair"):
                c[t, i] = cosine[pos + t, i]
                s[t, i] = sine[pos + t, i]
    return c, s


@template(H, T, W, P)
def rope(X: float32[T, W], cosine: float32[T, P], sine: float32[T, P]) -> float32[T * H, W // H]:
    """Rotate the pairs (i, i + D/2) of every head by the angle of its token's position.

    X holds T tokens of H heads side by side; row t * H + h of the result is head h of token t.
    `cosine` and `sine` are those of the tokens' `angles` (Hugging Face's half-split convention).
    """
    Y: float32[T * H, W // H]
    for t, h, i in grid(T, H, P, name="pair"):
        low: float32 = X[t, h * (W // H) + i]
        high: float32 = X[t, h * (W // H) + P + i]
        Y[t * H + h, i] = low * cosine[t, i] - high * sine[t, i]
        Y[t * H + h, P + i] = high * cosine[t, i] + low * sine[t, i]
    return Y


@template(H, T, W)
def split_heads(X: float32[T, W]) -> float32[T * H, W // H]:
    """Row t * H + h of the result is head h of token t."""
    Y: float32[T * H, W // H]
    for t, h, d in grid(T, H, W // H, name="head"):
        Y[t * H + h, d] = X[t, h * (W // H) + d]
    return Y
