"""Layer and batch normalization."""

from __future__ import annotations

from ... import Schedule, dsl, params, template

Ty, B, C, H, W, L, D = params("Ty, B, C, H, W, L, D")


@template(Ty, L, D)
def layer_norm(X: Ty[L, D], gamma: Ty[D], beta: Ty[D]) -> Ty[L, D]:
    """(x - mean) / sqrt(var + 1e-5) * gamma + beta per row.

    One pass sums x - p and its square with p the row's first element: var = E[(x-p)^2] - E[x-p]^2
    does not cancel when the mean is large against the deviation.
    """
    Y: Ty[L, D]
    mean: Ty[L] = 0
    square: Ty[L] = 0
    scale: Ty[L]
    for i, j in dsl.grid(L, D, name="sum"):
        d: Ty = X[i, j] - X[i, 0]
        mean[i] += d
        square[i] += d * d
    for i in dsl.grid(L, name="mean_var"):
        m: Ty = mean[i] / D
        var: Ty = square[i] / D - m * m
        scale[i] = 1.0 / dsl.sqrt(max(var, 0.0) + 1e-5)
        mean[i] = m
    for i, j in dsl.grid(L, D, name="norm"):
        Y[i, j] = (X[i, j] - X[i, 0] - mean[i]) * scale[i] * gamma[j] + beta[j]
    return Y


@template(Ty, B, C, H, W)
def batchnorm2d(
    X: Ty[B, C, H, W], gamma: Ty[C], beta: Ty[C], eps: Ty, mean: Ty[C], var: Ty[C]
) -> Ty[B, C, H, W]:
    """(x - mean) / sqrt(var + eps) * gamma + beta per channel, with given mean and variance."""
    Y: Ty[B, C, H, W]
    for b, c, h, w in dsl.grid(B, C, H, W, name="norm"):
        Y[b, c, h, w] = (X[b, c, h, w] - mean[c]) / dsl.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return Y


@template(Ty, B, C)
def batchnorm1d_2d(X: Ty[B, C], gamma: Ty[C], beta: Ty[C], eps: Ty, mean: Ty[C], var: Ty[C]) -> Ty[B, C]:
    """`batchnorm2d` of vectors."""
    Y: Ty[B, C]
    for b, c in dsl.grid(B, C, name="norm"):
        Y[b, c] = (X[b, c] - mean[c]) / dsl.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return Y


@template(Ty, B, C, L)
def batchnorm1d_3d(
    X: Ty[B, C, L], gamma: Ty[C], beta: Ty[C], eps: Ty, mean: Ty[C], var: Ty[C]
) -> Ty[B, C, L]:
    """`batchnorm2d` of sequences."""
    Y: Ty[B, C, L]
    for b, c, l in dsl.grid(B, C, L, name="norm"):
        Y[b, c, l] = (X[b, c, l] - mean[c]) / dsl.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return Y


def schedule_layernorm(s: Schedule) -> Schedule:
    """One element per cycle in both passes, one row's statistics per cycle between them."""
    bands = s.get_loops()
    s.pipeline(bands["sum"]["j"])
    s.pipeline(bands["mean_var"]["i"])
    s.pipeline(bands["norm"]["j"])
    return s


def schedule_batchnorm2d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("w")
    return s


def schedule_batchnorm1d_2d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("c")
    return s


def schedule_batchnorm1d_3d(s: Schedule) -> Schedule:
    """One element per cycle."""
    s.pipeline("l")
    return s


SCHEDULES = {
    layer_norm: schedule_layernorm,
    batchnorm2d: schedule_batchnorm2d,
    batchnorm1d_2d: schedule_batchnorm1d_2d,
    batchnorm1d_3d: schedule_batchnorm1d_3d,
}
