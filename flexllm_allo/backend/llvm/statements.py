"""Statements of the IR as LLVM text."""

from __future__ import annotations

from itertools import zip_longest
from math import prod
from typing import TYPE_CHECKING

from ...ir import nodes as ir
from ...ir.walk import walk
from ..containers import container_bytes
from ..effects import uses_streams
from ..external import load
from . import casts, parallel, regions, streams
from .expressions import Expressions
from .frame import Frame, Scope, Slot, alignment, literal, register_type

if TYPE_CHECKING:
    from .emitter import Emitter


class Statements(Expressions):
    """Writes statements into a frame. `emitter` knows the rest of the module."""

    def __init__(self, frame: Frame, scope: Scope, emitter: Emitter) -> None:
        super().__init__(frame, scope)
        self.emitter = emitter

    def with_scope(self, scope: Scope) -> Statements:
        """The same frame with other names."""
        return Statements(self.frame, scope, self.emitter)

    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        done = False
        for stmt, following in zip_longest(body, body[1:]):
            if done:
                done = False
                continue
            done = following is not None and parallel.cleared_product(self, stmt, following)
            if not done:
                self._statement(stmt)

    def _statement(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Store():
                self._store(stmt)
            case ir.Alloc():
                self._alloc(stmt)
            case ir.For():
                self._for(stmt)
            case ir.If():
                self._if(stmt)
            case ir.While():
                self._while(stmt)
            case ir.Call():
                self._call(stmt)
            case ir.Put():
                streams.put(self, stmt)
            case ir.Get():
                streams.get(self, stmt)

    def function(self, function: ir.Function) -> None:
        """The body of a function."""
        if function.extern is not None:
            self._extern(function)
        elif function.dataflow:
            self.region(function.body, function.concurrent)
        else:
            self.block(function.body)

    def _extern(self, function: ir.Function) -> None:
        """Call a C++ function in this process: by address, with an array of pointers to the arguments."""
        f, buffers = self.frame, self.scope.buffers
        table = f.allocate("ptr", max(1, len(function.params)), 8, 8, "arguments")
        for number, parameter in enumerate(function.params):
            place = f.op(f"getelementptr inbounds ptr, ptr {table}, i64 {number}")
            f.do(f"store ptr {self.pointer(buffers[parameter.name], ())}, ptr {place}, align 8")
        f.do(f"call void inttoptr (i64 {load(function).address} to ptr)(ptr {table})")

    def region(self, body: tuple[ir.Stmt, ...], concurrent: bool = False) -> None:
        """The body of a dataflow function or loop: concurrent if FIFOs connect its statements."""
        if uses_streams(body, self.emitter.program):
            regions.region(self, body, concurrent)
        else:
            self.block(body)

    def written(self, function: ir.Function) -> frozenset[str]:
        """Buffers that a function changes."""
        return written_buffers(function)

    def _store(self, stmt: ir.Store) -> None:
        f, slot = self.frame, self.scope.buffers[stmt.buffer]
        if self.is_reduction(stmt) and isinstance(stmt.value, ir.Binary):
            a, b = self.value(stmt.value.left), self.value(stmt.value.right)
            word = "fadd" if stmt.value.op == "+" else "fsub"
            value = f.op(f"{word} reassoc {register_type(stmt.value.type)} {a}, {b}")
        else:
            value = self.value(stmt.value)
        casts.store(f, value, self.pointer(slot, stmt.indices), slot.dtype, alignment(slot.dtype))

    def _alloc(self, stmt: ir.Alloc) -> None:
        buffer = stmt.buffer
        if buffer.is_stream:
            self.scope.fifos[buffer.name] = streams.allocate(self.frame, buffer)
            return
        if stmt.init is None:
            self.scope.buffers[buffer.name] = self.frame.local(buffer)
            return
        if stmt.static:
            pointer = self.emitter.static(self.scope.function, stmt)
            slot = Slot(buffer.dtype, buffer.shape, pointer, self.frame)
        elif not buffer.shape:
            slot = self.frame.local(buffer)
            value = literal(stmt.init[0], buffer.dtype)
            casts.store(self.frame, value, slot.pointer, buffer.dtype, alignment(buffer.dtype))
        elif buffer.name not in self.scope.written:
            slot = Slot(buffer.dtype, buffer.shape, self.emitter.constant(stmt), self.frame)
        else:
            slot = self.frame.local(buffer)
            self._initialise(stmt, slot)
        self.scope.buffers[buffer.name] = slot

    def _initialise(self, stmt: ir.Alloc, slot: Slot) -> None:
        size = prod(slot.shape) * container_bytes(slot.dtype)
        if stmt.init is not None and not any(stmt.init):
            fill = f"ptr {slot.pointer}, i8 0, i64 {size}, i1 false"
            self.frame.do(f"call void @llvm.memset.p0.i64({fill})")
        else:
            source = self.emitter.constant(stmt)
            copy = f"ptr {slot.pointer}, ptr {source}, i64 {size}, i1 false"
            self.frame.do(f"call void @llvm.memcpy.p0.p0.i64({copy})")

    def _for(self, stmt: ir.For) -> None:
        if parallel.matrix_product(self, stmt):
            return
        lower, upper = self.index(stmt.lower), self.index(stmt.upper)
        if not parallel.parallel_loop(self, stmt, lower, upper):
            self.counted(stmt, lower, upper)

    def counted(self, stmt: ir.For, lower: str, upper: str) -> None:
        """The iterations of a loop between two registers, one after the other."""
        f = self.frame
        head, body, end = f.label("for"), f.label("body"), f.label("end")
        before = f.block
        f.start(head)
        counter, following = f.names("%i"), f.names("%n")
        phi = len(f.code)
        more = f.op(f"icmp slt i64 {counter}, {upper}")
        f.branch(more, body, end)
        f.start(body, fall=False)
        scope = self.scope.branch()
        scope.loops[stmt.var] = (counter, f)
        scope.reassociate = scope.reassociate or stmt.attrs.reassociate
        inner = self.with_scope(scope)
        (inner.region if stmt.attrs.dataflow else inner.block)(stmt.body)
        flags = "nuw nsw" if isinstance(stmt.lower, ir.Const) and stmt.lower.value >= 0 else "nsw"
        f.do(f"{following} = add {flags} i64 {counter}, {stmt.step}")
        f.code.insert(phi, f"  {counter} = phi i64 [ {lower}, %{before} ], [ {following}, %{f.block} ]")
        f.do(f"br label %{head}{self._loop_hint(stmt)}")
        f.start(end, fall=False)

    def _loop_hint(self, loop: ir.For) -> str:
        """Loops that may be suspended are not unrolled: it gains nothing and takes long to compile."""
        waits = self.frame.parent is not None and uses_streams(loop.body, self.emitter.program)
        return f", !llvm.loop {self.emitter.rolled_loop()}" if waits else ""

    def _if(self, stmt: ir.If) -> None:
        f, condition = self.frame, self.condition(stmt.condition)
        then, otherwise, end = f.label("then"), f.label("else"), f.label("endif")
        f.branch(condition, then, otherwise)
        f.start(then, fall=False)
        self.with_scope(self.scope.branch()).block(stmt.then)
        f.do(f"br label %{end}")
        f.start(otherwise, fall=False)
        self.with_scope(self.scope.branch()).block(stmt.otherwise)
        f.start(end)

    def _while(self, stmt: ir.While) -> None:
        f = self.frame
        head, body, end = f.label("while"), f.label("body"), f.label("end")
        f.start(head)
        f.branch(self.condition(stmt.condition), body, end)
        f.start(body, fall=False)
        self.with_scope(self.scope.branch()).block(stmt.body)
        f.do(f"br label %{head}")
        f.start(end, fall=False)

    def _call(self, stmt: ir.Call) -> None:
        callee = self.emitter.program.function(stmt.func)
        if any(p.is_stream for p in callee.params):
            self._inline(stmt, callee)
            return
        args: list[str] = []
        for param, arg in zip(callee.params, stmt.args, strict=True):
            if isinstance(arg, ir.View):
                args.append(f"ptr {self.pointer(self.scope.buffers[arg.buffer], arg.indices)}")
            else:
                args.append(f"{register_type(param.dtype)} {self.value(arg)}")
        f, symbol = self.frame, self.emitter.symbol(callee.name)
        if not self.emitter.may_wait(callee.name):
            f.do(f"call void {symbol}({', '.join(args)})")
            return
        args.append(f"ptr {streams.state(f)}")
        failed = f.op(f"call i1 {symbol}({', '.join(args)})")
        onward = f.label("ok")
        f.can_fail = True
        f.branch(failed, f.fail, onward)
        f.start(onward, fall=False)

    def _inline(self, stmt: ir.Call, callee: ir.Function) -> None:
        """A callee that uses the caller's FIFOs runs in the caller's frame, for that is what waits."""
        scope = Scope(callee.name, self.scope.owner, self.scope.process, slot=self.scope.slot)
        scope.written = written_buffers(callee)
        for param, arg in zip(callee.params, stmt.args, strict=True):
            if not isinstance(arg, ir.View):
                slot = self.frame.local(param)
                casts.store(self.frame, self.value(arg), slot.pointer, param.dtype, alignment(param.dtype))
                scope.buffers[param.name] = slot
            elif param.is_stream:
                scope.fifos[param.name] = streams.view(self, self.scope.fifos[arg.buffer], arg.indices)
            else:
                base = self.scope.buffers[arg.buffer]
                shape = base.shape[len(arg.indices) :]
                home = self.frame if arg.indices else base.home
                pointer = self.pointer(base, arg.indices)
                scope.buffers[param.name] = Slot(base.dtype, shape, pointer, home)
        inner = self.with_scope(scope)
        inner.function(callee)


def written_buffers(function: ir.Function) -> frozenset[str]:
    """Buffers that the function stores to or hands to a callee; the rest keep their initial contents."""
    names: set[str] = set()
    for node in walk(function.body):
        if isinstance(node, ir.Store | ir.View):
            names.add(node.buffer)
        elif isinstance(node, ir.Get):
            names.add(node.target)
    return frozenset(names)
