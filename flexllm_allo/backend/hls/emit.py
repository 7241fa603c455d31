"""HLS C++ of a program: ``kernel.cpp`` and ``kernel.h``.

Three flows: ``vhls`` has C arrays everywhere; ``vitis`` reaches the arrays of the top function through
AXI memory ports; ``tapa`` makes the processes of dataflow functions tasks of TAPA (see `tasks`).  The
shape of the text follows Allo's, with the user's names and whole expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import cast

from ...ir import nodes as ir
from ..external import included
from ..external import uses_ap as extern_uses_ap
from .duplicates import without_duplicates
from .interface import Flow, Instance, Instances, port_pragmas
from .scope import Scope
from .statements import Body, buffer_pragmas
from .tapa import write_tasks
from .tasks import task_program
from .writer import Writer

_AP_TYPE = re.compile(r"\bap_u?(int|fixed)<")
INCLUDES = (
    "algorithm", "ap_axi_sdata.h", "ap_fixed.h", "ap_int.h", "hls_math.h", "hls_stream.h", "hls_vector.h",
    "math.h", "stdint.h",
)  # fmt: skip


def emit(program: ir.Program, flow: Flow = "vhls", bundles: Mapping[str, str] | None = None) -> str:
    """The C++ text of a program.

    Args:
        program: the scheduled IR.
        flow: ``"vhls"`` (plain arrays), ``"vitis"`` (AXI ports on the top function) or ``"tapa"``.
        bundles: ``vitis``: AXI bundle by argument of the top; by default every argument has its own.
    """
    body = _functions(_instances(program, flow), flow, bundles or {})
    out = Writer()
    for name in (*INCLUDES, *(["tapa.h"] if flow == "tapa" else [])):
        out.line(f"#include <{name}>")
    out.line('#include "flexllm_numerics.h"')
    if _AP_TYPE.search(body):
        out.line('#include "flexllm_ap.h"')
    if flow != "tapa":  # an invocation names a function without calling it: `generate` would be std's as well
        out.line("using namespace std;")
    for name in included(program):
        out.line(f'#include "{name}"')
    out.line()
    if flow == "vitis":
        return f'{out.text()}extern "C" {{\n\n{body}\n}} // extern "C"\n'
    return out.text() + body


def emit_header(program: ir.Program, flow: Flow = "vhls") -> str:
    """The declaration of the top function for hosts and test benches."""
    instances = _instances(program, flow)
    top = instances.top
    guard = f"{top.name.upper()}_KERNEL_H"
    out = Writer()
    out.line(f"#ifndef {guard}")
    out.line(f"#define {guard}")
    for name in ("ap_fixed.h", "ap_int.h", "hls_stream.h", "stdint.h"):
        out.line(f"#include <{name}>")
    if flow == "tapa":
        out.line("#include <tapa.h>")
    out.line('#include "flexllm_numerics.h"')
    out.line()
    if flow != "tapa":
        out.line('extern "C" {')
    _signature(top, Scope(top, instances.names), out, ");")
    if flow != "tapa":
        out.line('} // extern "C"')
    out.line("#endif")
    return out.text()


def _instances(program: ir.Program, flow: Flow) -> Instances:
    """The functions that are written; in the ``tapa`` flow, of the program in the form of tasks."""
    program = without_duplicates(program)
    if flow != "tapa":
        return Instances(program, flow)
    tasks = task_program(program)
    return Instances(tasks.program, flow, tasks.uppers)


def has_sequential_processes(program: ir.Program) -> bool:
    """``tapa``: whether the processes of some region inside a leaf task use the FIFOs of that task."""
    return any(
        i.place.kind != "upper" and i.function.dataflow and bool(i.place.reads | i.place.writes)
        for i in _instances(program, "tapa")
    )


def top_parameters(program: ir.Program, flow: Flow) -> list[str]:
    """The C++ names of the parameters of the top function."""
    instances = _instances(program, flow)
    scope = Scope(instances.top, instances.names)
    return [scope.variable(b.name).name for b in instances.top.function.params]


def top_name(program: ir.Program) -> str:
    """The C++ name of the top function."""
    return Instances(program, "vitis").top.name


def uses_ap(program: ir.Program) -> bool:
    """Whether the C++ needs ``ap_int`` or ``ap_fixed``: for storage, or for values beyond 64 bits."""
    if any(f.extern is not None and extern_uses_ap(f.extern) for f in program.functions):
        return True
    return _AP_TYPE.search(_functions(_instances(program, "vitis"), "vitis", {})) is not None


def _functions(instances: Instances, flow: Flow, bundles: Mapping[str, str]) -> str:
    """All functions, callees first."""
    out = Writer()
    written = [instance for instance in instances if instance.function.extern is None]
    for instance in written:
        if instance is not written[0]:
            out.line()
        _function(instance, instances, flow, bundles, out)
    return out.text()


def _function(
    instance: Instance,
    instances: Instances,
    flow: Flow,
    bundles: Mapping[str, str],
    out: Writer,
) -> None:
    function = instance.function
    scope = Scope(instance, instances.names)
    out.line(f"/// {_origin(function)}")
    if instance is instances.top:
        out.line("/// This is top function.")
    _signature(instance, scope, out, ") {")
    with out.indented():
        if instance.place.kind == "upper":
            write_tasks(instance, instances, scope, out)
        else:
            _plain_body(instance, instances, scope, flow, bundles, out)
    out.line("}")


def _plain_body(
    instance: Instance,
    instances: Instances,
    scope: Scope,
    flow: Flow,
    bundles: Mapping[str, str],
    out: Writer,
) -> None:
    """Directives and statements of a function, on the level of its body."""
    function = instance.function
    if instance is instances.top and flow == "vitis":
        names = {b.name: scope.variable(b.name).name for b in function.params}
        for directive in port_pragmas(function, names, bundles):
            out.line(f"#pragma HLS {directive}")
    if function.dataflow:
        out.line("#pragma HLS dataflow")
    if function.inline:
        out.line("#pragma HLS inline")
    for parameter in function.params:
        if parameter.name not in instance.memory and not parameter.is_stream:
            buffer_pragmas(scope.variable(parameter.name), out)
    Body(instance, instances, scope, out).statements(function.body)


def _signature(instance: Instance, scope: Scope, out: Writer, end: str) -> None:
    """``void name(`` with one argument per line."""
    params = instance.function.params
    out.line(f"void {instance.name}(")
    with out.indented():
        for parameter in params:
            comma = "," if parameter is not params[-1] else ""
            out.line(scope.declarator(scope.variable(parameter.name), parameter=True) + comma)
    out.line(end)


def _origin(function: ir.Function) -> str:
    """Where a function came from: kernel, template arguments, file and line (no folders)."""
    text = function.origin or function.name
    if function.bindings:
        text += "[" + ", ".join(f"{name}={_binding(value)}" for name, value in function.bindings) + "]"
    if function.span.line:
        text += f", {PurePath(function.span.file).name}:{function.span.line}"
    return text


def _binding(value: object) -> str:
    """A template argument; functions by name, since their `repr` has an address."""
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_binding(x) for x in cast("Sequence[object]", value)) + ")"
    return format(getattr(value, "__name__", value))


__all__ = ["emit", "emit_header", "has_sequential_processes", "top_name", "top_parameters", "uses_ap"]
