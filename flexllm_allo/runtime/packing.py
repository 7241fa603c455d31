"""Weights as the card's memory holds them: one file per channel, written piece by piece, and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.arguments import encode
from ..backend.containers import container
from ..backend.hls.csim import csim_bytes, csim_dtype, to_csim_bytes
from ..backend.hls.project import MANIFEST, WrittenFile
from ..errors import UsageError
from ..ir import nodes as ir
from ..ir.layout import logical_shape, pack_array, unpack_array
from ..staging import StagedFolder
from .memory_map import MemoryMap, Placement

Array = NDArray[Any]
Parts = Callable[[str], Iterable[Array]]
"""Gives a tensor by name, in pieces along its first axis."""
STATE = "packing.json"
"""In the folder in the making: which channels are done, and of what."""
_PIECE = 1 << 24
"""Elements that are packed at a time."""


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote: files by name, and the SHA-256 of every tensor."""

    files: dict[str, WrittenFile]
    tensors: dict[str, str]


def pack(
    staged: StagedFolder,
    plan: MemoryMap,
    parts: Parts,
    source: str,
    keep: Iterable[str] = (),
    on_file: Callable[[int, int], None] = lambda _done, _total: None,
) -> Packed:
    """Write the file of every channel that holds constants.

    Tensors are read, packed and written in pieces; the peak is one layer of one tensor. A file is there
    complete or not at all, and those that an earlier run left for the same source and map are kept.

    Args:
        staged: the folder in the making.
        plan: where everything lies.
        parts: the tensors.
        source: digest of the model that `parts` reads.
        keep: other files or folders of the folder in the making that stay.
        on_file: called with (files done, files in all).

    Raises:
        UsageError: FX702, the disk is full or the folder cannot be written.
    """
    key = hashlib.sha256(json.dumps([source, manifest_entries(plan)]).encode()).hexdigest()
    packed = _resumed(staged, key)
    staged.keep_only({STATE, *packed.files, *keep} if packed.files else keep)
    for done, (file, placements) in enumerate(plan.files.items()):
        on_file(done, len(plan.files))
        if file not in packed.files:
            whole, digests = hashlib.sha256(), {p.name: hashlib.sha256() for p in placements}
            staged.write(file, _hashed(_channel(placements, parts, digests), whole))
            size = (staged.path / file).stat().st_size
            packed.files[file] = WrittenFile(size, whole.hexdigest())
            packed.tensors.update({name: digest.hexdigest() for name, digest in digests.items()})
            staged.write(STATE, [_state(key, packed)])
    on_file(len(plan.files), len(plan.files))
    return packed


def unpack(project: Path, plan: MemoryMap, name: str) -> Array:
    """A tensor as it was before `pack`, read from the file of its channel.

    Raises:
        UsageError: FX703, no constant of that name, or its bytes are not those the manifest lists.
    """
    placement = plan.placements.get(name)
    if placement is None or not placement.is_constant:
        raise UsageError("FX703", f"the design has no stored tensor {name!r}")
    with (project / placement.file).open("rb") as file:
        file.seek(placement.slot.offset or 0)
        data = file.read(placement.slot.bytes)
    entry = json.loads((project / MANIFEST).read_text())["tensors"][name]
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise UsageError("FX703", f"{placement.file} is damaged at {name}", hint="build the project again")
    return from_bytes(placement.buffer, data)


def to_bytes(buffer: ir.Buffer, array: Array) -> bytes:
    """The bytes of (a piece of) an array in the card's memory, packed into the words of its port."""
    if buffer.words > 1:
        return to_csim_bytes(buffer, pack_array(buffer, array))
    return to_csim_bytes(buffer, encode(buffer, array))


def from_bytes(buffer: ir.Buffer, data: bytes) -> Array:
    """The inverse of `to_bytes`: logical elements."""
    raw = np.frombuffer(data, csim_dtype(buffer)).reshape(buffer.shape)
    kind = container(buffer.dtype)
    if raw.dtype != kind:  # words beyond 64 bits end at the next 8 bytes in C++
        size = csim_bytes(buffer.dtype)
        flat = np.frombuffer(data, np.uint8).reshape(-1, size)[:, : kind.itemsize]
        raw = np.ascontiguousarray(flat).view(kind).reshape(buffer.shape)
    return unpack_array(buffer, raw) if buffer.words > 1 else raw


def manifest_entries(plan: MemoryMap, digests: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Every array of the design for ``manifest.json``; SHA-256 for those that are stored."""
    entries: dict[str, dict[str, Any]] = {}
    for name, p in plan.placements.items():
        entries[name] = {
            "channel": str(p.slot),
            "offset": p.slot.offset,
            "bytes": p.slot.bytes,
            "port": p.bundle,
            "word_bytes": p.word_bytes,
            "bytes_per_token": p.bytes_per_token,
        }
        if p.is_constant:
            entries[name]["file"] = p.file
            if digests is not None:
                entries[name]["sha256"] = digests[name]
    return entries


def _channel(placements: list[Placement], parts: Parts, digests: dict[str, Any]) -> Iterator[bytes]:
    """The contents of a channel: its tensors at their offsets, zeros between them."""
    at = 0
    for p in placements:
        offset = p.slot.offset or 0
        yield bytes(offset - at)
        at = offset
        for array in parts(p.name):
            for piece in _pieces(p.buffer, array):
                digests[p.name].update(piece)
                at += len(piece)
                yield piece
        assert at == offset + p.slot.bytes, f"{p.name} has {at - offset} bytes, not {p.slot.bytes}"


def _pieces(buffer: ir.Buffer, array: Array) -> Iterator[bytes]:
    """Packed pieces of a part of an array, cut along its first axis, or its second if that has one row."""
    shape = logical_shape(buffer)
    array = np.asarray(array).reshape(-1, *shape[1:]) if shape else np.asarray(array)
    axis = 1 if array.ndim > 1 and len(array) == 1 else 0
    packed_here = buffer.words > 1 and axis == array.ndim + buffer.word_axis
    step = buffer.words if packed_here else 1
    rows = array.shape[axis] if array.ndim else 1
    each = max(1, _PIECE * rows // max(1, array.size) // step) * step
    for begin in range(0, rows, each):
        piece = array if not array.ndim else array[(slice(None),) * axis + (slice(begin, begin + each),)]
        dims = list(piece.shape)
        if buffer.words > 1:
            dims[buffer.word_axis] //= buffer.words
        yield to_bytes(replace(buffer, shape=tuple(dims)), piece)


def _hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _state(key: str, packed: Packed) -> bytes:
    files = {name: [file.bytes, file.sha256] for name, file in packed.files.items()}
    return json.dumps({"key": key, "files": files, "tensors": packed.tensors}).encode()


def _resumed(staged: StagedFolder, key: str) -> Packed:
    """What an earlier run finished of the same thing."""
    try:
        state = json.loads((staged.path / STATE).read_text())
        if state["key"] != key:
            raise ValueError
        files = {name: WrittenFile(*entry) for name, entry in state["files"].items()}
        sizes = {name: (staged.path / name).stat().st_size for name in files}
        if any(files[name].bytes != size for name, size in sizes.items()):
            raise ValueError
        return Packed(files, dict(state["tensors"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Packed({}, {})
