"""Quantized tensors as the arrays of a file, codes packed, and back."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuantError
from ..encoding.packing import pack_codes, unpack_codes
from ..encoding.sparsity import decode_index, encode_index, index_code_bits
from ..formats import IntFormat, WeightFormat
from ..recipe_file import format_from_dict, format_to_dict
from ..weight import QuantizedWeight
from .files import Raw, data_bytes, open_tensors
from .manifest import Entry, Manifest

Value = QuantizedWeight | NDArray[Any]


def to_raw(name: str, value: Value, file: str) -> tuple[Entry, dict[str, Raw]]:
    """The arrays that hold a tensor in a file, and the manifest's entry that says so."""
    if isinstance(value, QuantizedWeight):
        raws = {f"{name}.{part}": raw for part, raw in _parts(value)}
        fmt = None if value.format is None else format_to_dict(value.format)
        entry = Entry(kind="weight", file=file, shape=list(value.shape), format=fmt, crc32={})
    else:
        raws = {name: Raw.of(value)}
        entry = Entry(kind="array", file=file, shape=list(value.shape), crc32={})
    entry.crc32 = {part: zlib.crc32(data_bytes(raw.data)) for part, raw in raws.items()}
    return entry, raws


def _parts(weight: QuantizedWeight) -> Iterator[tuple[str, Raw]]:
    fmt = weight.format
    if fmt is None:
        yield "codes", Raw.of(weight.codes)
        return
    yield "codes", Raw("U8", pack_codes(weight.codes, fmt.bits))
    half = weight.scale.astype(np.float16) if fmt.scale == "float16" else None
    if half is not None and (half == weight.scale).all():
        yield "scale", Raw("F16", half)
    else:
        yield "scale", Raw("F32", weight.scale)
    if weight.zero is not None:
        yield "zero", Raw("U8", pack_codes(weight.zero, fmt.bits))
    if weight.step is not None:
        yield "step", Raw("U8", weight.step)
    if weight.index is not None:
        assert isinstance(fmt, IntFormat)
        assert fmt.sparsity is not None
        codes = encode_index(weight.index, fmt.sparsity)
        yield "index", Raw("U8", pack_codes(codes, index_code_bits(fmt.sparsity)))


class StoredTensors(Mapping[str, Value]):
    """The tensors of a folder by name: each access reads, checks and unpacks one, nothing is kept.

    Raises:
        QuantError: FX608, a file is missing, incomplete or without one of the arrays; at an access, an array
            whose checksum is not the manifest's.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._entries = manifest.tensors
        self._raws: dict[str, Raw] = {}
        for file in dict.fromkeys(entry.file for entry in manifest.tensors.values()):
            self._raws |= open_tensors(folder / file)
        for name, entry in manifest.tensors.items():
            missing = [part for part in entry.crc32 if part not in self._raws]
            if missing or not entry.crc32:
                raise self._damaged(name, f"{', '.join(missing) or 'all of it'} is missing")

    def __getitem__(self, name: str) -> Value:
        entry = self._entries[name]
        for part, crc in entry.crc32.items():
            if zlib.crc32(data_bytes(self._raws[part].data)) != crc:
                raise self._damaged(name, f"the checksum of {part} is wrong")
        try:
            value = self._array(name) if entry.kind == "array" else self._weight(name, entry)
            whole = list(value.shape) == entry.shape
        except (KeyError, ValueError) as error:
            raise self._damaged(
                name, error.message if isinstance(error, QuantError) else str(error)
            ) from error
        if not whole:
            raise self._damaged(name, f"it has shape {list(value.shape)}, the manifest says {entry.shape}")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def stored_bytes(self, name: str) -> int:
        """Bytes of a tensor in its file."""
        return sum(self._raws[part].data.nbytes for part in self._entries[name].crc32)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._entries[name].shape)

    def _array(self, name: str) -> NDArray[Any]:
        return self._raws[name].values()

    def _weight(self, name: str, entry: Entry) -> QuantizedWeight:
        codes = self._raws[f"{name}.codes"]
        *lead, width = entry.shape
        if entry.format is None:
            return QuantizedWeight(None, codes.values(), np.ones((*lead, 1), np.float32))
        fmt = format_from_dict(entry.format, f"the format of {name}")
        sparsity = fmt.sparsity if isinstance(fmt, IntFormat) else None
        kept = width * sparsity.n // sparsity.m if sparsity else width
        zero, step = self._raws.get(f"{name}.zero"), self._raws.get(f"{name}.step")
        index: NDArray[np.uint8] | None = None
        if sparsity:
            count = kept if sparsity.index == "2bit" else width // sparsity.m
            packed = self._raws[f"{name}.index"].data
            index = decode_index(
                unpack_codes(packed, index_code_bits(sparsity), count, False).view(np.uint8), sparsity
            )
        return QuantizedWeight(
            fmt,
            unpack_codes(codes.data, fmt.bits, kept, fmt.signed),
            self._raws[f"{name}.scale"].values().astype(np.float32),
            None if zero is None else self._zeros(zero, fmt, width),
            None if step is None else step.values(),
            index,
        )

    def _zeros(self, zero: Raw, fmt: WeightFormat, width: int) -> NDArray[np.uint8]:
        return unpack_codes(zero.data, fmt.bits, fmt.groups(width), False).view(np.uint8)

    def _damaged(self, name: str, reason: str) -> QuantError:
        path = self._folder / self._entries[name].file
        return QuantError("FX608", f"{path} is damaged at {name}: {reason}", hint="quantize the model again")


def weight_count(entry: Entry) -> int:
    """Weights a tensor stands for, pruned ones included."""
    return math.prod(entry.shape)
