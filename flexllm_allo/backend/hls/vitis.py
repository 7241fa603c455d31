"""The Vitis project of a program: kernel, test bench, host program, scripts and data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ...hardware.devices import Device
from ...ir import nodes as ir
from ...schedule.trace import Primitive
from .csim import csim_bytes
from .emit import emit, emit_header, uses_ap
from .parts import project_parts
from .placement import Slot
from .pragmas import check_directives, check_ports, check_text
from .project import BuildPlan
from .templates import template
from .testbench import Image, host, testbench
from .toolchain import AP_HEADERS_VARIABLE

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
    parts = project_parts(program, "vitis", device, data, golden, memory, placement, images)
    check_directives(program, trace)
    code = emit(program, "vitis", bundles)
    check_text(code)
    card, name = parts.card, parts.name
    check_ports(len(set(re.findall(r"m_axi .*bundle=(\w+)", code))), card.ports, card.name)
    values = settings(name, card, frequency)
    sizes = [csim_bytes(b.dtype) for b in program.function(program.top).params]
    ap_note = " and the ap_int headers: AP_TYPES=folder" if uses_ap(program) else ""
    text = {
        "kernel.cpp": code,
        "kernel.h": emit_header(program, "vitis"),
        "testbench.cpp": testbench(name, parts.ports),
        "host.cpp": host(name, parts.ports, sizes),
        "run.tcl": template("run.tcl").substitute(values),
        "hls_config.cfg": template("hls_config.cfg").substitute(values),
        f"{name}.cfg": parts.connectivity,
        "Makefile": template("Makefile").substitute(values),
        "README.md": template("README.md").substitute(values, arguments=parts.arguments, ap_note=ap_note),
    }
    files = {path: content.encode() for path, content in text.items()} | parts.files
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


def settings(top: str, card: Device, frequency: float) -> dict[str, str]:
    """What the templates of the scripts ask for."""
    link = _LINK.format(top=top, mhz=f"{frequency:g}", product="xsa" if card.versal else "xclbin")
    return {
        "top": top, "part": card.part, "platform": card.platform, "device": card.name,
        "period": f"{1000 / frequency:.2f}", "mhz": f"{frequency:g}", "ap_variable": AP_HEADERS_VARIABLE,
        "link": link + _PACKAGE.format(top=top) if card.versal else link,
        "versal_note": _VERSAL_NOTE if card.versal else "",
    }  # fmt: skip
