"""The operations of a pipelined body or of straight-line code, as a dependence graph.

Loops inside are unrolled, but not written out: an operation stands for all its copies. It has one for every
combination of the unrolled variables it depends on, so what all copies share is there once, as after common
subexpressions are found. A reduction over unrolled copies becomes a tree where its order does not matter
(integers), else a chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from math import ceil, log2, prod
from typing import Any

import numpy as np

from ..analysis.recurrence import flattened, unrolled_ranges
from ..analysis.reductions import reduction
from ..errors import Span
from ..ir import nodes as ir
from ..ir.printer import expr_text
from ..ir.simplify import const
from ..ir.walk import children, rewrite, walk
from .addresses import MAX_DEPTH, Addresses
from .carried import distance
from .evaluate import value_of
from .operators import WIRE, Operator, Operators
from .ops import Access, Graph, IrregularBody, Link, Op, Value, chain
from .ports import Storage


class GraphBuilder:
    """Builds the graph of one body.

    Args:
        operators: what operations cost.
        buffers: of the function.
        places: where they lie.
        loop: the pipelined loop whose body it is; None for straight-line code.
        around: loops around that are flattened into it, outermost first.
    """

    def __init__(
        self,
        operators: Operators,
        buffers: dict[str, ir.Buffer],
        places: dict[str, Storage],
        loop: ir.For | None = None,
        around: tuple[ir.For, ...] = (),
    ) -> None:
        self.operators, self.buffers, self.places, self.loop = operators, buffers, places, loop
        self.around = around
        self.graph = Graph()
        self.unrolled: dict[str, int] = {}
        self.known: dict[str, Any] = {}
        self.exprs: dict[str, ir.Expr | None] = {}
        self.current: dict[str, Value] = {}
        self.entry: dict[str, int] = {}
        self.private: dict[str, int] = {}
        self.shared: dict[object, Value] = {}
        self.stores: dict[str, list[int]] = {}
        self.addresses = Addresses(buffers, places)
        self.forwards: dict[tuple[str, str], Value] = {}
        self.guards: list[Value] = []
        self.pinned: frozenset[str] = frozenset()
        self.streams: dict[str, int] = {}

    def build(self, body: tuple[ir.Stmt, ...]) -> Graph:
        """The graph of the statements.

        Raises:
            IrregularBody: it holds a call, a while loop, or a loop that cannot be unrolled.
        """
        for stmt in body:
            self._stmt(stmt)
        if self.loop is not None:
            self._carry()
        for op in self.graph.ops:
            if op.access and op.access.held and self.places[op.access.buffer].kind != "memory":
                op.operator = WIRE
        chain(self.graph, self.operators.period_ns)
        return self.graph

    # ------------------------------------------------------------------------------ statements

    def _stmt(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Alloc():
                self.private[stmt.buffer.name] = len(self.unrolled)
                if not stmt.buffer.shape:
                    self.exprs.pop(stmt.buffer.name, None)
            case ir.Store(buffer, ()):
                self._assign(buffer, stmt)
            case ir.Store():
                self._store(stmt)
            case ir.Put():
                self._put(stmt)
            case ir.Get():
                self._get(stmt)
            case ir.If():
                self._if(stmt)
            case ir.For():
                self._loop(stmt)
            case ir.Call():
                raise IrregularBody(f"it calls {stmt.func}", stmt.span)
            case ir.While():
                raise IrregularBody("it holds a while loop", stmt.span)

    def _loop(self, loop: ir.For) -> None:
        lower, upper = value_of(loop.lower, self.known), value_of(loop.upper, self.known)
        if not isinstance(lower, int) or not isinstance(upper, int) or len(self.unrolled) >= MAX_DEPTH:
            raise IrregularBody(f"the length of loop {loop.var} inside is not constant", loop.span)
        trips = max(0, -(-(upper - lower) // loop.step))
        if trips == 0:
            return
        depth = len(self.unrolled)
        shape = [1] * (MAX_DEPTH + 1)
        shape[depth + 1] = trips
        hidden = self.known.get(loop.var)
        self.unrolled[loop.var] = trips
        self.known[loop.var] = np.arange(lower, upper, loop.step).reshape(shape)
        outside = set(self.private)
        for stmt in loop.body:
            self._stmt(stmt)
        del self.unrolled[loop.var]
        if hidden is None:
            del self.known[loop.var]
        else:
            self.known[loop.var] = hidden
        self._leave(loop.var, depth, outside)

    def _leave(self, var: str, depth: int, outside: set[str]) -> None:
        """What the last copy left is what code behind the loop sees."""
        for name in [n for n in self.private if n not in outside]:
            del self.private[name]
        for name, value in self.current.items():
            if var in value.vars:
                self.current[name] = replace(value, vars=value.vars - {var})
        for name, value in list(self.known.items()):
            if np.ndim(value) and value.shape[depth + 1] > 1:
                self.known[name] = value.take([-1], axis=depth + 1)
        self.exprs = {n: e for n, e in self.exprs.items() if e is None or var not in _variables(e)}
        self.forwards = {k: v for k, v in self.forwards.items() if var not in v.vars}

    def _if(self, stmt: ir.If) -> None:
        condition = self._value(stmt.condition)
        before, exprs, known = dict(self.current), dict(self.exprs), dict(self.known)
        self.guards.append(condition)
        after: list[dict[str, Value]] = []
        changed: set[str] = set()
        pinned = self.pinned
        for body in (stmt.then, stmt.otherwise):
            self.current, self.exprs, self.known = dict(before), dict(exprs), dict(known)
            self.pinned = pinned | (_pinned(stmt.condition) if body is stmt.then else frozenset())
            for inner in body:
                self._stmt(inner)
            changed |= {n for n, v in self.current.items() if before.get(n) != v}
            after.append(self.current)
        self.guards.pop()
        self.pinned = pinned
        self.current, self.exprs, self.known = before, exprs, known
        for name in sorted(changed):
            sides = [side.get(name) or self._scalar(name) for side in after]
            node = ir.Select(stmt.condition, _ZERO, _ZERO, self.buffers[name].dtype, stmt.span)
            self.current[name] = self._op(self.operators.of(node), [condition, *sides], stmt.span)
            self.exprs[name] = None
            self.known.pop(name, None)

    def _assign(self, name: str, stmt: ir.Store) -> None:
        value = self._reduced(stmt, frozenset()) or self._value(stmt.value)
        self.current[name] = value
        guarded = bool(self.guards)
        self.known.pop(name, None)
        number = None if guarded else value_of(stmt.value, self.known)
        if number is not None and self.buffers[name].dtype.is_integer:
            self.known[name] = number
        own = any(isinstance(n, ir.Load) and n.buffer == name for n in walk(stmt.value))
        small = stmt.value.type.is_integer and not own and not guarded
        self.exprs[name] = self._inlined(stmt.value) if small else None

    # ------------------------------------------------------------------------------ expressions

    def _value(self, expr: ir.Expr) -> Value:
        match expr:
            case ir.Const():
                return Value()
            case ir.LoopVar(name):
                return Value(None, frozenset({name}) & self.unrolled.keys())
            case ir.Load(name, ()):
                return self._scalar(name)
            case ir.Load():
                return self._load(expr)
            case ir.Cast() if isinstance(expr.value, ir.Const):
                return Value()
            case _:
                return self._compute(expr)

    def _compute(self, expr: ir.Expr) -> Value:
        parts = [c for c in children(expr)]
        values = [self._value(c) for c in parts]
        if all(v.op is None for v in values) and self._is_fixed(expr):
            return Value(None, _joined(values))
        operator = WIRE if self._is_wired(expr) else self.operators.of(expr)
        if operator is WIRE and len([v for v in values if v.op is not None]) <= 1:
            made = next((v for v in values if v.op is not None), Value())
            return Value(made.op, _joined(values))
        known = tuple(v.op if v.op is not None else expr_text(c) for v, c in zip(values, parts, strict=True))
        key = (type(expr).__name__, getattr(expr, "op", getattr(expr, "name", "")), expr.type, known)
        if key not in self.shared:
            self.shared[key] = self._op(operator, values, expr.span)
        return self.shared[key]

    def _is_wired(self, expr: ir.Expr) -> bool:
        """Bits put to or taken from places that are fixed in every copy, as where words are put together."""
        match _below_casts(expr):
            case ir.Binary("<<" | ">>", _, right):
                return self._is_fixed(right)
            case ir.Binary("&", left, right):
                return self._is_fixed(left) or self._is_fixed(right)
            case ir.Binary("|", left, right):
                return self._is_wired(left) or self._is_wired(right)
            case _:
                return False

    def _is_fixed(self, expr: ir.Expr) -> bool:
        """Whether a value is a constant of each copy."""
        nodes = list(walk(self._inlined(expr)))
        names = {n.name for n in nodes if isinstance(n, ir.LoopVar)}
        return names <= self.unrolled.keys() and not any(isinstance(n, ir.Load) for n in nodes)

    def _op(self, operator: Operator, values: list[Value], span: Span, access: Access | None = None) -> Value:
        vars_ = _joined(values) & self.unrolled.keys()
        number = len(self.graph.ops)
        self.graph.ops.append(Op(operator, self._copies(vars_), span, access))
        for v in {v.op for v in values if v.op is not None}:
            self.graph.links.append(Link(v, number))
        return Value(number, vars_)

    def _copies(self, vars_: frozenset[str]) -> int:
        return prod(self.unrolled.get(n, 1) for n in vars_)

    def _scalar(self, name: str) -> Value:
        if name in self.current:
            return self.current[name]
        if name not in self.entry:
            self.entry[name] = len(self.graph.ops)
            self.graph.ops.append(Op(WIRE, 1, self.buffers[name].span))
        return Value(self.entry[name])

    def _load(self, load: ir.Load) -> Value:
        key = (load.buffer, self._place(load.indices))
        if key in self.forwards:
            return self.forwards[key]
        vars_ = self._variables(load.indices)
        values = [*self._addresses(load.indices), Value(None, vars_)]
        place = self.places[load.buffer]
        shared = ("load", *key, len(self.stores.get(load.buffer, ())))
        if shared in self.shared:
            self._unpin(self.shared[shared])
            return self.shared[shared]
        access = self._access(load.buffer, load.indices, vars_, write=False)
        operator = Operator(f'read of "{load.buffer}"', place.read_latency)
        made = self._op(operator, values, load.span, access)
        assert made.op is not None
        for store in self.stores.get(load.buffer, ()):
            written = self.graph.ops[store].access
            if written is None or not access.misses(written):
                self.graph.links.append(Link(store, made.op))
        self.shared[shared] = made
        return made

    def _unpin(self, value: Value) -> None:
        """What is read under two conditions happens when either holds."""
        access = self.graph.ops[value.op].access if value.op is not None else None
        if access is not None:
            access.pinned &= self.pinned

    def _store(self, stmt: ir.Store) -> None:
        vars_ = self._variables(stmt.indices)
        value = self._reduced(stmt, vars_) or self._value(stmt.value)
        place = self.places[stmt.buffer]
        access = self._access(stmt.buffer, stmt.indices, vars_, write=True)
        needs = [value, *self._addresses(stmt.indices), *self.guards, Value(None, vars_)]
        operator = Operator(f'write of "{stmt.buffer}"', place.write_latency)
        made = self._op(operator, needs, stmt.span, access)
        assert made.op is not None
        self.graph.ops[made.op].result = value
        key = (stmt.buffer, self._place(stmt.indices))
        self.addresses.written(stmt.buffer)
        self.forwards = {k: v for k, v in self.forwards.items() if k[0] != stmt.buffer}
        self.shared = {
            k: v
            for k, v in self.shared.items()
            if not (isinstance(k, tuple) and k[:2] == ("load", stmt.buffer))
        }
        if not self.guards:
            self.forwards[key] = value
        self.stores.setdefault(stmt.buffer, []).append(made.op)

    def _reduced(self, stmt: ir.Store, vars_: frozenset[str]) -> Value | None:
        """A sum over unrolled copies that one element takes; None if it is no such statement."""
        found = reduction(stmt)
        born = self.private.get(stmt.buffer, 0)
        lost = [n for n in list(self.unrolled)[born:] if n not in vars_]
        count = prod(self.unrolled[n] for n in lost)
        if found is None or (count == 1 and self.loop is None):
            return None
        combine = next(n for n in walk(stmt.value) if isinstance(n, ir.Binary) and found.load in _through(n))
        sides = (combine.left, combine.right)
        own, rest = sides if _below_casts(sides[0]) is found.load else sides[::-1]
        term, held = self._value(rest), self._value(own)
        operator = self.operators.accumulator(combine)
        if found.exact and count > 1:
            levels = ceil(log2(count))
            tree = self._op(replace(operator, name=f"tree of {operator.name}s"), [term], combine.span)
            assert tree.op is not None
            self.graph.ops[tree.op].chain = levels
            # n - 1 units for n terms: the last one is the accumulator's own.
            self.graph.ops[tree.op].copies = self._copies(vars_) * (count - 1)
            term = Value(tree.op, tree.vars - set(lost))
        made = self._op(operator, [held, term], combine.span)
        assert made.op is not None
        if not found.exact:
            self.graph.ops[made.op].chain = count
            self.graph.ops[made.op].copies = self._copies(vars_) * count
        return Value(made.op, made.vars - set(lost))

    # ------------------------------------------------------------------------------ streams

    def _put(self, stmt: ir.Put) -> None:
        values = [] if isinstance(stmt.value, ir.View) else [self._value(stmt.value)]
        self._stream(stmt.stream, stmt.indices, [*values, *self.guards], stmt.span, write=True)

    def _get(self, stmt: ir.Get) -> None:
        made = self._stream(stmt.stream, stmt.indices, list(self.guards), stmt.span, write=False)
        if not self.buffers[stmt.target].shape:
            self.current[stmt.target] = made
            self.exprs[stmt.target] = None
            self.known.pop(stmt.target, None)
        else:
            assert made.op is not None
            self.stores.setdefault(stmt.target, []).append(made.op)

    def _stream(
        self, name: str, indices: tuple[ir.Expr, ...], values: list[Value], span: Span, write: bool
    ) -> Value:
        member = f"{name}[{', '.join(map(expr_text, indices))}]" if indices else name
        vars_ = frozenset(self.unrolled)
        lost = self._copies(vars_ - self._variables(indices))
        operator = Operator(f'{"put to" if write else "get from"} "{name}"', 1)
        access = Access(member, write, indices, lost)
        made = self._op(operator, [*values, Value(None, vars_)], span, access)
        assert made.op is not None
        side = f"{member} {write}"
        if side in self.streams:  # tokens keep their order
            self.graph.links.append(Link(self.streams[side], made.op))
        self.streams[side] = made.op
        return made

    # ------------------------------------------------------------------------------ addresses

    def _access(
        self, buffer: str, indices: tuple[ir.Expr, ...], vars_: frozenset[str], write: bool
    ) -> Access:
        linear = tuple(self._inlined(i) for i in indices)
        pinned = self.pinned - self.unrolled.keys()
        found = Access(buffer, write, indices, self._copies(vars_), affine=linear, pinned=pinned)
        self.addresses.find(found, self.known, self.current.keys())
        return found

    def _place(self, indices: tuple[ir.Expr, ...]) -> str:
        return ", ".join(expr_text(self._inlined(i)) for i in indices)

    def _variables(self, exprs: tuple[ir.Expr, ...]) -> frozenset[str]:
        found: set[str] = set()
        for node in (n for e in exprs for n in walk(e)):
            if isinstance(node, ir.LoopVar):
                found.add(node.name)
            elif isinstance(node, ir.Load) and not node.indices and node.buffer in self.current:
                found |= self.current[node.buffer].vars
        return frozenset(found & self.unrolled.keys())

    def _addresses(self, indices: tuple[ir.Expr, ...]) -> list[Value]:
        """What an address waits for: elements of arrays, and scalars that are not mere positions."""
        out: list[Value] = []
        for node in (n for e in indices for n in walk(e)):
            if isinstance(node, ir.Load) and node.indices:
                out.append(self._load(node))
            elif isinstance(node, ir.Load) and self.exprs.get(node.buffer, _ZERO) is None:
                out.append(self._scalar(node.buffer))
        return out

    def _inlined(self, expr: ir.Expr) -> ir.Expr:
        """The expression with the scalars of this body replaced by what they are."""

        def visit(node: Any) -> Any:
            if isinstance(node, ir.Load) and not node.indices:
                return self.exprs.get(node.buffer) or None
            return None

        return rewrite(expr, visit)

    # ------------------------------------------------------------------------------ iterations

    def _carry(self) -> None:
        assert self.loop is not None
        for name, entry in self.entry.items():
            value = self.current.get(name)
            if value is not None and value.op is not None:
                self.graph.links.append(Link(value.op, entry, 1, forwarded=True))
        written = set(self.current)
        accesses = [(n, op.access) for n, op in enumerate(self.graph.ops) if op.access is not None]
        for sink, read in accesses:
            if read.write or read.buffer in self.private:
                continue
            for source, write in accesses:
                if write.write and write.buffer == read.buffer and write.buffer in self.places:
                    self._depend(source, write, sink, read, written)

    def _depend(self, source: int, write: Access, sink: int, read: Access, written: set[str]) -> None:
        assert self.loop is not None
        if self.places[write.buffer].kind == "fifo":
            return
        ranges, nest = self.unrolled_ranges, (*self.around, self.loop)
        apart, fixed = distance(write.affine, read.affine, self.loop, ranges, written)
        if apart is None and self.around:
            apart = flattened(write.affine, read.affine, nest, ranges, written) or None
        if apart is None:
            return
        if fixed and write.misses(read):
            return
        value = self.graph.ops[source].result
        same = _texts(write) == _texts(read)
        if (fixed and same and self._is_alone(write)) or self.places[write.buffer].kind == "registers":
            write.held = read.held = True
            if isinstance(value, Value) and value.op is not None:
                self.graph.links.append(Link(value.op, sink, apart, forwarded=True))
        else:
            self.graph.links.append(Link(source, sink, apart))

    def _is_alone(self, access: Access) -> bool:
        """Whether all else that touches its elements does so by the same indices."""
        others = [op.access for op in self.graph.ops if op.access and op.access.buffer == access.buffer]
        return all(_texts(other) == _texts(access) or other.misses(access) for other in others)

    @cached_property
    def unrolled_ranges(self) -> dict[str, tuple[int, int]]:
        """Least and greatest value of every variable that is unrolled in the body."""
        assert self.loop is not None
        return unrolled_ranges(self.loop.body)


_ZERO = const(0)


def _texts(access: Access) -> list[str]:
    return [expr_text(index) for index in access.affine]


def _joined(values: list[Value]) -> frozenset[str]:
    return frozenset(name for value in values for name in value.vars)


def _below_casts(expr: ir.Expr) -> ir.Expr:
    while isinstance(expr, ir.Cast):
        expr = expr.value
    return expr


def _through(node: ir.Binary) -> Iterator[ir.Expr]:
    yield _below_casts(node.left)
    yield _below_casts(node.right)


def _pinned(condition: ir.Expr) -> frozenset[str]:
    """Loop variables that must have one value for a condition to hold."""
    match condition:
        case ir.Logic("and", left, right):
            return _pinned(left) | _pinned(right)
        case ir.Binary("==", ir.LoopVar(name), ir.Const()):
            return frozenset({name})
        case _:
            return frozenset()


def _variables(expr: ir.Expr) -> set[str]:
    return {n.name for n in walk(expr) if isinstance(n, ir.LoopVar)}


__all__ = ["GraphBuilder"]
