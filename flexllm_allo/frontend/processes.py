"""Which instance of a dataflow kernel is being lowered: ``i, j = df.get_pid()``."""

from __future__ import annotations

import ast

from .context import ConstSymbol, Context


def is_get_pid(node: ast.expr | None) -> bool:
    """Whether an expression asks for the process ids; Allo knows the call by its name alone."""
    if not isinstance(node, ast.Call):
        return False
    func = node.func
    return (func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")) == "get_pid"


def bind_pids(ctx: Context, target: ast.expr, node: ast.expr) -> None:
    """Bind the names on the left to the process ids, which are compile-time constants.

    Raises:
        FrontendError: FX101 outside of a kernel of a region; FX107 another number of names.
    """
    if ctx.pids is None:
        hint = "it names an instance of a function decorated with @df.kernel(mapping=[...]) in a region"
        raise ctx.error("FX101", "get_pid() has no meaning outside of a dataflow kernel", node, hint)
    names = list(target.elts) if isinstance(target, ast.Tuple) else [target]
    if len(names) != len(ctx.pids):
        message = f"the mapping has {len(ctx.pids)} dimension(s), {len(names)} process id(s) wanted"
        raise ctx.error("FX107", message, node)
    for name, value in zip(names, ctx.pids, strict=True):
        if not isinstance(name, ast.Name):
            raise ctx.error("FX101", f"cannot assign to `{ast.unparse(name)}`", name)
        ctx.bind(name.id, ConstSymbol(value), name)


__all__ = ["bind_pids", "is_get_pid"]
