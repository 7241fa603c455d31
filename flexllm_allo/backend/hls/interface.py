"""Which parameters of a function lie in off-chip memory, and the ports of the top function.

In the ``vitis`` flow the arrays of the top function are flat pointers into memory.  A function that
is given (a view of) such an array needs a flat pointer as well; given an on-chip array it needs a C
array.  So a function is emitted once per set of parameters that lie in memory.

In the ``tapa`` flow that holds as well, and some functions are tasks: all their arrays are memory, and
their FIFOs are TAPA's.  A function that a leaf task hands such a FIFO has TAPA's as parameter too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.channels import endpoints
from ...ir.walk import walk
from .names import LIBRARY, Names

Flow = Literal["vhls", "vitis", "tapa"]
Kind = Literal["plain", "leaf", "upper"]
"""A function that is called, a task that computes, a task that starts tasks."""
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the parameters of a function lie.

    Attributes:
        memory: parameters that are flat pointers.
        reads, writes: parameters that are FIFOs of TAPA.
        kind: what the function is in the ``tapa`` flow.
    """

    memory: frozenset[str] = NOTHING
    reads: frozenset[str] = NOTHING
    writes: frozenset[str] = NOTHING
    kind: Kind = "plain"

    @property
    def count(self) -> int:
        """How many parameters are not those of a plain function."""
        return len(self.memory) + len(self.reads) + len(self.writes)


@dataclass(frozen=True, slots=True)
class Instance:
    """A function with its parameters placed."""

    name: str
    function: ir.Function
    place: Place

    @property
    def memory(self) -> frozenset[str]:
        """The parameters that are flat pointers."""
        return self.place.memory


class Instances:
    """All instances a program needs, callees first, the top last.

    Args:
        uppers: in the ``tapa`` flow, the functions that start tasks.
    """

    def __init__(self, program: ir.Program, flow: Flow, uppers: frozenset[str] = NOTHING) -> None:
        self.program = program
        self._uppers = uppers
        self._order: list[tuple[str, Place]] = []
        top = program.function(program.top)
        place = Place()
        if flow == "vitis":
            place = Place(frozenset(b.name for b in top.params if is_memory_port(top, b)))
        elif flow == "tapa":
            place = self._task(top)
        self._visit(top.name, place)
        self._instances = self._named()
        self.top = self._instances[top.name, place]

    def __iter__(self):
        return iter(self._instances[key] for key in self._order)

    @property
    def names(self) -> list[str]:
        """The C++ names of all."""
        return [instance.name for instance in self]

    def called(self, caller: Instance, call: ir.Call) -> Instance:
        """The instance of the callee that fits where the caller's arguments lie."""
        return self._instances[call.func, self._placed(call, caller.place)]

    def _placed(self, call: ir.Call, caller: Place) -> Place:
        callee = self.program.function(call.func)
        if caller.kind == "upper":
            return self._task(callee)
        given = [
            (parameter, arg.buffer)
            for parameter, arg in zip(callee.params, call.args, strict=True)
            if isinstance(arg, ir.View)
        ]
        return Place(
            frozenset(p.name for p, name in given if name in caller.memory and p.shape),
            frozenset(p.name for p, name in given if name in caller.reads),
            frozenset(p.name for p, name in given if name in caller.writes),
        )

    def _task(self, function: ir.Function) -> Place:
        ends = endpoints(function, self.program.functions)
        fifos = {b.name for b in function.params if b.is_stream}
        writes = frozenset(name for name in fifos if ends.get(name, (None, None))[0])
        memory = frozenset(b.name for b in function.params if is_memory_port(function, b))
        kind = "upper" if function.name in self._uppers else "leaf"
        return Place(memory, frozenset(fifos - writes), writes, kind)

    def _visit(self, name: str, place: Place) -> None:
        if (name, place) in self._order:
            return
        for node in walk(self.program.function(name).body):
            if isinstance(node, ir.Call):
                self._visit(node.func, self._placed(node, place))
        self._order.append((name, place))

    def _named(self) -> dict[tuple[str, Place], Instance]:
        names = Names(LIBRARY)
        table: dict[tuple[str, Place], Instance] = {}
        for name, place in sorted(self._order, key=lambda key: (key[0] != self.program.top, key[1].count)):
            extern = self.program.function(name).extern
            if extern is not None:  # the user's file says its name, wherever the arguments lie
                table[name, place] = Instance(extern.symbol, self.program.function(name), place)
                continue
            others = [p for n, p in self._order if n == name and p != place]
            suffix = _suffix(place, others) if others else ""
            table[name, place] = Instance(names.new(name + suffix), self.program.function(name), place)
        return table


def _suffix(place: Place, others: list[Place]) -> str:
    """What tells an instance from the others of its function."""
    if place.kind != "plain":
        return "_task"
    if place.reads or place.writes:
        return "_fifo"
    if not place.memory:
        return ""
    return "_mem" if others == [Place()] else "_mem_" + "_".join(sorted(place.memory))


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
