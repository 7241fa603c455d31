"""How elements are laid out in CPU memory: the container of each element type (docs/numerics.md)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..ir.dtypes import DType, Fixed, Float, Index, Int


def width(dtype: DType) -> int:
    """Bits of a value at run time; `index` is 64 bits wide there."""
    return 64 if isinstance(dtype, Index) else dtype.bits


def is_signed(dtype: DType) -> bool:
    """Whether the bits of a value are read as two's complement at run time."""
    return isinstance(dtype, Int | Fixed | Index)


def is_bfloat16(dtype: DType) -> bool:
    """Whether a type is bfloat16, which NumPy lacks."""
    return isinstance(dtype, Float) and (dtype.bits, dtype.fracs) == (16, 7)


def container_bytes(dtype: DType) -> int:
    """Bytes one element takes."""
    bits = width(dtype)
    for size in (1, 2, 4, 8):
        if bits <= 8 * size:
            return size
    return -(-bits // 8)


@cache
def container(dtype: DType) -> np.dtype[Any]:
    """The NumPy type of the container; beyond 64 bits a record of bytes ``f0..``, little end first."""
    size = container_bytes(dtype)
    if size > 8:
        return np.dtype([(f"f{i}", np.uint8) for i in range(size)])
    if isinstance(dtype, Float) and not is_bfloat16(dtype):
        return np.dtype(f"<f{size}")
    return np.dtype(f"<{'i' if is_signed(dtype) else 'u'}{size}")


def wrap(value: int, dtype: DType) -> int:
    """Keep the low bits of `value` and read them by the signedness of `dtype`."""
    bits = width(dtype)
    value &= (1 << bits) - 1
    if is_signed(dtype) and value >> (bits - 1):
        value -= 1 << bits
    return value
