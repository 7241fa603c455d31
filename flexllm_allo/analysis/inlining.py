"""Calls replaced by what they do, for analyses only: which elements a callee touches in terms of the caller.

What is local to a callee is called ``callee.name``. Every call of it has the same names, since analyses
tell the iterations of a loop apart, not its text. A parameter is what it is bound to: an array the view
with the callee's indices behind, a scalar that the callee leaves alone its argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir import nodes as ir
from ..ir.walk import Node, rewrite_body, walk


def inlined(body: tuple[ir.Stmt, ...], program: ir.Program) -> tuple[ir.Stmt, ...]:
    """The statements without calls, except those of functions written in another language."""

    def visit(node: Node) -> Node | None:
        return _Call(program, node).body() if isinstance(node, ir.Call) else None

    return rewrite_body(body, visit)


@dataclass(frozen=True)
class _Call:
    """One call, and the names of its callee in the caller."""

    program: ir.Program
    call: ir.Call

    def body(self) -> tuple[ir.Stmt, ...] | None:
        callee = self.program.function(self.call.func)
        if callee.extern is not None:
            return None
        changed = {n.buffer for n in walk(callee.body) if isinstance(n, ir.Store)}
        changed |= {n.target for n in walk(callee.body) if isinstance(n, ir.Get)}
        views: dict[str, ir.View] = {}
        scalars: dict[str, ir.Expr] = {}
        entry: list[ir.Stmt] = []
        for param, arg in zip(callee.params, self.call.args, strict=True):
            if isinstance(arg, ir.View):
                views[param.name] = arg
            elif param.name in changed:  # a copy of its own
                own = replace(param, name=f"{callee.name}.{param.name}")
                entry += [ir.Alloc(own, span=param.span), ir.Store(own.name, (), arg, param.span)]
            else:
                scalars[param.name] = arg
        renamed = _Renamed(callee.name, views, scalars).body(callee.body)
        return (*entry, *inlined(renamed, self.program))


@dataclass(frozen=True)
class _Renamed:
    """A callee's statements in the caller's names."""

    prefix: str
    views: Mapping[str, ir.View]
    scalars: Mapping[str, ir.Expr]

    def body(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        return rewrite_body(body, self._visit)

    def _name(self, name: str) -> str:
        return self.views[name].buffer if name in self.views else f"{self.prefix}.{name}"

    def _indices(self, name: str, indices: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        return (*self.views[name].indices, *indices) if name in self.views else indices

    def _visit(self, node: Node) -> Node | tuple[()] | None:
        match node:
            case ir.Load(name, ()) if name in self.scalars:
                return self.scalars[name]
            case ir.Load(name, indices) | ir.Store(name, indices) | ir.View(name, indices):
                return replace(node, buffer=self._name(name), indices=self._indices(name, indices))
            case ir.LoopVar(name):
                return replace(node, name=f"{self.prefix}.{name}")
            case ir.For():
                return replace(node, var=f"{self.prefix}.{node.var}")
            case ir.Put(name, indices):
                return replace(node, stream=self._name(name), indices=self._indices(name, indices))
            case ir.Get(target, name, indices):
                stream, indices = self._name(name), self._indices(name, indices)
                return replace(node, target=self._name(target), stream=stream, indices=indices)
            case ir.Alloc(buffer) if node.static:
                return ()  # it outlives the call, and its contents are there before the first one
            case ir.Alloc(buffer):
                return replace(node, buffer=replace(buffer, name=f"{self.prefix}.{buffer.name}"))
            case _:
                return None


__all__ = ["inlined"]
