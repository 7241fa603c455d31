"""HLS C++ of a program: ``kernel.cpp`` and ``kernel.h``.

Two flows: ``vhls`` has C arrays everywhere; ``vitis`` reaches the arrays of the top function through
AXI memory ports.  The shape of the text follows Allo's, with the user's names and whole expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import cast

from ...ir import nodes as ir
from ..external import included
from ..external import uses_ap as extern_uses_ap
from .interface import Flow, Instance, Instances, port_pragmas
from .scope import Scope
from .statements import Body, buffer_pragmas
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
        flow: ``"vhls"`` (plain arrays) or ``"vitis"`` (AXI ports on the top function).
        bundles: AXI bundle by argument of the top; by default every argument has its own.
    """
    body = _functions(program, flow, bundles or {})
    out = Writer()
    for name in INCLUDES:
        out.line(f"#include <{name}>")
    out.line('#include "flexllm_numerics.h"')
    if _AP_TYPE.search(body):
        out.line('#include "flexllm_ap.h"')
    out.line("using namespace std;")
    for name in included(program):
        out.line(f'#include "{name}"')
    out.line()
    if flow == "vitis":
        return f'{out.text()}extern "C" {{\n\n{body}\n}} // extern "C"\n'
    return out.text() + body


def emit_header(program: ir.Program, flow: Flow = "vhls") -> str:
    """The declaration of the top function for hosts and test benches."""
    instances = Instances(program, flow)
    top = instances.top
    guard = f"{top.name.upper()}_KERNEL_H"
    out = Writer()
    out.line(f"#ifndef {guard}")
    out.line(f"#define {guard}")
    for name in ("ap_fixed.h", "ap_int.h", "hls_stream.h", "stdint.h"):
        out.line(f"#include <{name}>")
    out.line('#include "flexllm_numerics.h"')
    out.line()
    out.line('extern "C" {')
    scope = Scope(top.function, top.memory, [i.name for i in instances])
    _signature(top, scope, out, ");")
    out.line('} // extern "C"')
    out.line("#endif")
    return out.text()


def top_parameters(program: ir.Program, flow: Flow) -> list[str]:
    """The C++ names of the parameters of the top function."""
    instances = Instances(program, flow)
    scope = Scope(instances.top.function, instances.top.memory, [i.name for i in instances])
    return [scope.variable(b.name).name for b in instances.top.function.params]


def top_name(program: ir.Program) -> str:
    """The C++ name of the top function."""
    return Instances(program, "vitis").top.name


def uses_ap(program: ir.Program) -> bool:
    """Whether the C++ needs ``ap_int`` or ``ap_fixed``: for storage, or for values beyond 64 bits."""
    if any(f.extern is not None and extern_uses_ap(f.extern) for f in program.functions):
        return True
    return _AP_TYPE.search(_functions(program, "vitis", {})) is not None


def _functions(program: ir.Program, flow: Flow, bundles: Mapping[str, str]) -> str:
    """All functions, callees first."""
    instances = Instances(program, flow)
    names = [instance.name for instance in instances]
    out = Writer()
    written = [instance for instance in instances if instance.function.extern is None]
    for instance in written:
        if instance is not written[0]:
            out.line()
        _function(instance, instances, names, flow, bundles, out)
    return out.text()


def _function(
    instance: Instance,
    instances: Instances,
    functions: Iterable[str],
    flow: Flow,
    bundles: Mapping[str, str],
    out: Writer,
) -> None:
    function = instance.function
    scope = Scope(function, instance.memory, functions)
    out.line(f"/// {_origin(function)}")
    is_top = instance is instances.top
    if is_top:
        out.line("/// This is top function.")
    _signature(instance, scope, out, ") {")
    with out.indented():
        if is_top and flow == "vitis":
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
    out.line("}")


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


__all__ = ["emit", "emit_header", "top_name", "top_parameters", "uses_ap"]
