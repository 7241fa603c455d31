"""A whole program as LLVM text: one internal function per IR function, and entries to be called by."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import BackendError
from ...ir import nodes as ir
from ...ir.walk import walk
from ..effects import Effects
from ..raw_values import to_raw
from ..scalars import constant
from . import casts, streams
from .dots import Product
from .frame import Frame, Names, Scope, Slot, alignment, register_type
from .prelude import divider, prelude
from .statements import Statements, written_buffers
from .tiles import DOT, DOT_GENERIC, Shape, product_functions


def entry_name(function: str) -> str:
    """The symbol by which a function is called from outside."""
    return f"flex.entry.{function}"


class Emitter:
    """Writes the functions that `tops` need, and an entry for each top, ``i32 (ptr arguments, ptr state)``.

    Every argument is passed to the entry as a pointer to its container; the entry returns 1
    after a deadlock, which `state` and `sites` then describe (see `streams`).
    """

    def __init__(self, program: ir.Program, *tops: str) -> None:
        self.program = program
        self.tops = tops
        self.names = Names()
        self.effects = Effects(program)
        self.globals: list[str] = []
        self.functions: list[str] = []
        self._static: dict[tuple[str, str], str] = {}
        self.sites = streams.Sites()
        self.processes: dict[tuple[object, ...], str] = {}  # callee and depths -> shared coroutine
        self._products: dict[Shape, str] = {}
        self._needed = _reachable(program, tops)
        self._waits: set[str] = set()
        for function in self._needed:
            if _waits(function, self._waits):
                self._waits.add(function.name)
        self._aliased = _aliased(program, self._needed, self.effects)

    def text(self) -> str:
        """The module."""
        for function in self._needed:
            if not any(p.is_stream for p in function.params):
                self._function(function)
        for top in self.tops:
            self._entry(self.program.function(top))
        dividers = [divider(bits) for bits in sorted(self.names.dividers)]
        if self._products:
            dividers.append(DOT + DOT_GENERIC)
        return "\n".join([prelude(), *dividers, *self.globals, *self.functions])

    def may_wait(self, name: str) -> bool:
        """Whether a function works with FIFOs, and so returns whether there was a deadlock."""
        return name in self._waits

    def symbol(self, name: str) -> str:
        return f'@"f.{name}"'

    def constant(self, stmt: ir.Alloc) -> str:
        """A global with the initial contents of a buffer."""
        name = self.names("@init")
        self._contents(name, "constant", stmt)
        return name

    def static(self, function: str, stmt: ir.Alloc) -> str:
        """The global that keeps a static buffer of a function."""
        key = function, stmt.buffer.name
        if key not in self._static:
            self._static[key] = self.names("@static")
            self._contents(self._static[key], "global", stmt)
        return self._static[key]

    def _contents(self, name: str, kind: str, stmt: ir.Alloc) -> None:
        assert stmt.init is not None
        values = [constant(v, stmt.buffer.dtype) for v in stmt.init]
        data = to_raw(stmt.buffer.dtype, values).tobytes()
        text = "".join(f"\\{b:02X}" for b in data)
        self.globals.append(f'{name} = private unnamed_addr {kind} [{len(data)} x i8] c"{text}", align 64')

    def rolled_loop(self) -> str:
        """Metadata of one loop that is not to be unrolled."""
        name, hint = self.names("!"), self.names("!")
        self.globals.append(f"{name} = distinct !{{{name}, {hint}}}")
        self.globals.append(f'{hint} = !{{!"llvm.loop.unroll.disable"}}')
        return name

    def product(self, product: Product) -> tuple[Shape, str]:
        """The functions that compute a product, by the name they begin with."""
        shape = Shape.of(product)
        if shape not in self._products:
            name = self._products[shape] = f"flex.product.{len(self._products)}"
            self.functions += product_functions(shape, name)
        return shape, self._products[shape]

    def is_aliased(self, name: str) -> bool:
        """Whether two of a function's parameters may be one array, and one of them is written."""
        return name in self._aliased

    def _function(self, function: ir.Function) -> None:
        f = Frame(self.names)
        scope = Scope(function.name, function.name, function.name, written=written_buffers(function))
        params: list[str] = []
        results = {b.name for b in function.outputs}
        alias = "" if function.name in self._aliased else "noalias "
        for buffer in function.params:
            name = self.names("%a")
            if buffer.shape or buffer.name in results:
                params.append(f"ptr {alias}{name}")
                scope.buffers[buffer.name] = Slot(buffer.dtype, buffer.shape, name, f)
            else:
                params.append(f"{register_type(buffer.dtype)} {name}")
                slot = f.local(buffer)
                casts.store(f, name, slot.pointer, buffer.dtype, alignment(buffer.dtype))
                scope.buffers[buffer.name] = slot
        waits = self.may_wait(function.name)
        if waits:
            params.append(f"ptr {streams.STATE}")
            scope.slot = self.sites.slot()
        body = Statements(f, scope, self)
        body.function(function)
        kind = "i1" if waits else "void"
        lines = [f"define internal {kind} {self.symbol(function.name)}({', '.join(params)}) nounwind {{"]
        lines += ["entry:", *f.entry, *f.code]
        frees = [f"  call void @free(ptr {name})" for name in f.heap]
        lines += [*frees, "  ret i1 false" if waits else "  ret void"]
        if f.can_fail:
            lines += [f"{f.fail}:", *frees, "  ret i1 true"]
        self.functions.append("\n".join([*lines, "}"]))

    def _entry(self, function: ir.Function) -> None:
        f = Frame(self.names)
        results = {b.name for b in function.outputs}
        args: list[str] = []
        for i, buffer in enumerate(function.params):
            if buffer.is_stream:
                raise BackendError(
                    "FX403",
                    f"parameter '{buffer.name}' of '{function.name}' is a FIFO, which lives inside a program",
                    buffer.span,
                    "build a function that declares the FIFO",
                )
            address = f.op(f"getelementptr inbounds ptr, ptr %args, i64 {i}")
            pointer = f.op(f"load ptr, ptr {address}, align 8")
            if buffer.shape or buffer.name in results:
                args.append(f"ptr {pointer}")
            else:
                value = casts.load(f, pointer, buffer.dtype, alignment(buffer.dtype))
                args.append(f"{register_type(buffer.dtype)} {value}")
        symbol = f'@"{entry_name(function.name)}"'
        lines = [f"define i32 {symbol}(ptr %args, ptr {streams.STATE}) nounwind {{", "entry:"]
        if self.may_wait(function.name):
            args.append(f"ptr {streams.STATE}")
            failed = f.op(f"call i1 {self.symbol(function.name)}({', '.join(args)})")
            status = f.op(f"zext i1 {failed} to i32")
        else:
            f.do(f"call void {self.symbol(function.name)}({', '.join(args)})")
            status = "0"
        self.functions.append("\n".join([*lines, *f.code, f"  ret i32 {status}", "}"]))


def _reachable(program: ir.Program, tops: Iterable[str]) -> list[ir.Function]:
    """The functions `tops` use, callees before callers."""
    names = set(tops)
    for function in reversed(program.functions):
        if function.name in names:
            names |= {n.func for n in walk(function.body) if isinstance(n, ir.Call)}
    return [f for f in program.functions if f.name in names]


def _waits(function: ir.Function, known: set[str]) -> bool:
    return any(
        isinstance(n, ir.Get | ir.Put) or (isinstance(n, ir.Call) and n.func in known)
        for n in walk(function.body)
    )


def _aliased(program: ir.Program, functions: list[ir.Function], effects: Effects) -> set[str]:
    """Functions that some call hands a buffer twice, once to be written, and what those call in turn.

    Two parameters that are only read may be one array: LLVM's ``noalias`` speaks of memory that is written.
    """
    out: set[str] = set()
    for function in reversed(functions):
        for node in walk(function.body):
            if isinstance(node, ir.Call) and (function.name in out or _hands_twice(program, node, effects)):
                out.add(node.func)
    return out


def _hands_twice(program: ir.Program, call: ir.Call, effects: Effects) -> bool:
    callee = program.function(call.func)
    handed = zip(callee.params, call.args, strict=True)
    views = [(param.name, arg.buffer) for param, arg in handed if isinstance(arg, ir.View)]
    names, stored = [buffer for _, buffer in views], effects.stored(callee)
    return any(names.count(buffer) > 1 for param, buffer in views if param in stored)
