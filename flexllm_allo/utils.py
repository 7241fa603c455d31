"""``allo.utils``: element types of the language and of NumPy, and integers wider than NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .backend.c_types import C_TYPES
from .backend.containers import container, wrap
from .ir.codes import type_of_code
from .ir.dtypes import DType, Int, UInt

np_supported_types: dict[str, Any] = {
    "bf16": np.float32, "f16": np.float16, "f32": np.float32, "f64": np.float64,
    "i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "ui1": np.bool_, "ui8": np.uint8, "ui16": np.uint16, "ui32": np.uint32, "ui64": np.uint64,
}  # fmt: skip
"""The NumPy type of an element type that has one, by its short code."""

c2allo_type: dict[str, str] = {name: str(dtype) for name, dtype in C_TYPES.items()}
"""The short code of the element type that a C++ type holds."""


def get_bitwidth_from_type(dtype: str) -> int:
    """The width of an element type given by its short code; 32 for ``index``."""
    return type_of_code(dtype).bits


def get_np_struct_type(bitwidth: int) -> np.dtype[Any]:
    """The NumPy type of an integer beyond 64 bits: a record of bytes ``f0..``, little end first."""
    return np.dtype([(f"f{i}", np.uint8) for i in range(-(-bitwidth // 8))])


def allo_to_numpy_dtype(allo_type: DType) -> np.dtype[Any]:
    """The NumPy type that a caller gets for an element type (fixed point: float64)."""
    if allo_type.is_fixed:
        return np.dtype(np.float64)
    code = str(allo_type)
    return np.dtype(np_supported_types[code]) if code in np_supported_types else container(allo_type)


def handle_overflow(np_array: NDArray[Any], bitwidth: int, dtype: str) -> NDArray[Any]:
    """The values wrapped into `bitwidth` bits; `dtype` is a short code that tells the sign.

    Fixed-point values are scaled to the raw integers first.
    """
    kind = type_of_code(dtype)
    values = np.floor(np.ldexp(np_array, kind.fracs)) if kind.is_fixed else np_array
    target = Int(bitwidth) if kind.signed else UInt(bitwidth)
    wrapped = [wrap(int(v), target) for v in values.ravel().tolist()]
    return np.array(wrapped, container(target)).reshape(np_array.shape)


def make_anywidth_numpy_array(array: NDArray[Any], bitwidth: int) -> NDArray[Any]:
    """Integers as records of bytes (`get_np_struct_type`), the low `bitwidth` bits of each."""
    kind = get_np_struct_type(bitwidth)
    mask = (1 << bitwidth) - 1
    data = b"".join((int(v) & mask).to_bytes(kind.itemsize, "little") for v in array.ravel().tolist())
    return np.frombuffer(bytearray(data), kind).reshape(array.shape)


def struct_array_to_int_array(array: NDArray[Any], bitwidth: int, signed: bool = True) -> NDArray[Any]:
    """The inverse of `make_anywidth_numpy_array`; beyond 64 bits an array of Python integers."""
    target = Int(bitwidth) if signed else UInt(bitwidth)
    size = array.dtype.itemsize
    data = np.ascontiguousarray(array).tobytes()
    values = [wrap(int.from_bytes(data[i : i + size], "little"), target) for i in range(0, len(data), size)]
    return np.array(values, object if bitwidth > 64 else container(target)).reshape(array.shape)


def construct_kernel_name(base: str, ids: Sequence[int]) -> str:
    """The name of a dataflow kernel's instance: ``pe_0_1``."""
    return "_".join([base, *map(str, ids)])


def parse_kernel_name(name: str) -> tuple[str, tuple[int, ...]]:
    """The inverse of `construct_kernel_name`."""
    parts = name.split("_")
    last = len(parts)
    while last > 1 and parts[last - 1].isdigit():
        last -= 1
    return "_".join(parts[:last]), tuple(int(p) for p in parts[last:])


def freeze_list(value: Any) -> Any:
    """Nested lists as nested tuples, which can be keys."""
    return tuple(freeze_list(v) for v in cast("list[Any]", value)) if isinstance(value, list) else value


__all__ = [
    "allo_to_numpy_dtype", "c2allo_type", "construct_kernel_name", "freeze_list",
    "get_bitwidth_from_type", "get_np_struct_type", "handle_overflow", "make_anywidth_numpy_array",
    "np_supported_types", "parse_kernel_name", "struct_array_to_int_array", "type_of_code",
]  # fmt: skip
