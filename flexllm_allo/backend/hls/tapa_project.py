"""The TAPA project of a program: tasks, host program, Makefile and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir import nodes as ir
from ...schedule.trace import Primitive
from .csim import task_flags
from .emit import emit, emit_header, uses_ap
from .parts import Array, Parts, headers, project_parts
from .placement import Slot
from .pragmas import check_directives, check_text
from .project import BuildPlan
from .templates import template
from .testbench import Image, tapa_host
from .toolchain import TAPA_SHIM
from .vitis import settings


def tapa_project(
    program: ir.Program,
    device: str = "u280",
    frequency: float = 300.0,
    data: Mapping[str, Array] | None = None,
    golden: Mapping[str, Array] | None = None,
    memory: Mapping[str, int | str] | None = None,
    placement: Mapping[str, Slot] | None = None,
    images: Mapping[str, Image] | None = None,
    trace: Sequence[Primitive] = (),
) -> BuildPlan:
    """Plan the TAPA project of a program; arguments and errors are those of `vitis_project`."""
    parts = project_parts(program, "tapa", device, data, golden, memory, placement, images)
    check_directives(program, trace)
    code = emit(program, "tapa")
    check_text(code)
    values = settings(parts.name, parts.card, frequency)
    values["flags"] = " ".join(task_flags(program))
    ap_note = " and the ap_int headers: AP_TYPES=folder" if uses_ap(program) else ""
    text = {
        "kernel.cpp": code,
        "kernel.h": emit_header(program, "tapa"),
        "tapa_host.cpp": tapa_host(parts.name, parts.ports),
        f"{parts.name}.cfg": parts.connectivity,
        "Makefile": template("tapa.mk").substitute(values),
        "README.md": template("tapa_README.md").substitute(
            values, arguments=parts.arguments, ap_note=ap_note, ports_note=_ports_note(parts)
        ),
    }
    files = {path: content.encode() for path, content in text.items()}
    return BuildPlan(parts.name, parts.card.key, frequency, files | parts.files | headers([TAPA_SHIM]))


def _ports_note(parts: Parts) -> str:
    """That every argument in memory is a port of its own, where a card takes fewer."""
    ports, card = sum(port.is_memory for port in parts.ports), parts.card
    if card.ports is None or ports <= card.ports:
        return ""
    more = f"{ports - card.ports} more than {card.name} takes ({card.ports})"
    return f"\nThe top task has {ports} memory ports, {more}: it can be simulated and compiled, not linked.\n"


__all__ = ["tapa_project"]
