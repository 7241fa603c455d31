"""The Vitis project of a program: kernel, test bench, host program, scripts and data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArgumentError, BackendError, did_you_mean
from ...hardware.devices import Device
from ...hardware.devices import device as find_device
from ...ir import nodes as ir
from ...ir.dtypes import ArrayType
from ...ir.layout import logical_shape, pack_array
from ...schedule.trace import Primitive
from ..arguments import encode
from ..effects import Effects
from ..external import source_files
from .csim import csim_bytes, to_csim_bytes
from .emit import emit, emit_header, top_name, top_parameters, uses_ap
from .interface import is_memory_port
from .placement import Slot, place
from .pragmas import check_directives, check_ports, check_text
from .project import BuildPlan
from .templates import template
from .testbench import Image, host, ports, testbench
from .toolchain import AP_HEADERS_VARIABLE, SHIM

Array = NDArray[Any]


def vitis_project(
    program: ir.Program,
    device: str = "u280",
    frequency: float = 300.0,
    data: Mapping[str, Array] | None = None,
    golden: Mapping[str, Array] | None = None,
    bundles: Mapping[str, str] | None = None,
    memory: Mapping[str, int | str] | None = None,
    placement: Mapping[str, Slot] | None = None,
    images: Mapping[str, Image] | None = None,
    trace: Sequence[Primitive] = (),
) -> BuildPlan:
    """Plan the Vitis project of a program.

    Args:
        program: the scheduled IR; its top function becomes the kernel.
        device: a card of `hardware/devices.toml`.
        frequency: target clock in MHz.
        data: contents of arguments before the run, by name; those left out are zeros.
        golden: contents of results and in-place arguments after the run, by name.
        bundles: AXI bundle by argument; by default each has its own.
        memory: memory channel by argument (a number, or text such as ``"HBM[3]"``); ``"output_0"`` is
            the first result.
        placement: the places of all memory arguments, decided by the caller (else `memory` and `place` do).
        images: arguments that lie in the file of a channel, which the caller writes.
        trace: the schedule, for messages about its directives.

    Raises:
        BackendError: FX402, unknown device or the arguments do not fit into its memory; FX403, a directive
            that Vitis would not take.
        ArgumentError: FX401, data for an argument that does not exist or has another shape.
    """
    card = find_device(device)
    top = program.function(program.top)
    _check_top(top)
    data, golden = data or {}, golden or {}
    written = Effects(program).stored(top)
    _check_names(top, data, {b.name for b in top.inputs}, "an input")
    _check_names(top, golden, written, "a result or written argument")
    names = top_parameters(program, "vitis")
    spelled = {b.name: name for b, name in zip(top.params, names, strict=True)}
    sizes = {b.name: _bytes(b) for b in top.params if is_memory_port(top, b)}
    slots = placement or place(sizes, card, _by_name(top, memory or {}))
    placed = {n: str(slot) for n, slot in slots.items()}
    name = top_name(program)
    all_ports = ports(top, names, written, data.keys(), golden.keys(), images)
    values = _settings(name, card, frequency)
    check_directives(program, trace)
    code = emit(program, "vitis", bundles)
    check_text(code)
    check_ports(len(set(re.findall(r"m_axi .*bundle=(\w+)", code))), card.memory.ports, card.name)
    text = {
        "kernel.cpp": code,
        "kernel.h": emit_header(program, "vitis"),
        "testbench.cpp": testbench(name, all_ports),
        "host.cpp": host(name, all_ports, [csim_bytes(b.dtype) for b in top.params]),
        "run.tcl": template("run.tcl").substitute(values),
        "hls_config.cfg": template("hls_config.cfg").substitute(values),
        f"{name}.cfg": _connectivity(name, {spelled[n]: where for n, where in placed.items()}, card),
        "Makefile": template("Makefile").substitute(values),
        "README.md": template("README.md").substitute(
            values,
            arguments=_argument_table(top, spelled, placed),
            ap_note=" and the ap_int headers: AP_TYPES=folder" if uses_ap(program) else "",
        ),
    }
    files = {path: content.encode() for path, content in text.items()}
    files |= source_files(program) | _headers()
    files |= _data_files(top, spelled, data, "")
    files |= _data_files(top, spelled, golden, "golden_")
    return BuildPlan(name, card.key, frequency, files)


_LINK = (
    "{top}.$(TARGET).{product}: {top}.xo {top}.cfg\n"
    "\tv++ -l -t $(TARGET) --platform $(PLATFORM) --config {top}.cfg \\\n"
    "\t  --kernel_frequency {mhz} {top}.xo -o $@\n"
)
_PACKAGE = (
    "\n{top}.$(TARGET).xclbin: {top}.$(TARGET).xsa\n"
    "\tv++ -p -t $(TARGET) --platform $(PLATFORM) --package.boot_mode=ospi $< -o $@\n"
)
_VERSAL_NOTE = """
This card is a Versal: linking gives an `.xsa`, which `v++ -p` packages as the `.xclbin` with the PDI of the
device inside. These two steps follow the manuals and were never run on a card of this kind.
"""


def _settings(top: str, card: Device, frequency: float) -> dict[str, str]:
    """What the templates of the scripts ask for."""
    link = _LINK.format(top=top, mhz=f"{frequency:g}", product="xsa" if card.versal else "xclbin")
    return {
        "top": top, "part": card.part, "platform": card.platform, "device": card.name,
        "period": f"{1000 / frequency:.2f}", "mhz": f"{frequency:g}", "ap_variable": AP_HEADERS_VARIABLE,
        "link": link + _PACKAGE.format(top=top) if card.versal else link,
        "versal_note": _VERSAL_NOTE if card.versal else "",
    }  # fmt: skip


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


def _headers() -> dict[str, bytes]:
    """Our headers beside the kernel (they ship with the design), the stand-ins for Vitis' in ``shim``."""
    files: dict[str, bytes] = {}
    for path in sorted(SHIM.rglob("*.h")):
        name = path.relative_to(SHIM).as_posix()
        files[name if name.startswith("flexllm_") else f"shim/{name}"] = path.read_bytes()
    return files
