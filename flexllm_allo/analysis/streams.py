"""The sequence of elements that a statement writes to, or reads from, one array.

A buffer can become a FIFO only if both sequences are equal and no element occurs twice.  The
sequences are enumerated over the loops, with NumPy arrays that hold one entry per execution of a
statement, through calls; conditions and bounds must be computable from loop variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Span
from ..ir import nodes as ir
from ..ir.dtypes import Index, Int, UInt
from ..ir.walk import walk

Ints = NDArray[np.int64]
LIMIT = 1 << 21  # executions of one statement


class NotEnumerable(Exception):
    """The order depends on data, or there are too many elements to enumerate."""

    def __init__(self, reason: str, span: Span) -> None:
        super().__init__(reason)
        self.reason, self.span = reason, span


@dataclass(frozen=True)
class Sequence:
    """Flat element numbers in the order of execution, and the source place of each access."""

    elements: Ints
    sites: Ints
    spans: tuple[Span, ...]

    def span(self, position: int) -> Span:
        return self.spans[int(self.sites[position])]


@dataclass(frozen=True)
class _Tracked:
    """A name of the array: its elements start at `offset` (per execution) and have this shape."""

    offset: Ints
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Env:
    """Values of loop variables and scalars, one entry per execution, in order."""

    count: int
    loops: dict[str, Ints] = field(default_factory=lambda: dict[str, Ints]())
    scalars: dict[str, Ints] = field(default_factory=lambda: dict[str, Ints]())
    arrays: dict[str, _Tracked] = field(default_factory=lambda: dict[str, _Tracked]())

    def take(self, rows: Ints) -> _Env:
        arrays = {k: _Tracked(t.offset[rows], t.shape) for k, t in self.arrays.items()}
        return _Env(len(rows), _pick(self.loops, rows), _pick(self.scalars, rows), arrays)


_Events = tuple[Ints, Ints, Ints]  # execution of the enclosing body, element, site


def _pick(values: Mapping[str, Ints], rows: Ints) -> dict[str, Ints]:
    return {k: v[rows] for k, v in values.items()}


def sequence(program: ir.Program, stmt: ir.Stmt, buffer: ir.Buffer, write: bool) -> Sequence:
    """Elements of `buffer` that one execution of a statement writes (or reads), in order.

    Raises:
        NotEnumerable: the order is not known at compile time.
    """
    walker = _Walker(program, write)
    _, elements, sites = walker.body((stmt,), _start(buffer))
    return Sequence(elements, sites, tuple(walker.spans))


def reads_first(program: ir.Program, stmt: ir.Stmt, buffer: ir.Buffer) -> bool:
    """Whether one execution of a statement reads each element only before it writes it.

    Raises:
        NotEnumerable: the order is not known at compile time.
    """
    walker = _Walker(program, None)
    _, elements, sites = walker.body((stmt,), _start(buffer))
    writes = np.array(walker.writes, dtype=bool)[sites]
    time = np.arange(len(elements))
    written = np.full(prod(buffer.shape), len(elements))
    np.minimum.at(written, elements[writes], time[writes])
    return bool(np.all(time[~writes] < written[elements[~writes]]))


def _start(buffer: ir.Buffer) -> _Env:
    return _Env(1, arrays={buffer.name: _Tracked(np.zeros(1, np.int64), buffer.shape)})


class _Walker:
    """Collects writes, or reads, or with `write` None both; `spans` and `writes` describe the sites."""

    def __init__(self, program: ir.Program, write: bool | None) -> None:
        self.program = program
        self.write = write
        self.spans: list[Span] = []
        self.writes: list[bool] = []

    def body(self, body: tuple[ir.Stmt, ...], env: _Env) -> _Events:
        parts = [self.stmt(stmt, env) for stmt in body]
        rows, elements, sites = (
            np.concatenate([np.zeros(0, np.int64), *(p[i] for p in parts)]) for i in range(3)
        )
        order = np.argsort(rows, kind="stable")
        return rows[order], elements[order], sites[order]

    def stmt(self, stmt: ir.Stmt, env: _Env) -> _Events:
        match stmt:
            case ir.Store():
                parts = [self.loads((stmt.value, *stmt.indices), env)]
                if self.write is not False and stmt.buffer in env.arrays:
                    parts.append(self.event(stmt.buffer, stmt.indices, stmt.span, env, write=True))
                return _merge(parts)
            case ir.Put():
                if isinstance(stmt.value, ir.View):
                    if stmt.value.buffer in env.arrays:
                        raise NotEnumerable("it is put into a FIFO as a whole", stmt.span)
                    return self.loads(stmt.indices, env)
                return self.loads((stmt.value, *stmt.indices), env)
            case ir.For():
                return self.loop(stmt, env)
            case ir.If():
                return self.branch(stmt, env)
            case ir.While():
                if any(_uses(n, env) for n in walk(stmt)):
                    raise NotEnumerable("it is accessed in a while loop", stmt.span)
                return _none()
            case ir.Call():
                return self.call(stmt, env)
            case _:
                return _none()

    def loads(self, exprs: tuple[ir.Expr, ...], env: _Env) -> _Events:
        if self.write:
            return _none()
        parts = [
            self.event(n.buffer, n.indices, n.span, env, write=False)
            for e in exprs
            for n in walk(e)
            if isinstance(n, ir.Load) and n.buffer in env.arrays
        ]
        return _merge(parts)

    def event(self, name: str, indices: tuple[ir.Expr, ...], span: Span, env: _Env, write: bool) -> _Events:
        element = self.position(env.arrays[name], indices, env)
        self.spans.append(span)
        self.writes.append(write)
        return np.arange(env.count), element, np.full(env.count, len(self.spans) - 1)

    def position(self, tracked: _Tracked, indices: tuple[ir.Expr, ...], env: _Env) -> Ints:
        """The element's number; views give the number of their first element."""
        element = tracked.offset.copy()
        for d, index in enumerate(indices):
            element += evaluate(index, env) * prod(tracked.shape[d + 1 :])
        return element

    def loop(self, loop: ir.For, env: _Env) -> _Events:
        head = self.loads((loop.lower, loop.upper), env)
        if not any(_uses(n, env) for s in loop.body for n in walk(s)):
            return head
        lower, upper = evaluate(loop.lower, env), evaluate(loop.upper, env)
        counts = np.maximum(0, -(-(upper - lower) // loop.step))
        total = int(counts.sum())
        if total > LIMIT:
            raise NotEnumerable(f"there are more than {LIMIT} accesses", loop.span)
        parent = np.repeat(np.arange(env.count), counts)
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        inner = env.take(parent)
        inner.loops[loop.var] = lower[parent] + within * loop.step
        rows, elements, sites = self.body(loop.body, inner)
        return _merge([head, (parent[rows], elements, sites)])

    def branch(self, stmt: ir.If, env: _Env) -> _Events:
        head = self.loads((stmt.condition,), env)
        if not any(_uses(n, env) for s in (*stmt.then, *stmt.otherwise) for n in walk(s)):
            return head
        taken = evaluate(stmt.condition, env) != 0
        parts = [head]
        for body, mask in ((stmt.then, taken), (stmt.otherwise, ~taken)):
            chosen = np.flatnonzero(mask)
            rows, elements, sites = self.body(body, env.take(chosen))
            parts.append((chosen[rows], elements, sites))
        return _merge(parts)

    def call(self, call: ir.Call, env: _Env) -> _Events:
        head = self.loads(tuple(a for a in call.args if not isinstance(a, ir.View)), env)
        callee = self.program.function(call.func)
        arrays: dict[str, _Tracked] = {}
        scalars: dict[str, Ints] = {}
        for param, arg in zip(callee.params, call.args, strict=True):
            if isinstance(arg, ir.View):
                if arg.buffer in env.arrays:
                    tracked = env.arrays[arg.buffer]
                    offset = self.position(tracked, arg.indices, env)
                    arrays[param.name] = _Tracked(offset, tracked.shape[len(arg.indices) :])
            else:
                try:
                    scalars[param.name] = evaluate(arg, env)
                except NotEnumerable:
                    continue  # matters only if an index depends on it
        if not arrays:
            return head
        if callee.extern is not None:
            raise NotEnumerable(f"it is passed to {callee.name}, which is written in C++", call.span)
        rows, elements, sites = self.body(callee.body, _Env(env.count, {}, scalars, arrays))
        return _merge([head, (rows, elements, sites)])


def _none() -> _Events:
    empty = np.zeros(0, np.int64)
    return empty, empty, empty


def _merge(parts: list[_Events]) -> _Events:
    if not parts:
        return _none()
    rows, elements, sites = (np.concatenate([p[i] for p in parts]) for i in range(3))
    order = np.argsort(rows, kind="stable")
    return rows[order], elements[order], sites[order]


def _uses(node: Any, env: _Env) -> bool:
    """Whether a node names the array, for reading or writing."""
    return isinstance(node, ir.Load | ir.Store | ir.View) and node.buffer in env.arrays


def evaluate(expr: ir.Expr, env: _Env) -> Ints:
    """The value of an integer expression in every execution.

    Raises:
        NotEnumerable: it depends on data.
    """
    match expr:
        case ir.Const(int() as value):
            return np.full(env.count, value, np.int64)
        case ir.LoopVar(name) if name in env.loops:
            return env.loops[name]
        case ir.Load(buffer, ()) if buffer in env.scalars:
            return env.scalars[buffer]
        case ir.Cast(value) if isinstance(expr.type, Int | UInt | Index):
            return _wrapped(evaluate(value, env), expr)
        case ir.Unary("-", value):
            return _wrapped(-evaluate(value, env), expr)
        case ir.Unary("not", value):
            return (evaluate(value, env) == 0).astype(np.int64)
        case ir.Logic(op, left, right):
            a, b = evaluate(left, env) != 0, evaluate(right, env) != 0
            return ((a & b) if op == "and" else (a | b)).astype(np.int64)
        case ir.Select(condition, then, otherwise):
            chosen = evaluate(condition, env) != 0
            return np.where(chosen, evaluate(then, env), evaluate(otherwise, env))
        case ir.Binary(op, left, right) if left.type.is_integer:
            value = _binary(op, evaluate(left, env), evaluate(right, env))
            if value is not None:
                return _wrapped(value, expr)
        case _:
            pass
    raise NotEnumerable("its index or a condition depends on data", expr.span)


def _binary(op: str, a: Ints, b: Ints) -> Ints | None:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "min":
            return np.minimum(a, b)
        case "max":
            return np.maximum(a, b)
        case "//" | "/" if np.all(b != 0):
            return a // b
        case "%" if np.all(b != 0):
            return a % b
        case "==" | "!=" | "<" | "<=" | ">" | ">=":
            compare = {
                "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal,
                ">": np.greater, ">=": np.greater_equal,
            }  # fmt: skip
            return compare[op](a, b).astype(np.int64)
        case _:
            return None


def _wrapped(value: Ints, expr: ir.Expr) -> Ints:
    """`value` as the expression's type keeps it."""
    bits = expr.type.bits
    if isinstance(expr.type, Index) or bits >= 63:
        return value
    low = value & ((1 << bits) - 1)
    return np.where(low >> (bits - 1), low - (1 << bits), low) if expr.type.signed else low


__all__ = ["LIMIT", "NotEnumerable", "Sequence", "evaluate", "reads_first", "sequence"]
