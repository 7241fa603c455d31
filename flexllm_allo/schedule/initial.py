"""What an array holds before its producer stores to it: the constant of an initialiser.

A FIFO carries what the producer stores, each element once.  An initialiser does not go through it:
it is dead for every element that is stored later, and a read that sees nothing else is its constant.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ..analysis.accesses import accesses
from ..analysis.streams import NotEnumerable, reads_first, sequence
from ..ir import nodes as ir
from ..ir.simplify import value_of
from ..ir.walk import Node, calls, rewrite
from .names import fresh


def is_fill(stmt: ir.Stmt) -> bool:
    """Whether a statement is an initialiser: loops that schedules cannot name, storing a constant."""
    while isinstance(stmt, ir.For) and stmt.hidden and len(stmt.body) == 1:
        stmt = stmt.body[0]
    return isinstance(stmt, ir.Store) and isinstance(stmt.value, ir.Const)


def whole_fill(stmt: ir.Stmt, target: ir.Buffer) -> ir.Const | None:
    """The constant of a nest that stores it to every element of the target."""
    loops: list[ir.For] = []
    while isinstance(stmt, ir.For) and len(stmt.body) == 1:
        loops.append(stmt)
        stmt = stmt.body[0]
    if not isinstance(stmt, ir.Store) or stmt.buffer != target.name or not isinstance(stmt.value, ir.Const):
        return None
    bounds = {p.var: (value_of(p.lower), value_of(p.upper), p.step) for p in loops}
    sizes: list[int | None] = []
    for index in stmt.indices:
        known = bounds.pop(index.name, None) if isinstance(index, ir.LoopVar) else None
        sizes.append(known[1] if known is not None and known[0] == 0 and known[2] == 1 else None)
    return stmt.value if tuple(sizes) == target.shape else None


def initialisers(program: ir.Program, body: tuple[ir.Stmt, ...], name: str) -> list[ir.Stmt]:
    """The fills of an array that come before every other use of it."""
    found: list[ir.Stmt] = []
    for stmt in body:
        if isinstance(stmt, ir.Alloc) or not _uses(program, stmt, name):
            continue
        if not is_fill(stmt):
            break
        found.append(stmt)
    return found


def without_initialisers(
    program: ir.Program, body: tuple[ir.Stmt, ...], array: ir.Buffer
) -> tuple[ir.Program, tuple[ir.Stmt, ...]]:
    """The statements after what the first user of an array needs no initialiser for is changed.

    A fill at the start of the function it calls goes if each element is stored later on; reads
    that come before every store become the constant.  Results stay the same, so do statements for
    which this is not certain.
    """
    fills = initialisers(program, body, array.name)
    at = next((i for i, s in enumerate(body) if _stores(program, s, array.name) and s not in fills), None)
    if at is None:
        return program, body
    value = whole_fill(fills[-1], array) if fills else None
    try:
        shorter, first, value = _shortened(program, body[at], array, value)
        if first is body[at] and not _reads(program, first, array.name):
            return program, body
        if len(np.unique(sequence(shorter, first, array, write=True).elements)) != prod(array.shape):
            return program, body
        if _reads(shorter, first, array.name):
            if value is None or not reads_first(shorter, first, array):
                return program, body
            shorter, (first,) = _with_value(shorter, (first,), array.name, value)
    except NotEnumerable:
        return program, body
    return shorter, (*body[:at], first, *body[at + 1 :])


def has_others(program: ir.Program, name: str) -> bool:
    """Whether a function has a second call."""
    return sum(call.func == name for f in program.functions for call in calls(f)) > 1


def install(
    program: ir.Program, old: ir.Function, new: ir.Function, shared: bool = False
) -> tuple[ir.Program, str]:
    """Put a changed callee into the program: in place if nothing else runs it, else as a clone.

    Args:
        shared: whether a function on the way to its call has other calls, and so is cloned itself.
    """
    functions = program.functions
    if not shared and not has_others(program, old.name):
        return program.with_function(new, old.name), old.name
    name = fresh(f"{old.name}_stream", {f.name for f in functions})
    at = next(i for i, f in enumerate(functions) if f.name == old.name)
    made = replace(new, name=name)
    return replace(program, functions=(*functions[: at + 1], made, *functions[at + 1 :])), name


def _shortened(
    program: ir.Program, stmt: ir.Stmt, array: ir.Buffer, value: ir.Const | None, shared: bool = False
) -> tuple[ir.Program, ir.Stmt, ir.Const | None]:
    """A call whose callee no longer begins with fills of the array, and the constant of the last one."""
    if not isinstance(stmt, ir.Call):
        return program, stmt, value
    callee = program.function(stmt.func)
    passed = [
        p
        for p, a in zip(callee.params, stmt.args, strict=True)
        if isinstance(a, ir.View) and a.buffer == array.name
    ]
    if len(passed) != 1 or passed[0].shape != array.shape:
        return program, stmt, value
    shared = shared or has_others(program, callee.name)
    body: list[ir.Stmt] = []
    rest = iter(callee.body)
    for inner in rest:
        if not _uses(program, inner, passed[0].name):
            body.append(inner)
        elif is_fill(inner) and (constant := whole_fill(inner, passed[0])):
            value = constant
        else:
            program, inner, value = _shortened(program, inner, passed[0], value, shared)
            body += [inner, *rest]
    if all(a is b for a, b in zip(body, callee.body, strict=False)) and len(body) == len(callee.body):
        return program, stmt, value
    program, name = install(program, callee, replace(callee, body=tuple(body)), shared)
    return program, replace(stmt, func=name), value


def _with_value(
    program: ir.Program, body: tuple[ir.Stmt, ...], name: str, value: ir.Const, shared: bool = False
) -> tuple[ir.Program, tuple[ir.Stmt, ...]]:
    """The statements, and the functions they call, with every load of the array replaced."""

    def visit(node: Node) -> Node | None:
        nonlocal program
        if isinstance(node, ir.Load) and node.buffer == name:
            return replace(value, span=node.span)
        if isinstance(node, ir.Call):
            for arg, param in zip(node.args, program.function(node.func).params, strict=True):
                callee = program.function(node.func)
                if isinstance(arg, ir.View) and arg.buffer == name and _reads_in(program, callee, param.name):
                    others = shared or has_others(program, callee.name)
                    program, inner = _with_value(program, callee.body, param.name, value, others)
                    program, func = install(program, callee, replace(callee, body=inner), others)
                    node = replace(node, func=func)
        return node

    made = tuple(rewrite(stmt, visit) for stmt in body)
    return program, made


def _uses(program: ir.Program, stmt: ir.Stmt, name: str) -> bool:
    return any(a.buffer == name for a in accesses((stmt,), program))


def _stores(program: ir.Program, stmt: ir.Stmt, name: str) -> bool:
    return not isinstance(stmt, ir.Alloc) and any(
        a.buffer == name and a.write for a in accesses((stmt,), program)
    )


def _reads(program: ir.Program, stmt: ir.Stmt, name: str) -> bool:
    return any(a.buffer == name and not a.write for a in accesses((stmt,), program))


def _reads_in(program: ir.Program, function: ir.Function, name: str) -> bool:
    return any(a.buffer == name and not a.write for a in accesses(function.body, program))


__all__ = ["has_others", "initialisers", "install", "is_fill", "whole_fill", "without_initialisers"]
