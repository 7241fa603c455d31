"""Linear layers: integer (or float) matrix products with scales per token and per output channel.

Numbers in float come as *terms*, float32 values per token and per output channel: the scale first,
then what is added in float. A product of dequantized numbers is

    Y[t, n] = (sum_k X[t, k] W[n, k]) * x_terms[t, 0] * w_terms[n, 0] + sum_j>0 x_terms[t, j] * w_terms[n, j]

which covers the offset of asymmetric activations (times the sum of a row of weights), input channels
that stay in float, and low-rank corrections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flexllm_allo import Bundle, Self, Traits, grid, meta_else, meta_for, meta_if, params, template
from flexllm_allo.ir.types import DType, float16, float32, int32

F, Tx, Tw, T, N, K, P = params("F, Tx, Tw, T, N, K, P")


@dataclass(frozen=True)
class Linear(Traits):
    """How the weights of linear layers are stored, and the kernel that multiplies them.

    Attributes:
        dtype: of a code.
        linear: ``linear(x, x_terms, *weight) -> float32[T, N]``.
        Weight: the arrays of a weight [N, K].
        extra: terms per output channel after the scales, as many as a token has after its own.
        group: neighbours in a row that share a scale (and a zero point); 0 for the whole row.
        index: type of a position of sparse weights.
    """

    dtype: DType
    linear: Callable[..., Any]
    Weight: type[Bundle]
    extra: int = 0
    group: int = 0
    index: DType | None = None

    def groups(self, size: int) -> int:
        """Groups in a row of `size` weights."""
        return size // self.group if self.group else 1

    def terms(self, size: int) -> int:
        """Terms of an output channel."""
        return self.groups(size) + self.extra


class ChannelWeight(Bundle, of="N, K"):
    """Codes [out, in] as in a checkpoint, with one scale per output channel."""

    codes: Self.dtype[N, K]
    terms: float32[N, 1 + Self.extra]


class NoWeight(Bundle, of="N, K"):
    """A layer that the model does not have."""


def accumulator(x: DType, w: DType) -> DType:
    """The type that sums products of `x` and `w`: float32 for floats, else int32.

    int32 holds 2**17 products of int8 by int8, more than any layer's input width.
    """
    return float32 if x.is_float or w.is_float else int32


@template(Tx, Tw, T, N, K)
def linear(X: Tx[T, K], x_terms: float32[T, P], W: Tw[N, K], w_terms: float32[N, P]) -> float32[T, N]:
    """The product of the module's formula; the terms are added in order."""
    acc: accumulator(Tx, Tw)[T, N] = 0
    for t, n, k in grid(T, N, K, name="mac"):
        with meta_if(Tx == float16):  # whose product with an integer would be rounded to half precision
            x: float32 = X[t, k]
            acc[t, n] += x * W[n, k]
        with meta_else():
            acc[t, n] += X[t, k] * W[n, k]
    Y: float32[T, N]
    for t, n in grid(T, N, name="scale"):
        y: float32 = acc[t, n] * (x_terms[t, 0] * w_terms[n, 0])
        with meta_for(1, P) as j:
            y += x_terms[t, j] * w_terms[n, j]
        Y[t, n] = y
    return Y


@template(T, N)
def residual(X: float32[T, N], Y: float32[T, N]) -> float32[T, N]:
    """X + Y."""
    Z: float32[T, N]
    for t, i in grid(T, N, name="add"):
        Z[t, i] = X[t, i] + Y[t, i]
    return Z


@template(F)
def linear_add(X: Tx[T, K], x_terms: float32[T, P], w: F.Weight[N, K], skip: float32[T, N]) -> float32[T, N]:
    """A linear layer of any storage plus the residual stream that goes around it."""
    Y = F.linear(X, x_terms, w)
    Z = residual(skip, Y)
    return Z
