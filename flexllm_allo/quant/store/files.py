"""safetensors files of raw arrays: written without a copy, read memory-mapped, bfloat16 included.

The `safetensors` package checks what is read; it is not used for the data because its NumPy interface has
no bfloat16 and writes from copies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError

STORAGE = {"U8": "<u1", "I32": "<i4", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}
"""NumPy type of each type that is stored; a bfloat16 is its bits, the upper half of a float32."""


@dataclass(frozen=True)
class Raw:
    """An array as it lies in the file."""

    dtype: str
    data: NDArray[Any]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Raw:
        """uint8 and int32 as they are, float32 as bfloat16 where no value changes by it."""
        for dtype, storage in STORAGE.items():
            if dtype not in ("BF16", "F32") and values.dtype == storage:
                return cls(dtype, values)
        assert values.dtype == np.float32, values.dtype
        half = _bfloat16(values)
        return cls("F32", values) if half is None else cls("BF16", half)

    def values(self) -> NDArray[Any]:
        """The array in memory of its own; bfloat16 as float32."""
        if self.dtype != "BF16":
            return np.array(self.data)
        wide = np.array(self.data, np.uint32)
        wide <<= 16
        return wide.view(np.float32)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    """The upper halves of float32 values, None if a lower half is not 0."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    half = np.empty(flat.size, np.uint16)
    step = 1 << 20
    for begin in range(0, flat.size, step):
        part = flat[begin : begin + step]
        if np.bitwise_or.reduce(part) & 0xFFFF:
            return None
        np.right_shift(part, 16, out=half[begin : begin + step], casting="unsafe")
    return half.reshape(values.shape)


def file_chunks(tensors: Mapping[str, Raw]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, in pieces that are written one after the other."""
    order = sorted(tensors, key=lambda name: -tensors[name].data.itemsize)  # so that all are aligned
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].data.nbytes
        shape = list(tensors[name].data.shape)
        header[name] = {"dtype": tensors[name].dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield data_bytes(tensors[name].data)


def data_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of an array, in place if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def open_tensors(path: Path) -> dict[str, Raw]:
    """The arrays of a file, memory-mapped: nothing of the data is read yet.

    Raises:
        QuantError: FX608, the file is missing, incomplete, or no safetensors file of these types.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks header, types, offsets and the size of the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, SafetensorError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise QuantError("FX608", f"cannot read {path}: {reason}", hint="quantize the model again") from error
    header.pop("__metadata__", None)
    return {name: _mapped(path, 8 + length, name, field) for name, field in header.items()}


def _mapped(path: Path, start: int, name: str, field: Mapping[str, Any]) -> Raw:
    dtype, shape = str(field["dtype"]), tuple(field["shape"])
    if dtype not in STORAGE:
        raise QuantError(
            "FX608", f"{path}: {name} has type {dtype}", hint=f"known types: {', '.join(STORAGE)}"
        )
    if 0 in shape:
        return Raw(dtype, np.empty(shape, STORAGE[dtype]))
    offset = start + int(field["data_offsets"][0])
    flat = np.memmap(path, STORAGE[dtype], "r", offset, shape or (1,))
    return Raw(dtype, flat.reshape(shape))
