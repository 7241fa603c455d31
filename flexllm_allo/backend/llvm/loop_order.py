"""Loops in the order the CPU's memory likes: LLVM vectorises innermost loops but does not interchange them.

``C[i, j] += A[i, k] * B[k, j]`` in the order i, j, k walks down a column of B; in the order i, k, j
all accesses are contiguous.  A nest is only touched if its innermost loop strides through memory,
and only reordered where the dependence analysis proves that every bit stays: integer sums may
change their order, float sums keep theirs for every element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ...analysis.accesses import accesses, written
from ...analysis.affine import affine
from ...ir import nodes as ir
from ...ir.walk import Node, buffers, rewrite, walk
from ...schedule.buffers import shared_parameters
from ...schedule.nests import extent, loop_vars, order_violation

WORTH_IT = 1 << 12  # iterations; analysing smaller nests takes longer than running them


def contiguous_loops(program: ir.Program) -> ir.Program:
    """The program with loop nests reordered where that makes innermost accesses contiguous."""
    functions = tuple(_function(f, program) for f in program.functions)
    return replace(program, functions=functions)


def _function(function: ir.Function, program: ir.Program) -> ir.Function:
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(node: Node) -> Node | None:
        if not isinstance(node, ir.For):
            return None
        loops = _perfect_nest(node)
        if len(loops) < 2 or prod(extent(loop) or 0 for loop in loops) < WORTH_IT:
            return None
        if not shapes:
            shapes.update({name: b.shape for name, b in buffers(function).items()})
        return _reordered(loops, function, program, shapes)

    body = rewrite(function.body, visit)
    return function if body is function.body else replace(function, body=body)


def _perfect_nest(loop: ir.For) -> list[ir.For]:
    """The loops of a perfect rectangular nest around stores, or nothing."""
    loops = [loop]
    while len(loops[-1].body) == 1 and isinstance(inner := loops[-1].body[0], ir.For):
        loops.append(inner)
    if not all(isinstance(stmt, ir.Store) for stmt in loops[-1].body):
        return []
    names = {each.var for each in loops}
    depends = any(names & (loop_vars(each.lower) | loop_vars(each.upper)) for each in loops)
    return [] if depends or len(names) < len(loops) else loops


def _reordered(
    loops: list[ir.For], function: ir.Function, program: ir.Program, shapes: dict[str, tuple[int, ...]]
) -> ir.For | None:
    stores = [stmt for stmt in loops[-1].body if isinstance(stmt, ir.Store)]
    costs = [_cost(stores, loop.var, shapes) for loop in loops]
    best = min(range(len(loops)), key=lambda n: (costs[n], -n))
    if costs[best] >= costs[-1]:
        return None
    order = [n for n in range(len(loops)) if n != best] + [best]
    shared = shared_parameters(program, function)
    found = accesses((loops[0],), program)
    if any(a.buffer in shared for a in found):
        return None
    if order_violation(found, loops, order, 0, written((loops[0],), program)) is not None:
        return None
    body = loops[-1].body
    for n in reversed(order):
        body = (replace(loops[n], body=body),)
    (nest,) = body
    assert isinstance(nest, ir.For)
    return nest


def _cost(stores: Sequence[ir.Store], var: str, shapes: dict[str, tuple[int, ...]]) -> int:
    """How badly it suits memory that `var` is innermost: strided accesses, and stores to one place."""
    cost = 0
    for store in stores:
        for node in walk(store):
            if isinstance(node, ir.Load | ir.Store) and node.indices:
                stride = _stride(node.indices, var, shapes[node.buffer])
                cost += 2 * (stride is None or abs(stride) > 1) + (stride == 0 and node is store)
    return cost


def _stride(indices: tuple[ir.Expr, ...], var: str, shape: tuple[int, ...]) -> int | None:
    """Elements between the places two successive iterations touch, if that is a constant."""
    total = 0
    for dim, index in enumerate(indices):
        if var not in loop_vars(index):
            continue
        form = affine(index)
        if form is None or any(not isinstance(t, str) and var in _inside(t) for t, _ in form.terms):
            return None
        total += dict(form.terms).get(var, 0) * prod(shape[dim + 1 :])
    return total


def _inside(term: object) -> set[str]:
    value = getattr(term, "value", None)
    return value.variables() if value is not None else set()
