"""Which parameters of a function lie in off-chip memory, and the ports of the top function.

In the ``vitis`` flow the arrays of the top function are flat pointers into memory.  A function that
is given (a view of) such an array needs a flat pointer as well; given an on-chip array it needs a C
array.  So a function is emitted once per set of parameters that lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.walk import walk
from .names import LIBRARY, Names

Flow = Literal["vhls", "vitis"]


@dataclass(frozen=True, slots=True)
class Instance:
    """A function with its parameters placed: `memory` names those that are flat pointers."""

    name: str
    function: ir.Function
    memory: frozenset[str]


class Instances:
    """All instances a program needs, callees first, the top last."""

    def __init__(self, program: ir.Program, flow: Flow) -> None:
        self.program = program
        self._program = program
        self._order: list[tuple[str, frozenset[str]]] = []
        top = program.function(program.top)
        ports = (
            frozenset(b.name for b in top.params if is_memory_port(top, b))
            if flow == "vitis"
            else frozenset[str]()
        )
        self._visit(top.name, ports)
        self._instances = self._named()
        self.top = self._instances[top.name, ports]

    def __iter__(self):
        return iter(self._instances[key] for key in self._order)

    def called(self, caller: Instance, call: ir.Call) -> Instance:
        """The instance of the callee that fits where the caller's arguments lie."""
        return self._instances[call.func, self._placed(call, caller.memory)]

    def _placed(self, call: ir.Call, memory: frozenset[str]) -> frozenset[str]:
        callee = self._program.function(call.func)
        return frozenset(
            parameter.name
            for parameter, arg in zip(callee.params, call.args, strict=True)
            if isinstance(arg, ir.View) and arg.buffer in memory and parameter.shape
        )

    def _visit(self, name: str, memory: frozenset[str]) -> None:
        if (name, memory) in self._order:
            return
        for node in walk(self._program.function(name).body):
            if isinstance(node, ir.Call):
                self._visit(node.func, self._placed(node, memory))
        self._order.append((name, memory))

    def _named(self) -> dict[tuple[str, frozenset[str]], Instance]:
        names = Names(LIBRARY)
        table: dict[tuple[str, frozenset[str]], Instance] = {}
        for name, memory in sorted(self._order, key=lambda key: (key[0] != self._program.top, len(key[1]))):
            extern = self._program.function(name).extern
            if extern is not None:  # the user's file says its name, wherever the arguments lie
                table[name, memory] = Instance(extern.symbol, self._program.function(name), memory)
                continue
            others = [m for n, m in self._order if n == name and m != memory]
            suffix = ""
            if memory and others:
                alone = others == [frozenset()]
                suffix = "_mem" if alone else "_mem_" + "_".join(sorted(memory))
            table[name, memory] = Instance(names.new(name + suffix), self._program.function(name), memory)
        return table


def is_memory_port(top: ir.Function, parameter: ir.Buffer) -> bool:
    """Arrays and scalar results of the top function are reached through memory."""
    return not parameter.is_stream and (bool(parameter.shape) or parameter in top.outputs)


def port_pragmas(top: ir.Function, names: Mapping[str, str], bundles: Mapping[str, str]) -> list[str]:
    """The interface directives of the top function; `names` gives the C++ names of its parameters."""
    known = {b.name for b in top.params}
    for name in bundles:
        if name not in known:
            raise BackendError(
                "FX402",
                f"there is no argument {name} to put into a bundle",
                hint="arguments: " + ", ".join(sorted(known)),
            )
    lines: list[str] = []
    for parameter in top.params:
        name = names[parameter.name]
        if parameter.is_stream:
            lines.append(f"interface axis port={name}")
        elif is_memory_port(top, parameter):
            number = sum("m_axi" in line for line in lines)
            bundle = bundles.get(parameter.name, f"gmem{number}")
            lines.append(f"interface m_axi port={name} offset=slave bundle={bundle}")
        else:
            lines.append(f"interface s_axilite port={name}")
    return [*lines, "interface s_axilite port=return"]
