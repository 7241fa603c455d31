"""Nested bit planes: one store of weights that can be read at several precisions (Any-Precision, PMPD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import SCALE_BITS, NestedFormat
from .packing import pack_codes, unpack_codes

FloatArray = NDArray[np.float32]
Sums = NDArray[np.float64]
Places = NDArray[np.intp]

_BLOCK = 1 << 16  # weights per step: a few float64 arrays of this size are the peak
_LLOYD_STEPS = 20


@dataclass(frozen=True)
class NestedWeight:
    """A matrix [N, K] in bit planes.

    Attributes:
        format: the precisions.
        width: K.
        planes: uint8 [bits, N, ceil(K / 8)], the highest bit of the codes first; weight k of a row is
            bit k % 8 of byte k // 8.
        centroids: per precision m float32 [N, 2**m], ascending in a row.
    """

    format: NestedFormat
    width: int
    planes: NDArray[np.uint8]
    centroids: Mapping[int, FloatArray]

    def codes(self, precision: int | None = None) -> NDArray[np.uint8]:
        """The codes [N, K] of `precision` bits (all, by default), from the first planes alone.

        Raises:
            QuantError: FX604, the weight has no such precision.
        """
        precision = self._checked(precision)
        codes = np.zeros((self.planes.shape[1], self.width), np.uint8)
        for plane in self.planes[:precision]:
            codes <<= np.uint8(1)
            codes |= unpack_codes(plane, 1, self.width, signed=False).view(np.uint8)
        return codes

    def dequantize(self, precision: int | None = None) -> FloatArray:
        """float32 [N, K] at `precision` bits.

        Raises:
            QuantError: FX604, the weight has no such precision.
        """
        precision = self._checked(precision)
        codes = self.codes(precision)
        return np.take_along_axis(self.centroids[precision], codes.astype(np.intp), axis=1)

    def bytes_read(self, precision: int | None = None) -> int:
        """Bytes of a pass over the matrix at `precision` bits: its planes and its centroids.

        Raises:
            QuantError: FX604, the weight has no such precision.
        """
        precision = self._checked(precision)
        centroids = self.centroids[precision].size * SCALE_BITS[self.format.scale] // 8
        return self.planes[:precision].nbytes + centroids

    def _checked(self, precision: int | None) -> int:
        precision = self.format.bits if precision is None else precision
        if precision not in self.format.precisions:
            known = ", ".join(map(str, self.format.precisions))
            raise QuantError(
                "FX604",
                f"the weight cannot be read at {precision} bits",
                hint=f"it has the precisions {known}",
            )
        return precision


def quantize_nested(weight: FloatArray, fmt: NestedFormat | None = None, name: str = "") -> NestedWeight:
    """Quantize a matrix so that every precision is a prefix of the next.

    Per row: 2**low clusters of least squared error (split in two again and again, then Lloyd's iterations);
    then every cluster is cut in two at its best place, once per further bit. The centroid is the mean of the
    cluster, so a further bit never raises the squared error, but for the rounding of the centroids to the
    type they are stored in. The source is Any-Precision LLM (ICML 2024), incremental upscaling.

    Args:
        weight: float32 [N, K].
        fmt: 4 bits, readable at 2, 3 and 4, by default.
        name: of the tensor, put before the message of an error; empty where the caller adds it.

    Raises:
        QuantError: FX606, NaN, infinity or a value beyond the type of the centroids; FX604, bad widths.
    """
    fmt = fmt or NestedFormat()
    if not 1 <= fmt.low <= fmt.bits <= 8:
        raise QuantError(
            "FX604",
            f"there are no bit planes from {fmt.low} to {fmt.bits} bits",
            hint="1 <= low <= bits <= 8",
        )
    _check_values(weight, fmt, name)
    rows, width = weight.shape
    planes = np.empty((fmt.bits, rows, -(-width // 8)), np.uint8)
    centroids = {m: np.empty((rows, 2**m), np.float32) for m in fmt.precisions}
    step = max(1, _BLOCK // max(1, width))
    for begin in range(0, rows, step):
        part = slice(begin, begin + step)
        codes, means = _cluster(weight[part], fmt)
        for m in fmt.precisions:
            centroids[m][part] = means[m]
        for i in range(fmt.bits):
            bit = codes >> np.uint8(fmt.bits - 1 - i) & np.uint8(1)
            planes[i, part] = pack_codes(bit, 1)
    if fmt.scale == "float16":
        centroids = {m: c.astype(np.float16).astype(np.float32) for m, c in centroids.items()}
    return NestedWeight(fmt, width, planes, centroids)


@dataclass(frozen=True)
class _Rows:
    """Rows in ascending order with running sums: the sum over places [a, b) is ``sums[b] - sums[a]``."""

    values: Sums  # [R, K]
    sums: Sums  # [R, K + 1]

    def means(self, edges: Places) -> Sums:
        """[R, C] means of the clusters between edges [R, C + 1]; an empty one takes the mean before it."""
        totals = np.diff(np.take_along_axis(self.sums, edges, 1), axis=1)
        counts = np.diff(edges, axis=1)
        # Rounding of the running sums may carry a mean past its neighbour, or past the values themselves.
        means = np.where(counts > 0, totals / np.maximum(counts, 1), -np.inf)
        means = np.maximum.accumulate(means, axis=1)
        return np.clip(means, self.values[:, :1], self.values[:, -1:])

    def split(self, edges: Places) -> Places:
        """Edges [R, 2 C + 1]: every cluster cut where the squared error falls most."""
        rows, width = self.values.shape
        clusters = edges.shape[1] - 1
        numbers: Places = np.tile(_places(clusters), rows)
        label = np.repeat(numbers, np.diff(edges, axis=1).reshape(-1)).reshape(rows, width)
        begin, end = np.take_along_axis(edges, label, 1), np.take_along_axis(edges, label + 1, 1)
        place = _places(width)
        left = self.sums[:, :-1] - np.take_along_axis(self.sums, begin, 1)
        right = np.take_along_axis(self.sums, end, 1) - self.sums[:, :-1]
        # Squared error falls by left**2 / n_left + right**2 / n_right, less a constant of the cluster.
        # Cutting before the first place of a cluster leaves its left half empty.
        gain: Sums = left**2 / np.maximum(place - begin, 1) + right**2 / (end - place)
        starts, present = edges[:, :-1], np.diff(edges, axis=1) > 0
        flat: Places = (starts + _places(rows)[:, None] * width)[present]
        best = np.maximum.reduceat(gain.reshape(-1), flat)
        lengths = np.diff(edges, axis=1)[present]
        hits = np.flatnonzero(gain.reshape(-1) == np.repeat(best, lengths))
        owner = np.searchsorted(flat, hits, side="right") - 1
        first = hits[np.diff(owner, prepend=-1) > 0]
        cuts = edges[:, 1:].copy()  # an empty cluster is cut at its end
        cuts[present] = first % width
        return np.concatenate([np.stack([starts, cuts], -1).reshape(rows, -1), edges[:, -1:]], axis=1)

    def refine(self, edges: Places) -> Places:
        """Lloyd's iterations: edges midway between means, until they stay."""
        for _ in range(_LLOYD_STEPS):
            means = self.means(edges)
            middle = (means[:, 1:] + means[:, :-1]) / 2
            moved = edges.copy()
            for i in range(middle.shape[1]):
                moved[:, i + 1] = (self.values < middle[:, i : i + 1]).sum(axis=1)
            if np.array_equal(moved, edges):
                break
            edges = moved
        return edges


def _places(count: int) -> Places:
    return np.arange(count, dtype=np.intp)


def _cluster(weight: FloatArray, fmt: NestedFormat) -> tuple[NDArray[np.uint8], dict[int, Sums]]:
    """Codes [R, K] and, per precision, centroids of some rows."""
    rows, width = weight.shape
    order = np.argsort(weight, axis=1, kind="stable")
    values = np.take_along_axis(weight, order, 1).astype(np.float64)
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(values, axis=1)], axis=1)
    line = _Rows(values, sums)
    edges = np.tile(np.array([0, width]), (rows, 1))
    for _ in range(fmt.low):
        edges = line.split(edges)
    edges = line.refine(edges)
    means = {fmt.low: line.means(edges)}
    for m in range(fmt.low + 1, fmt.bits + 1):
        edges = line.split(edges)
        means[m] = line.means(edges)
    ranks: NDArray[Any] = np.tile(np.arange(2**fmt.bits, dtype=np.uint8), rows)
    ranks = np.repeat(ranks, np.diff(edges, axis=1).reshape(-1)).reshape(rows, width)
    codes = np.empty((rows, width), np.uint8)
    np.put_along_axis(codes, order, ranks, 1)
    return codes, means


def _check_values(weight: FloatArray, fmt: NestedFormat, name: str) -> None:
    prefix = f"{name}: " if name else ""
    largest = np.abs(weight).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise QuantError(
            "FX606",
            f"{prefix}NaN or infinity in row {row}",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    if fmt.scale == "float16" and float(largest.max(initial=0.0)) > float(np.finfo(np.float16).max):
        raise QuantError(
            "FX606",
            f"{prefix}{float(largest.max()):.4g} is beyond float16, the type of the centroids",
            hint="choose a format with float32 centroids",
        )
