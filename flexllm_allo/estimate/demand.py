"""Which scalars the cycles of a piece of a program depend on."""

from __future__ import annotations

from ..ir import nodes as ir
from ..ir.walk import walk
from .evaluate import names_in


class Demand:
    """Names of scalars and loop variables that lengths of loops, or branches around loops, are made of."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self._functions: dict[str, frozenset[str]] = {}
        self._bodies: dict[int, tuple[object, frozenset[str]]] = {}

    def of_function(self, name: str) -> frozenset[str]:
        """Scalar parameters of a function."""
        if name not in self._functions:
            function = self.program.function(name)
            scalars = {p.name for p in function.params if not p.shape and not p.is_stream}
            self._functions[name] = frozenset(scalars & self._closure(function.body))
        return self._functions[name]

    def of_body(self, body: tuple[ir.Stmt, ...]) -> frozenset[str]:
        """Names that the cycles of statements depend on, by way of other scalars too."""
        found = self._bodies.get(id(body))
        if found is None:
            found = self._bodies[id(body)] = (body, frozenset(self._closure(body)))
        return found[1]

    def _closure(self, body: tuple[ir.Stmt, ...]) -> set[str]:
        needed: set[str] = set()
        definitions: list[tuple[str, set[str]]] = []
        for node in walk(body):
            match node:
                case ir.For():
                    needed |= names_in(node.lower, node.upper)
                case ir.If() if _has_loops(node):
                    needed |= names_in(node.condition)
                case ir.If():
                    names = names_in(node.condition)
                    definitions += [
                        (n.buffer, names)
                        for n in walk((*node.then, *node.otherwise))
                        if isinstance(n, ir.Store) and not n.indices
                    ]
                case ir.Store(buffer, ()):
                    definitions.append((buffer, names_in(node.value)))
                case ir.Call():
                    wanted = self.of_function(node.func)
                    for param, arg in zip(self.program.function(node.func).params, node.args, strict=True):
                        if param.name in wanted and not isinstance(arg, ir.View):
                            needed |= names_in(arg)
                case _:
                    pass
        while True:
            more = {n for name, used in definitions if name in needed for n in used} - needed
            if not more:
                return needed
            needed |= more


def _has_loops(stmt: ir.If) -> bool:
    return any(isinstance(n, ir.For | ir.While | ir.Call) for n in walk((*stmt.then, *stmt.otherwise)))


__all__ = ["Demand"]
