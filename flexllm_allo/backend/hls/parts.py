"""What a project holds whatever tool it is for: arguments and their places, data files, headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArgumentError, BackendError, did_you_mean
from ...hardware.devices import Device
from ...hardware.devices import device as find_device
from ...ir import nodes as ir
from ...ir.dtypes import ArrayType
from ...ir.layout import logical_shape, pack_array
from ..arguments import encode
from ..effects import Effects
from ..external import source_files
from .csim import csim_bytes, to_csim_bytes
from .emit import top_name, top_parameters
from .interface import Flow, is_memory_port
from .placement import Slot, place
from .testbench import Image, Port, ports
from .toolchain import SHIM

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """The common parts of a project.

    Attributes:
        name: the C++ name of the top function.
        ports: its parameters as the host sees them.
        connectivity: the file that says in which memory channel each argument lies.
        arguments: the same as a table of Markdown.
        files: data, headers and the user's C++ by path.
    """

    card: Device
    name: str
    ports: list[Port]
    connectivity: str
    arguments: str
    files: dict[str, bytes]


def project_parts(
    program: ir.Program,
    flow: Flow,
    device: str,
    data: Mapping[str, Array] | None = None,
    golden: Mapping[str, Array] | None = None,
    memory: Mapping[str, int | str] | None = None,
    placement: Mapping[str, Slot] | None = None,
    images: Mapping[str, Image] | None = None,
) -> Parts:
    """The common parts of a project; the arguments are those of `vitis_project`.

    Raises:
        BackendError: FX402, unknown device or the arguments do not fit into its memory; FX403, the top
            function has a FIFO as a parameter.
        ArgumentError: FX401, data for an argument that does not exist or has another shape.
    """
    card = find_device(device)
    top = program.function(program.top)
    _check_top(top)
    data, golden = data or {}, golden or {}
    written = Effects(program).stored(top)
    _check_names(top, data, {b.name for b in top.inputs}, "an input")
    _check_names(top, golden, written, "a result or written argument")
    names = top_parameters(program, flow)
    spelled = {b.name: name for b, name in zip(top.params, names, strict=True)}
    sizes = {b.name: _bytes(b) for b in top.params if is_memory_port(top, b)}
    slots = placement or place(sizes, card, _by_name(top, memory or {}))
    placed = {n: str(slot) for n, slot in slots.items()}
    name = top_name(program)
    files = source_files(program) | headers([SHIM])
    files |= _data_files(top, spelled, data, "") | _data_files(top, spelled, golden, "golden_")
    return Parts(
        card=card,
        name=name,
        ports=ports(top, names, written, data.keys(), golden.keys(), images),
        connectivity=_connectivity(name, {spelled[n]: where for n, where in placed.items()}, card),
        arguments=_argument_table(top, spelled, placed),
        files=files,
    )


def _check_top(top: ir.Function) -> None:
    for parameter in top.params:
        if parameter.is_stream:
            raise BackendError(
                "FX403",
                f"the top function '{top.name}' has the stream '{parameter.name}' as a parameter",
                parameter.span,
                hint="wrap it in a function whose arguments are arrays",
            )


def _check_names(
    top: ir.Function, given: Mapping[str, Array], allowed: set[str] | frozenset[str], what: str
) -> None:
    for name in given:
        if name not in allowed:
            raise ArgumentError(
                "FX401", f"'{name}' is not {what} of '{top.name}'", top.span, did_you_mean(name, allowed)
            )


def _by_name(top: ir.Function, memory: Mapping[str, int | str]) -> dict[str, int | str]:
    """Allo's names of results, ``output_0`` and so on, as the names they have in the program."""
    results = {f"output_{i}": b.name for i, b in enumerate(top.outputs)}
    return {results.get(name, name): where for name, where in memory.items()}


def _bytes(buffer: ir.Buffer) -> int:
    return int(np.prod(buffer.shape, dtype=np.int64)) * csim_bytes(buffer.dtype)


def _data_files(
    top: ir.Function, spelled: Mapping[str, str], given: Mapping[str, Array], prefix: str
) -> dict[str, bytes]:
    return {
        f"data/{prefix}{spelled[b.name]}.bin": _contents(b, given[b.name])
        for b in top.params
        if b.name in given
    }


def _contents(buffer: ir.Buffer, array: Array) -> bytes:
    """The bytes of a data file; arrays of logical elements are packed into words first."""
    if buffer.words > 1 and np.shape(array) == logical_shape(buffer):
        array = pack_array(buffer, array)
    return to_csim_bytes(buffer, encode(buffer, array))


def _connectivity(top: str, placed: Mapping[str, str], card: Device) -> str:
    lines = ["[connectivity]", f"nk={top}:1:{top}_1"]
    if card.slrs > 1:
        lines.append(f"slr={top}_1:{card.memory.slr}")
    lines += [f"sp={top}_1.{name}:{where}" for name, where in placed.items()]
    return "\n".join(lines) + "\n"


def _argument_table(top: ir.Function, spelled: Mapping[str, str], placed: Mapping[str, str]) -> str:
    rows = [
        (spelled[b.name], str(ArrayType(b.dtype, b.shape)), placed.get(b.name, "register"))
        for b in top.params
    ]
    return "\n".join(f"| `{name}` | {elements} | {where} |" for name, elements, where in rows)


def headers(folders: Iterable[Path]) -> dict[str, bytes]:
    """Our headers beside the kernel (they ship with the design), the stand-ins for others' in ``shim``."""
    files: dict[str, bytes] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.h")):
            name = path.relative_to(folder).as_posix()
            files[name if name.startswith("flexllm_") else f"shim/{name}"] = path.read_bytes()
    return files


__all__ = ["Parts", "headers", "project_parts"]
