"""How much of each array a call of a function touches: what memory channels are balanced by."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..ir import nodes as ir
from ..ir.walk import buffers, children

Trips = Mapping[str, int | None]
"""Iterations of the loops around, by variable; None where only the run tells."""

Constants = tuple[int | None, ...]
"""The indices of an access that are constants: accesses that differ in one touch different elements."""


def footprints(program: ir.Program, name: str) -> dict[str, int]:
    """Elements (words, where packed) of every array parameter that one call touches, each counted once.

    An upper bound. An index covers as many rows as the loops it runs over have iterations; one that is data
    (the row of a token) as many as there are such data. A loop whose length only the run tells covers the
    whole dimension.

    Args:
        program: holds the function and its callees.
        name: the function.
    """
    done: dict[str, dict[str, int]] = {}
    for function in program.functions:  # callees first
        done[function.name] = _Footprints(program, function, done).of_function()
        if function.name == name:
            break
    return done[name]


class _Footprints:
    def __init__(
        self, program: ir.Program, function: ir.Function, done: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.program, self.function, self.done = program, function, done
        self.shapes = {name: b.shape for name, b in buffers(function).items()}
        self.found: dict[str, dict[Constants, int]] = {
            b.name: {} for b in function.params if b.shape and not b.is_stream
        }

    def of_function(self) -> dict[str, int]:
        if self.function.extern is not None:
            return {name: prod(self.shapes[name]) for name in self.found}
        for stmt in self.function.body:
            self.visit(stmt, {})
        return {n: min(sum(parts.values()), prod(self.shapes[n])) for n, parts in self.found.items()}

    def visit(self, node: object, trips: Trips) -> None:
        if isinstance(node, ir.Load | ir.Store):
            self.add(node.buffer, node.indices, trips)
        elif isinstance(node, ir.Put) and isinstance(node.value, ir.View):
            self.add(node.value.buffer, node.value.indices, trips)
        elif isinstance(node, ir.Call):
            callee = self.program.function(node.func)
            for param, arg in zip(callee.params, node.args, strict=True):
                if isinstance(arg, ir.View) and param.name in self.done[node.func]:
                    self.add(arg.buffer, arg.indices, trips, self.done[node.func][param.name])
        inner = {**trips, node.var: _trip_count(node)} if isinstance(node, ir.For) else trips
        for child in children(node):
            self.visit(child, inner)

    def add(self, buffer: str, indices: tuple[ir.Expr, ...], trips: Trips, rest: int | None = None) -> None:
        """`indices` choose the leading dimensions; below them lie `rest` elements, or all there are."""
        if buffer not in self.found:
            return
        shape = self.shapes[buffer]
        rows = prod(
            min(size, self.spread(index, size, trips)) for index, size in zip(indices, shape, strict=False)
        )
        below = prod(shape[len(indices) :]) if rest is None else rest
        parts = self.found[buffer]
        key = tuple(int(i.value) if isinstance(i, ir.Const) else None for i in indices)
        parts[key] = max(parts.get(key, 0), rows * below)

    def spread(self, index: ir.Expr, size: int, trips: Trips) -> int:
        """How many values an index takes, of `size` that there are."""
        if isinstance(index, ir.LoopVar):
            count = trips.get(index.name)
            return size if count is None else count
        if isinstance(index, ir.Load):
            shape = self.shapes[index.buffer]
            return prod(min(n, self.spread(i, n, trips)) for i, n in zip(index.indices, shape, strict=True))
        return prod(self.spread(child, size, trips) for child in children(index))


def _trip_count(loop: ir.For) -> int | None:
    if isinstance(loop.lower, ir.Const) and isinstance(loop.upper, ir.Const):
        return max(0, -(-(int(loop.upper.value) - int(loop.lower.value)) // loop.step))
    return None
