"""What the names of one function mean in C++: variables, flat memory, streams, loop variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.dtypes import RUN_TIME
from ...ir.walk import buffers
from . import values as v
from .interface import Instance
from .names import Names
from .types import INT, Range, storage_type
from .values import Value

Kind = Literal["scalar", "pointer", "array", "memory", "mmap", "stream", "istream", "ostream", "channel"]
CHANNELS = ("istream", "ostream", "channel")


@dataclass(frozen=True, slots=True)
class Variable:
    """A buffer in C++.

    ``pointer`` is a scalar result, ``memory`` a flat pointer to off-chip memory, ``mmap`` what TAPA has
    for both; ``istream``, ``ostream`` and ``channel`` are FIFOs of TAPA: parameters that are read or
    written, and those that an upper task declares.
    """

    name: str
    buffer: ir.Buffer
    kind: Kind


class Scope:
    """The variables of a function, and the loops around the statement at hand.

    All variables get their names first, so that no loop variable hides one.
    """

    def __init__(self, instance: Instance, functions: Iterable[str]) -> None:
        function = instance.function
        self._functions = set(functions)
        self.labels = Names()
        self._loops: dict[str, Value] = {}
        names = Names(self._functions)
        self._variables: dict[str, Variable] = {}
        for name, buffer in buffers(function).items():
            self._variables[name] = Variable(names.new(name), buffer, _kind(buffer, instance))

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
            case "memory" | "mmap":
                return f"{variable.name}[{flat_index(variable.buffer.shape, indices).text}]"
            case "istream" | "ostream" | "channel" if variable.buffer.shape:
                return f"{variable.name}[{flat_index(variable.buffer.shape, indices).text}]"
            case _:
                return variable.name + "".join(f"[{_index(i).text}]" for i in indices)

    def address(self, name: str, indices: list[Value]) -> str:
        """What a call is given for a view: an array, a stream, or a pointer to one element."""
        variable = self._variables[name]
        whole = len(indices) == len(variable.buffer.shape)
        if variable.kind in CHANNELS and indices and not whole:
            raise BackendError(
                "FX403",
                f"TAPA cannot pass a part of the array of FIFOs '{name}'",
                variable.buffer.span,
                hint='pass one FIFO or the whole array, or build with target="vitis_hls"',
            )
        match variable.kind:
            case "pointer":
                return variable.name
            case "memory" | "mmap" if indices:
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
        if RUN_TIME in buffer.shape and variable.kind != "mmap":
            return f"{ctype} *{variable.name}"
        if buffer.token:
            ctype = block_type(buffer)
        match variable.kind:
            case "stream":
                reference = "&" if parameter and not dims else ""
                return f"hls::stream< {ctype} >{reference} {variable.name}{dims}"
            case "mmap":
                return f"tapa::mmap< {ctype} > {variable.name}"
            case "istream" | "ostream":
                return f"tapa::{_channel_type(variable.kind, ctype, buffer.shape)}& {variable.name}"
            case "channel":
                depth = f", {buffer.depth}"
                channel = _channel_type("stream", ctype, buffer.shape, depth)
                return f'tapa::{channel} {variable.name}("{variable.name}")'
            case "pointer" | "memory":
                return f"{ctype} *{variable.name}"
            case _:
                return f"{ctype} {variable.name}{dims}"


def _kind(buffer: ir.Buffer, instance: Instance) -> Kind:
    """What a buffer is in an instance of its function."""
    place, name = instance.place, buffer.name
    if buffer.is_stream:
        if name in place.reads:
            return "istream"
        if name in place.writes:
            return "ostream"
        return "channel" if place.kind == "upper" else "stream"
    if name in place.memory:
        return "memory" if place.kind == "plain" else "mmap"
    if buffer.shape:
        return "array"
    return "pointer" if buffer in instance.function.outputs else "scalar"


def _channel_type(kind: str, ctype: str, shape: tuple[int, ...], depth: str = "") -> str:
    """A FIFO of TAPA, or an array of them, which has one dimension."""
    return f"{kind}s< {ctype}, {prod(shape)}{depth} >" if shape else f"{kind}< {ctype}{depth} >"


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
