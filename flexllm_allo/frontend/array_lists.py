"""Lists of arrays: ``W: int4[M, C][P]`` is P arrays, of which ``W[p]`` is one, with p known at compile time.

A parameter W stands for the parameters ``W.0`` to ``W.{P - 1}``, as a bundle does for its arrays.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping
from typing import Any

from ..ir.dtypes import Stream
from .context import Context
from .names import NotConstant, evaluate


def list_fields(annotation: ast.expr | None, names: Mapping[str, Any]) -> dict[str, ast.expr | None] | None:
    """The arrays of ``T[M, C][P]`` by their number, or None for any other annotation."""
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Subscript)):
        return None
    try:
        if evaluate(annotation.value.value, names, lambda _: False) is Stream:
            return None
    except NotConstant:
        pass  # a type that the arguments of a call will tell
    try:
        count = evaluate(annotation.slice, names, lambda _: False)
        return {str(i): annotation.value for i in range(count)}
    except (NotConstant, TypeError):
        return None  # what is wrong with the annotation is told where it is read


def lists_of(paths: Iterable[str]) -> frozenset[str]:
    """The lists that arrays are of: of ``W.0`` it is ``W``."""
    return frozenset(path.rpartition(".")[0] for path in paths if path.rpartition(".")[2].isdigit())


def with_members(ctx: Context, body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements with ``W[p]`` replaced by that array, wherever p is known by now."""
    return [_Members(ctx).visit(copy.deepcopy(statement)) for statement in body] if ctx.lists else body


class _Members(ast.NodeTransformer):
    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.value, ast.Name) or node.value.id not in self.ctx.lists:
            return node
        try:
            index = self.ctx.constant(node.slice)
        except NotConstant:
            return node
        name = f"{node.value.id}.{index}"
        if self.ctx.find(name) is None:
            raise self.ctx.error(
                "FX106", f"Index out of range: the list {node.value.id} has no array {index}", node
            )
        return ast.copy_location(ast.Name(name, node.ctx), node)
