"""Loops whose iterations run at the same time, and matrix products, as LLVM text.

The body of such a loop becomes a function of its own; what it uses of the function around it is handed
over in an array.  Work too small to share stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...ir import nodes as ir
from ...ir.walk import walk
from .dots import Product, clears, find_product
from .frame import Frame

if TYPE_CHECKING:
    from .statements import Statements

WORTH_IT = 1 << 14
"""Innermost iterations from which on threads pay; waking one takes a microsecond or two."""

PIECES = 64
"""Into how many pieces a loop is cut at most: threads that are held up get fewer."""


def parallel_loop(s: Statements, loop: ir.For, lower: str, upper: str) -> bool:
    """Write a parallel loop for the threads of the machine, if that pays and nothing in it waits."""
    if not loop.attrs.parallel or loop.step != 1 or s.frame.parent is not None:
        return False
    if _waits(s, loop) or (work(loop, s.emitter.program) or WORTH_IT) < WORTH_IT:
        return False
    f = s.frame
    child = Frame(f.names, f, owns_arrays=True)
    scope = s.scope.branch()
    first, last = f.names("%from"), f.names("%to")
    s_child = type(s)(child, scope, s.emitter)
    s_child.counted(loop, first, last)
    symbol = f.names("@parallel.")
    s.emitter.functions.append(_outlined(child, symbol, first, last))
    extent = upper if lower == "0" else f.op(f"sub i64 {upper}, {lower}")
    grain = f.op(f"add i64 {f.op(f'sdiv i64 {extent}, {PIECES}')}, 1")
    environment = _environment(f, [(kind, name) for name, kind in child.captures.items()])
    f.do(f"call void @flex.parallel(ptr {symbol}, ptr {environment}, i64 {lower}, i64 {upper}, i64 {grain})")
    return True


def _outlined(f: Frame, symbol: str, first: str, last: str) -> str:
    loads: list[str] = []
    for i, (name, kind) in enumerate(f.captures.items()):
        loads.append(f"  {name}.at = getelementptr inbounds i8, ptr %environment, i64 {16 * i}")
        loads.append(f"  {name} = load {kind}, ptr {name}.at, align 16")
    frees = [f"  call void @free(ptr {name})" for name in f.heap]
    head = f"define internal void {symbol}(ptr %environment, i64 {first}, i64 {last}) nounwind {{"
    return "\n".join([head, "entry:", *loads, *f.entry, *f.code, *frees, "  ret void", "}"])


def _environment(f: Frame, values: Sequence[tuple[str, str]]) -> str:
    """An array of the values, 16 bytes each."""
    base = f.names("%environment")
    f.entry.append(f"  {base} = alloca [{16 * max(1, len(values))} x i8], align 16")
    for i, (kind, name) in enumerate(values):
        place = f.op(f"getelementptr inbounds i8, ptr {base}, i64 {16 * i}")
        f.do(f"store {kind} {name}, ptr {place}, align 16")
    return base


def _waits(s: Statements, loop: ir.For) -> bool:
    for node in walk(loop):
        if isinstance(node, ir.Get | ir.Put) or (isinstance(node, ir.Alloc) and node.buffer.is_stream):
            return True
        if isinstance(node, ir.Call) and (
            s.emitter.may_wait(node.func)
            or any(p.is_stream for p in s.emitter.program.function(node.func).params)
        ):
            return True
    return False


def work(stmt: ir.Stmt, program: ir.Program) -> int | None:
    """Innermost iterations of a statement, or None if that is known at run time only."""
    if isinstance(stmt, ir.Call):
        return _sum(program.function(stmt.func).body, program)
    if not isinstance(stmt, ir.For):
        return None if isinstance(stmt, ir.While) else 1
    inside = _sum(stmt.body, program)
    if inside is None or not isinstance(stmt.lower, ir.Const) or not isinstance(stmt.upper, ir.Const):
        return None
    return inside * max(0, int(stmt.upper.value) - int(stmt.lower.value)) // stmt.step


def _sum(body: Sequence[ir.Stmt], program: ir.Program) -> int | None:
    each = [work(stmt, program) for stmt in body]
    known = [n for n in each if n is not None]
    return sum(known) if len(known) == len(each) else None


def matrix_product(s: Statements, loop: ir.For) -> bool:
    """Write a nest of loops as tiles, if it is a product of matrices of small integers."""
    found = _found(s, loop)
    if found is not None:
        _product(s, found)
    return found is not None


def cleared_product(s: Statements, fill: ir.Stmt, loop: ir.Stmt) -> bool:
    """Write two statements as one product, if the first one clears what the second one adds to."""
    found = _found(s, loop) if isinstance(fill, ir.For) and isinstance(loop, ir.For) else None
    if found is None or not clears(fill, found, s.scope.buffers[found.acc.buffer].shape):
        return False
    _product(s, replace(found, fresh=True))
    return True


def _found(s: Statements, loop: ir.For) -> Product | None:
    if s.emitter.is_aliased(s.scope.function):
        return None
    return find_product(loop, {name: slot.shape for name, slot in s.scope.buffers.items()})


def _product(s: Statements, p: Product) -> None:
    f, buffers = s.frame, s.scope.buffers
    shape, name = s.emitter.product(p)
    w = s.pointer(buffers[p.w.load.buffer], p.origin(p.w.load.indices))
    x = s.pointer(buffers[p.x.load.buffer], p.origin(p.x.load.indices))
    acc = s.pointer(buffers[p.acc.buffer], p.origin(p.acc.indices))
    laid = f.allocate("i8", shape.columns * shape.line, 1, 64, "laid")
    offsets = f.allocate("i32", shape.columns, 4, 4, "offsets")
    f.do(f"call void @{name}.lay(ptr {x}, ptr {laid}, ptr {offsets})")
    environment = f.names("%environment")
    f.entry.append(f"  {environment} = alloca [4 x ptr], align 16")
    for i, pointer in enumerate((w, laid, offsets, acc)):
        place = f.op(f"getelementptr inbounds ptr, ptr {environment}, i64 {i}")
        f.do(f"store ptr {pointer}, ptr {place}, align 8")
    bounds = f"ptr {environment}, i64 0, i64 {shape.panels}"
    if p.parallel and p.rows * p.columns * p.depth >= 16 * WORTH_IT:  # so many are done in one step
        grain = shape.panels // PIECES + 1
        f.do(f"call void @flex.parallel(ptr @{name}.rows, {bounds}, i64 {grain})")
    else:
        f.do(f"call void @{name}.rows({bounds})")
