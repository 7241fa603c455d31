"""Linear layers X W^T + b, a row of accumulators at a time."""

from __future__ import annotations

from ... import Schedule, dsl, params, template

TyX, TyW, TyO, M, N, K, B, L, D = params("TyX, TyW, TyO, M, N, K, B, L, D")


@template(TyX, TyW, TyO, M, N, K)
def linear2d(X: TyX[M, K], W: TyW[N, K], b: TyO[N]) -> TyO[M, N]:
    """Y[i, j] = sum_k X[i, k] W[j, k] + b[j]; the reduction runs outside the row."""
    Y: TyO[M, N]
    row: TyO[N]
    for i in dsl.grid(M, name="linear"):
        for j_init in dsl.grid(N, name="init"):
            row[j_init] = 0
        for k in dsl.reduction(K, name="mac"):
            x: TyX = X[i, k]
            for j in dsl.grid(N):
                row[j] += x * W[j, k]
        for j_back in dsl.grid(N, name="back"):
            Y[i, j_back] = row[j_back] + b[j_back]
    return Y


@template(TyX, TyW, TyO, B, L, D, M)
def linear3d(X: TyX[B, L, D], W: TyW[M, D], bias: TyO[M]) -> TyO[B, L, M]:
    """`linear2d` of every matrix of a batch."""
    Y: TyO[B, L, M]
    row: TyO[M]
    for b, i in dsl.grid(B, L, name="linear"):
        for j_init in dsl.grid(M, name="init"):
            row[j_init] = 0
        for k in dsl.reduction(D, name="mac"):
            x: TyX = X[b, i, k]
            for j in dsl.grid(M):
                row[j] += x * W[j, k]
        for j_back in dsl.grid(M, name="back"):
            Y[b, i, j_back] = row[j_back] + bias[j_back]
    return Y


def schedule_linear2d(s: Schedule) -> Schedule:
    """One output column per cycle: accumulators of different columns do not depend on each other."""
    for loop in ("j_init", "j", "j_back"):
        s.pipeline(loop)
    return s


def schedule_linear3d(s: Schedule) -> Schedule:
    """As `schedule_linear2d`."""
    return schedule_linear2d(s)


SCHEDULES = {linear2d: schedule_linear2d, linear3d: schedule_linear3d}
