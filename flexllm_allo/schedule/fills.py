"""Fills: the loops that the language implies for ``A: int32[4, 8] = 0``, which no schedule can name."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..ir import nodes as ir
from ..ir.simplify import binary, const, value_of, var
from ..ir.walk import buffers, rewrite
from .names import find_function


def fill_banks(program: ir.Program, func: str) -> ir.Program:
    """Fill all banks of an array at once: an element of each per iteration."""
    function = find_function(program, func)
    known = buffers(function)

    def banked(node: object) -> ir.For | None:
        return _banked(node, known) if isinstance(node, ir.For) else None

    body = tuple(rewrite(stmt, banked) for stmt in function.body)
    return program.with_function(replace(function, body=body))


def _banked(loop: ir.For, known: dict[str, ir.Buffer]) -> ir.For | None:
    """A nest that fills an array, with a copy for every bank; None if it is something else."""
    nest = [loop]
    while len(nest[-1].body) == 1 and isinstance(inner := nest[-1].body[0], ir.For):
        nest.append(inner)
    store = nest[-1].body[0] if len(nest[-1].body) == 1 else None
    names = tuple(each.var for each in nest)
    if (
        not all(each.hidden and each.attrs == ir.LoopAttrs() for each in nest)
        or not isinstance(store, ir.Store)
        or not isinstance(store.value, ir.Const)
        or tuple(i.name if isinstance(i, ir.LoopVar) else "" for i in store.indices) != names
    ):
        return None
    sizes = [value_of(each.upper) for each in nest]
    lanes = _lanes(known[store.buffer])
    if prod(lanes) == 1 or any(size is None or size % n for size, n in zip(sizes, lanes, strict=True)):
        return None
    indices = [_index(each.var, n, size) for each, n, size in zip(nest, lanes, sizes, strict=True)]
    body: ir.Stmt = replace(store, indices=tuple(indices))
    for each, n in reversed(list(zip(nest, lanes, strict=True))):
        if n > 1:
            unrolled = ir.LoopAttrs(unroll=0)
            body = ir.For(f"{each.var}.inner", const(0), const(n), (body,), attrs=unrolled, span=each.span)
    pipelined = ir.LoopAttrs(pipeline=1)
    for each, n, size in reversed(list(zip(nest, lanes, sizes, strict=True))):
        if size != n:
            body = replace(each, upper=const((size or n) // n), body=(body,), attrs=pipelined)
            pipelined = ir.LoopAttrs()
    assert isinstance(body, ir.For)
    return body


def _lanes(buffer: ir.Buffer) -> list[int]:
    """Banks along every dimension; 1 where neighbours share one."""
    lanes = [1] * len(buffer.shape)
    for bank in buffer.banks:
        if bank.dim and bank.kind != "block":
            lanes[bank.dim - 1] = buffer.shape[bank.dim - 1] if bank.kind == "complete" else bank.factor
    return lanes


def _index(name: str, lanes: int, size: int | None) -> ir.Expr:
    inner = var(f"{name}.inner")
    if size == 1:
        return const(0)
    if lanes == 1:
        return var(name)
    return inner if lanes == size else binary("+", binary("*", var(name), lanes), inner)


__all__ = ["fill_banks"]
