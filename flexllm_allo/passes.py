"""``allo.passes``: analyses and transformations of whole programs, under Allo's path.

Programs are immutable here: a transformation returns the new program instead of changing the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .backend.effects import Effects
from .backend.hls.wrap_io import wrap_io
from .errors import TargetError
from .ir import nodes as ir
from .ir.walk import rewrite, walk
from .lazy import unsupported

lower_linalg_and_attach_names = unsupported(
    "lower_linalg_and_attach_names", "it is an option of customize", "customize(kernel, lower_linalg=True)"
)


def generate_input_output_buffers(
    module: ir.Program,
    top_func_name: str | None = None,
    flatten: bool = False,
    mappings: Mapping[str, Any] | None = None,
) -> ir.Program:
    """The program with on-chip copies of the arrays of its top function (``load_buf0``, ``store_res2``).

    Args:
        flatten: accepted; ports are flat pointers in the emitted text anyway.
        mappings: index maps of single arguments, which are refused.
    """
    del flatten
    if mappings:
        raise TargetError("FX402", "index maps of arguments are not supported", hint="leave mappings out")
    return wrap_io(replace(module, top=top_func_name or module.top))


def analyze_arg_load_store(mod: ir.Program) -> dict[str, list[str]]:
    """For every function, for every parameter: ``"in"``, ``"out"``, ``"both"``, or ``""`` if unused."""
    return {f.name: analyze_arg_load_store_in_func(f, mod) for f in mod.functions}


def analyze_arg_load_store_in_func(func: ir.Function, mod: ir.Program) -> list[str]:
    """The same for one function of a program."""
    access = Effects(mod).of_function(func.name)
    words = {(True, False): "in", (False, True): "out", (True, True): "both", (False, False): ""}
    return [words[p.name in access.reads, p.name in access.writes] for p in func.params]


def analyze_read_write_patterns(mod: ir.Program) -> dict[str, dict[str, list[str]]]:
    """The parameters that every function reads and writes."""
    effects = Effects(mod)
    out: dict[str, dict[str, list[str]]] = {}
    for function in mod.functions:
        access = effects.of_function(function.name)
        names = [p.name for p in function.params]
        out[function.name] = {
            "read": [n for n in names if n in access.reads],
            "write": [n for n in names if n in access.writes],
        }
    return out


def analyze_use_def(mod: ir.Program) -> list[set[str]]:
    """The sets of buffers (``"f:A"``) that are one memory under several names, through calls."""
    groups: dict[str, set[str]] = {}
    for function in mod.functions:
        for node in walk(function.body):
            if isinstance(node, ir.Call):
                for parameter, arg in zip(mod.function(node.func).params, node.args, strict=True):
                    if isinstance(arg, ir.View):
                        a, b = f"{function.name}:{arg.buffer}", f"{node.func}:{parameter.name}"
                        joined = groups.get(a, {a}) | groups.get(b, {b})
                        groups.update(dict.fromkeys(joined, joined))
    return list({id(group): group for group in groups.values()}.values())


def df_pipeline(module: ir.Program, initiation_interval: int = 1, rewind: bool = False) -> ir.Program:
    """The program with every innermost loop pipelined that has no directive of its own."""

    def visit(node: Any) -> Any:
        if not isinstance(node, ir.For) or node.attrs.pipeline is not None:
            return None
        if any(isinstance(inner, ir.For | ir.While) for inner in walk(node.body)):
            return None
        return replace(node, attrs=replace(node.attrs, pipeline=initiation_interval, rewind=rewind))

    functions = tuple(replace(f, body=rewrite(f.body, visit)) for f in module.functions)
    return replace(module, functions=functions)
