"""Which arrays and FIFOs a statement reads and writes, through calls."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir import nodes as ir
from ..ir.walk import walk

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Use:
    """Buffers that are read, and those that are written; using a FIFO counts as what it does to others."""

    reads: Names = frozenset()
    writes: Names = frozenset()

    def __or__(self, other: Use) -> Use:
        return Use(self.reads | other.reads, self.writes | other.writes)


class Uses:
    """The uses of statements of a program."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self._functions: dict[str, Use] = {}

    def of(self, body: tuple[ir.Stmt, ...]) -> Use:
        """What statements do to buffers that are not born in them."""
        reads: set[str] = set()
        writes: set[str] = set()
        born: set[str] = set()
        for node in walk(body):
            match node:
                case ir.Alloc():
                    born.add(node.buffer.name)
                case ir.Load():
                    reads.add(node.buffer)
                case ir.Store():
                    writes.add(node.buffer)
                case ir.Put():
                    writes.add(node.stream)
                    if isinstance(node.value, ir.View):
                        reads.add(node.value.buffer)
                case ir.Get():
                    reads.add(node.stream)
                    writes.add(node.target)
                case ir.Call():
                    inner = self.of_function(node.func)
                    for param, arg in zip(self.program.function(node.func).params, node.args, strict=True):
                        if isinstance(arg, ir.View):
                            reads |= {arg.buffer} if param.name in inner.reads else set()
                            writes |= {arg.buffer} if param.name in inner.writes else set()
                case _:
                    pass
        return Use(frozenset(reads - born), frozenset(writes - born))

    def of_function(self, name: str) -> Use:
        """What a function does to its parameters."""
        if name not in self._functions:
            function = self.program.function(name)
            params = frozenset(p.name for p in function.params)
            if function.extern is not None:
                found = Use(params, frozenset(function.extern.writes))
            else:
                found = self.of(function.body)
            self._functions[name] = Use(found.reads & params, found.writes & params)
        return self._functions[name]


__all__ = ["Use", "Uses"]
