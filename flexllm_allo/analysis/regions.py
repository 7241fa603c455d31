"""Which part of each array a statement may touch, as boxes of index ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir import nodes as ir
from ..ir.walk import walk
from .interval import Range, interval, loop_range


@dataclass(frozen=True)
class Part:
    """A box of an array: one range per leading dimension, None where it is not known."""

    box: tuple[Range | None, ...]
    write: bool

    def meets(self, other: Part) -> bool:
        """Whether the boxes may have an element in common."""
        pairs = zip(self.box, other.box, strict=False)
        return all(a is None or b is None or (a[0] <= b[1] and b[0] <= a[1]) for a, b in pairs)


Parts = dict[str, list[Part]]


def touched(program: ir.Program, stmt: ir.Stmt, known: Mapping[str, Range] | None = None) -> Parts:
    """What a statement reads and writes of each array, through calls.

    Args:
        known: ranges of scalars and of the loops around the statement.
    """
    out: Parts = {}
    _Collector(program, out).stmt(stmt, known or {})
    return out


def apart(a: Parts, b: Parts) -> bool:
    """Whether neither writes what the other touches."""
    return not any(
        (x.write or y.write) and x.meets(y) for name in a.keys() & b.keys() for x in a[name] for y in b[name]
    )


@dataclass(frozen=True)
class _Collector:
    """Walks one function. `names` says which array a name is, and where in it its elements start."""

    program: ir.Program
    out: Parts
    names: Mapping[str, tuple[str, tuple[Range | None, ...]]] | None = None

    def add(self, name: str, indices: tuple[ir.Expr, ...], write: bool, known: Mapping[str, Range]) -> None:
        found = (name, ()) if self.names is None else self.names.get(name)
        if found is not None:
            box = (*found[1], *(interval(i, known) for i in indices))
            self.out.setdefault(found[0], []).append(Part(box, write))

    def reads(self, known: Mapping[str, Range], *exprs: ir.Expr | ir.View) -> None:
        for node in (n for e in exprs for n in walk(e)):
            if isinstance(node, ir.Load | ir.View):
                self.add(node.buffer, node.indices, False, known)

    def body(self, body: tuple[ir.Stmt, ...], known: Mapping[str, Range]) -> None:
        for stmt in body:
            self.stmt(stmt, known)

    def stmt(self, stmt: ir.Stmt, known: Mapping[str, Range]) -> None:
        match stmt:
            case ir.Store():
                self.reads(known, stmt.value, *stmt.indices)
                self.add(stmt.buffer, stmt.indices, True, known)
            case ir.Put():
                self.reads(known, stmt.value, *stmt.indices)
            case ir.Get():
                self.add(stmt.target, (), True, known)
            case ir.For():
                self.reads(known, stmt.lower, stmt.upper)
                values = loop_range(stmt, known)
                inside = {k: v for k, v in known.items() if k != stmt.var}
                self.body(stmt.body, inside if values is None else {**inside, stmt.var: values})
            case ir.While():
                self.reads(known, stmt.condition)
                self.body(stmt.body, known)
            case ir.If():
                self.reads(known, stmt.condition)
                self.body(stmt.then, known)
                self.body(stmt.otherwise, known)
            case ir.Call():
                self.call(stmt, known)
            case ir.Alloc():
                pass

    def call(self, call: ir.Call, known: Mapping[str, Range]) -> None:
        callee = self.program.function(call.func)
        names: dict[str, tuple[str, tuple[Range | None, ...]]] = {}
        scalars: dict[str, Range] = {}
        for param, arg in zip(callee.params, call.args, strict=True):
            if not isinstance(arg, ir.View):
                self.reads(known, arg)
                value = interval(arg, known)
                if value is not None and not _written(callee, param.name):
                    scalars[param.name] = value
                continue
            self.reads(known, *arg.indices)
            found = (arg.buffer, ()) if self.names is None else self.names.get(arg.buffer)
            if found is not None and not param.is_stream:
                names[param.name] = (found[0], (*found[1], *(interval(i, known) for i in arg.indices)))
        if callee.extern is not None:
            for name, (buffer, box) in names.items():
                self.out.setdefault(buffer, []).append(Part(box, name in callee.extern.writes))
        _Collector(self.program, self.out, names).body(callee.body, scalars)


def _written(function: ir.Function, scalar: str) -> bool:
    return any(isinstance(n, ir.Store) and n.buffer == scalar for n in walk(function.body))


__all__ = ["Part", "Parts", "apart", "touched"]
