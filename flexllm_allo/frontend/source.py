"""The text of a kernel and the places in it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import FrontendError, Span, register_source
from .generics import TypeParameter, split_headers
from .prompt import typed_source


@dataclass(frozen=True)
class Source:
    """A parsed function and where it stands, so that every AST node has a `Span`."""

    tree: ast.FunctionDef
    file: str
    first_line: int
    indent: int
    headers: Mapping[tuple[int, str], tuple[TypeParameter, ...]] = field(default_factory=lambda: {})
    annotations: Mapping[str, Any] = field(default_factory=lambda: {})
    """What Python made of the signature's annotations, for names that are no longer visible."""

    @property
    def parameters(self) -> tuple[TypeParameter, ...]:
        """The template parameters of a PEP 695 header."""
        return self.headers.get((self.tree.lineno, self.tree.name), ())

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
    fn = inspect.unwrap(fn)
    own = getattr(fn, "__kernel_source__", None)
    if own is not None:
        return own
    try:
        known = _READ.get(fn)
        if known is None:
            known = _READ[fn] = _read(fn)
    except TypeError:  # no weak reference to it: not a function of Python
        return _read(fn)
    return known


_READ: weakref.WeakKeyDictionary[Callable[..., Any], Source] = weakref.WeakKeyDictionary()


def _read(fn: Callable[..., Any]) -> Source:
    name = getattr(fn, "__name__", str(fn))
    try:
        lines, first = inspect.getsourcelines(fn)
        file = inspect.getsourcefile(fn) or "<unknown>"
    except (OSError, TypeError):
        typed = typed_source(fn)
        if typed is not None:
            return _parsed(fn, name, typed[0], 1, typed[1])
        hint = "define it in a file or a notebook cell, or pass its source as a string"
        raise FrontendError("FX100", f"cannot read the source of {name}", hint=hint) from None
    return _parsed(fn, name, lines, first, file)


def _parsed(fn: Callable[..., Any], name: str, lines: list[str], first: int, file: str) -> Source:
    lines = [line.expandtabs(4) for line in lines]
    text = textwrap.dedent("".join(lines))
    indent = len(lines[0]) - len(lines[0].lstrip())
    text, headers = split_headers(text)
    try:
        tree = ast.parse(text).body[0]
    except SyntaxError:
        tree = None
    if not isinstance(tree, ast.FunctionDef):
        hint = "a kernel is an ordinary function made with def"
        raise FrontendError("FX100", f"{name} is not a function definition", hint=hint)
    return Source(tree, file, first, indent, headers, getattr(fn, "__annotations__", {}))


def local_kernel(source: Source, names: dict[str, Any]) -> Callable[..., Any]:
    """A function object for a kernel that Python does not know: one in a kernel or in a string.

    Args:
        names: what it may use by name; functions defined later in the same place may be added.
    """

    def kernel(*_: Any) -> None:
        raise TypeError(f"{source.tree.name} exists only inside a compiled kernel")

    kernel.__name__ = kernel.__qualname__ = source.tree.name
    kernel.__kernel_source__ = source  # type: ignore[attr-defined]
    kernel.__kernel_names__ = names  # type: ignore[attr-defined]
    return kernel


def string_source(text: str) -> tuple[list[Source], ast.Module]:
    """The functions defined in a string of source, in order, and the statements around them.

    Raises:
        FrontendError FX100: the text is no Python, or defines no function.
    """
    text = textwrap.dedent(text).expandtabs(4)
    file = f"<kernel {hashlib.sha256(text.encode()).hexdigest()[:8]}>"
    register_source(file, text)
    plain, headers = split_headers(text)
    try:
        tree = ast.parse(plain)
    except SyntaxError as error:
        span = Span(file, error.lineno or 1, (error.offset or 1) - 1)
        raise FrontendError("FX100", f"invalid syntax: {error.msg}", span) from None
    defined = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    if not defined:
        raise FrontendError("FX100", "the source string defines no function", Span(file, 1))
    found = [Source(n, file, 1, 0, headers) for n in defined]
    rest = [n for n in tree.body if not isinstance(n, ast.FunctionDef)]
    return found, ast.Module(rest, [])
