"""GGUF files: metadata and named tensors in ggml's block formats, memory-mapped."""

from __future__ import annotations

import mmap
import operator
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import QuantError, UsageError
from .blocks import BLOCK_TYPES, Bytes, FloatArray, block_type, dequantize_blocks
from .encode import quantize_blocks
from .values import Reader, read_value, string_bytes, value_bytes

MAGIC = b"GGUF"
VERSION = 3
_READABLE = (2, 3)  # version 1 counts in 32 bits; it was current for a few weeks of 2023
_ALIGNMENT = 32
_ALIGNMENT_KEY = "general.alignment"
_MAX_DIMS = 4

# Types of ggml that are not among BLOCK_TYPES, so that a refusal can name them.
_OTHER_TYPES = {
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in blocks.

    Attributes:
        name: as in the file, ``blk.0.attn_q.weight``.
        kind: name of its type, one of `BLOCK_TYPES`.
        shape: in NumPy's order, [N, K]; the file has it the other way round.
        data: uint8 [..., bytes of a row], a view of the file where it was read.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    data: Bytes

    @classmethod
    def quantize(cls, name: str, values: FloatArray, kind: str) -> GgufTensor:
        """The tensor of float32 values [..., K] in a type.

        Raises:
            QuantError: FX608, an unknown type or rows that are not whole blocks; FX606, values that the type
                cannot hold.
        """
        return cls(name, kind, values.shape, quantize_blocks(values, kind, name))

    def dequantize(self) -> FloatArray:
        """float32, of the shape."""
        return dequantize_blocks(self.data, self.kind, self.name)


@dataclass(frozen=True)
class GgufFile:
    """What a file holds.

    Attributes:
        metadata: by key. Numbers are NumPy scalars and arrays of the type they are stored in, so that writing
            them again gives the same bytes; booleans, strings and lists of strings are Python's.
        tensors: by name, in the order of the file.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: str | Path) -> GgufFile:
    """Read metadata and tensor descriptions; tensor data stay in the file until they are used.

    Raises:
        QuantError: FX608: no such file, not GGUF of version 2 or 3, truncated, or a tensor of an unsupported
            type; the message names the tensor and its type.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
    except OSError as error:
        raise QuantError("FX608", f'cannot read "{path}": {error.strerror or error}') from error
    reader = Reader(data, str(path))
    tensor_count, pair_count = _read_head(reader)
    metadata: dict[str, Any] = {}
    for i in range(pair_count):
        key = reader.string(f"the key of metadata {i + 1} of {pair_count}")
        if key in metadata:
            raise reader.damaged(f"has metadata {key!r} twice")
        metadata[key] = read_value(reader, f"metadata {key!r}")
    entries = [_read_entry(reader, i, tensor_count) for i in range(tensor_count)]
    alignment = _alignment(metadata, str(path))
    begin = _align(reader.at, alignment)
    tensors: dict[str, GgufTensor] = {}
    for entry in entries:
        if entry.name in tensors:
            raise reader.damaged(f"has the tensor {entry.name!r} twice")
        tensors[entry.name] = _map(reader, entry, begin, alignment)
    return GgufFile(metadata, tensors)


def write_gguf(path: str | Path, metadata: Mapping[str, Any], tensors: Iterable[GgufTensor]) -> None:
    """Write a file of version 3: aside, then renamed, so that it is complete or not there.

    Args:
        path: the file; one that is there is replaced. Its folder must exist.
        metadata: strings, booleans, numbers, and lists or arrays of one of them. NumPy types are stored as
            they are; a Python int as uint32, or int32 if negative, or 64 bits if it must; a float as float32
            unless it is too large.
        tensors: in the order of the file.

    Raises:
        QuantError: FX608, before anything is written: a type that cannot be stored, data that do not fit the
            shape, a name twice.
        UsageError: FX702, the file cannot be written.
    """
    path, tensors = Path(path), tuple(tensors)
    alignment = _alignment(metadata, str(path))
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += string_bytes(key) + value_bytes(value, key)
    offset, names = 0, set[str]()
    for tensor in tensors:
        if tensor.name in names:
            raise QuantError("FX608", f"two tensors are called {tensor.name!r}")
        names.add(tensor.name)
        head += _entry_bytes(tensor, offset)
        offset = _align(offset + tensor.data.nbytes, alignment)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            _write_padded(stream, bytes(head), alignment)
            for tensor in tensors:
                _write_padded(stream, np.ascontiguousarray(tensor.data).data, alignment)
            mode = os.umask(0)
            os.umask(mode)
            os.fchmod(stream.fileno(), 0o666 & ~mode)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UsageError(
            "FX702",
            f'cannot write "{path}": {error.strerror or error}',
            hint="name a file in an existing folder you can write to",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    number: int
    offset: int


def _read_head(reader: Reader) -> tuple[int, int]:
    """Counts of tensors and of metadata."""
    magic = bytes(reader.take(4, "the head"))
    if magic != MAGIC:
        raise reader.damaged(f"is not GGUF: it begins with {magic!r}")
    (version,) = reader.unpack("<I", "the version")
    if version not in _READABLE:
        swapped = int.from_bytes(struct.pack("<I", version), "big")
        form = f"big-endian version {swapped}" if swapped in _READABLE else f"version {version}"
        raise reader.damaged(f"is GGUF of {form}; little-endian versions 2 and 3 can be read")
    tensor_count, pair_count = reader.unpack("<QQ", "the head")
    # A tensor takes 24 bytes and more, a pair 13: what cannot fit must not be counted to.
    if tensor_count * 24 + pair_count * 13 > reader.left:
        raise reader.damaged(f"is truncated: {tensor_count} tensors and {pair_count} metadata do not fit")
    return tensor_count, pair_count


def _read_entry(reader: Reader, number: int, count: int) -> _Entry:
    place = f"tensor {number + 1} of {count}"
    name = reader.string(f"the name of {place}")
    place = f"tensor {name!r}"
    (dims,) = reader.unpack("<I", place)
    if dims > _MAX_DIMS:
        raise reader.damaged(f"has {place} of {dims} dimensions; GGUF has {_MAX_DIMS} at most")
    shape = reader.unpack(f"<{dims}Q", place)
    kind, offset = reader.unpack("<IQ", place)
    return _Entry(name, tuple(reversed(shape)), kind, offset)


def _map(reader: Reader, entry: _Entry, begin: int, alignment: int) -> GgufTensor:
    """The tensor whose data section begins at byte `begin`."""
    kind = next((k for k in BLOCK_TYPES.values() if k.number == entry.number), None)
    if kind is None:
        known = ", ".join(BLOCK_TYPES)
        name = _OTHER_TYPES.get(entry.number, f"number {entry.number}")
        raise reader.damaged(
            f"has tensor {entry.name!r} of the unsupported type {name}", f"supported: {known}"
        )
    *lead, width = entry.shape or (1,)
    row = kind.row_bytes(width, entry.name)
    rows = 1
    for n in lead:  # Python's integers: a damaged file must not overflow
        rows *= n
    start, end = begin + entry.offset, begin + entry.offset + rows * row
    if 0 in entry.shape:
        raise reader.damaged(f"has tensor {entry.name!r} ({kind.name}) of shape {entry.shape}")
    if entry.offset % alignment:
        raise reader.damaged(f"has tensor {entry.name!r} ({kind.name}) at {entry.offset}, not a multiple of "
                             f"{alignment}")  # fmt: skip
    if end > len(reader.data):
        raise reader.damaged(
            f"is truncated: tensor {entry.name!r} ({kind.name}) ends at byte {end} of {len(reader.data)}"
        )
    data = np.frombuffer(reader.data, np.uint8, rows * row, start).reshape(*lead, row)
    return GgufTensor(entry.name, kind.name, entry.shape, data)


def _entry_bytes(tensor: GgufTensor, offset: int) -> bytes:
    kind = block_type(tensor.kind, tensor.name)
    *lead, width = tensor.shape or (1,)
    needed = (*lead, kind.row_bytes(width, tensor.name))
    if len(tensor.shape) > _MAX_DIMS:
        raise QuantError(
            "FX608",
            f"{tensor.name}: {len(tensor.shape)} dimensions ({kind.name}) cannot be stored",
            hint=f"GGUF has {_MAX_DIMS} at most",
        )
    if tensor.data.shape != needed or tensor.data.dtype != np.uint8:
        raise QuantError(
            "FX608",
            f"{tensor.name}: {kind.name} data {tensor.data.dtype} {tensor.data.shape} do not fit the shape "
            f"{tensor.shape}",
            hint=f"uint8 {needed} is needed; GgufTensor.quantize makes it",
        )
    dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
    return string_bytes(tensor.name) + dims + struct.pack("<IQ", kind.number, offset)


def _alignment(metadata: Mapping[str, Any], path: str) -> int:
    value: Any = metadata.get(_ALIGNMENT_KEY, _ALIGNMENT)
    number = operator.index(value) if hasattr(value, "__index__") else 0
    if number < 1 or number.bit_count() != 1:
        raise QuantError("FX608", f'"{path}": {_ALIGNMENT_KEY} is {value!r}, not a power of two')
    return number


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _write_padded(stream: IO[bytes], data: bytes | memoryview, alignment: int) -> None:
    stream.write(data)
    stream.write(bytes(-stream.tell() % alignment))
