"""Compile-time selection and repetition: ``with meta_if(...):`` and ``with meta_for(...) as i:``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from .array_lists import with_members
from .context import ConstSymbol, Context
from .names import NotConstant

LowerBody = Callable[[Context, list[ast.stmt]], None]


def lower_with(ctx: Context, body: list[ast.stmt], at: int, lower_body: LowerBody) -> int:
    """Lower the meta statement at `body[at]` (with its elif/else); returns how many it consumed."""
    name, call = _meta(ctx, body[at])
    if name == "meta_for":
        _repeat(ctx, body[at], call, lower_body)
        return 1
    if name != "meta_if":
        raise ctx.error("FX101", f"Unmatched allo.{name}()", body[at])
    taken, count = False, 0
    while at + count < len(body) and isinstance(body[at + count], ast.With):
        statement = body[at + count]
        name, call = _meta(ctx, statement)
        if count and name not in ("meta_elif", "meta_else"):
            break
        chosen = not taken and (name == "meta_else" or _holds(ctx, call))
        if chosen:
            assert isinstance(statement, ast.With)
            with ctx.scope():
                lower_body(ctx, statement.body)
        taken = taken or chosen
        count += 1
        if name == "meta_else":
            break
    return count


def _meta(ctx: Context, node: ast.stmt) -> tuple[str, ast.Call]:
    if isinstance(node, ast.With) and len(node.items) == 1:
        call = node.items[0].context_expr
        if isinstance(call, ast.Call):
            try:
                name = getattr(ctx.constant(call.func), "__intrinsic__", None)
            except NotConstant:
                name = None
            if name in ("meta_if", "meta_elif", "meta_else", "meta_for"):
                return name, call
    raise ctx.error("FX101", "with is only for meta_if, meta_elif, meta_else and meta_for", node)


def _holds(ctx: Context, call: ast.Call) -> bool:
    if len(call.args) != 1:
        raise ctx.error("FX107", "meta_if takes one condition", call)
    return bool(ctx.require_constant(call.args[0], "the condition of meta_if"))


def _repeat(ctx: Context, node: ast.stmt, call: ast.Call, lower_body: LowerBody) -> None:
    assert isinstance(node, ast.With)
    bounds: list[Any] = [ctx.require_constant(a, "a bound of meta_for") for a in call.args]
    target = node.items[0].optional_vars
    if not isinstance(target, ast.Name):
        raise ctx.error("FX101", "meta_for needs `as <name>`", node)
    for value in _range(ctx, bounds, call):
        with ctx.scope():
            ctx.bind(target.id, ConstSymbol(value), target)
            lower_body(ctx, with_members(ctx, node.body))


def _range(ctx: Context, bounds: list[Any], call: ast.Call) -> range:
    try:
        return range(*bounds)
    except (TypeError, ValueError) as error:
        raise ctx.error("FX110", f"meta_for({', '.join(map(repr, bounds))}): {error}", call) from None
