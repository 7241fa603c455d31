"""The reference: a plain walk over the IR that checks every access.

Statements run as Python generators, so that the processes of a dataflow region can take turns;
a process yields whenever it cannot go on.  Values are those of `scalars`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ..errors import BackendError, Span
from ..ir import nodes as ir
from ..ir.dtypes import DType, UInt
from .arguments import bind, unbind
from .deadlock import Blocked, deadlock, fifo_name
from .effects import Effects, split_processes
from .external import load
from .raw_values import from_raw, to_raw
from .scalars import Value, binary, bit_slice, bitcast, constant, convert, is_true, math_function, unary
from .signature import Signature

Steps = Generator[tuple[Blocked, ...], None, None]


@dataclass(slots=True)
class Fifo:
    """One FIFO and what is in it."""

    name: str
    depth: int
    items: deque[Any] = field(default_factory=lambda: deque[Any]())  # values, or lists for blocks


@dataclass(slots=True)
class Storage:
    """A buffer, or a part of one at fixed leading indices; None is an uninitialised element."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    cells: list[Any]
    offset: int = 0


@dataclass(slots=True)
class Frame:
    """The names of a function being run. `waits`: a process, which may wait at a FIFO.

    `function` is what a deadlock is reported for, `owner` the function whose names these are.
    """

    function: str
    process: str
    waits: bool
    owner: str
    buffers: dict[str, Storage] = field(default_factory=lambda: dict[str, Storage]())
    loops: dict[str, int] = field(default_factory=lambda: dict[str, int]())

    def branch(self, process: str) -> Frame:
        """The names as one process of a region sees them."""
        return Frame(self.function, process, True, self.owner, dict(self.buffers), dict(self.loops))


class Interpreter(Signature):
    """Runs a program on NumPy arrays: ``Interpreter(program)(A, B)``."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self._effects = Effects(program)
        self._progress = 0
        self._static: dict[tuple[str, str], Storage] = {}  # function and buffer -> what it keeps

    def __call__(self, *args: object) -> Any:
        return self.call(self.program.top, *args)

    def call(self, name: str, *args: object) -> Any:
        """Run one function of the program; the calling convention is `arguments`."""
        function = self.program.function(name)
        bound = bind(function, args, self._effects.stored(function))
        frame = Frame(name, name, waits=False, owner=name)
        for buffer, raw in zip(function.params, bound.raws, strict=True):
            cells = from_raw(buffer.dtype, raw)
            frame.buffers[buffer.name] = Storage(buffer.name, buffer.dtype, raw.shape, cells)
        for buffer in function.outputs:
            storage = frame.buffers[buffer.name]
            storage.cells = [None] * len(storage.cells)
        with np.errstate(all="ignore"):
            for _ in self._function(function, frame):
                raise AssertionError("a sequential function cannot wait")
        for buffer, raw in zip(function.params, bound.raws, strict=True):
            if buffer.name in bound.stored:
                cells = frame.buffers[buffer.name].cells
                raw[...] = to_raw(buffer.dtype, [0 if c is None else c for c in cells]).reshape(raw.shape)
        return unbind(bound)

    # ------------------------------------------------------------------------------- statements

    def _function(self, function: ir.Function, frame: Frame) -> Steps:
        if function.extern is not None:
            return _call_extern(function, frame)
        if function.dataflow:
            return self._region(function.body, frame, function.concurrent)
        return self._block(function.body, frame)

    def _block(self, body: tuple[ir.Stmt, ...], frame: Frame) -> Steps:
        for stmt in body:
            match stmt:
                case ir.Store():
                    cells, at = self._cell(frame, stmt.buffer, stmt.indices, stmt.span)
                    cells[at] = self._value(stmt.value, frame)
                case ir.Alloc():
                    self._allocate(stmt, frame)
                case ir.For():
                    yield from self._loop(stmt, frame)
                case ir.If():
                    chosen = is_true(self._value(stmt.condition, frame))
                    yield from self._block(stmt.then if chosen else stmt.otherwise, frame)
                case ir.While():
                    while is_true(self._value(stmt.condition, frame)):
                        yield from self._block(stmt.body, frame)
                case ir.Call():
                    yield from self._call(stmt, frame)
                case ir.Put():
                    value = self._token(stmt.value, frame)
                    fifo = self._fifo(frame, stmt.stream, stmt.indices, stmt.span)
                    while len(fifo.items) >= fifo.depth:
                        yield self._blocked(frame, fifo, "write", stmt.span)
                    fifo.items.append(value)
                    self._progress += 1
                case ir.Get():
                    fifo = self._fifo(frame, stmt.stream, stmt.indices, stmt.span)
                    while not fifo.items:
                        yield self._blocked(frame, fifo, "read", stmt.span)
                    target = frame.buffers[stmt.target]
                    token = fifo.items.popleft()
                    if target.shape:
                        target.cells[target.offset : target.offset + len(token)] = token
                    else:
                        target.cells[target.offset] = token
                    self._progress += 1

    def _loop(self, loop: ir.For, frame: Frame) -> Steps:
        lower, upper = self._integer(loop.lower, frame), self._integer(loop.upper, frame)
        run = self._region if loop.attrs.dataflow else self._block
        for i in range(lower, upper, loop.step):
            frame.loops[loop.var] = i
            yield from run(loop.body, frame)

    def _allocate(self, stmt: ir.Alloc, frame: Frame) -> None:
        buffer = stmt.buffer
        count = prod(buffer.shape)
        cells: list[Any]
        if buffer.depth is not None:
            name = buffer.name.partition(".")[0]
            cells = [Fifo(fifo_name(name, buffer.shape, i), buffer.depth) for i in range(count)]
        elif stmt.init is not None:
            cells = [constant(v, buffer.dtype) for v in stmt.init]
        else:
            cells = [None] * count
        storage = Storage(buffer.name, buffer.dtype, buffer.shape, cells)
        if stmt.static:
            storage = self._static.setdefault((frame.owner, buffer.name), storage)
        frame.buffers[buffer.name] = storage

    def _call(self, stmt: ir.Call, frame: Frame) -> Steps:
        callee = self.program.function(stmt.func)
        streams = any(p.is_stream for p in callee.params)
        # Without FIFOs from outside the callee runs to its end on its own.
        name = callee.name
        inner = Frame(name, name, False, name)
        if streams:
            inner = replace(frame, owner=name, buffers={}, loops={})
        for param, arg in zip(callee.params, stmt.args, strict=True):
            if isinstance(arg, ir.View):
                inner.buffers[param.name] = self._view(param, arg, frame)
            else:
                value = self._value(arg, frame)
                inner.buffers[param.name] = Storage(param.name, param.dtype, (), [value])
        yield from self._function(callee, inner)

    def _view(self, param: ir.Buffer, view: ir.View, frame: Frame) -> Storage:
        base = frame.buffers[view.buffer]
        offset = self._offset(base, view.indices, frame, view.span)
        return Storage(param.name, base.dtype, base.shape[len(view.indices) :], base.cells, offset)

    # ----------------------------------------------------------------------------- dataflow

    def _region(self, body: tuple[ir.Stmt, ...], frame: Frame, concurrent: bool = False) -> Steps:
        """Run the processes in turn until all have ended."""
        first, processes = split_processes(body, self._effects, concurrent)
        yield from self._block(first, frame)
        done: set[int] = set()
        running: dict[int, Steps] = {}
        while len(done) < len(processes):
            before = self._progress
            blocked: list[Blocked] = []
            for i, process in enumerate(processes):
                if i in done:
                    continue
                waiting = [processes[j].label for j in process.after if j not in done]
                if waiting:
                    start = Blocked(process.label, "start", ", ".join(waiting), 0, process.statement.span)
                    blocked.append(start)
                    continue
                if i not in running:
                    running[i] = self._block((process.statement,), frame.branch(process.label))
                try:
                    blocked.extend(next(running[i]))
                except StopIteration:
                    done.add(i)
                    self._progress += 1
            if self._progress == before:
                if not frame.waits:
                    raise deadlock(self.program, frame.function, blocked)
                yield tuple(blocked)

    def _blocked(self, frame: Frame, fifo: Fifo, kind: str, span: Span) -> tuple[Blocked, ...]:
        blocked = Blocked(frame.process, kind, fifo.name, fifo.depth, span)
        if not frame.waits:
            raise deadlock(self.program, frame.function, [blocked])
        return (blocked,)

    def _token(self, value: ir.Expr | ir.View, frame: Frame) -> Any:
        """What is put into a FIFO: a value, or the elements of an array."""
        if not isinstance(value, ir.View):
            return self._value(value, frame)
        base = frame.buffers[value.buffer]
        start = self._offset(base, value.indices, frame, value.span)
        return base.cells[start : start + prod(base.shape[len(value.indices) :])]

    def _fifo(self, frame: Frame, name: str, indices: tuple[ir.Expr, ...], span: Span) -> Fifo:
        cells, at = self._cell(frame, name, indices, span)
        return cells[at]

    # ----------------------------------------------------------------------------- expressions

    def _offset(self, base: Storage, indices: Sequence[ir.Expr], frame: Frame, span: Span) -> int:
        """Flat position of the element or sub-array at `indices`."""
        flat = 0
        for dim, expr in enumerate(indices):
            index, extent = self._integer(expr, frame), base.shape[dim]
            if not 0 <= index < extent:
                raise BackendError(
                    "FX404",
                    f"index {index} is out of bounds for dimension {dim} of '{base.name}', "
                    f"which has {extent} elements",
                    span,
                )
            flat = flat * extent + index
        return base.offset + flat * prod(base.shape[len(indices) :])

    def _cell(
        self, frame: Frame, name: str, indices: tuple[ir.Expr, ...], span: Span
    ) -> tuple[list[Any], int]:
        base = frame.buffers[name]
        return base.cells, self._offset(base, indices, frame, span)

    def _integer(self, expr: ir.Expr, frame: Frame) -> int:
        return int(self._value(expr, frame))

    def _value(self, e: ir.Expr, frame: Frame) -> Value:
        match e:
            case ir.Const():
                return constant(e.value, e.type)
            case ir.LoopVar():
                return frame.loops[e.name]
            case ir.Load():
                return self._load(e, frame)
            case ir.Binary():
                a, b = self._value(e.left, frame), self._value(e.right, frame)
                try:
                    return binary(e.op, a, b, e.left.type, e.right.type, e.type)
                except ZeroDivisionError:
                    raise BackendError("FX404", f"division by zero in '{e.op}'", e.span) from None
            case ir.Cast():
                return convert(self._value(e.value, frame), e.value.type, e.type)
            case ir.Unary():
                return unary(e.op, self._value(e.value, frame), e.type)
            case ir.Logic():
                left = is_true(self._value(e.left, frame))
                decided = left if e.op == "or" else not left
                return int(left if decided else is_true(self._value(e.right, frame)))
            case ir.Select():
                chosen = is_true(self._value(e.condition, frame))
                return self._value(e.then if chosen else e.otherwise, frame)
            case ir.Bitcast():
                return bitcast(self._value(e.value, frame), e.value.type, e.type)
            case ir.BitSlice():
                low = self._integer(e.lo, frame)
                return bit_slice(self._integer(e.value, frame), low, e.value.type, UInt(e.type.bits))
            case ir.Math():
                return math_function(e.name, tuple(self._value(a, frame) for a in e.args), e.type)

    def _load(self, e: ir.Load, frame: Frame) -> Value:
        cells, at = self._cell(frame, e.buffer, e.indices, e.span)
        value = cells[at]
        if value is None:
            place = fifo_name(e.buffer, frame.buffers[e.buffer].shape, at - frame.buffers[e.buffer].offset)
            raise BackendError("FX404", f"'{place}' is read before it is written", e.span)
        return value


def _call_extern(function: ir.Function, frame: Frame) -> Steps:
    """Call a C++ function on copies of the arguments; elements not written yet are zeros."""
    assert function.extern is not None
    places = [frame.buffers[p.name] for p in function.params]
    raws: list[Any] = []
    for parameter, place in zip(function.params, places, strict=True):
        cells = place.cells[place.offset : place.offset + prod(parameter.shape)]
        raws.append(to_raw(parameter.dtype, [0 if c is None else c for c in cells]))
    load(function)(raws)
    for parameter, place, raw in zip(function.params, places, raws, strict=True):
        if parameter.name in function.extern.writes:
            place.cells[place.offset : place.offset + raw.size] = from_raw(parameter.dtype, raw)
    yield from ()
