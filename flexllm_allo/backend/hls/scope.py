"""What the names of one function mean in C++: variables, flat memory, streams, loop variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from ...ir import nodes as ir
from ...ir.dtypes import RUN_TIME
from ...ir.walk import buffers
from . import values as v
from .names import Names
from .types import INT, Range, storage_type
from .values import Value

Kind = Literal["scalar", "pointer", "array", "memory", "stream"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A buffer in C++. ``pointer``: a scalar result; ``memory``: a flat pointer to off-chip memory."""

    name: str
    buffer: ir.Buffer
    kind: Kind


class Scope:
    """The variables of a function, and the loops around the statement at hand.

    All variables get their names first, so that no loop variable hides one.
    """

    def __init__(self, function: ir.Function, memory: frozenset[str], functions: Iterable[str]) -> None:
        self._functions = set(functions)
        self.labels = Names()
        self._loops: dict[str, Value] = {}
        names = Names(self._functions)
        results = {b.name for b in function.outputs}
        self._variables: dict[str, Variable] = {}
        for name, buffer in buffers(function).items():
            kind: Kind = "array" if buffer.shape else "scalar"
            if buffer.is_stream:
                kind = "stream"
            elif name in memory:
                kind = "memory"
            elif name in results and not buffer.shape:
                kind = "pointer"
            self._variables[name] = Variable(names.new(name), buffer, kind)

    def variable(self, name: str) -> Variable:
        return self._variables[name]

    # ---------------------------------------------------------------------------------- loops

    def enter(self, var: str, values: Range) -> tuple[str, Value | None]:
        """Begin a loop: its C++ variable, and what to give back to `leave`."""
        outer = self._loops.get(var)
        name = self._loop_name(var)
        self._loops[var] = Value(name, "int", values & INT)
        return name, outer

    def leave(self, var: str, outer: Value | None) -> None:
        if outer is None:
            del self._loops[var]
        else:
            self._loops[var] = outer

    def loop(self, var: str) -> Value:
        return self._loops[var]

    def _loop_name(self, var: str) -> str:
        """Loops one after the other share a name; only a nest or a variable makes it differ."""
        inside = {value.text for value in self._loops.values()}
        taken = inside | {variable.name for variable in self._variables.values()}
        return Names(taken | self._functions).new(var)

    def unused(self, name: str) -> str:
        """A name for a variable of a small block, which hides nothing."""
        return self._loop_name(name)

    # ------------------------------------------------------------------------------- elements

    def element(self, name: str, indices: list[Value]) -> str:
        """The C++ lvalue of one element (of a stream: the FIFO itself)."""
        variable = self._variables[name]
        match variable.kind:
            case "pointer":
                return f"*{variable.name}"
            case "memory":
                return f"{variable.name}[{flat_index(variable.buffer.shape, indices).text}]"
            case _:
                return variable.name + "".join(f"[{_index(i).text}]" for i in indices)

    def address(self, name: str, indices: list[Value]) -> str:
        """What a call is given for a view: an array, a stream, or a pointer to one element."""
        variable = self._variables[name]
        whole = len(indices) == len(variable.buffer.shape)
        match variable.kind:
            case "pointer":
                return variable.name
            case "memory" if indices:
                return f"&{self.element(name, indices)}"
            case "scalar" | "array" if whole:
                return f"&{self.element(name, indices)}"
            case _:
                return self.element(name, indices) if indices else variable.name

    def declarator(self, variable: Variable, parameter: bool = False) -> str:
        """The declaration of a variable, without initialiser."""
        buffer = variable.buffer
        dims = "".join(f"[{extent}]" for extent in buffer.shape)
        ctype = storage_type(buffer.dtype, buffer.span)
        if RUN_TIME in buffer.shape:
            return f"{ctype} *{variable.name}"
        if buffer.token:
            ctype = block_type(buffer)
        match variable.kind:
            case "stream":
                reference = "&" if parameter and not dims else ""
                return f"hls::stream< {ctype} >{reference} {variable.name}{dims}"
            case "pointer" | "memory":
                return f"{ctype} *{variable.name}"
            case _:
                return f"{ctype} {variable.name}{dims}"


def block_type(buffer: ir.Buffer) -> str:
    """The C++ type of a token that is an array."""
    return f"hls::vector< {storage_type(buffer.dtype, buffer.span)}, {prod(buffer.token)} >"


def _index(value: Value) -> Value:
    return v.cast(value, "int64_t") if value.is_wide else value


def flat_index(shape: tuple[int, ...], indices: list[Value]) -> Value:
    """Row-major offset of an element, or of a sub-array when there are fewer indices than dimensions.

    Indices are in bounds by the rules of the language, which keeps the arithmetic in ``int``.
    """
    offset = v.constant(0)
    inner = prod(shape[len(indices) :])
    for position, (extent, index) in enumerate(zip(shape, indices, strict=False)):
        inside = Value(index.text, index.ctype, index.range & Range(0, extent - 1), index.precedence)
        scaled = v.ring("*", offset, v.constant(extent), 64, True)
        offset = v.ring("+", scaled, _index(inside), 64, True)
        if position == len(indices) - 1:
            offset = v.ring("*", offset, v.constant(inner), 64, True)
    return offset
