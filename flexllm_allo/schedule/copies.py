"""The primitive `duplicate`: an array of its own for every process that reads it."""

from __future__ import annotations

from dataclasses import replace

from ..errors import Place, StreamError
from ..ir import nodes as ir
from ..ir.simplify import const
from ..ir.walk import buffers, rename_buffers
from .buffers import Target, find_buffer
from .fifo import all_users, enclosing, region_body, replace_body, users
from .names import find_function, fresh


def duplicate(program: ir.Program, func: str, target: Target | None = None) -> ir.Program:
    """Give every statement that reads an array a copy of its own.

    In a dataflow region an array joins one producer and one consumer: Vitis takes no other form. The copies
    are made by a nest of their own, right after the last statement that writes the array; along dimensions
    that are in banks of their own all elements at once.

    Args:
        target: a local array or a parameter of the function; by default every array that more than one
            statement of the function's body reads.

    Raises:
        ScheduleNameError: FX201.
        StreamError: FX302, a scalar, a FIFO, an array with fewer than two readers, or one that is changed
            after it was read.

    Example:
        >>> s = allo.customize(fork)
        >>> print(s)
        def fork(A: int32[10]) -> (int32[10], int32[10]):
            C: int32[10]
            D: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] * A[i]
            for i in range(10, name="S_i_1"):
                D[i] = A[i] + 1
            return C, D
        >>> s.duplicate(s.A)
        >>> print(s)
        def fork(A: int32[10]) -> (int32[10], int32[10]):
            C: int32[10]
            D: int32[10]
            A_0: int32[10]
            A_1: int32[10]
            for A_d0 in range(10, name="duplicate_A"):
                A_element: int32
                A_element = A[A_d0]
                A_0[A_d0] = A_element
                A_1[A_d0] = A_element
            for i in range(10, name="S_i_0"):
                C[i] = A_0[i] * A_0[i]
            for i in range(10, name="S_i_1"):
                D[i] = A_1[i] + 1
            return C, D
    """
    if target is not None:
        return _duplicated(program, *find_buffer(program, func, target))
    function = find_function(program, func)
    used = all_users(program, function.body)
    for buffer in buffers(function).values():
        writers, readers = used.get(buffer.name, ([], []))
        if buffer.shape and not buffer.is_stream and len(readers) > 1:
            program = _duplicated(program, find_function(program, func), buffer)
        elif len(writers) > 1 and readers:
            _check_order(buffer, function.body, writers, readers)
    return program


def _duplicated(program: ir.Program, function: ir.Function, buffer: ir.Buffer) -> ir.Program:
    region = enclosing(function, buffer)
    body = region_body(function, region)
    writers, readers = users(program, body, buffer.name)
    _check(buffer, body, writers, readers)
    taken = set(buffers(function))
    copies: list[ir.Buffer] = []
    renamed: dict[int, ir.Stmt] = {}
    for number, at in enumerate(readers):
        copy = replace(buffer, name=fresh(f"{buffer.name}_{number}", taken))
        taken.add(copy.name)
        copies.append(copy)
        renamed[at] = rename_buffers(body[at], {buffer.name: copy.name})  # pyright: ignore
    split = max(writers) + 1 if writers else 0
    rest = [renamed.get(i, body[i]) for i in range(split, len(body))]
    element = ir.Buffer(fresh(f"{buffer.name}_element", taken), buffer.dtype, span=buffer.span)
    made = [*(ir.Alloc(c, span=buffer.span) for c in copies), _nest(buffer, copies, element)]
    return program.with_function(replace_body(function, region, (*body[:split], *made, *rest)))


def _check(buffer: ir.Buffer, body: tuple[ir.Stmt, ...], writers: list[int], readers: list[int]) -> None:
    if buffer.is_stream or not buffer.shape:
        what = "a FIFO" if buffer.is_stream else "a scalar"
        raise StreamError(
            "FX302", f'"{buffer.name}" is {what}', at=buffer.span, hint="only arrays are duplicated"
        )
    if len(readers) < 2:
        places = [Place(body[i].span, "read here") for i in readers] or [Place(buffer.span, "never read")]
        raise StreamError(
            "FX302", f'"{buffer.name}" has {len(readers)} readers', at=places,
            hint="duplicate what several statements of the region read",
        )  # fmt: skip
    _check_order(buffer, body, writers, readers)


def _check_order(
    buffer: ir.Buffer, body: tuple[ir.Stmt, ...], writers: list[int], readers: list[int]
) -> None:
    """Refuse an array that is changed after it was read."""
    early = next((i for i in readers if writers and i <= writers[-1]), None)
    if early is not None:
        raise StreamError(
            "FX302", f'"{buffer.name}" is changed after it was read',
            at=[Place(body[early].span, "read here"), Place(body[writers[-1]].span, "written here")],
            hint="write the result of the second statement to another array",
        )  # fmt: skip


def _nest(buffer: ir.Buffer, copies: list[ir.Buffer], element: ir.Buffer) -> ir.Stmt:
    """Loops over the array that read each element once, for every copy; dimensions in banks are inside."""
    names = [f"{buffer.name}_d{d}" for d in range(len(buffer.shape))]
    indices = tuple(ir.LoopVar(n, span=buffer.span) for n in names)
    load = ir.Load(buffer.name, indices, buffer.dtype, buffer.span)
    banked = {b.dim - 1 for b in buffer.banks if b.kind == "complete" and b.dim}
    order = sorted(range(len(names)), key=lambda d: (d in banked, d))
    value = ir.Load(element.name, (), buffer.dtype, buffer.span)
    body: tuple[ir.Stmt, ...] = (
        ir.Alloc(element, span=buffer.span),
        ir.Store(element.name, (), load, buffer.span),
        *(ir.Store(c.name, indices, value, buffer.span) for c in copies),
    )
    for d in reversed(order):
        band = f"duplicate_{buffer.name}" if d == order[0] else None
        attrs = ir.LoopAttrs(unroll=0 if d in banked else None)
        upper = const(buffer.shape[d], buffer.span)
        body = (
            ir.For(names[d], const(0, buffer.span), upper, body, band=band, attrs=attrs, span=buffer.span),
        )
    return body[0]
