"""Linear layers: integer (or float) matrix products with scales per token and per output channel."""

from __future__ import annotations

from flexllm_allo import grid, params, template
from flexllm_allo.ir.types import DType, float32, int32

Tx, Tw, T, N, K = params("Tx, Tw, T, N, K")


def accumulator(x: DType, w: DType) -> DType:
    """The type that sums products of `x` and `w`: float32 for floats, else int32.

    int32 holds 2**17 products of int8 by int8, more than any layer's input width.
    """
    return float32 if x.is_float or w.is_float else int32


@template(Tx, Tw, T, N, K)
def linear(X: Tx[T, K], x_scale: float32[T], W: Tw[N, K], w_scale: float32[N]) -> float32[T, N]:
    """Y[t, n] = (sum_k X[t, k] W[n, k]) * (x_scale[t] * w_scale[n]); W is [out, in] as in a checkpoint."""
    acc: accumulator(Tx, Tw)[T, N] = 0
    for t, n, k in grid(T, N, K, name="mac"):
        acc[t, n] += X[t, k] * W[n, k]
    Y: float32[T, N]
    for t, n in grid(T, N, name="scale"):
        Y[t, n] = acc[t, n] * (x_scale[t] * w_scale[n])
    return Y


@template(T, N)
def residual(X: float32[T, N], Y: float32[T, N]) -> float32[T, N]:
    """X + Y."""
    Z: float32[T, N]
    for t, i in grid(T, N, name="add"):
        Z[t, i] = X[t, i] + Y[t, i]
    return Z


@template(Tx, Tw, T, N, K)
def linear_add(
    X: Tx[T, K], x_scale: float32[T], W: Tw[N, K], w_scale: float32[N], skip: float32[T, N]
) -> float32[T, N]:
    """`linear` plus the residual stream that goes around it."""
    Y = linear(X, x_scale, W, w_scale)
    Z = residual(skip, Y)
    return Z
