"""On-chip copies of the arrays of the top function, as Allo's ``wrap_io=True`` makes them.

Every array argument is copied into an array ``buf<i>`` by ``load_buf<i>`` before the work, results and
arguments that are written are copied out by ``store_res<i>`` after it.  Banks and storage that the
schedule gave an argument go to its copy, where they have an effect.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir import nodes as ir
from ...ir.dtypes import INDEX
from ...ir.walk import buffers, rename_buffers
from ..effects import Effects


def wrap_io(program: ir.Program) -> ir.Program:
    """The program with its top function wrapped; unchanged when that has no arrays.

    Example:
        >>> print(wrap_io(s.program))
        def load_buf0(A: int32[4], buf0: int32[4]):
            for load_buf0_l_0 in range(4, name="S_load_buf0"):  # pipeline II=1 rewind
                buf0[load_buf0_l_0] = A[load_buf0_l_0]
        ...
        def top(A: int32[4]) -> int32[4]:
            B: int32[4]
            buf0: int32[4]
            res1: int32[4]
            load_buf0(A, buf0)
            ...
            store_res1(res1, B)
            return B
    """
    top = program.function(program.top)
    access = Effects(program).of_function(top.name)
    taken = set(buffers(top)) | {f.name for f in program.functions}
    copies: dict[str, str] = {}
    allocs: list[ir.Stmt] = []
    loads: list[ir.Stmt] = []
    stores: list[ir.Stmt] = []
    movers: list[ir.Function] = []
    for number, port in enumerate(top.params):
        result = port in top.outputs
        used = port.name in access.reads or port.name in access.writes
        if port.is_stream or not _fixed_size(port) or not (used or result):
            continue
        copy = _free(f"{'res' if result else 'buf'}{number}", taken)
        copies[port.name] = copy
        local = replace(port, name=copy)
        allocs.append(ir.Alloc(local, span=port.span))
        plain = replace(port, banks=(), memory=None)
        if not result and (port.name in access.reads or not _overwritten(port, top.body)):
            movers.append(_mover(_free(f"load_buf{number}", taken), plain, local))
            loads.append(_call(movers[-1]))
        if result or port.name in access.writes:
            movers.append(_mover(_free(f"store_res{number}", taken), local, plain))
            stores.append(_call(movers[-1]))
    if not copies:
        return program
    params = tuple(replace(p, banks=(), memory=None) if p.name in copies else p for p in top.params)
    body = tuple(rename_buffers(stmt, copies) for stmt in top.body)
    wrapped = replace(top, params=params, body=(*allocs, *loads, *body, *stores))
    others = tuple(f for f in program.functions if f.name != top.name)
    return replace(program, functions=(*movers, *others, wrapped))


def _fixed_size(port: ir.Buffer) -> bool:
    return bool(port.shape) and all(isinstance(n, int) and n > 0 for n in port.shape)  # pyright: ignore


def _mover(name: str, source: ir.Buffer, target: ir.Buffer) -> ir.Function:
    """A function that copies one array into another, one element per cycle."""
    loops = [ir.LoopVar(f"{name}_l_{d}") for d in range(len(source.shape))]
    value = ir.Load(source.name, tuple(loops), source.dtype)
    body: ir.Stmt = ir.Store(target.name, tuple(loops), value)
    for dim in reversed(range(len(loops))):
        innermost = dim == len(loops) - 1
        attrs = ir.LoopAttrs(pipeline=1, rewind=True) if innermost else ir.LoopAttrs()
        band = f"S_{name}" if dim == 0 else None
        extent = ir.Const(source.shape[dim], INDEX)
        body = ir.For(loops[dim].name, ir.Const(0, INDEX), extent, (body,), band=band, attrs=attrs)
    return ir.Function(name, (source, target), (body,))


def _call(mover: ir.Function) -> ir.Call:
    return ir.Call(mover.name, tuple(ir.View(p.name) for p in mover.params))


def _overwritten(port: ir.Buffer, body: tuple[ir.Stmt, ...]) -> bool:
    """Whether some loop nest at the top level stores to every element, one by one."""
    return any(_covers(port, stmt, {}) for stmt in body)


def _covers(port: ir.Buffer, stmt: ir.Stmt, loops: dict[str, int]) -> bool:
    match stmt:
        case ir.For(lower=ir.Const(value=0), upper=ir.Const(value=extent), step=1):
            inside = {**loops, stmt.var: int(extent)}
            return any(_covers(port, inner, inside) for inner in stmt.body)
        case ir.Store() if stmt.buffer == port.name:
            names = [i.name if isinstance(i, ir.LoopVar) else "" for i in stmt.indices]
            extents = tuple(loops.get(name, 0) for name in names)
            return len(set(names)) == len(names) and extents == port.shape
        case _:
            return False


def _free(name: str, taken: set[str]) -> str:
    text = name
    while text in taken:
        text += "_"
    taken.add(text)
    return text
