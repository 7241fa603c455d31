"""Functions, statements and the module of an MLIR export."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.walk import walk
from . import affine
from .expressions import Array, Expressions, refuse
from .types import bank_text, buffer_attributes, dense, element, loop_attributes, memref
from .writer import Locations, Writer

_STREAMS = "a FIFO", "export the program before `to`, or a part of it without streams"


def to_mlir(program: ir.Program, locations: bool = True) -> str:
    """The program as MLIR text that upstream MLIR parses, verifies and lowers.

    Values have signless types and the operations carry the sign; fixed-point values are their raw
    integers.  Results are trailing memref parameters, as in the IR.  What schedules say of loops,
    arrays and functions is in attributes.

    Args:
        program: the scheduled IR.
        locations: whether operations tell the place in the kernel's source.

    Raises:
        BackendError: FX403, FIFOs and whatever else MLIR's own dialects cannot express.
    """
    places = Locations(locations)
    parts = _parts_of_arrays(program)
    globals_: list[str] = []
    for function in program.functions:
        if function.extern is not None:
            message = f"{function.name} is written in C++, which MLIR's dialects cannot hold"
            raise BackendError("FX403", message, function.span, "build for the CPU or for HLS")
    functions = [_Function(program, f, parts, globals_, places).text() for f in program.functions]
    body = "\n".join([*globals_, *functions])
    return "\n".join([f"module {{\n{body}\n}}", *places.aliases()]) + "\n"


def _parts_of_arrays(program: ir.Program) -> set[tuple[str, str]]:
    """Parameters (function, name) that some call gives a part of an array."""
    found: set[tuple[str, str]] = set()
    for function in reversed(program.functions):
        for call in walk(function.body):
            if not isinstance(call, ir.Call):
                continue
            callee = program.function(call.func)
            for param, arg in zip(callee.params, call.args, strict=True):
                if isinstance(arg, ir.View) and (arg.indices or (function.name, arg.buffer) in found):
                    found.add((callee.name, param.name))
    return found


@dataclass(frozen=True, slots=True)
class _Local:
    """An array to be given back at the end of its block."""

    name: str
    type: str


class _Function(Expressions):
    """Writes one function."""

    def __init__(
        self,
        program: ir.Program,
        function: ir.Function,
        parts: set[tuple[str, str]],
        globals_: list[str],
        locations: Locations,
    ) -> None:
        super().__init__(Writer(locations))
        self.program, self.function, self.parts, self.globals = program, function, parts, globals_
        self._entry: list[str] = []

    def text(self) -> str:
        f = self.function
        self.w.span = f.span
        params = ", ".join(self._parameter(b) for b in f.params)
        self._block(f.body)
        self.w.span = f.span
        self.w.do("return")
        marks = [f"flexllm.results = {f.results} : i32"] if f.results else []
        marks += [f"flexllm.{flag}" for flag in ("dataflow", "inline") if getattr(f, flag)]
        if f.name == self.program.top:
            marks.insert(0, "llvm.emit_c_interface")
        attributes = f" attributes {{{', '.join(marks)}}}" if marks else ""
        visibility = "" if f.name == self.program.top else "private "
        lines = [f"  func.func {visibility}{_symbol(f.name)}({params}){attributes} {{"]
        lines += [*self.w.constant_lines(), *self._entry, *self.w.lines]
        return "\n".join([*lines, "  }" + self.w.locations.of(f.span)])

    def _parameter(self, buffer: ir.Buffer) -> str:
        if buffer.is_stream:
            raise refuse(_STREAMS[0] + f" ('{buffer.name}')", buffer.span, _STREAMS[1])
        name = self.w.fresh(buffer.name)
        result = any(b is buffer for b in self.function.outputs)
        if buffer.shape or result:
            array = Array(name, buffer.dtype, buffer.shape, (self.function.name, buffer.name) in self.parts)
            self.arrays[buffer.name] = array
            kind = array.type
        else:
            kind = element(buffer.dtype)
            self._scalar_parameter(name, buffer)
        marks = [f'flexllm.name = "{buffer.name}"']
        if banks := bank_text(buffer):
            marks.append(f"flexllm.partition = {banks}")
        return f"{name}: {kind} {{{', '.join(marks)}}}"

    def _scalar_parameter(self, name: str, buffer: ir.Buffer) -> None:
        """A value; one that the function changes, or hands over as an array, gets memory."""
        changed = any(
            (isinstance(n, ir.Store | ir.View) and n.buffer == buffer.name)
            or (isinstance(n, ir.Get) and n.target == buffer.name)
            for n in walk(self.function.body)
        )
        if not changed:
            self.scalars[buffer.name] = name
            return
        self._scalar(buffer)
        array = self.arrays[buffer.name]
        self._entry.append(f"    affine.store {name}, {array.name}[] : {array.type}")

    def _scalar(self, buffer: ir.Buffer) -> None:
        """Memory of a scalar; all of a function's are made at its start, for the stack's sake."""
        array = Array(self.w.fresh(buffer.name), buffer.dtype, ())
        note = f'{{name = "{buffer.name}"}}'
        self._entry.append(f"    {array.name} = memref.alloca() {note} : {array.type}")
        self.arrays[buffer.name] = array

    # ------------------------------------------------------------------------------ statements

    def _block(self, body: tuple[ir.Stmt, ...]) -> None:
        locals_: list[_Local] = []
        for stmt in body:
            self.w.span = stmt.span
            self._statement(stmt, locals_)
        for local in reversed(locals_):
            self.w.do(f"memref.dealloc {local.name} : {local.type}")

    def _statement(self, stmt: ir.Stmt, locals_: list[_Local]) -> None:
        match stmt:
            case ir.Alloc():
                self._alloc(stmt, locals_)
            case ir.Store():
                value = self.value(stmt.value)
                dialect, place = self.place(stmt.buffer, stmt.indices)
                self.w.do(f"{dialect}.store {value}, {place}")
            case ir.For():
                self._for(stmt)
            case ir.While():
                self._while(stmt)
            case ir.If():
                self._if(stmt)
            case ir.Call():
                self._call(stmt)
            case ir.Put() | ir.Get():
                raise refuse(_STREAMS[0] + f" ('{stmt.stream}')", stmt.span, _STREAMS[1])
            case _:  # pyright: ignore[reportUnnecessaryComparison]
                raise refuse(f"'{type(stmt).__name__}'", stmt.span)

    def _alloc(self, stmt: ir.Alloc, locals_: list[_Local]) -> None:
        buffer = stmt.buffer
        if buffer.is_stream:
            raise refuse(_STREAMS[0] + f" ('{buffer.name}')", buffer.span, _STREAMS[1])
        kind = memref(buffer.dtype, buffer.shape)
        if stmt.static:
            name = self.w.op(f"memref.get_global {self._global(stmt, constant=False)} : {kind}", buffer.name)
            self.arrays[buffer.name] = Array(name, buffer.dtype, buffer.shape)
            return
        if not buffer.shape:
            self._scalar(buffer)
            if stmt.init is not None:
                array, value = self.arrays[buffer.name], self.w.constant(stmt.init[0], buffer.dtype)
                self.w.do(f"affine.store {value}, {array.name}[] : {array.type}")
            return
        name = self.w.op(f"memref.alloc() {buffer_attributes(buffer)} : {kind}", buffer.name)
        self.arrays[buffer.name] = Array(name, buffer.dtype, buffer.shape)
        locals_.append(_Local(name, kind))
        if stmt.init is not None:
            source = self.w.op(f"memref.get_global {self._global(stmt, constant=True)} : {kind}")
            self.w.do(f"memref.copy {source}, {name} : {kind} to {kind}")

    def _global(self, stmt: ir.Alloc, constant: bool) -> str:
        """The symbol of the initial contents of a buffer, or of the buffer itself."""
        assert stmt.init is not None
        symbol = _symbol(f"{self.function.name}.{stmt.buffer.name}")
        kind = memref(stmt.buffer.dtype, stmt.buffer.shape)
        word = "constant " if constant else ""
        contents = dense(stmt.init, stmt.buffer)
        self.globals.append(f'  memref.global "private" {word}{symbol} : {kind} = {contents}')
        return symbol

    def _for(self, loop: ir.For) -> None:
        lower, upper = affine.bound(loop.lower, "max", self.dims), affine.bound(loop.upper, "min", self.dims)
        name = self.w.fresh(loop.var)
        loops, dims = self.loops, self.dims
        if lower is not None and upper is not None:
            step = f" step {loop.step}" if loop.step > 1 else ""
            head = f"affine.for {name} = {lower} to {upper}{step}"
            self.dims = {**dims, loop.var: name}
        else:
            bounds = f"{self.index(loop.lower)} to {self.index(loop.upper)}"
            head = f"scf.for {name} = {bounds} step {self._whole(loop.step, 'index')}"
            self.dims = {var: value for var, value in dims.items() if var != loop.var}
        self.loops = {**loops, loop.var: name}
        with self.w.block(head, f"}} {loop_attributes(loop)}"):
            self._block(loop.body)
        self.loops, self.dims = loops, dims

    def _while(self, stmt: ir.While) -> None:
        with self.w.block("scf.while : () -> ()"):
            self.w.do(f"scf.condition({self.condition(stmt.condition)})")
            self.w.otherwise("} do {")
            self._block(stmt.body)
            self.w.do("scf.yield")

    def _if(self, stmt: ir.If) -> None:
        with self.w.block(f"scf.if {self.condition(stmt.condition)}"):
            self._block(stmt.then)
            if stmt.otherwise:
                self.w.otherwise()
                self._block(stmt.otherwise)

    def _call(self, call: ir.Call) -> None:
        callee = self.program.function(call.func)
        values: list[str] = []
        kinds: list[str] = []
        for param, arg in zip(callee.params, call.args, strict=True):
            if not isinstance(arg, ir.View):
                values.append(self.value(arg))
                kinds.append(element(param.dtype))
                continue
            if param.is_stream:
                raise refuse(_STREAMS[0] + f" ('{arg.buffer}')", call.span, _STREAMS[1])
            strided = (callee.name, param.name) in self.parts
            kinds.append(memref(param.dtype, param.shape, strided))
            values.append(self._view(arg, kinds[-1]))
        self.w.do(f"func.call {_symbol(call.func)}({', '.join(values)}) : ({', '.join(kinds)}) -> ()")

    def _view(self, view: ir.View, wanted: str) -> str:
        """An array or a part of one, of the type the callee's parameter has."""
        array = self.arrays[view.buffer]
        name, kind = array.name, array.type
        if view.indices:
            rest = array.shape[len(view.indices) :]
            offsets = ", ".join([self.index(i) for i in view.indices] + ["0"] * len(rest))
            sizes = ", ".join(["1"] * len(view.indices) + [str(n) for n in rest])
            strides = ", ".join("1" for _ in array.shape)
            kind = memref(array.dtype, rest, strided=True)
            part = f"memref.subview {name}[{offsets}] [{sizes}] [{strides}] : {array.type} to {kind}"
            name = self.w.op(part)
        return name if kind == wanted else self.w.op(f"memref.cast {name} : {kind} to {wanted}")


def _symbol(name: str) -> str:
    plain = name.replace("_", "").replace(".", "").isalnum() and not name[0].isdigit()
    return f"@{name}" if plain else f'@"{name}"'
