"""Block N:16 sparsity (FlightLLM's FSB): every 16 x 16 block of a matrix has a density of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..formats import BlockNM
from .packing import pack_codes, unpack_codes


@dataclass(frozen=True)
class BlockSparse:
    """A matrix int8 [N, K] as blocks of kept values.

    Blocks follow each other row by row of the grid of blocks, a block's values row by row and from left to
    right; block b has ``density[b]`` values in each of its rows. A row that keeps fewer is filled up with
    zeros of the matrix at their own positions.

    Attributes:
        format: size of a block and the densities there are.
        shape: (N, K), multiples of the block.
        density: uint8 [N / block, K / block], one of `format.choices`: the block's FSB byte.
        values: int8 [V], V the sum of block * density.
        positions: uint8 [V / 2], the column 0 .. 15 in the block of each value, 4 bits each, low bits first.
    """

    format: BlockNM
    shape: tuple[int, int]
    density: NDArray[np.uint8]
    values: NDArray[np.int8]
    positions: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes as stored: a byte per value, half a byte per position, a byte per block."""
        return self.values.nbytes + self.positions.nbytes + self.density.nbytes

    def blocks(self, density: int) -> tuple[NDArray[np.intp], NDArray[np.int8], NDArray[np.intp]]:
        """The blocks of one density.

        Returns:
            Their numbers [B] in the grid, values int8 [B, block, density], columns in the block of the same
            shape.
        """
        size = self.format.block
        flat = self.density.reshape(-1).astype(np.intp)
        begin = np.cumsum(flat * size) - flat * size
        which = np.flatnonzero(flat == density)
        take = begin[which, None] + np.arange(size * density)
        columns = unpack_codes(self.positions, _position_bits(self.format), self.values.size, signed=False)
        shape = (which.size, size, density)
        return which, self.values[take].reshape(shape), columns[take].reshape(shape).astype(np.intp)

    def decode(self) -> NDArray[np.int8]:
        """The matrix int8 [N, K], zero where pruned."""
        size = self.format.block
        rows, columns = (n // size for n in self.shape)
        dense = np.zeros((rows * columns, size, size), np.int8)
        for density in self.format.choices:
            which, values, at = self.blocks(density)
            dense[which[:, None, None], np.arange(size)[:, None], at] = values
        return dense.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(self.shape)

    def matvec(self, x: NDArray[np.int8]) -> NDArray[np.int32]:
        """The product with x int8 [K] -> int32 [N], touching kept values alone, as the hardware does."""
        size = self.format.block
        columns = self.shape[1] // size
        out = np.zeros((self.shape[0] // size, size), np.int32)
        for density in self.format.choices:
            which, values, at = self.blocks(density)
            inputs = x[(which % columns * size)[:, None, None] + at].astype(np.int32)
            np.add.at(out, which // columns, (values * inputs).sum(axis=-1, dtype=np.int32))
        return out.reshape(-1)


def encode_blocks(
    weight: NDArray[np.int8], mask: NDArray[np.bool_], fmt: BlockNM | None = None, name: str = ""
) -> BlockSparse:
    """Encode a masked matrix; a block gets the lowest density that its fullest row fits.

    Args:
        weight: int8 [N, K], N and K multiples of the block.
        mask: bool [N, K], true where a weight is kept.
        fmt: the format, 16 x 16 blocks of densities 2, 4, 8 and 16 by default.
        name: of the tensor, for the message.

    Raises:
        QuantError: FX606, the matrix is not whole blocks, or a block keeps more than the highest density.
    """
    fmt = fmt or BlockNM()
    grid = _tiles(mask, fmt, name)
    kept = grid.sum(axis=-1).max(axis=-1)
    choices = np.array(sorted(fmt.choices))
    if int(kept.max(initial=0)) > choices[-1]:
        row, column = (int(i) for i in np.argwhere(kept > choices[-1])[0])
        raise QuantError(
            "FX606",
            f"{_prefix(name)}block ({row}, {column}) keeps {int(kept[row, column])} weights in a row, "
            f"the densest choice is {choices[-1]}:{fmt.block}",
            hint=f"prune it, or add {fmt.block} to the choices",
        )
    density = choices[np.searchsorted(choices, kept)].astype(np.uint8)
    # A stable sort puts the kept columns of a row first, in order; the padding behind them is pruned.
    order = np.argsort(~grid, axis=-1, kind="stable").reshape(-1, fmt.block, fmt.block)
    masked = np.where(grid, _tiles(weight, fmt, name), np.int8(0)).reshape(order.shape)
    used = np.arange(fmt.block) < density.reshape(-1, 1, 1)
    used = np.broadcast_to(used, order.shape)
    # Ascending columns: what a row does not use sorts behind all columns.
    columns = np.sort(np.where(used, order, fmt.block), axis=-1)
    values = np.take_along_axis(masked, np.minimum(columns, fmt.block - 1), -1)[used]
    positions = pack_codes(columns[used].astype(np.uint8), _position_bits(fmt))
    rows, width = weight.shape
    return BlockSparse(fmt, (rows, width), density, values, positions)


def _position_bits(fmt: BlockNM) -> int:
    """Bits of a column of a block: 4 for 16."""
    return (fmt.block - 1).bit_length()


def _tiles(matrix: NDArray[Any], fmt: BlockNM, name: str) -> NDArray[Any]:
    """[N, K] -> [N / block, K / block, block, block]."""
    rows, columns = matrix.shape
    size = fmt.block
    if rows % size or columns % size:
        raise QuantError(
            "FX606",
            f"{_prefix(name)}a matrix of {rows} x {columns} is not whole blocks of {size} x {size}",
            hint="pad it with zeros, or leave this tensor dense",
        )
    return matrix.reshape(rows // size, size, columns // size, size).swapaxes(1, 2)


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
