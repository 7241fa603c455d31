"""Codes of 1 to 8 bits in bytes without gaps, as memory holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError

Bytes = NDArray[np.uint8]
Words = NDArray[Any]  # unsigned, little-endian, of 1, 2, 4 or 8 bytes

_BLOCK = 1 << 16  # codes per step: the words stay in the first caches


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes of `bits` bits."""
    return -(-count * bits // 8)


def pack_codes(codes: NDArray[np.int8] | Bytes, bits: int) -> Bytes:
    """Pack the last axis, lowest bits first: code i takes the bits i * bits ... (i + 1) * bits - 1.

    Bit p of a row is bit p % 8 of its byte p // 8. Signed codes are two's complement; the bits left over in
    the last byte of a row are 0.

    Args:
        codes: int8 or uint8 [..., count].
        bits: width of a code, 1 to 8.

    Returns:
        uint8 [..., ceil(count * bits / 8)].

    Raises:
        QuantError: FX606, a code does not fit the width.
    """
    _check_width(bits)
    _check_range(codes, bits)
    *lead, count = codes.shape
    group, size = _group(bits)
    rows = np.ascontiguousarray(codes).view(np.uint8).reshape(math.prod(lead), count)
    out = np.empty((len(rows), packed_bytes(count, bits)), np.uint8)
    for piece, packed in _pieces(rows, group, out, size):
        folded = _fold(_whole_groups(piece, group), bits)
        packed[:] = folded[:, : packed.shape[1]]
    return out.reshape(*lead, packed_bytes(count, bits))


def unpack_codes(packed: Bytes, bits: int, count: int, signed: bool) -> NDArray[np.int8] | Bytes:
    """The codes that `pack_codes` packed.

    Args:
        packed: uint8 [..., ceil(count * bits / 8)].
        bits: width of a code, 1 to 8.
        count: codes in a row.
        signed: whether the codes are two's complement.

    Returns:
        int8 [..., count] if signed, else uint8.

    Raises:
        QuantError: FX608, the rows are not as long as `count` codes are.
    """
    _check_width(bits)
    *lead, width = packed.shape
    if width != packed_bytes(count, bits):
        raise QuantError(
            "FX608",
            f"rows of {width} bytes do not hold {count} codes of {bits} bits",
            hint=f"they take {packed_bytes(count, bits)} bytes",
        )
    group, size = _group(bits)
    rows = np.ascontiguousarray(packed).reshape(math.prod(lead), width)
    out = np.empty((len(rows), count), np.uint8)
    for codes, piece in _pieces(out, group, rows, size):
        codes[:] = _unfold(_whole_groups(piece, size), bits)[:, : codes.shape[1]]
        if signed and bits < 8:
            sign = np.uint8(1 << (bits - 1))
            codes ^= sign
            codes -= sign
    out = out.reshape(*lead, count)
    return out.view(np.int8) if signed else out


def _group(bits: int) -> tuple[int, int]:
    """The fewest codes that fill whole bytes, and these bytes."""
    shared = math.gcd(bits, 8)
    return 8 // shared, bits // shared


def _pieces(codes: Bytes, group: int, packed: Bytes, size: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Views of rows of codes and of their packed bytes, few enough to stay in the cache."""
    rows, count = codes.shape
    if count % group:
        step = max(1, _BLOCK // count)
        for begin in range(0, rows, step):
            yield codes[begin : begin + step], packed[begin : begin + step]
        return
    # No row ends inside a group, so the rows are one long row.
    codes, packed = codes.reshape(1, -1), packed.reshape(1, -1)
    for begin in range(0, codes.shape[1], _BLOCK):
        first, stop = begin // group * size, (begin + _BLOCK) // group * size
        yield codes[:, begin : begin + _BLOCK], packed[:, first:stop]


def _whole_groups(rows: Bytes, size: int) -> Bytes:
    """Rows made a multiple of `size` long with zeros, each contiguous."""
    missing = -rows.shape[1] % size
    return np.pad(rows, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(rows)


def _halves(bits: int, group: int) -> list[tuple[int, int, int]]:
    """How fields of codes merge in pairs: one step per doubling.

    A step is the mask of every second field while apart, the same when merged, and the distance between.
    """
    steps: list[tuple[int, int, int]] = []
    fields = 1
    while fields < group:
        width, slot = fields * bits, fields * 8
        field = (1 << width) - 1
        apart = sum(field << at for at in range(slot, 8 * group, 2 * slot))
        steps.append((apart, apart >> (slot - width), slot - width))
        fields *= 2
    return steps


def _fold(codes: Bytes, bits: int) -> Bytes:
    """One byte a code -> packed. A word of `group` codes halves its number of fields step by step."""
    group, size = _group(bits)
    if group == 1:
        return codes
    kind = np.dtype(f"<u{group}")
    words: Words = codes.view(kind)
    low = (1 << bits) - 1
    words = words & kind.type(sum(low << at for at in range(0, 8 * group, 8)))
    upper = np.empty_like(words)
    for apart, _, distance in _halves(bits, group):
        np.bitwise_and(words, kind.type(apart), out=upper)
        words ^= upper
        upper >>= kind.type(distance)
        words |= upper
    if size == 1:
        return words.astype(np.uint8)
    return words.view(np.uint8).reshape(len(codes), -1, group)[:, :, :size].reshape(len(codes), -1)


def _unfold(packed: Bytes, bits: int) -> Bytes:
    """Packed -> one byte a code, the steps of `_fold` backwards."""
    group, size = _group(bits)
    if group == 1:
        return packed
    kind = np.dtype(f"<u{group}")
    if size == 1:
        words: Words = packed.astype(kind)
    else:
        wide = np.zeros((len(packed), packed.shape[1] // size, group), np.uint8)
        wide[:, :, :size] = packed.reshape(len(packed), -1, size)
        words = wide.view(kind).reshape(len(packed), -1)
    upper = np.empty_like(words)
    for _, merged, distance in reversed(_halves(bits, group)):
        np.bitwise_and(words, kind.type(merged), out=upper)
        words ^= upper
        upper <<= kind.type(distance)
        words |= upper
    return words.view(np.uint8)


def _check_width(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise QuantError("FX606", f"codes of {bits} bits cannot be packed", hint="1 to 8 bits are supported")


def _check_range(codes: NDArray[np.int8] | Bytes, bits: int) -> None:
    signed = codes.dtype == np.int8
    if not signed and codes.dtype != np.uint8:
        raise QuantError("FX606", f"codes are int8 or uint8, not {codes.dtype}")
    if bits == 8 or codes.size == 0:
        return
    low, high = int(codes.min()), int(codes.max())
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if low < least or high > most:
        kind = "signed" if signed else "unsigned"
        raise QuantError(
            "FX606",
            f"codes from {low} to {high} do not fit {bits} bits",
            hint=f"{bits} {kind} bits hold {least} to {most}",
        )
