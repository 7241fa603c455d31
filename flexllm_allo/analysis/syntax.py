"""Comparison of expressions by structure."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UNKNOWN
from ..ir import nodes as ir
from ..ir.walk import rewrite


def without_spans(node: ir.Expr) -> ir.Expr:
    """The expression with every span unknown."""
    return rewrite(node, lambda n: replace(n, span=UNKNOWN))


def same_expr(a: ir.Expr, b: ir.Expr) -> bool:
    """Whether two expressions are the same tree, wherever they were written."""
    return a == b or without_spans(a) == without_spans(b)
