"""Quantization of activations: codes, and float terms per row (the scale, then what is added in float).

Every kernel takes an `Activation` as its template argument, which says the type of the codes. Each
element of X is read once, in order; codes are rounded half away from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flexllm_allo import Bundle, Self, Traits, abs, params, round, template
from flexllm_allo.ir.types import DType, float32, int32

A, R, K, C, H, U, P = params("A, R, K, C, H, U, P")


class NoSite(Bundle, of="K"):
    """Nothing beside the activations is needed."""


class OutlierSite(Bundle, of="K"):
    """Input channels that stay in float."""

    outliers: int32[Self.outliers]


class LowRankSite(Bundle, of="K"):
    """The input side of a low-rank correction of the weights."""

    low_rank: float32[Self.rank, K]


class MixedSite(Bundle, of="K"):
    """Both."""

    outliers: int32[Self.outliers]
    low_rank: float32[Self.rank, K]


@dataclass(frozen=True)
class Activation(Traits):
    """How the input of a linear layer becomes codes.

    Attributes:
        dtype: of a code.
        quantize: ``quantize[A](X, *site) -> (A.dtype[R, K], float32[R, A.terms])``.
        Site: the arrays it takes beside the activations.
        offset: whether a row has an offset, its second term.
        outliers: input channels that stay in float, each a term.
        rank: of the low-rank correction, each direction a term.
        biased: the weights have biases, so the last term is 1.
        inner: the rule for what is left when a kernel does more than quantize.
    """

    dtype: DType
    quantize: Callable[..., Any]
    Site: type[Bundle] = NoSite
    offset: bool = False
    outliers: int = 0
    rank: int = 0
    biased: bool = False
    inner: Activation | None = None

    @property
    def terms(self) -> int:
        """Float terms of a row."""
        return 1 + self.offset + self.outliers + self.rank + self.biased


@template(A, R, K)
def keep(X: float32[R, K]) -> (A.dtype[R, K], float32[R, 1]):
    """The values themselves (rounded to half precision, if that is the type), and scales of 1."""
    Q: A.dtype[R, K]
    terms: float32[R, 1]
    for r in range(R, name="row"):
        for k_copy in range(K, name="copy"):
            Q[r, k_copy] = X[r, k_copy]
        terms[r, 0] = 1.0
    return Q, terms


@template(A, R, K)
def quantize(X: float32[R, K]) -> (A.dtype[R, K], float32[R, 1]):
    """Symmetric codes round(X / scale), scale = max |X| / (2**(bits-1) - 1) per row; 1 for a row of zeros."""
    Q: A.dtype[R, K]
    terms: float32[R, 1]
    for r in range(R, name="row"):
        row: float32[K]
        peak: float32 = 0.0
        for k_peak in range(K, name="peak"):
            x: float32 = X[r, k_peak]
            row[k_peak] = x
            peak = max(peak, abs(x))
        step: float32 = peak / (2 ** (A.dtype.bits - 1) - 1)
        if step == 0.0:
            step = 1.0
        terms[r, 0] = step
        for k_code in range(K, name="code"):
            Q[r, k_code] = int(round(row[k_code] / step))
    return Q, terms


@template(A, R, K)
def quantize_minimum(X: float32[R, K]) -> (A.dtype[R, K], float32[R, 2]):
    """FlexLLM's asymmetric rule: codes round((X - min) / scale), scale = (max - min) / (2**bits - 1).

    The minimum stays a float, the second term of a row; no code needs clamping. X = code * scale + min.
    """
    Q: A.dtype[R, K]
    terms: float32[R, 2]
    for r in range(R, name="row"):
        row: float32[K]
        low: float32 = 3.4028234e38
        high: float32 = -3.4028234e38
        for k_peak in range(K, name="peak"):
            x: float32 = X[r, k_peak]
            row[k_peak] = x
            low = min(low, x)
            high = max(high, x)
        step: float32 = (high - low) / (2**A.dtype.bits - 1)
        if step == 0.0:
            step = 1.0
        terms[r, 0] = step
        terms[r, 1] = low
        for k_code in range(K, name="code"):
            Q[r, k_code] = int(round((row[k_code] - low) / step))
    return Q, terms


@template(A, R, K)
def quantize_zero(X: float32[R, K]) -> (A.dtype[R, K], float32[R, 2]):
    """SpinQuant's asymmetric rule: a range that contains 0, an integer zero point, clamped codes.

    Codes round(X / scale) + zero, zero = round(-min / scale). The second term is the offset -zero * scale.
    """
    Q: A.dtype[R, K]
    terms: float32[R, 2]
    for r in range(R, name="row"):
        row: float32[K]
        low: float32 = 0.0
        high: float32 = 0.0
        for k_peak in range(K, name="peak"):
            x: float32 = X[r, k_peak]
            row[k_peak] = x
            low = min(low, x)
            high = max(high, x)
        step: float32 = (high - low) / (2**A.dtype.bits - 1)
        if step == 0.0:
            step = 1.0
        zero: float32 = round(-low / step)
        terms[r, 0] = step
        terms[r, 1] = -zero * step
        for k_code in range(K, name="code"):
            code: float32 = round(row[k_code] / step) + zero
            code = min(max(code, 0.0), 2.0**A.dtype.bits - 1.0)
            Q[r, k_code] = int(code)
    return Q, terms


@template(A, R, K, H)
def quantize_static(X: float32[R, K], scale: float32[H]) -> A.dtype[R, K]:
    """Codes round(X / scale) clamped to the type; row r belongs to head r mod H, whose scale is fixed."""
    Q: A.dtype[R, K]
    for r in range(R, name="row"):
        for k_code in range(K, name="code"):
            code: float32 = round(X[r, k_code] / scale[r % H])
            code = min(max(code, -(2.0 ** (A.dtype.bits - 1))), 2.0 ** (A.dtype.bits - 1) - 1.0)
            Q[r, k_code] = int(code)
    return Q


# --------------------------------------------------------------------- channels and directions in float


@template(R, K, C)
def take_columns(X: float32[R, K], columns: int32[C]) -> (float32[R, K], float32[R, C]):
    """X with those columns set to zero, and the columns."""
    rest: float32[R, K]
    taken: float32[R, C]
    for r in range(R, name="row"):
        for k_rest in range(K, name="rest"):
            rest[r, k_rest] = X[r, k_rest]
        for c in range(C, name="column"):
            taken[r, c] = rest[r, columns[c]]
        for c_zero in range(C, name="zero"):
            rest[r, columns[c_zero]] = 0.0
    return rest, taken


@template(R, K, U)
def project(X: float32[R, K], B: float32[U, K]) -> float32[R, U]:
    """X B^T, summed in index order."""
    Y: float32[R, U]
    for r in range(R, name="row"):
        for u in range(U, name="direction"):
            total: float32 = 0.0
            for k_dot in range(K, name="dot"):
                total += X[r, k_dot] * B[u, k_dot]
            Y[r, u] = total
    return Y


@template(R, P, C)
def join_terms(terms: float32[R, P], more: float32[R, C]) -> float32[R, P + C]:
    """Two lists of terms, one behind the other."""
    joined: float32[R, P + C]
    for r in range(R, name="row"):
        for p in range(P, name="term"):
            joined[r, p] = terms[r, p]
        for c in range(C, name="more"):
            joined[r, P + c] = more[r, c]
    return joined


@template(R, P)
def append_one(terms: float32[R, P]) -> float32[R, P + 1]:
    """The terms, and 1 for what is added to every row."""
    joined: float32[R, P + 1]
    for r in range(R, name="row"):
        for p in range(P, name="term"):
            joined[r, p] = terms[r, p]
        joined[r, P] = 1.0
    return joined


@template(A)
def quantize_biased(X: float32[R, K], site: A.Site[K]) -> (A.dtype[R, K], float32[R, A.terms]):
    """Codes for weights with biases: a bias is a term of the output channel that meets a 1."""
    codes, terms = A.inner.quantize[A.inner](X, site)
    joined = append_one(terms)
    return codes, joined


@template(A, R, K)
def quantize_outliers(X: float32[R, K], outliers: int32[C]) -> (A.dtype[R, K], float32[R, A.terms]):
    """LLM.int8: the outlier channels stay in float, the others are quantized without them."""
    rest, taken = take_columns(X, outliers)
    codes, terms = A.inner.quantize[A.inner](rest)
    joined = join_terms(terms, taken)
    return codes, joined


@template(A, R, K)
def quantize_low_rank(X: float32[R, K], low_rank: float32[U, K]) -> (A.dtype[R, K], float32[R, A.terms]):
    """Codes, and the projections that a low-rank correction of the weights needs."""
    codes, terms = A.inner.quantize[A.inner](X)
    projected = project(X, low_rank)
    joined = join_terms(terms, projected)
    return codes, joined


@template(A, R, K)
def quantize_mixed(
    X: float32[R, K], outliers: int32[C], low_rank: float32[U, K]
) -> (A.dtype[R, K], float32[R, A.terms]):
    """Both: terms of the quantizer, then outlier channels, then projections."""
    codes, terms = A.inner.quantize[A.inner](X, outliers)
    projected = project(X, low_rank)
    joined = join_terms(terms, projected)
    return codes, joined
