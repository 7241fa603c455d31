"""How many times each function instance is on the die.

What is called in turn is one piece of hardware, however often; processes that work at the same time are one
each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..analysis.spatial import expanded
from ..ir import nodes as ir

Instances = dict[tuple[str, frozenset[str]], int]


def copies(program: ir.Program, entries: Mapping[str, frozenset[str]]) -> Instances:
    """The function instances that a design of those entries holds.

    Args:
        program: the program.
        entries: functions that are called in turn from outside, and their off-chip parameters.
    """
    finder = _Finder(program)
    total: Instances = {}
    for name, off_chip in entries.items():
        _most(total, finder.of(name, off_chip))
    return total


class _Finder:
    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self.done: dict[tuple[str, frozenset[str]], Instances] = {}

    def of(self, name: str, off_chip: frozenset[str]) -> Instances:
        key = (name, off_chip)
        if key not in self.done:
            function = self.program.function(name)
            together = function.dataflow or function.concurrent
            found = self.body(function.body, off_chip, together)
            found[key] = found.get(key, 0) + 1
            self.done[key] = found
        return dict(self.done[key])

    def body(self, body: Iterable[ir.Stmt], off_chip: frozenset[str], together: bool) -> Instances:
        total: Instances = {}
        for stmt in expanded(tuple(body)) if together else body:
            (_sum if together else _most)(total, self.stmt(stmt, off_chip))
        return total

    def stmt(self, stmt: ir.Stmt, off_chip: frozenset[str]) -> Instances:
        match stmt:
            case ir.For():
                return self.body(stmt.body, off_chip, stmt.attrs.dataflow)
            case ir.While():
                return self.body(stmt.body, off_chip, False)
            case ir.If():
                return self.body((*stmt.then, *stmt.otherwise), off_chip, False)
            case ir.Call():
                params = self.program.function(stmt.func).params
                pairs = zip(params, stmt.args, strict=True)
                inner = {
                    p.name for p, a in pairs if isinstance(a, ir.View) and p.shape and a.buffer in off_chip
                }
                return self.of(stmt.func, frozenset(inner))
            case _:
                return {}


def _most(total: Instances, more: Instances) -> None:
    for key, count in more.items():
        total[key] = max(total.get(key, 0), count)


def _sum(total: Instances, more: Instances) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


__all__ = ["copies"]
