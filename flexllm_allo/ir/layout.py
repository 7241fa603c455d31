"""How the elements of a packed buffer lie in its words: read from the `Buffer`, nothing else.

`Buffer.words` elements of type `Buffer.logical` along dimension `Buffer.word_axis` share one word,
the first in the low bits, each in as many bits as its type has.  Words of up to 64 bits are NumPy unsigned
integers; wider ones are records of bytes ``f0..``, little end first (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from . import nodes as ir
from .dtypes import DType, Fixed, Float, Int

Array = NDArray[Any]


def pack_array(buffer: ir.Buffer, logical: Array) -> Array:
    """The words of a packed buffer.

    Args:
        buffer: the packed buffer (its `shape` counts words).
        logical: raw elements, shape `logical_shape(buffer)`: integers for integers and fixed point
            (raw values), floats for floats, uint16 bits for bfloat16.

    Returns:
        An array of the buffer's shape: unsigned integers, or records of bytes above 64 bits.

    Raises:
        ArgumentError: FX401, wrong shape.
    """
    dtype = element(buffer)
    wanted = logical_shape(buffer)
    array = np.asarray(logical)
    if array.shape != wanted:
        raise ArgumentError(
            "FX401",
            f'"{buffer.name}" holds {dtype}{list(wanted)}, got shape {list(array.shape)}',
            buffer.span,
        )
    if dtype.bits * buffer.words <= 8 and array.dtype.kind in "biu":
        return _small_words(_lanes_last(buffer, array), dtype.bits)
    lanes = _to_bytes(_lanes_last(buffer, array), dtype)
    return _words(_joined(lanes, dtype.bits), buffer)


def _small_words(lanes: Array, bits: int) -> NDArray[np.uint8]:
    """Words of one byte, without taking them apart into bits."""
    mask, words = np.uint8((1 << bits) - 1), np.zeros(lanes.shape[:-1], np.uint8)
    for lane in range(lanes.shape[-1]):
        words |= (lanes[..., lane].astype(np.uint8) & mask) << np.uint8(lane * bits)
    return words


def unpack_array(buffer: ir.Buffer, words: Array) -> Array:
    """The inverse of `pack_array`: raw logical elements in their NumPy containers."""
    dtype = element(buffer)
    size = _word_bytes(buffer)
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(*buffer.shape, size)
    bits = np.unpackbits(raw, axis=-1, bitorder="little")[..., : buffer.words * dtype.bits]
    lanes = bits.reshape(*buffer.shape, buffer.words, dtype.bits)
    elements = _from_bits(lanes, dtype)
    return np.moveaxis(elements, -1, buffer.word_axis).reshape(logical_shape(buffer))


def laid_out(buffer: ir.Buffer, value: Any) -> Any:
    """An argument as the design's memory holds it: arrays of logical elements are packed."""
    if buffer.words > 1 and np.shape(value) == logical_shape(buffer):
        return pack_array(buffer, value)
    return value


def element(buffer: ir.Buffer) -> DType:
    """The logical element type."""
    return buffer.logical or buffer.dtype


def logical_shape(buffer: ir.Buffer) -> tuple[int, ...]:
    """The shape the kernel was written for."""
    shape = list(buffer.shape)
    if shape:
        shape[buffer.word_axis] *= buffer.words
    return tuple(shape)


def _lanes_last(buffer: ir.Buffer, array: Array) -> Array:
    """The logical array as ``(*shape of the words, elements of a word)``."""
    axis = len(buffer.shape) + buffer.word_axis
    split = array.reshape(*buffer.shape[: axis + 1], buffer.words, *buffer.shape[axis + 1 :])
    return np.moveaxis(split, axis + 1, -1)


def _joined(lanes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The elements of each word without gaps: uint8 [.., words, bytes] to [.., bytes of a word]."""
    *shape, count, size = lanes.shape
    if bits == 8 * size:
        return lanes.reshape(*shape, count * size)
    in_byte = max(1, 8 // bits)
    if bits in (1, 2, 4) and count % in_byte == 0:
        fields = lanes.reshape(*shape, count // in_byte, in_byte) & np.uint8((1 << bits) - 1)
        packed = fields[..., 0].copy()
        for i in range(1, in_byte):
            packed |= fields[..., i] << np.uint8(i * bits)
        return packed
    stream = np.unpackbits(lanes, axis=-1, bitorder="little")[..., :bits]
    return np.packbits(stream.reshape(*shape, count * bits), axis=-1, bitorder="little")


def _container(bits: int) -> int:
    """Bytes of the container of a value."""
    return next((n for n in (1, 2, 4, 8) if bits <= 8 * n), -(-bits // 8))


def _word_bytes(buffer: ir.Buffer) -> int:
    return _container(element(buffer).bits * buffer.words)


def _to_bytes(array: Array, dtype: DType) -> NDArray[np.uint8]:
    """Little-endian bytes of every element on a new last axis."""
    size = _container(dtype.bits)
    if size > 8 or array.dtype.kind == "O":
        if array.dtype.kind == "V":
            return np.ascontiguousarray(array).view(np.uint8).reshape(*array.shape, size)
        mask = (1 << dtype.bits) - 1
        data = b"".join((int(v) & mask).to_bytes(size, "little") for v in array.ravel())
        return np.frombuffer(data, np.uint8).reshape(*array.shape, size)
    if isinstance(dtype, Float) and array.dtype.kind == "f" and (dtype.bits, dtype.fracs) != (16, 7):
        array = array.astype(f"<f{size}")
    else:
        array = array.astype(f"<{'u' if array.dtype.kind in 'ub' else 'i'}{size}")
    return np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8)


def _words(packed: NDArray[np.uint8], buffer: ir.Buffer) -> Array:
    size = _word_bytes(buffer)
    padded = np.zeros((*buffer.shape, size), np.uint8)
    padded[..., : packed.shape[-1]] = packed
    kind = np.dtype(f"<u{size}") if size <= 8 else np.dtype([(f"f{i}", np.uint8) for i in range(size)])
    return padded.view(kind).reshape(buffer.shape)


def _from_bits(lanes: NDArray[np.uint8], dtype: DType) -> Array:
    size = _container(dtype.bits)
    spare = 8 * size - dtype.bits
    fill = lanes[..., -1:] if isinstance(dtype, Int | Fixed) else np.zeros_like(lanes[..., -1:])
    bits = np.concatenate([lanes, np.repeat(fill, spare, axis=-1)], axis=-1) if spare else lanes
    raw = np.ascontiguousarray(np.packbits(bits, axis=-1, bitorder="little"))
    if size > 8:
        return raw.view(np.dtype([(f"f{i}", np.uint8) for i in range(size)])).reshape(lanes.shape[:-1])
    if isinstance(dtype, Float) and (dtype.bits, dtype.fracs) != (16, 7):
        kind = f"<f{size}"
    else:
        kind = f"<{'i' if isinstance(dtype, Int | Fixed) else 'u'}{size}"
    return raw.view(np.dtype(kind)).reshape(lanes.shape[:-1])


def raw_bits(values: Sequence[int | float], dtype: DType) -> list[int]:
    """The bit patterns of constants (raw integers, or floats for float types)."""
    if isinstance(dtype, Float):
        if (dtype.bits, dtype.fracs) == (16, 7):
            singles = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
            return [int(v) for v in (singles + 0x7FFF + ((singles >> 16) & 1)) >> 16]
        size = dtype.bits // 8
        return [int(v) for v in np.array(values, f"<f{size}").view(f"<u{size}")]
    mask = (1 << dtype.bits) - 1
    return [int(v) & mask for v in values]


def pack_bits(buffer: ir.Buffer, bits: Sequence[int]) -> list[int]:
    """The words of a packed buffer as integers, from the bit patterns of its elements (row-major)."""
    width = element(buffer).bits
    array = np.array(bits, dtype=object).reshape(logical_shape(buffer))
    lanes = _lanes_last(buffer, array).reshape(-1, buffer.words)
    return [sum(int(value) << (i * width) for i, value in enumerate(word)) for word in lanes]
