"""Raw container arrays <-> lists of run-time values (`scalars.Value`), for the interpreter."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..ir.dtypes import DType, Float
from .containers import container, is_bfloat16, width, wrap


def from_raw(dtype: DType, raw: NDArray[Any]) -> list[Any]:
    """The values of an array, flat and row-major."""
    if width(dtype) > 64:
        size = raw.dtype.itemsize
        data = raw.tobytes()
        chunks = (data[i : i + size] for i in range(0, len(data), size))
        return [wrap(int.from_bytes(chunk, "little"), dtype) for chunk in chunks]
    if is_bfloat16(dtype):
        return list((raw.astype(np.uint32) << 16).view(np.float32).ravel())
    if isinstance(dtype, Float):
        return list(raw.astype(np.float32).ravel() if dtype.bits == 16 else raw.ravel())
    return [wrap(v, dtype) for v in cast("list[int]", raw.ravel().tolist())]


def to_raw(dtype: DType, values: list[Any]) -> NDArray[Any]:
    """A flat raw array holding `values`."""
    kind = container(dtype)
    if width(dtype) > 64:
        mask = (1 << 8 * kind.itemsize) - 1
        data = b"".join((v & mask).to_bytes(kind.itemsize, "little") for v in values)
        return np.frombuffer(bytearray(data), kind)  # writable, unlike bytes
    if is_bfloat16(dtype):
        return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.array(values, kind)
