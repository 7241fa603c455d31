"""The blocks of GGUF files: how their bytes are laid out, what they stand for, products with them.

Sizes and bit layouts are those of ggml's block definitions (``ggml-common.h``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError, did_you_mean

Bytes = NDArray[np.uint8]
Blocks = NDArray[Any]  # of a structured dtype, one record a block
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Fields:
    """B blocks taken apart: S sub-blocks of L weights each, ``value = d * scale * code - dmin * min``.

    Attributes:
        d: float32 [B], scale of the block.
        scales: int16 [B, S], of the sub-blocks.
        codes: int16 [B, S, L], without the offset they are stored with.
        dmin: float32 [B], scale of the mins, None where there are none.
        mins: int16 [B, S], not negative.
    """

    d: FloatArray
    scales: NDArray[np.int16]
    codes: NDArray[np.int16]
    dmin: FloatArray | None = None
    mins: NDArray[np.int16] | None = None


@dataclass(frozen=True)
class BlockType:
    """A tensor type of GGUF.

    Attributes:
        name: as ggml calls it, ``Q4_K``.
        number: its number in files.
        weights: in a block.
        layout: the record of a block, exact to the byte.
        unpack, pack: records to `Fields` and back; None for plain floats.
    """

    name: str
    number: int
    weights: int
    layout: np.dtype[Any]
    unpack: Callable[[Blocks], Fields] | None = None
    pack: Callable[[Fields], Blocks] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return self.layout.itemsize

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, everything counted."""
        return 8 * self.nbytes / self.weights

    def row_bytes(self, width: int, name: str = "") -> int:
        """Bytes of a row of `width` weights.

        Raises:
            QuantError: FX608, the row is not whole blocks.
        """
        if width % self.weights:
            raise QuantError(
                "FX608",
                f"{f'{name}: ' if name else ''}rows of {width} weights are not whole {self.name} blocks",
                hint=f"{self.name} needs a multiple of {self.weights}; F16, BF16 and F32 take any row",
            )
        return width // self.weights * self.nbytes


def block_type(name: str, tensor: str = "") -> BlockType:
    """The type of that name.

    Raises:
        QuantError: FX608 with the types there are.
    """
    if name not in BLOCK_TYPES:
        prefix = f"{tensor}: " if tensor else ""
        raise QuantError(
            "FX608", f"{prefix}there is no GGUF type {name!r} here", hint=did_you_mean(name, BLOCK_TYPES)
        )
    return BLOCK_TYPES[name]


def dequantize_blocks(data: Bytes, kind: str, name: str = "") -> FloatArray:
    """The weights of rows of blocks.

    Args:
        data: uint8 [..., K / weights * nbytes].
        kind: name of the type.
        name: of the tensor, for the message.

    Returns:
        float32 [..., K].

    Raises:
        QuantError: FX608, an unknown type, or rows that are not whole blocks.
    """
    form = block_type(kind, name)
    records = as_records(data, form, name)
    if form.unpack is None:
        values = _from_bfloat16(records) if kind == "BF16" else records["x"].astype(np.float32)
    else:
        values = _values(form.unpack(records))
    width = data.shape[-1] // form.nbytes * form.weights
    return values.reshape(*data.shape[:-1], width)


def _values(fields: Fields) -> FloatArray:
    """float32 [B, S, L], rounded after each operation as ggml's reference is."""
    with np.errstate(invalid="ignore"):  # a damaged scale may be infinite
        values = (fields.d[:, None] * fields.scales)[..., None] * fields.codes
        if fields.mins is not None and fields.dmin is not None:
            values -= (fields.dmin[:, None] * fields.mins)[..., None]
    return values


def block_dot(weight: Bytes, kind: str, x: Bytes) -> FloatArray:
    """Rows of blocks times a vector in 8-bit blocks, in integers inside a sub-block.

    Per block ``dx * (d * sum_j scale_j * (code_j . x_j) - dmin * sum_j min_j * bsum_j)``; the sums bsum_j of
    the vector's codes come with it, so the mins cost one product a sub-block. Blocks add up in float64.

    Args:
        weight: uint8 [N, bytes], a type of 256 weights (or of 32).
        kind: name of that type.
        x: uint8 [bytes], Q8_K (or Q8_0).

    Returns:
        float32 [N].

    Raises:
        QuantError: FX608, an unknown type, or rows that are not whole blocks.
    """
    form = block_type(kind)
    other = BLOCK_TYPES["Q8_K" if form.weights == 256 else "Q8_0"]
    if form.unpack is None or other.unpack is None:
        raise QuantError(
            "FX608", f"{kind} has no integer product", hint="dequantize_blocks makes floats of it"
        )
    activations = as_records(x, other, "x")
    vector = other.unpack(activations)
    fields = form.unpack(as_records(weight, form, ""))
    rows, (subs, length) = len(weight), fields.codes.shape[1:]
    codes = fields.codes.reshape(rows, -1, subs, length).astype(np.int32)
    products = (codes * vector.codes.reshape(-1, subs, length)).sum(axis=-1)
    scaled = (products * fields.scales.reshape(rows, -1, subs)).sum(axis=-1) * np.float64(1)
    scaled *= fields.d.reshape(rows, -1)
    if fields.mins is not None and fields.dmin is not None:
        sums = activations["bsums"].astype(np.int32).reshape(-1, subs, length // 16).sum(axis=-1)
        mins = (fields.mins.reshape(rows, -1, subs) * sums).sum(axis=-1)
        scaled -= mins * fields.dmin.reshape(rows, -1).astype(np.float64)
    return (scaled * vector.d).sum(axis=-1).astype(np.float32)


def as_records(data: Bytes, form: BlockType, name: str) -> Blocks:
    """Rows of bytes [..., n * nbytes] as records, one a block.

    Raises:
        QuantError: FX608, rows that are not whole blocks.
    """
    if data.shape[-1] % form.nbytes:
        raise QuantError(
            "FX608",
            f"{f'{name}: ' if name else ''}rows of {data.shape[-1]} bytes are not whole {form.name} blocks",
            hint=f"a block has {form.nbytes} bytes; the data are truncated or of another type",
        )
    return np.ascontiguousarray(data).reshape(-1).view(form.layout)


# What follows are the bit layouts. In all of them some fields of the codes share a byte in the same way:
# a run of L bytes holds F times L codes, code f * L + l in the bits f * bits ... of byte l.


def _spread(data: NDArray[Any], bits: int, fields: int, length: int) -> NDArray[np.int16]:
    """uint8 [B, n] -> codes [B, n / length * fields * length]."""
    runs = data.reshape(len(data), -1, 1, length)
    shifts = (np.arange(fields, dtype=np.uint8) * bits)[:, None]
    return (runs >> shifts & np.uint8((1 << bits) - 1)).reshape(len(data), -1).astype(np.int16)


def _gather(codes: NDArray[Any], bits: int, fields: int, length: int) -> Bytes:
    """The inverse of `_spread`, of the low `bits` bits of the codes."""
    runs = codes.reshape(len(codes), -1, fields, length).astype(np.uint8) & np.uint8((1 << bits) - 1)
    shifts = (np.arange(fields, dtype=np.uint8) * bits)[:, None]
    return np.bitwise_or.reduce(runs << shifts, axis=2).reshape(len(codes), -1)


def _records(layout: np.dtype[Any], count: int, **fields: NDArray[Any] | None) -> Blocks:
    out = np.zeros(count, layout)
    for name, value in fields.items():
        out[name] = value
    return out


def _ones(count: int) -> NDArray[np.int16]:
    return np.ones((count, 1), np.int16)


def _scale(records: Blocks, field: str = "d") -> FloatArray:
    return records[field].astype(np.float32)


_Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
_Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
_Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
_Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
_Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
_Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
_Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
_Q8_K = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])


def _unpack_q4_0(r: Blocks) -> Fields:
    return Fields(_scale(r), _ones(len(r)), _spread(r["qs"], 4, 2, 16).reshape(-1, 1, 32) - np.int16(8))


def _pack_q4_0(f: Fields) -> Blocks:
    return _records(_Q4_0, len(f.d), d=f.d, qs=_gather(f.codes + 8, 4, 2, 16))


def _unpack_q8_0(r: Blocks) -> Fields:
    return Fields(_scale(r), _ones(len(r)), r["qs"].astype(np.int16).reshape(-1, 1, 32))


def _pack_q8_0(f: Fields) -> Blocks:
    return _records(_Q8_0, len(f.d), d=f.d, qs=f.codes.reshape(-1, 32))


def _unpack_q2_k(r: Blocks) -> Fields:
    codes = _spread(r["qs"], 2, 4, 32).reshape(-1, 16, 16)
    scales, mins = (r["scales"] & 15).astype(np.int16), (r["scales"] >> 4).astype(np.int16)
    return Fields(_scale(r), scales, codes, _scale(r, "dmin"), mins)


def _pack_q2_k(f: Fields) -> Blocks:
    assert f.mins is not None
    scales = (f.scales | f.mins << 4).astype(np.uint8)
    return _records(_Q2_K, len(f.d), d=f.d, dmin=f.dmin, scales=scales, qs=_gather(f.codes, 2, 4, 32))


def _unpack_q3_k(r: Blocks) -> Fields:
    codes = _spread(r["qs"], 2, 4, 32) | _spread(r["hmask"], 1, 8, 32) << 2
    scales = _spread(r["scales"][:, :8], 4, 2, 8) | _spread(r["scales"][:, 8:], 2, 4, 4) << 4
    return Fields(_scale(r), scales - np.int16(32), codes.reshape(-1, 16, 16) - np.int16(4))


def _pack_q3_k(f: Fields) -> Blocks:
    codes, scales = f.codes + 4, f.scales + 32
    packed = np.concatenate([_gather(scales, 4, 2, 8), _gather(scales >> 4, 2, 4, 4)], axis=1)
    low, high = _gather(codes, 2, 4, 32), _gather(codes >> 2, 1, 8, 32)
    return _records(_Q3_K, len(f.d), d=f.d, scales=packed, qs=low, hmask=high)


def _unpack_pairs(data: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Eight 6-bit scales and mins in 12 bytes.

    Bytes 0-3 and 4-7 hold the first four scales and mins, and above them the top two bits of the last four,
    whose low nibbles share bytes 8-11.
    """
    first, rest = data[:, :8].reshape(-1, 2, 4), data[:, 8:]
    low = np.stack([rest & 15, rest >> 4], axis=1)
    both = np.concatenate([first & 63, low | first >> 6 << 4], axis=2).astype(np.int16)
    return both[:, 0], both[:, 1]


def _pack_pairs(f: Fields) -> Bytes:
    assert f.mins is not None
    both = np.stack([f.scales, f.mins], axis=1).astype(np.uint8)
    first: NDArray[Any] = both[:, :, :4] | both[:, :, 4:] >> 4 << 6
    rest: NDArray[Any] = both[:, 0, 4:] & 15 | both[:, 1, 4:] << 4
    return np.concatenate([first.reshape(-1, 8), rest], axis=1)


def _unpack_q4_k(r: Blocks) -> Fields:
    scales, mins = _unpack_pairs(r["scales"])
    codes = _spread(r["qs"], 4, 2, 32).reshape(-1, 8, 32)
    return Fields(_scale(r), scales, codes, _scale(r, "dmin"), mins)


def _pack_q4_k(f: Fields) -> Blocks:
    qs = _gather(f.codes, 4, 2, 32)
    return _records(_Q4_K, len(f.d), d=f.d, dmin=f.dmin, scales=_pack_pairs(f), qs=qs)


def _unpack_q5_k(r: Blocks) -> Fields:
    scales, mins = _unpack_pairs(r["scales"])
    codes = (_spread(r["qs"], 4, 2, 32) | _spread(r["qh"], 1, 8, 32) << 4).reshape(-1, 8, 32)
    return Fields(_scale(r), scales, codes, _scale(r, "dmin"), mins)


def _pack_q5_k(f: Fields) -> Blocks:
    low, high = _gather(f.codes, 4, 2, 32), _gather(f.codes >> 4, 1, 8, 32)
    return _records(_Q5_K, len(f.d), d=f.d, dmin=f.dmin, scales=_pack_pairs(f), qs=low, qh=high)


def _unpack_q6_k(r: Blocks) -> Fields:
    codes = _spread(r["ql"], 4, 2, 64) | _spread(r["qh"], 2, 4, 32) << 4
    return Fields(_scale(r), r["scales"].astype(np.int16), codes.reshape(-1, 16, 16) - np.int16(32))


def _pack_q6_k(f: Fields) -> Blocks:
    codes = f.codes + 32
    low, high = _gather(codes, 4, 2, 64), _gather(codes >> 4, 2, 4, 32)
    return _records(_Q6_K, len(f.d), d=f.d, scales=f.scales, ql=low, qh=high)


def _unpack_q8_k(r: Blocks) -> Fields:
    # Sub-blocks are a matter of the other factor; here all share the scale of the block.
    return Fields(_scale(r), _ones(len(r)), r["qs"].astype(np.int16).reshape(-1, 1, 256))


def _pack_q8_k(f: Fields) -> Blocks:
    sums = f.codes.reshape(-1, 16, 16).sum(axis=-1)
    return _records(_Q8_K, len(f.d), d=f.d, qs=f.codes.reshape(-1, 256), bsums=sums)


def _from_bfloat16(records: Blocks) -> FloatArray:
    return (records["x"].astype(np.uint32) << 16).view(np.float32)


BLOCK_TYPES: Mapping[str, BlockType] = {
    kind.name: kind
    for kind in (
        BlockType("F32", 0, 1, np.dtype([("x", "<f4")])),
        BlockType("F16", 1, 1, np.dtype([("x", "<f2")])),
        BlockType("BF16", 30, 1, np.dtype([("x", "<u2")])),
        BlockType("Q4_0", 2, 32, _Q4_0, _unpack_q4_0, _pack_q4_0),
        BlockType("Q8_0", 8, 32, _Q8_0, _unpack_q8_0, _pack_q8_0),
        BlockType("Q2_K", 10, 256, _Q2_K, _unpack_q2_k, _pack_q2_k),
        BlockType("Q3_K", 11, 256, _Q3_K, _unpack_q3_k, _pack_q3_k),
        BlockType("Q4_K", 12, 256, _Q4_K, _unpack_q4_k, _pack_q4_k),
        BlockType("Q5_K", 13, 256, _Q5_K, _unpack_q5_k, _pack_q5_k),
        BlockType("Q6_K", 14, 256, _Q6_K, _unpack_q6_k, _pack_q6_k),
        BlockType("Q8_K", 15, 256, _Q8_K, _unpack_q8_k, _pack_q8_k),
    )
}
"""The supported types by name."""
