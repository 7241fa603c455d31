"""The primitive `narrow`: sums in as few bits as hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from ..analysis.accesses import accesses
from ..analysis.affine import affine
from ..analysis.interval import Range, hull
from ..analysis.reductions import reduction
from ..errors import Place, ScheduleError, Span
from ..ir import nodes as ir
from ..ir.dtypes import DType, Int, UInt
from ..ir.walk import Node, rewrite, walk
from .buffers import Target, find_buffer
from .nests import extent


def narrow(program: ir.Program, func: str, target: Target) -> ir.Program:
    """Give a local array of sums the narrowest type that holds all of them, whatever the terms.

    An element starts from a constant and gets terms added; how many and how large they can be follows from
    the loops and the types.  Results stay the same, adders and registers become smaller.

    Args:
        target: the array.

    Raises:
        ScheduleError: FX205, something else is stored to it, or is done to it by a function.

    Example:
        >>> s = allo.customize(gemm)
        >>> s.reorder("k", "j")
        >>> s.buffer_at(s.C, "i")
        >>> s.narrow("C_buf")
        >>> print(s)
        def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
            C: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    C[_0, _1] = 0
            for i in range(6, name="S_i_j_k_0"):
                C_buf: Int(18)[4]
                for j_init in range(4):  # pipeline II=1
                    C_buf[j_init] = 0
                for k in range(5):
                    for j in range(4):
                        C_buf[j] += A[i, k] * B[k, j]
                for j_back in range(4):  # pipeline II=1
                    C[i, j_back] = C_buf[j_back]
            return C
    """
    function, buffer = find_buffer(program, func, target)
    steps = list(_steps(function, buffer))
    sums: dict[tuple[int, ...], list[Range]] = {}
    for step, where in zip(steps, _told_apart([step.where for step in steps]), strict=True):
        sums.setdefault(where, []).append(step.added)
    low, high = hull([step.start for step in steps if step.start] or [(0, 0)])
    low += min(sum(min(0, part[0]) for part in parts) for parts in sums.values()) if sums else 0
    high += max(sum(max(0, part[1]) for part in parts) for parts in sums.values()) if sums else 0
    dtype = Int(max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1)
    if dtype.bits >= buffer.dtype.bits:
        return program
    new = replace(buffer, dtype=dtype)
    body = rewrite(function.body, lambda node: _narrowed(node, new, buffer.dtype))
    return program.with_function(replace(function, body=body))


@dataclass(frozen=True)
class _Step:
    """What a store does: it sets elements to `start`, or adds up to `added` to those at `where`.

    `where` has, for every dimension, (c, r) if they are at c * i + r for different i, or None.
    """

    start: Range | None = None
    added: Range = (0, 0)
    where: tuple[tuple[int, int] | None, ...] = ()


def _refuse(buffer: ir.Buffer, message: str, span: Span, hint: str = "") -> ScheduleError:
    places = [Place(span), Place(buffer.span, f'"{buffer.name}"')]
    return ScheduleError(
        "FX205", message, places, hint or "an array that starts from constants and gets terms"
    )


def _steps(function: ir.Function, buffer: ir.Buffer) -> Iterator[_Step]:
    """What every store to the array does, if nothing else is done to it."""
    name = buffer.name
    for node in walk(function.body):
        if isinstance(node, ir.View) and node.buffer == name:
            raise _refuse(buffer, f'"{name}" is passed to a function', node.span)
    found = [a for a in accesses(function.body) if a.buffer == name and a.write]
    made = [n for n in walk(function.body) if isinstance(n, ir.Alloc) and n.buffer.name == name]
    stores = [n for n in walk(function.body) if isinstance(n, ir.Store) and n.buffer == name]
    if len(made) != 1 or made[0].init or buffer.is_stream or not isinstance(buffer.dtype, Int):
        raise _refuse(buffer, f'"{name}" is no local array of signed integers', buffer.span)
    if buffer.words > 1 or len(stores) != len(found):
        raise _refuse(buffer, f'"{name}" is packed', buffer.span)
    if any(isinstance(n, ir.While) and any(m in stores for m in walk(n.body)) for n in walk(function.body)):
        raise _refuse(buffer, f'"{name}" is stored to in a while loop', buffer.span)
    around = _around(function.body, made[0])
    for store, access in zip(stores, found, strict=True):
        if isinstance(store.value, ir.Const) and isinstance(store.value.value, int):
            yield _Step(start=(store.value.value, store.value.value))
            continue
        term = _term(store)
        if term is None:
            raise _refuse(buffer, f'"{name}" is more than a sum', store.span)
        times, where = _repeats(buffer, store, tuple(p for p in access.loops if id(p) not in around))
        low, high = _range(term)
        yield _Step(added=(times * low, times * high), where=where)


def _term(store: ir.Store) -> ir.Expr | None:
    """What a store adds to its element; None if it does something else."""
    value, found = _plain(store.value), reduction(store)
    if found is None or not found.exact or not isinstance(value, ir.Binary) or value.op != "+":
        return None
    return _kept(value.left if _plain(value.right) is found.load else value.right)


def _plain(expr: ir.Expr) -> ir.Expr:
    """An integer before its conversions."""
    while isinstance(expr, ir.Cast) and isinstance(expr.value.type, Int | UInt):
        expr = expr.value
    return expr


def _kept(expr: ir.Expr) -> ir.Expr:
    """An integer before those that keep its value."""
    while isinstance(expr, ir.Cast) and isinstance(expr.value.type, Int | UInt):
        (low, high), (least, most) = _ends(expr.value.type), _ends(expr.type)
        if low < least or most < high:
            break
        expr = expr.value
    return expr


def _around(body: tuple[ir.Stmt, ...], made: ir.Alloc) -> set[int]:
    """The loops in whose bodies the array is made: it is a new one in each of their iterations."""
    found: set[int] = set()
    for loop in walk(body):
        if isinstance(loop, ir.For) and any(n is made for n in walk(loop.body)):
            found.add(id(loop))
    return found


def _told_apart(places: list[tuple[tuple[int, int] | None, ...]]) -> list[tuple[int, ...]]:
    """A key for each place; places with different keys have no element in common."""
    added = [place for place in places if place]
    strides = [{at[0] if at else 0 for at in dim} for dim in zip(*added, strict=True)]
    same = [len(found) == 1 and 0 not in found for found in strides]
    return [tuple(at[1] if at and ok else 0 for at, ok in zip(place, same, strict=False)) for place in places]


def _repeats(
    buffer: ir.Buffer, store: ir.Store, loops: tuple[ir.For, ...]
) -> tuple[int, tuple[tuple[int, int] | None, ...]]:
    """How often a store meets one element at most, and where its elements are."""
    spread: set[str] = set()
    where: list[tuple[int, int] | None] = []
    for index in store.indices:
        form = affine(index)
        terms = [(t, c) for t, c in form.terms if isinstance(t, str)] if form else []
        if form is None or len(terms) != 1 or len(form.terms) != 1 or terms[0][0] in spread:
            where.append(None)
            continue
        spread.add(terms[0][0])
        where.append((abs(terms[0][1]), form.constant % abs(terms[0][1])))
    trips = [extent(loop) for loop in loops if loop.var not in spread]
    if None in trips:
        raise _refuse(buffer, "how many terms are added is known at run time only", store.span)
    return prod(n or 0 for n in trips), tuple(where)


def _range(expr: ir.Expr) -> Range:
    """The least and the greatest value of a term."""
    ends = _ends(expr.type)
    match expr:
        case ir.Const(int() as value):
            return value, value
        case ir.Cast(value) if isinstance(value.type, Int | UInt):
            found = _range(value)
        case ir.Binary("*", left, right):
            a, b = _range(left), _range(right)
            found = hull((x * y, x * y) for x in a for y in b)
        case _:
            return ends
    return found if ends[0] <= found[0] and found[1] <= ends[1] else ends


def _ends(dtype: DType) -> Range:
    half = 1 << (dtype.bits - 1)
    return (-half, half - 1) if dtype.signed else (0, 2 * half - 1)


def _narrowed(node: Node, new: ir.Buffer, old: DType) -> Node | None:
    """The array, what is stored and what is read of it, in the new type."""
    match node:
        case ir.Alloc() if node.buffer.name == new.name:
            return replace(node, buffer=new)
        case ir.Load() if node.buffer == new.name:
            return ir.Cast(replace(node, type=new.dtype), old, True, node.span)
        case ir.Store() if node.buffer == new.name:
            if isinstance(node.value, ir.Const):
                return replace(node, value=replace(node.value, type=new.dtype))
            element = ir.Load(new.name, node.indices, new.dtype, node.span)
            total = _plain(node.value)
            assert isinstance(total, ir.Binary)
            term = next(side for side in (total.left, total.right) if not _reads(_plain(side), new.name))
            added = ir.Cast(_kept(term), new.dtype, True, node.span)
            return replace(node, value=ir.Binary("+", element, added, new.dtype, node.span))
        case _:
            return None


def _reads(expr: ir.Expr, name: str) -> bool:
    return isinstance(expr, ir.Load) and expr.buffer == name


__all__ = ["narrow"]
