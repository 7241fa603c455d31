"""A weight matrix under a format: codes, and everything that turns them back into numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import IntFormat, WeightFormat

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix [N, K] (or a stack [L, N, K]: every array then has a leading L).

    Value of code c in group g of row n: ``(c - zero[n, g]) * step[n, g] * scale[n, g']``; what a format
    does not have counts as 0 or 1. There are G groups in a row; a progressive format has G steps and zeros,
    and one scale (G' = 1), every other format as many scales as groups.

    Attributes:
        format: None for a float matrix, whose codes are the values.
        codes: int8 [N, K] (uint8 for unsigned formats), one code an element: packing is the memory's
            business; the kept codes [N, K * n / m] under sparsity.
        scale: float32 [N, G'].
        zero: uint8 [N, G], integer zero points.
        step: uint8 [N, G], steps of level 2 of a progressive format.
        index: uint8, shape of the codes: position 0 .. m - 1 of a kept code in its group of m.
    """

    format: WeightFormat | None
    codes: NDArray[Any]
    scale: FloatArray
    zero: NDArray[np.uint8] | None = None
    step: NDArray[np.uint8] | None = None
    index: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., N, K] of the matrix the codes stand for."""
        *lead, width = self.codes.shape
        fmt = self.format
        if isinstance(fmt, IntFormat) and fmt.sparsity:
            width = width * fmt.sparsity.m // fmt.sparsity.n
        return (*lead, width)

    def integers(self) -> NDArray[np.int16]:
        """The integer weights [..., N, K] that are multiplied: codes less zeros, times steps; 0 if pruned."""
        codes = self.codes.astype(np.int16)
        per_group = codes.shape[-1] // (self.zero.shape[-1] if self.zero is not None else 1)
        if self.zero is not None:
            codes -= np.repeat(self.zero.astype(np.int16), per_group, axis=-1)
        if self.step is not None:
            codes *= np.repeat(self.step.astype(np.int16), per_group, axis=-1)
        if self.index is None:
            return codes
        assert isinstance(self.format, IntFormat)
        assert self.format.sparsity is not None
        n, m = self.format.sparsity.n, self.format.sparsity.m
        *lead, kept = codes.shape
        full = np.zeros((*lead, kept // n, m), np.int16)
        np.put_along_axis(
            full, self.index.reshape(*lead, -1, n).astype(np.intp), codes.reshape(*lead, -1, n), -1
        )
        return full.reshape(*lead, -1)

    def dequantize(self) -> FloatArray:
        """float32 [..., N, K]."""
        if self.format is None:
            return self.codes
        whole = self.integers().astype(np.float32)
        return whole * np.repeat(self.scale, whole.shape[-1] // self.scale.shape[-1], axis=-1)
