"""GPTQ: columns are rounded one by one, and the columns not yet rounded make up for the error.

Frantar et al. 2022 (GPTQ) and 2023 (SparseGPT), whose update this is when weights are pruned as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import IntFormat, WeightFormat
from ..passes import Gptq
from ..weight import FloatArray, QuantizedWeight
from .rounding import Grid, Mask, check_weight, fit_grid, keep_largest, legal_mask, reduced, store
from .rtn import round_half_away

Hessian = NDArray[np.float64]


def gptq(
    weight: FloatArray,
    hessian: Hessian,
    fmt: WeightFormat,
    options: Gptq,
    mask: Mask | None = None,
    bits: int | None = None,
) -> QuantizedWeight:
    """Codes of a weight matrix W such that W x changes little for the inputs x that were seen.

    With H = sum x x^T, damped, and U the upper Cholesky factor of its inverse (H^-1 = U^T U), column i is
    rounded to q_i and every later column j changes by -(w_i - q_i) / U_ii * U_ij. Scales are searched as in
    `rounding.fit_grid`; those of a group when its first column is reached, from the weights as changed by
    then. An input that was never seen (zero diagonal) is rounded to nearest.

    Args:
        weight: float32 [N, K].
        hessian: float64 [K, K], sum of x x^T over calibration inputs; its scale does not matter.
        fmt: an integer format; a sparse one without a mask keeps the weights of largest w^2 / U_ii^2 of each
            group, as they are when the group is reached.
        options: columns per lazy update, damping, order.
        mask: bool [N, K], the weights that are kept.
        bits: fewer bits than the format has, in the same container.

    Raises:
        QuantError: FX606 as `rounding.round_weight`; FX604 for a progressive format, or `act_order` with a
            sparse format and no mask; FX607 for a Hessian that is not finite.
    """
    check_weight(weight, fmt)
    _check(fmt, options, mask)
    assert isinstance(fmt, IntFormat)
    if not np.isfinite(hessian).all():
        raise QuantError(
            "FX607", "the activations of the calibration text overflow", hint="use another text or recipe"
        )
    if mask is not None:
        legal_mask(weight, fmt, mask)
    columns = _Columns(weight, hessian, fmt, options, mask, bits)
    columns.round_all()
    return columns.result()


def _check(fmt: WeightFormat, options: Gptq, mask: Mask | None) -> None:
    if not isinstance(fmt, IntFormat):
        raise QuantError(
            "FX604", "GPTQ does not know progressive formats", hint="use Rtn, or a format with one level"
        )
    if options.act_order and fmt.sparsity and mask is None:
        raise QuantError(
            "FX604",
            f"act_order takes the groups of {fmt.sparsity.m} apart among which GPTQ would prune",
            hint="put Prune before Gptq, or leave act_order out",
        )


class _Columns:
    """The state of one run. Matrices are transposed, [K, N], so that a column of weights is contiguous."""

    def __init__(
        self,
        weight: FloatArray,
        hessian: Hessian,
        fmt: IntFormat,
        options: Gptq,
        mask: Mask | None,
        bits: int | None,
    ) -> None:
        width = weight.shape[1]
        diagonal = np.diag(hessian)
        self.order: NDArray[np.intp] = np.arange(width, dtype=np.intp)
        if options.act_order:
            self.order = np.argsort(-diagonal, kind="stable")
        self.fmt, self.bits, self.block = fmt, bits, max(1, options.block)
        self.group = fmt.group if fmt.granularity == "per_group" else width
        self.upper = inverse_factor(hessian[np.ix_(self.order, self.order)], options.damping)
        self.left = np.ascontiguousarray(weight.T[self.order])  # what is still to be rounded
        self.choose = fmt.sparsity if mask is None else None
        self.mask = np.ones(weight.shape, np.bool_) if mask is None else mask
        self.codes: NDArray[Any] = np.empty(self.left.shape, np.int8 if fmt.signed else np.uint8)
        # Groups are fitted on the way, except under act_order, which takes them apart.
        self.refit = fmt.granularity == "per_group" and not options.act_order
        self.grid = self._empty_grid() if self.refit else fit_grid(self._kept(weight), fmt, bits)

    def round_all(self) -> None:
        """Blocks of columns; the columns behind a block are changed by one matrix product."""
        for begin, end in self._blocks():
            if self.refit and begin % self.group == 0:
                self._fit(begin)
            errors = np.empty((end - begin, self.left.shape[1]), np.float32)
            for i in range(begin, end):
                if self.choose and i % self.choose.m == 0:
                    self._prune(i, i + self.choose.m)
                errors[i - begin] = self._round_column(i)
                self.left[i + 1 : end] -= np.multiply.outer(self.upper[i, i + 1 : end], errors[i - begin])
            self.left[end:] -= self.upper[begin:end, end:].T @ errors

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Blocks that do not straddle groups, so that a group is up to date when it is reached."""
        step = self.block
        if self.choose:
            step = -(-step // self.choose.m) * self.choose.m
        for first in range(0, len(self.left), self.group):
            last = first + self.group
            for begin in range(first, last, step):
                yield begin, min(begin + step, last)

    def _round_column(self, i: int) -> FloatArray:
        """Codes of one column; the error [N], in units of the diagonal, that later columns take over."""
        column, origin = self.left[i], int(self.order[i])
        kept = np.where(self.mask[:, origin], column, np.float32(0))
        scale, zero = (a[:, origin // self.group] for a in (self.grid.scale, self.grid.zero))
        steps: FloatArray = np.divide(kept, scale, dtype=np.float32)
        codes = np.clip(round_half_away(steps) + zero, self.grid.low, self.grid.high)
        self.codes[i] = codes
        return (column - (codes - zero) * scale) / self.upper[i, i]

    def _fit(self, begin: int) -> None:
        """Scales of the group that begins here, from its weights as they are now."""
        part = slice(begin, begin + self.group)
        fitted = fit_grid(self._kept(np.ascontiguousarray(self.left[part].T), part), self.fmt, self.bits)
        self.grid.scale[:, begin // self.group] = fitted.scale[:, 0]
        self.grid.zero[:, begin // self.group] = fitted.zero[:, 0]

    def _kept(self, weight: FloatArray, part: slice = slice(None)) -> FloatArray:
        """Weights [N, columns] with 0 for those that are pruned, or would be if it were decided now."""
        mask = keep_largest(self._score(part), self.choose) if self.choose else self.mask[:, part]
        return np.where(mask, weight, np.float32(0))

    def _empty_grid(self) -> Grid:
        inner = reduced(self.fmt, self.bits)
        shape = self.left.shape[1], self.fmt.groups(len(self.left))
        return Grid(np.ones(shape, np.float32), np.zeros(shape, np.float32), inner.low, inner.high)

    def _prune(self, begin: int, end: int) -> None:
        part = slice(begin, end)
        assert self.choose is not None
        self.mask[:, part] = keep_largest(self._score(part), self.choose)

    def _score(self, part: slice) -> FloatArray:
        """w^2 / U_ii^2 [N, columns]: what leaving a weight out would cost."""
        diagonal = np.diagonal(self.upper)[part, None]
        return np.square(self.left[part] / diagonal).T

    def result(self) -> QuantizedWeight:
        """The codes in the order of the inputs."""
        codes = np.empty(self.codes.shape[::-1], self.codes.dtype)
        codes[:, self.order] = self.codes.T
        return store(self.grid, codes, self.fmt, self.mask if self.fmt.sparsity else None)


def inverse_factor(hessian: Hessian, damping: float) -> FloatArray:
    """The upper triangle U, float32 [K, K], with U^T U the inverse of the damped Hessian.

    `damping` times the mean of the diagonal is added to the diagonal, ten times more as often as it takes to
    make the matrix positive definite. Inputs that never were anything but 0 are uncoupled from the others.
    """
    h = hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", h)
    mean = float(diagonal.mean()) or 1.0
    diagonal[diagonal == 0] = mean
    step = max(damping, 1e-8) * mean
    diagonal += step if damping else 0.0
    while True:
        try:
            # H reversed is L L^T, so H is R R^T with R = L reversed, which is upper, and U = R^-1.
            reverse = np.linalg.cholesky(h[::-1, ::-1])
        except np.linalg.LinAlgError:
            diagonal += 9 * step
            step *= 10
        else:
            return _invert_upper(reverse[::-1, ::-1]).astype(np.float32)


def _invert_upper(r: NDArray[Any]) -> NDArray[Any]:
    """The inverse of an upper triangle, by halves: most of it is matrix products."""
    size = len(r)
    if size <= 64:
        return np.triu(np.linalg.inv(r))
    half = size // 2
    first, last = _invert_upper(r[:half, :half]), _invert_upper(r[half:, half:])
    inverse = np.zeros_like(r)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[:half, half:] = -first @ (r[:half, half:] @ last)
    return inverse
