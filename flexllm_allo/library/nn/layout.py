"""Layers that only move data."""

from __future__ import annotations

from ... import Schedule, dsl, params, template

Ty, B, L, C, N, N1, N2 = params("Ty, B, L, C, N, N1, N2")


@template(Ty, B, L, C, N)
def repeat_batch3d(X: Ty[B, L, C]) -> Ty[N * B, L, C]:
    """The batch N times over."""
    Y: Ty[N * B, L, C]
    for n, b, l, c in dsl.grid(N, B, L, C, name="repeat"):
        Y[n * B + b, l, c] = X[b, l, c]
    return Y


@template(Ty, B, N1, N2, C)
def concat(X1: Ty[B, N1, C], X2: Ty[B, N2, C]) -> Ty[B, N1 + N2, C]:
    """X2 behind X1 along the middle axis."""
    Y: Ty[B, N1 + N2, C]
    for b in dsl.grid(B, name="concat"):
        for n1, c1 in dsl.grid(N1, C, name="first"):
            Y[b, n1, c1] = X1[b, n1, c1]
        for n2, c2 in dsl.grid(N2, C, name="second"):
            Y[b, N1 + n2, c2] = X2[b, n2, c2]
    return Y


def schedule_repeat_batch3d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("c")
    return s


def schedule_concat(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("c1")
    s.pipeline("c2")
    return s


SCHEDULES = {repeat_batch3d: schedule_repeat_batch3d, concat: schedule_concat}
