"""Weights to codes under any format: what shares a scale, how its range is searched, how codes are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import NM, IntFormat, ProgressiveFormat, WeightFormat
from ..weight import FloatArray, QuantizedWeight
from .progressive import quantize_progressive
from .rtn import round_rows, search_range

Mask = NDArray[np.bool_]


def round_weight(
    weight: FloatArray, fmt: WeightFormat, mask: Mask | None = None, bits: int | None = None
) -> QuantizedWeight:
    """A weight matrix rounded to nearest, the range of every scale searched for least squared error.

    Args:
        weight: float32 [N, K].
        fmt: how to store it. A scale of zeros is 1; a float16 scale is rounded before codes are made.
        mask: bool [N, K], the weights that are kept; the others become integer 0. A sparse format keeps the
            largest of each group without one.
        bits: fewer bits than the format has, in the same container (`Recipe.layer_bits`).

    Raises:
        QuantError: FX606 when the matrix is empty, not finite, or does not divide into groups; FX604 for a
            format that cannot be built.
    """
    check_weight(weight, fmt)
    if isinstance(fmt, ProgressiveFormat):
        if mask is not None or bits not in (None, fmt.bits):
            raise QuantError(
                "FX604",
                "a progressive format takes no mask and no reduced bits",
                hint="its protective range is made for dense 4-bit codes; use an IntFormat",
            )
        return quantize_progressive(weight, fmt)
    mask = legal_mask(weight, fmt, mask)
    if mask is not None:
        weight = np.where(mask, weight, np.float32(0))
    grid = fit_grid(weight, fmt, bits)
    return store(grid, grid.round(weight), fmt, mask)


@dataclass(frozen=True)
class Grid:
    """The values a weight may take: (code - zero) * scale for low <= code <= high.

    Attributes:
        scale: float32 [N, G], one per row and group.
        zero: float32 [N, G] holding integers; all 0 for a symmetric format.
        low: the lowest code.
        high: the highest code.
    """

    scale: FloatArray
    zero: FloatArray
    low: int
    high: int

    def round(self, weight: FloatArray) -> NDArray[Any]:
        """The nearest codes of float32 [N, K], halves away from zero: int8, uint8 without negative ones."""
        split = weight.reshape(self.scale.size, -1)
        codes = round_rows(split, self.scale.reshape(-1), self.zero.reshape(-1), self.low, self.high)
        return codes.reshape(weight.shape)


def fit_grid(weight: FloatArray, fmt: IntFormat, bits: int | None = None) -> Grid:
    """The grid of least squared error (`rtn.search_range`) for float32 [N, K], whose pruned weights are 0."""
    inner = reduced(fmt, bits)
    rows, width = weight.shape
    whole = fmt.granularity == "per_tensor"
    split = weight.reshape(1, -1) if whole else weight.reshape(rows * fmt.groups(width), -1)
    scale, found = search_range(split, inner)
    zero = np.zeros_like(scale) if found is None else found.astype(np.float32)
    shape = (rows, fmt.groups(width))
    if whole:
        return Grid(np.full(shape, scale[0]), np.full(shape, zero[0]), inner.low, inner.high)
    return Grid(scale.reshape(shape), zero.reshape(shape), inner.low, inner.high)


def store(grid: Grid, codes: NDArray[Any], fmt: IntFormat, mask: Mask | None) -> QuantizedWeight:
    """Codes [N, K] on a grid as the format keeps them; where `mask` is False the code must stand for 0."""
    index = None
    if fmt.sparsity is not None:
        assert mask is not None
        codes, index = _compress(codes, mask, fmt.sparsity)
    zero = None if fmt.zero == "none" else grid.zero.astype(np.uint8)
    return QuantizedWeight(fmt, codes, grid.scale, zero, index=index)


def check_weight(weight: FloatArray, fmt: WeightFormat | None) -> None:
    """Refuse a matrix that has no codes under the format.

    Raises:
        QuantError: FX606 when it is empty, not finite, or its rows do not divide into groups.
    """
    rows, width = weight.shape
    if not rows or not width:
        raise QuantError(
            "FX606",
            f"a weight of shape [{rows}, {width}] has no channels",
            hint="the file is damaged, or from another model",
        )
    if not np.isfinite(weight).all():
        bad = np.argwhere(~np.isfinite(weight))[0]
        raise QuantError(
            "FX606",
            f"a weight is {weight[tuple(bad)]} (row {bad[0]}, column {bad[1]}) and cannot be quantized",
            hint="the checkpoint is damaged, or overflowed when it was saved as float16",
        )
    if fmt is None:
        return
    _check_groups(width, fmt)


def _check_groups(width: int, fmt: WeightFormat) -> None:
    if isinstance(fmt, ProgressiveFormat) or fmt.granularity == "per_group":
        if fmt.group < 1 or width % fmt.group:
            sizes = [str(g) for g in (256, 128, 64, 32, 16, 8) if width % g == 0]
            raise QuantError(
                "FX606",
                f"rows of {width} weights do not divide into groups of {fmt.group}",
                hint=f"a group of {' or '.join(sizes)} fits" if sizes else "use per_channel",
            )
    sparsity = fmt.sparsity if isinstance(fmt, IntFormat) else None
    if sparsity and width // fmt.groups(width) % sparsity.m:
        raise QuantError(
            "FX606",
            f"{width // fmt.groups(width)} weights that share a scale do not divide into groups of "
            f"{sparsity.m} for {sparsity.n}:{sparsity.m} sparsity",
            hint="choose another group, or a dense format for this kind of layer (Recipe.kinds)",
        )


def legal_mask(weight: FloatArray, fmt: IntFormat, mask: Mask | None) -> Mask | None:
    """The mask a format needs: the one given, or the largest weights for a sparse format without one.

    Raises:
        QuantError: FX606 when the mask given keeps more than n in a group of m.
    """
    if fmt.sparsity is None:
        return mask
    if mask is None:
        return keep_largest(np.abs(weight), fmt.sparsity)
    kept = mask.reshape(len(mask), -1, fmt.sparsity.m).sum(axis=-1)
    if kept.max() > fmt.sparsity.n:
        row, group = np.argwhere(kept > fmt.sparsity.n)[0]
        raise QuantError(
            "FX606",
            f"the mask keeps {kept[row, group]} weights in group {group} of row {row}; the format holds "
            f"{fmt.sparsity.n} of {fmt.sparsity.m}",
            hint="make it with prune_mask",
        )
    return mask


def keep_largest(score: FloatArray, sparsity: NM) -> Mask:
    """bool [N, K]: the n of largest score in each aligned group of m; the earlier of equals."""
    rows, width = score.shape
    split = score.reshape(rows, width // sparsity.m, sparsity.m)
    order = np.argsort(-split, axis=-1, kind="stable")[..., : sparsity.n]
    mask = np.zeros(split.shape, np.bool_)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask.reshape(rows, width)


def reduced(fmt: IntFormat, bits: int | None) -> IntFormat:
    """The format whose codes are searched: with `bits` in place of its own."""
    bits = fmt.bits if bits is None else bits
    if not 2 <= bits <= min(fmt.bits, 8):
        raise QuantError(
            "FX604",
            f"{bits} bits do not fit a container of {fmt.bits}",
            hint="2 to 8 bits are supported, at most those of the format",
        )
    if fmt.zero == "float":
        raise QuantError(
            "FX604",
            "a weight has no float zero point",
            hint='use zero="integer"; a float minimum is for activations',
        )
    return replace(fmt, bits=bits)


def _compress(codes: NDArray[Any], mask: Mask, sparsity: NM) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The kept codes [N, K * n / m] in order of position, and their positions in their groups of m."""
    rows, width = codes.shape
    groups = (rows, width // sparsity.m, sparsity.m)
    # Where fewer than n are kept, the first pruned ones fill up: their codes stand for 0.
    chosen = np.argsort(~mask.reshape(groups), axis=-1, kind="stable")[..., : sparsity.n]
    chosen.sort(axis=-1)
    kept = np.take_along_axis(codes.reshape(groups), chosen, axis=-1)
    return kept.reshape(rows, -1), chosen.reshape(rows, -1).astype(np.uint8)
