"""Spatial loops: one process per iteration."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import nodes as ir
from ..ir.simplify import const, simplify, value_of
from ..ir.walk import substitute


def expanded(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """The statements of a region with a copy for every iteration of its spatial loops."""
    return tuple(copy for stmt in body for copy in _copies(stmt))


def _copies(stmt: ir.Stmt) -> Iterator[ir.Stmt]:
    if not (isinstance(stmt, ir.For) and stmt.attrs.spatial):
        yield stmt
        return
    lower, upper = value_of(stmt.lower), value_of(stmt.upper)
    assert lower is not None
    assert upper is not None
    for i in range(lower, upper, stmt.step):
        for inner in stmt.body:
            yield from _copies(simplify(substitute(inner, {stmt.var: const(i)})))


__all__ = ["expanded"]
