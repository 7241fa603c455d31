"""The typed values of a GGUF file's metadata, to bytes and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError

_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_CODES = {kind: code for code, kind in _NUMBERS.items()}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_MAX_DEPTH = 4  # arrays of arrays: enough for every file there is, and a damaged one cannot nest for ever


class Reader:
    """A cursor over the bytes of a file; going past the end is the error that the file is truncated."""

    def __init__(self, data: memoryview, path: str) -> None:
        self.data = data
        self.path = path
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.at

    def take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes."""
        if size > self.left:
            raise self.damaged(f"is truncated: {what} goes past its end, at byte {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, form: str, what: str) -> tuple[Any, ...]:
        """The next values, of a format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form), what))

    def string(self, what: str) -> str:
        """A 64-bit length and UTF-8."""
        (size,) = self.unpack("<Q", what)
        raw = bytes(self.take(size, what))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"is damaged: {what} is not UTF-8") from error

    def damaged(
        self, what: str, hint: str = "the file is damaged or incomplete; fetch it again"
    ) -> QuantError:
        """FX608 that the file `what`."""
        return QuantError("FX608", f'"{self.path}" {what}', hint=hint)


def read_value(reader: Reader, what: str) -> Any:
    """A type and a value of it: see `gguf.GgufFile.metadata`.

    Raises:
        QuantError: FX608, the file ends inside it, or the type does not exist.
    """
    (code,) = reader.unpack("<I", what)
    return _read(reader, code, what, 0)


def _read(reader: Reader, code: int, what: str, depth: int) -> Any:
    if code in _NUMBERS:
        return _numbers(reader, code, 1, what)[0]
    if code == _BOOL:
        return bool(reader.take(1, what)[0])
    if code == _STRING:
        return reader.string(what)
    if code != _ARRAY or depth == _MAX_DEPTH:
        raise reader.damaged(f"is damaged: {what} has the unknown type {code}")
    inner, count = reader.unpack("<IQ", what)
    if inner in _NUMBERS:
        return _numbers(reader, inner, count, what)
    if count > reader.left:  # every other value takes a byte and more
        raise reader.damaged(f"is truncated: {what} of {count} values goes past its end")
    return [_read(reader, inner, what, depth + 1) for _ in range(count)]


def _numbers(reader: Reader, code: int, count: int, what: str) -> NDArray[Any]:
    kind = _NUMBERS[code]
    return np.frombuffer(bytes(reader.take(count * kind.itemsize, what)), kind)


def string_bytes(text: str) -> bytes:
    """A 64-bit length and UTF-8."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value: Any, key: str) -> bytes:
    """A type and the value.

    Raises:
        QuantError: FX608, the value is of no type that GGUF has.
    """
    code, raw = _encode(value, key)
    return struct.pack("<I", code) + raw


def _encode(value: Any, key: str) -> tuple[int, bytes]:
    if isinstance(value, bool | np.bool_):
        return _BOOL, bytes([bool(cast("bool", value))])
    if isinstance(value, str):
        return _STRING, string_bytes(value)
    # NumPy's types first: float64 is a Python float too, and would lose half its bits as one.
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        value = _number(value, key)
    if isinstance(value, np.generic | np.ndarray):
        return _encode_numpy(np.asarray(cast("NDArray[Any]", value)), key)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _ARRAY, _encode_items(cast("Sequence[Any]", value), key)
    raise _unsupported(type(cast(object, value)).__name__, key)


def _encode_numpy(value: NDArray[Any], key: str) -> tuple[int, bytes]:
    if value.ndim == 1 and value.dtype.kind in "bUO":
        return _ARRAY, _encode_items(value.tolist(), key)
    kind = value.dtype.newbyteorder("<")
    if kind not in _CODES or value.ndim > 1:
        raise _unsupported(f"an array of {value.dtype} {value.shape}", key)
    raw = value.astype(kind).tobytes()
    if value.ndim == 0:
        return _CODES[kind], raw
    return _ARRAY, struct.pack("<IQ", _CODES[kind], value.size) + raw


def _encode_items(items: Sequence[Any], key: str) -> bytes:
    if items and all(isinstance(v, int | float) and not isinstance(v, bool | np.generic) for v in items):
        kinds = {_number(v, key).dtype for v in items}
        floats = {kind for kind in kinds if kind.kind == "f"}
        return _encode_numpy(np.array(items, np.result_type(*(floats or kinds))), key)[1]
    encoded = [_encode(v, key) for v in items]
    codes = {code for code, _ in encoded} or {_STRING}
    if len(codes) > 1:
        raise _unsupported("a list of values of several types", key)
    return struct.pack("<IQ", codes.pop(), len(items)) + b"".join(raw for _, raw in encoded)


def _number(value: float, key: str) -> np.generic:
    """The first of uint32, int32, uint64, int64 that holds an int; float32, or float64, for a float."""
    if isinstance(value, float):
        limit = float(np.finfo(np.float32).max)
        return np.float64(value) if limit < abs(value) < math.inf else np.float32(value)
    for kind in (np.uint32, np.int32, np.uint64, np.int64):
        if np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            return kind(value)
    raise _unsupported(f"the integer {value}, which needs more than 64 bits", key)


def _unsupported(what: str, key: str) -> QuantError:
    return QuantError(
        "FX608",
        f"metadata {key!r} is {what}, which GGUF cannot store",
        hint="strings, booleans, numbers, and lists of one of them can be stored",
    )
