"""Tensors of a checkpoint by name, read from safetensors files one at a time as float32.

The format is parsed here rather than through the `safetensors` package because its NumPy interface has
no bfloat16. Layout: 8 bytes header length (little-endian), a JSON header, then the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flexllm_allo.errors import ModelError

HEADER_LIMIT = 100_000_000  # bytes; the limit of the reference implementation

# Bits per element of what a safetensors file may hold. Only READABLE can become a weight.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
READABLE = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its shape, its dtype in safetensors' words, and how to read it as float32."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[np.float32]]


class Tensors(Mapping[str, NDArray[np.float32]]):
    """Tensors by name. Each access reads and converts the tensor anew, so that nothing is kept in memory."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries


def read_safetensors(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, checked against the size of the file; no data is read yet.

    Raises:
        ModelError: FX601 when the file is missing, truncated or not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                raise _corrupt(path, f"the header should be {length} bytes long, the file has {size} bytes")
            text = file.read(length)
        header = json.loads(text)
    except OSError as error:
        raise ModelError("FX601", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # JSON or UTF-8; ModelError is a ValueError too
        if isinstance(error, ModelError):
            raise
        raise _corrupt(path, f"the header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "the header is not a JSON object")
    fields = cast("dict[str, Any]", header)
    fields.pop("__metadata__", None)
    spans = {name: _check_entry(path, name, value) for name, value in fields.items()}
    _check_offsets(path, [span for _, _, span in spans.values()], size - 8 - length)
    return {
        name: Entry(shape, dtype, _reader(path, 8 + length + begin, shape, dtype))
        for name, (shape, dtype, (begin, _)) in spans.items()
    }


def _corrupt(path: Path, reason: str) -> ModelError:
    return ModelError(
        "FX601",
        f"{path} is not a complete safetensors file: {reason}",
        hint="download or export it again; a Git LFS pointer in place of the file also looks like this",
    )


def _check_entry(path: Path, name: str, value: Any) -> tuple[tuple[int, ...], str, tuple[int, int]]:
    fields: dict[str, Any] = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    shape, offsets = _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
    dtype = fields.get("dtype")
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise _corrupt(path, f"the entry of tensor {name!r} lacks a valid dtype, shape or data_offsets")
    begin, end = offsets
    bits = _BITS.get(dtype)
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        raise _corrupt(path, f"tensor {name!r} ({dtype} {list(shape)}) does not fit its {end - begin} bytes")
    return shape, dtype, (begin, end)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A JSON list of non-negative integers, or None if it is anything else."""
    if not isinstance(value, list):
        return None
    items = cast("list[Any]", value)
    valid = all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items)
    return tuple(items) if valid else None


def _check_offsets(path: Path, spans: list[tuple[int, int]], data: int) -> None:
    """The tensors must cover the data without holes or overlaps, as the format demands."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at or end < begin:
            raise _corrupt(path, f"tensor data at byte {begin} overlaps another tensor or leaves a hole")
        at = end
    if at != data:
        raise _corrupt(path, f"the tensors take {at} bytes, the file holds {data}")


def _reader(path: Path, offset: int, shape: tuple[int, ...], dtype: str) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        storage = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[dtype]
        if 0 in shape:
            return np.zeros(shape, np.float32)
        raw = np.memmap(path, dtype=storage, mode="r", offset=offset, shape=shape or (1,)).reshape(shape)
        if dtype != "BF16":
            return np.array(raw, dtype=np.float32)
        # A bfloat16 is the upper half of a float32.
        wide = np.array(raw, dtype=np.uint32)
        wide <<= 16
        return wide.view(np.float32)

    return read
