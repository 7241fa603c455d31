"""Instances of a kernel that do the same become one function with parameters.

A schedule sees every instance of a dataflow kernel as a function of its own, so that each can be
scheduled by its name.  Before code is generated, instances that are still equal up to some constants
(their process ids, mostly) are merged: the constants become scalar parameters, the streams are
parameters already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from . import nodes as ir
from .dtypes import INT32, DType, Index
from .walk import buffers, rewrite, walk

_SHAPING = frozenset(["/", "//", "%", "<<", ">>"])  # a constant right operand saves hardware

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def merge_instances(program: ir.Program) -> ir.Program:
    """The program in which the regions call one function for all instances that are alike."""
    for region in [f for f in program.functions if f.concurrent]:
        called = dict.fromkeys(s.func for s in region.body if isinstance(s, ir.Call) and s.label)
        groups: dict[Any, list[_Skeleton]] = {}
        for name in called:
            skeleton = _Skeleton(program.function(name))
            if not skeleton.static:
                groups.setdefault(skeleton.key, []).append(skeleton)
        for alike in groups.values():
            if len(alike) > 1:
                program = _merged(program, region.name, alike)
    return program


class _Skeleton:
    """A function with the constants that may vary between instances set apart."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.static = any(isinstance(n, ir.Alloc) and n.static for n in walk(function.body))
        self._fixed = {id(c) for c in _shaping_constants(function.body)}
        self.values: list[int | float] = []
        body = rewrite(function.body, self._set_apart)
        self.key = (function.origin, function.params, function.dataflow, len(self.values), body)

    def varies(self, node: Any) -> bool:
        """Whether a node is such a constant."""
        return isinstance(node, ir.Const) and node.type.is_integer and id(node) not in self._fixed

    def _set_apart(self, node: Any) -> Any:
        if not self.varies(node):
            return None
        self.values.append(node.value)
        return replace(node, value=0)


def _shaping_constants(body: tuple[ir.Stmt, ...]) -> Iterable[ir.Const]:
    """Constants that decide how much hardware there is: loop bounds, divisors, shifts, bit positions."""
    for node in walk(body):
        roots: tuple[ir.Expr, ...] = ()
        match node:
            case ir.For():
                roots = (node.lower, node.upper)
            case ir.BitSlice():
                roots = (node.lo,)
            case ir.Binary() if node.op in _SHAPING:
                roots = (node.right,)
            case _:
                pass
        yield from (n for root in roots for n in walk(root) if isinstance(n, ir.Const))


def _merged(program: ir.Program, region: str, alike: list[_Skeleton]) -> ir.Program:
    first = alike[0]
    columns = list(zip(*(s.values for s in alike), strict=True))
    params: dict[Any, ir.Buffer] = {}  # values and type -> the parameter that carries them
    taken = set(buffers(first.function))
    position = -1

    def parameter(node: Any) -> Any:
        nonlocal position
        if not first.varies(node):
            return None
        position += 1
        column = columns[position]
        if len(set(column)) == 1:
            return None
        dtype = _carrier(node.type, column)
        key = column, dtype
        if key not in params:
            params[key] = ir.Buffer(_fresh("pid", taken), dtype, span=first.function.span)
        load = ir.Load(params[key].name, (), dtype, node.span)
        return load if dtype == node.type else ir.Cast(load, node.type, span=node.span)

    body = rewrite(first.function.body, parameter)
    assert isinstance(body, tuple)
    merged = replace(first.function, body=body, params=(*first.function.params, *params.values()))
    extra = {
        s.function.name: tuple(ir.Const(column[i], t, s.function.span) for column, t in params)
        for i, s in enumerate(alike)
    }

    def call(node: Any) -> Any:
        if isinstance(node, ir.Call) and node.func in extra:
            return replace(node, func=merged.name, args=(*node.args, *extra[node.func]))
        return None

    caller = program.function(region)
    program = program.with_function(merged)
    program = program.with_function(replace(caller, body=rewrite(caller.body, call)))  # pyright: ignore
    gone = set(extra) - {merged.name}
    return replace(program, functions=tuple(f for f in program.functions if f.name not in gone))


def _carrier(dtype: DType, values: tuple[int | float, ...]) -> DType:
    """The type of a parameter: that of the constants, or int32 for integers of odd widths."""
    small = all(INT32_MIN <= value <= INT32_MAX for value in values)
    return dtype if isinstance(dtype, Index) or not small else INT32


def _fresh(stem: str, taken: set[str]) -> str:
    name, n = stem, 0
    while name in taken:
        n += 1
        name = f"{stem}_{n}"
    taken.add(name)
    return name


__all__ = ["merge_instances"]
