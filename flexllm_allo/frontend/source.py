"""The text of a kernel and the places in it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import FrontendError, Span, register_source


@dataclass(frozen=True)
class Source:
    """A parsed function and where it stands, so that every AST node has a `Span`."""

    tree: ast.FunctionDef
    file: str
    first_line: int
    indent: int

    def span(self, node: ast.AST) -> Span:
        line = getattr(node, "lineno", 1)
        end_line = getattr(node, "end_lineno", line) or line
        return Span(
            self.file,
            line + self.first_line - 1,
            getattr(node, "col_offset", 0) + self.indent,
            end_line + self.first_line - 1,
            (getattr(node, "end_col_offset", 0) or 0) + self.indent,
        )


def function_source(fn: Callable[..., Any]) -> Source:
    """The source of a Python function.

    Raises:
        FrontendError FX100: lambdas, and functions whose text is not kept (``exec``).
    """
    name = getattr(fn, "__name__", str(fn))
    try:
        lines, first = inspect.getsourcelines(fn)
        file = inspect.getsourcefile(fn) or "<unknown>"
    except (OSError, TypeError):
        hint = "define it in a file or a notebook cell, or pass its source as a string"
        raise FrontendError("FX100", f"cannot read the source of {name}", hint=hint) from None
    lines = [line.expandtabs(4) for line in lines]
    text = textwrap.dedent("".join(lines))
    indent = len(lines[0]) - len(lines[0].lstrip())
    try:
        tree = ast.parse(text).body[0]
    except SyntaxError:
        tree = None
    if not isinstance(tree, ast.FunctionDef):
        hint = "a kernel is an ordinary function made with def"
        raise FrontendError("FX100", f"{name} is not a function definition", hint=hint)
    return Source(tree, file, first, indent)


def string_source(text: str) -> list[Source]:
    """The functions defined in a string of source, in order.

    Raises:
        FrontendError FX100: the text is no Python, or defines no function.
    """
    text = textwrap.dedent(text).expandtabs(4)
    file = f"<kernel {hashlib.sha256(text.encode()).hexdigest()[:8]}>"
    register_source(file, text)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        span = Span(file, error.lineno or 1, (error.offset or 1) - 1)
        raise FrontendError("FX100", f"invalid syntax: {error.msg}", span) from None
    found = [Source(n, file, 1, 0) for n in tree.body if isinstance(n, ast.FunctionDef)]
    if not found:
        raise FrontendError("FX100", "the source string defines no function", Span(file, 1))
    return found
