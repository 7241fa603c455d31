"""Softmax and its logarithm, row by row."""

from __future__ import annotations

from ... import Schedule, dsl, params, template

Ty, L, C, B = params("Ty, L, C, B")


@template(Ty, L, C, default={"C": "L"})
def softmax(X: Ty[L, C]) -> Ty[L, C]:
    """exp(x - max) / sum exp(x - max) per row. A matrix is square unless C or the argument says otherwise."""
    Y: Ty[L, C]
    exps: Ty[L, C]
    peak: Ty[L]
    total: Ty[L]
    for r in dsl.grid(L, name="init"):
        peak[r] = X[r, 0]
        total[r] = 0
    for i, j in dsl.grid(L, C, name="row_max"):
        peak[i] = max(peak[i], X[i, j])
    for i, j in dsl.grid(L, C, name="exp_sum"):
        e: Ty = dsl.exp(X[i, j] - peak[i])
        exps[i, j] = e
        total[i] += e
    for i, j in dsl.grid(L, C, name="update"):
        Y[i, j] = exps[i, j] / total[i]
    return Y


@template(Ty, B, C)
def log_softmax(X: Ty[B, C]) -> Ty[B, C]:
    """x - max - log sum exp(x - max) per row."""
    Y: Ty[B, C]
    peak: Ty[B]
    total: Ty[B]
    for r in dsl.grid(B, name="init"):
        peak[r] = X[r, 0]
        total[r] = 0
    for i, j in dsl.grid(B, C, name="row_max"):
        peak[i] = max(peak[i], X[i, j])
    for i, j in dsl.grid(B, C, name="exp_sum"):
        total[i] += dsl.exp(X[i, j] - peak[i])
    for i, j in dsl.grid(B, C, name="update"):
        Y[i, j] = X[i, j] - peak[i] - dsl.log(total[i])
    return Y


def schedule_softmax(s: Schedule) -> Schedule:
    """One element per cycle while summing and while dividing."""
    bands = s.get_loops()
    s.pipeline(bands["exp_sum"]["j"])
    s.pipeline(bands["update"]["j"])
    return s


def schedule_log_softmax(s: Schedule) -> Schedule:
    """As `schedule_softmax`."""
    return schedule_softmax(s)


SCHEDULES = {softmax: schedule_softmax, log_softmax: schedule_log_softmax}
