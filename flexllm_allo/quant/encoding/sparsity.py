"""N:M sparsity of weights: legal masks, and the positions of what is kept as memory holds them."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import NM

Mask = NDArray[np.bool_]
Index = NDArray[np.uint8]

PATTERNS: NDArray[np.uint8] = np.array(list(combinations(range(4), 2)), np.uint8)
"""[6, 2]: the positions kept by each 3-bit code of a group of four, in the order of the positions."""
_FIRST = np.array([0, 2, 3], np.uint8)  # code of positions (a, b) = _FIRST[a] + b - 1


def check_mask(mask: Mask, nm: NM, name: str = "") -> None:
    """Refuse a mask that keeps too much.

    Args:
        mask: bool [..., K], true where a weight is kept.
        nm: the sparsity; groups of `nm.m` are aligned in the last axis.
        name: of the tensor, for the message.

    Raises:
        QuantError: FX606 with the first group that keeps more than `nm.n`, or because K is not whole groups.
    """
    kept = _groups(mask, nm, name).sum(axis=-1)
    bad = np.argwhere(kept > nm.n)
    if len(bad):
        *lead, group = (int(i) for i in bad[0])
        row = f"row {', '.join(map(str, lead))}, " if lead else ""
        raise QuantError(
            "FX606",
            f"{_prefix(name)}{row}weights {group * nm.m} to {(group + 1) * nm.m - 1}: "
            f"{int(kept[tuple(bad[0])])} kept, {nm.n}:{nm.m} sparsity keeps {nm.n} at most",
            hint=f"{len(bad)} of {kept.size} groups keep too much; prune with the mask of the format",
        )


def kept_positions(mask: Mask, nm: NM, name: str = "") -> Index:
    """Where the kept weights of each group stand, `nm.n` positions a group, ascending.

    A group that keeps fewer is filled up with its first pruned positions: their weights are 0 by the mask,
    so storing them changes nothing, and every group takes the same room.

    Args:
        mask: bool [..., K].
        nm: the sparsity.
        name: of the tensor, for the message.

    Returns:
        uint8 [..., K * n / m], each 0 .. m - 1: `QuantizedWeight.index`.

    Raises:
        QuantError: FX606, as `check_mask`.
    """
    check_mask(mask, nm, name)
    groups = _groups(mask, nm, name)
    # A stable sort puts the kept first, in order, then the pruned, in order.
    chosen = np.argsort(~groups, axis=-1, kind="stable")[..., : nm.n]
    return np.sort(chosen, axis=-1).astype(np.uint8).reshape(*mask.shape[:-1], -1)


def gather_kept(dense: NDArray[Any], index: Index, nm: NM) -> NDArray[Any]:
    """The values [..., K] at the kept positions, [..., K * n / m]."""
    *lead, width = dense.shape
    groups = dense.reshape(*lead, width // nm.m, nm.m)
    positions = index.reshape(*lead, width // nm.m, nm.n).astype(np.intp)
    return np.take_along_axis(groups, positions, -1).reshape(index.shape)


def scatter_kept(kept: NDArray[Any], index: Index, nm: NM) -> NDArray[Any]:
    """The kept values [..., K * n / m] at their places, 0 elsewhere: [..., K]."""
    *lead, width = kept.shape
    groups = width // nm.n
    dense = np.zeros((*lead, groups, nm.m), kept.dtype)
    positions = index.reshape(*lead, groups, nm.n).astype(np.intp)
    np.put_along_axis(dense, positions, kept.reshape(*lead, groups, nm.n), -1)
    return dense.reshape(*lead, groups * nm.m)


def index_code_bits(nm: NM) -> int:
    """Bits of one index code: 3 for a pattern of 2:4, else those of a position."""
    return 3 if nm.index == "3bit" else math.ceil(math.log2(nm.m))


def encode_index(index: Index, nm: NM) -> Index:
    """Positions as the codes that are stored, each of `index_code_bits` bits, to be packed.

    ``2bit`` stores the positions themselves. ``3bit`` stores one pattern a group of four: 0 .. 5 for the
    positions (0,1) (0,2) (0,3) (1,2) (1,3) (2,3), three bits for two positions in place of four.

    Args:
        index: uint8 [..., K * n / m], ascending in each group.
        nm: the sparsity.

    Returns:
        uint8 [..., K * n / m] for ``2bit``, [..., K / 4] for ``3bit``.

    Raises:
        QuantError: FX606, positions out of range, twice, or not ascending; FX604, ``3bit`` for other
            than 2:4.
    """
    pairs = index.reshape(*index.shape[:-1], -1, nm.n)
    if index.size and (int(index.max()) >= nm.m or bool((pairs[..., 1:] <= pairs[..., :-1]).any())):
        raise QuantError(
            "FX606",
            f"the positions of a {nm.n}:{nm.m} group are not ascending below {nm.m}",
            hint="kept_positions makes them of a mask",
        )
    if nm.index == "2bit":
        return index.copy()
    _check_pattern(nm)
    return _FIRST[pairs[..., 0]] + pairs[..., 1] - np.uint8(1)


def decode_index(codes: Index, nm: NM) -> Index:
    """The positions that `encode_index` encoded, uint8 [..., K * n / m].

    Raises:
        QuantError: FX608, a code that stands for no position or pattern.
    """
    if nm.index == "3bit":
        _check_pattern(nm)
    limit = len(PATTERNS) if nm.index == "3bit" else nm.m
    if codes.size and int(codes.max()) >= limit:
        raise QuantError(
            "FX608",
            f"index code {int(codes.max())} of {nm.n}:{nm.m} sparsity does not exist",
            hint=f"codes are 0 to {limit - 1}; the data are damaged or were written with another encoding",
        )
    if nm.index == "2bit":
        return codes.copy()
    return PATTERNS[codes].reshape(*codes.shape[:-1], codes.shape[-1] * 2)


def _check_pattern(nm: NM) -> None:
    if (nm.n, nm.m) != (2, 4):
        raise QuantError(
            "FX604",
            f"three bits a group encode 2:4 sparsity, not {nm.n}:{nm.m}",
            hint='use NM(n, m, index="2bit"), a position per kept weight',
        )


def _groups(mask: Mask, nm: NM, name: str) -> Mask:
    *lead, width = mask.shape
    if width % nm.m:
        raise QuantError(
            "FX606",
            f"{_prefix(name)}rows of {width} weights are not whole groups of {nm.m}",
            hint=f"{nm.n}:{nm.m} sparsity needs a multiple of {nm.m}; leave this tensor dense",
        )
    return mask.reshape(*lead, width // nm.m, nm.m)


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
