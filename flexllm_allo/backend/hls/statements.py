"""Statements of the IR as C++ statements, with the directives of schedules as pragmas."""

from __future__ import annotations

from ...analysis.overlap import in_flight
from ...analysis.recurrence import recurrences, trips_of
from ...ir import nodes as ir
from ...ir.dtypes import DType
from ...ir.walk import walk
from . import values as v
from .blocks import block_comment, read_block, write_block
from .expressions import emit, float_literal, low_bits, stored
from .interface import Instance, Instances
from .lanes import LaneWrite, lane_write
from .names import identifier
from .scope import Scope, Variable
from .types import INT, Range, storage_type
from .values import Value
from .writer import Writer


class Body:
    """Writes the body of one instance of a function."""

    def __init__(self, instance: Instance, instances: Instances, scope: Scope, out: Writer) -> None:
        self.function = instance.function
        self.instances, self.instance, self.scope, self.out = instances, instance, scope, out
        self.changed = _changed_buffers(self.function)
        self.in_flight = in_flight(instances.program, self.function)
        self.nest: tuple[ir.For, ...] = ()
        self.undeclared: set[str] = set()  # scalars whose declaration waits for their first value

    def statements(self, body: tuple[ir.Stmt, ...]) -> None:
        for position, stmt in enumerate(body):
            if isinstance(stmt, ir.Alloc) and _set_before_used(stmt, body[position + 1 :]):
                self.undeclared.add(stmt.buffer.name)
            else:
                self._statement(stmt)

    def _statement(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Alloc():
                self._alloc(stmt)
            case ir.Store():
                dtype = self.scope.variable(stmt.buffer).buffer.dtype
                if dtype.bits > 64 and (lane := lane_write(stmt)):
                    self._write_lane(stmt, lane)
                    return
                value = stored(stmt.value, dtype, self.scope)
                self.out.line(f"{self._target(stmt.buffer, stmt.indices)} = {value};")
            case ir.Put() if isinstance(stmt.value, ir.View):
                write_block(stmt, stmt.value, self.scope, self.out)
            case ir.Get() if self.scope.variable(stmt.stream).buffer.token:
                read_block(stmt, self.scope, self.out)
            case ir.Put():
                place = self._element(stmt.stream, stmt.indices)
                dtype = self.scope.variable(stmt.stream).buffer.dtype
                assert not isinstance(stmt.value, ir.View)
                self.out.line(f"{place}.write({stored(stmt.value, dtype, self.scope)});")
            case ir.Get():
                fifo = self._element(stmt.stream, stmt.indices)
                self.out.line(f"{self._target(stmt.target, ())} = {fifo}.read();")
            case ir.For():
                self._loop(stmt)
            case ir.While():
                with self.out.block(f"while ({emit(stmt.condition, self.scope).text})"):
                    self.statements(stmt.body)
            case ir.If():
                self._if(stmt)
            case ir.Call():
                self._call(stmt)

    def _element(self, buffer: str, indices: tuple[ir.Expr, ...]) -> str:
        return self.scope.element(buffer, [emit(i, self.scope) for i in indices])

    def _write_lane(self, stmt: ir.Store, lane: LaneWrite) -> None:
        word, low = self._element(stmt.buffer, stmt.indices), emit(lane.low, self.scope)
        value = emit(low_bits(lane.value, lane.width), self.scope)
        value = v.cast(value, "uint64_t") if value.is_wide else value
        self.out.line(f"flexllm::set_bits<{lane.width}>({word}, {low.text}, {value.text});")

    # --------------------------------------------------------------------------- declarations

    def _target(self, buffer: str, indices: tuple[ir.Expr, ...]) -> str:
        """The left side of an assignment, with the declaration where it is the variable's first."""
        if buffer in self.undeclared:
            self.undeclared.remove(buffer)
            return self.scope.declarator(self.scope.variable(buffer))
        return self._element(buffer, indices)

    def _alloc(self, stmt: ir.Alloc) -> None:
        variable = self.scope.variable(stmt.buffer.name)
        if variable.buffer.token:
            self.out.line(block_comment(variable.buffer))
        text = self.scope.declarator(variable)
        if stmt.init is not None:
            constant = stmt.buffer.shape and stmt.buffer.name not in self.changed
            kept = "static " if stmt.static else "static const " if constant else ""
            text = f"{kept}{text} = {_initialiser(stmt.buffer, stmt.init)}"
        for line in f"{text};".split("\n"):
            self.out.line(line)
        if (blocks := self.in_flight.get(stmt.buffer.name, 2)) > 2:
            self.out.line(f"#pragma HLS stream variable={variable.name} type=pipo depth={blocks}")
        buffer_pragmas(variable, self.out)

    # ---------------------------------------------------------------------------------- loops

    def _loop(self, stmt: ir.For) -> None:
        lower, upper = emit(stmt.lower, self.scope), emit(stmt.upper, self.scope)
        last = max(upper.range.hi - 1, lower.range.lo)
        name, outer = self.scope.enter(stmt.var, Range(lower.range.lo, last) & INT)
        index = Value(name, "int", INT)
        step = f"{name}++" if stmt.step == 1 else f"{name} += {stmt.step}"
        test = v.compare("<", index, upper).text
        head = f"for (int {name} = {lower.text}; {test}; {step})"
        around, self.nest = self.nest, _nest(self.nest, stmt)
        with self.out.block(self._label(stmt) + head):
            loop_pragmas(stmt.attrs, self.out)
            if stmt.attrs.pipeline is not None and len(self.nest) > 1:
                self._recurrences()
            self.statements(stmt.body)
        self.nest = around
        self.scope.leave(stmt.var, outer)

    def _recurrences(self) -> None:
        """How far apart the flattened iterations are in which an array is changed again.

        Vitis HLS sees the innermost loop, and takes what the others carry to come in the next iteration.
        """
        for name, apart in recurrences(self.nest).items():
            variable = self.scope.variable(name)
            if variable.kind == "array" and apart > 1:
                what = f"variable={variable.name} type=inter direction=RAW distance={apart}"
                self.out.pragma(f"dependence {what} dependent=true")

    def _label(self, stmt: ir.For) -> str:
        if stmt.hidden:
            return ""
        parts = ["l", *([stmt.band] if stmt.band else []), stmt.var]
        return self.scope.labels.new(identifier("_".join(parts))) + ": "

    def _if(self, stmt: ir.If) -> None:
        with self.out.block(f"if ({emit(stmt.condition, self.scope).text})"):
            self.statements(stmt.then)
        if stmt.otherwise:
            with self.out.continued("else"):
                self.statements(stmt.otherwise)

    # ---------------------------------------------------------------------------------- calls

    def _call(self, stmt: ir.Call) -> None:
        callee = self.instances.called(self.instance, stmt)
        args: list[str] = []
        for parameter, arg in zip(callee.function.params, stmt.args, strict=True):
            if isinstance(arg, ir.View):
                address = self.scope.address(arg.buffer, [emit(i, self.scope) for i in arg.indices])
                if callee.function.extern is not None:
                    flat = parameter.name in callee.memory
                    address = _as_declared(address, parameter, callee.function.extern, flat)
                args.append(address)
            else:
                args.append(stored(arg, parameter.dtype, self.scope))
        note = f" // {stmt.label}" if stmt.label not in ("", callee.name) else ""
        self.out.line(f"{callee.name}({', '.join(args)});{note}")


def _nest(around: tuple[ir.For, ...], loop: ir.For) -> tuple[ir.For, ...]:
    """The loops that Vitis flattens into a loop, and the loop: a perfect nest, constant but for the first."""
    beside = [s for s in around[-1].body if not isinstance(s, ir.Alloc) or s.init] if around else []
    return (*around, loop) if len(beside) == 1 and trips_of(loop) is not None else (loop,)


def _as_declared(address: str, parameter: ir.Buffer, extern: ir.Extern, flat: bool) -> str:
    """An array, or `flat` memory, as the C++ function of the user declares it: array or pointer."""
    inner = "".join(f"[{extent}]" for extent in parameter.shape[1:])
    pointer = parameter.name in extern.pointers
    if not inner or flat == pointer:
        return address
    return f"({storage_type(parameter.dtype)} {'*' if pointer else f'(*){inner}'}){address}"


def _set_before_used(alloc: ir.Alloc, following: tuple[ir.Stmt, ...]) -> bool:
    """Whether the first statement that names a scalar gives it a value: ``int x = value;`` then."""
    buffer = alloc.buffer
    if buffer.shape or buffer.is_stream or alloc.init is not None or buffer.memory is not None:
        return False
    for stmt in following:
        match stmt:
            case ir.Store() if stmt.buffer == buffer.name:
                return not _names(stmt.value, buffer.name)
            case ir.Get() if stmt.target == buffer.name:
                return not any(_names(i, buffer.name) for i in stmt.indices)
            case _ if _names(stmt, buffer.name):
                return False
            case _:
                pass
    return False


def _names(node: ir.Stmt | ir.Expr, buffer: str) -> bool:
    """Whether a buffer occurs anywhere in a statement or expression."""
    for part in walk(node):
        match part:
            case ir.Load() | ir.Store() | ir.View() if part.buffer == buffer:
                return True
            case ir.Get() if part.target == buffer:
                return True
            case _:
                pass
    return False


def _changed_buffers(function: ir.Function) -> set[str]:
    """Buffers that may be written: stored to, read into, or handed to a call."""
    names: set[str] = set()
    for node in walk(function.body):
        match node:
            case ir.Store() | ir.View():
                names.add(node.buffer)
            case ir.Get():
                names.add(node.target)
            case _:
                pass
    return names


# ------------------------------------------------------------------------------------- constants


def _initialiser(buffer: ir.Buffer, init: tuple[int | float, ...]) -> str:
    if not buffer.shape:
        return _literal(init[0], buffer.dtype)
    if not any(init) and not buffer.dtype.is_fixed:
        return "{0}"
    if len(set(init)) == 1 == len(init):
        return f"{{{_literal(init[0], buffer.dtype)}}}"
    return _nested([_literal(x, buffer.dtype) for x in init], buffer.shape)


def _nested(items: list[str], shape: tuple[int, ...], depth: int = 1) -> str:
    """Braces by dimension; lines of about 100 characters."""
    pad = "  " * depth
    if len(shape) == 1:
        lines: list[str] = []
        line = ""
        for item in items:
            if line and len(line) + len(item) > 96:
                lines.append(line)
                line = ""
            line += ("" if not line else " ") + item + ","
        lines.append(line.rstrip(","))
        return "{" + ("\n" + pad).join(lines) + "}"
    size = len(items) // shape[0]
    rows = [_nested(items[i : i + size], shape[1:], depth + 1) for i in range(0, len(items), size)]
    return "{\n" + ",\n".join(pad + row for row in rows) + "}"


def _literal(value: int | float, dtype: DType) -> str:
    if dtype.is_float:
        return float_literal(float(value), dtype).text
    if dtype.is_fixed:
        return f"flexllm::from_raw<{storage_type(dtype)} >({v.constant(int(value)).text})"
    return v.constant(int(value)).text


# --------------------------------------------------------------------------------------- pragmas


def loop_pragmas(attrs: ir.LoopAttrs, out: Writer) -> None:
    """The directives of a loop, under its head."""
    if attrs.pipeline is not None:
        out.pragma(f"pipeline II={attrs.pipeline}{' rewind' if attrs.rewind else ''}")
    if attrs.unroll is not None:
        out.pragma(f"unroll factor={attrs.unroll}" if attrs.unroll else "unroll")
    if attrs.dataflow:
        out.pragma("dataflow")


def buffer_pragmas(variable: Variable, out: Writer) -> None:
    """Depth of a FIFO, or banks and storage of an array; an empty line after them."""
    lines = _buffer_directives(variable)
    for line in lines:
        out.line(f"#pragma HLS {line}")
    if lines:
        out.line()


def _buffer_directives(variable: Variable) -> list[str]:
    name, buffer = variable.name, variable.buffer
    if buffer.is_stream:
        return [f"stream variable={name} depth={buffer.depth}"]
    lines: list[str] = []
    for bank in buffer.banks:
        whole = bank.kind == "complete"
        if whole and 0 < bank.dim <= len(buffer.shape) and buffer.shape[bank.dim - 1] == 1:
            continue
        factor = "" if whole else f" factor={bank.factor}"
        lines.append(f"array_partition variable={name} {bank.kind} dim={bank.dim}{factor}")
    if storage := _storage(buffer.memory):
        lines.append(f"bind_storage variable={name}{storage}")
    return lines


def _storage(memory: object) -> str:
    """`Memory(resource, storage_type)` as the options of ``bind_storage``."""
    resource = str(getattr(memory, "resource", None) or "AUTO")
    kind = getattr(memory, "storage_type", None)
    if resource.upper() == "AUTO":
        return ""
    return (f" type={str(kind).lower()}" if kind else "") + f" impl={resource.lower()}"
