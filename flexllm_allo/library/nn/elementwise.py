"""Elementwise layers."""

from __future__ import annotations

from ... import Schedule, dsl, params, template

Ty, H, W, N, L, C, D = params("Ty, H, W, N, L, C, D")


@template(Ty, H, W)
def relu2d(X: Ty[H, W]) -> Ty[H, W]:
    """max(0, x)."""
    Y: Ty[H, W]
    for h, w in dsl.grid(H, W, name="relu"):
        Y[h, w] = max(0, X[h, w])
    return Y


@template(Ty, N, L, C)
def relu3d(X: Ty[N, L, C]) -> Ty[N, L, C]:
    """max(0, x)."""
    Y: Ty[N, L, C]
    for n, l, c in dsl.grid(N, L, C, name="relu"):
        Y[n, l, c] = max(0, X[n, l, c])
    return Y


@template(Ty, N, C, H, W)
def relu4d(X: Ty[N, C, H, W]) -> Ty[N, C, H, W]:
    """max(0, x)."""
    Y: Ty[N, C, H, W]
    for n, c, h, w in dsl.grid(N, C, H, W, name="relu"):
        Y[n, c, h, w] = max(0, X[n, c, h, w])
    return Y


@template(Ty, L, D)
def GeLU(X: Ty[L, D]) -> Ty[L, D]:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks, Gimpel: GELUs, 2016)."""
    Y: Ty[L, D]
    for i, j in dsl.grid(L, D, name="gelu"):
        x: Ty = X[i, j]
        Y[i, j] = 0.5 * x * (1.0 + dsl.tanh(0.797885 * (x + 0.044715 * x * x * x)))
    return Y


@template(Ty, L, D)
def residual_add(X1: Ty[L, D], X2: Ty[L, D]) -> Ty[L, D]:
    """X1 + X2."""
    Y: Ty[L, D]
    for i, j in dsl.grid(L, D, name="residual"):
        Y[i, j] = X1[i, j] + X2[i, j]
    return Y


@template(Ty, L, D)
def modulate_fused(X: Ty[L, D], scale: Ty[D], shift: Ty[D]) -> Ty[L, D]:
    """x (1 + scale) + shift per channel (adaptive layer norm: Peebles, Xie: DiT, 2023)."""
    Y: Ty[L, D]
    for i, j in dsl.grid(L, D, name="m_fused"):
        Y[i, j] = X[i, j] * (1 + scale[j]) + shift[j]
    return Y


def schedule_relu2d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("w")
    return s


def schedule_relu3d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("c")
    return s


def schedule_relu4d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("w")
    return s


def schedule_gelu(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("j")
    return s


def schedule_modulate_fused(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("j")
    return s


SCHEDULES = {
    relu2d: schedule_relu2d,
    relu3d: schedule_relu3d,
    relu4d: schedule_relu4d,
    GeLU: schedule_gelu,
    modulate_fused: schedule_modulate_fused,
}
