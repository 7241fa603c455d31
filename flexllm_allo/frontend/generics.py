"""PEP 695 headers, ``def f[T, M: int32](...)``, and what template parameters accept.

Python before 3.12 cannot parse such headers, so they are taken out of the text (blanks keep every
other token in its place) and read here, on every version alike.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..ir.dtypes import DType, Float, Index, Int, UInt
from .names import NotConstant, evaluate

_GENERIC = re.compile(r"\bdef\s+\w+\s*\[")


@dataclass(frozen=True)
class TypeParameter:
    """One template parameter: its name and the bound written behind it."""

    name: str
    bound: ast.expr | None = None

    def accepts(self, value: Any, names: Mapping[str, Any]) -> bool:
        """Whether a template argument fits the bound; a bound that means nothing here accepts all."""
        if self.bound is None:
            return True
        try:
            bound = evaluate(self.bound, names, lambda _: False)
        except NotConstant:
            return True
        choices = cast("tuple[Any, ...]", bound) if isinstance(bound, tuple) else (bound,)
        return any(_fits(value, choice) for choice in choices)


def _fits(value: Any, bound: Any) -> bool:
    """A value of the bound's class, or a number that such a type holds, or the bound itself."""
    if isinstance(value, DType) and value == bound:
        return True
    kind = cast("type[Any]", bound if isinstance(bound, type) else type(bound))
    if isinstance(value, kind):
        return True
    if isinstance(value, float):
        return issubclass(kind, Float)
    if isinstance(value, bool | DType) or not hasattr(value, "__index__"):
        return False
    return issubclass(kind, Int | Index) or (issubclass(kind, UInt) and value >= 0)


def split_headers(text: str) -> tuple[str, dict[tuple[int, str], tuple[TypeParameter, ...]]]:
    """The text without its PEP 695 parameter lists, and these by line and name of the function."""
    if not _GENERIC.search(text):
        return text, {}
    found: dict[tuple[int, str], tuple[TypeParameter, ...]] = {}
    lines = text.splitlines(keepends=True)
    tokens = list(_tokens(text))
    for i, token in enumerate(tokens[:-2]):
        name, bracket = tokens[i + 1], tokens[i + 2]
        if token.string != "def" or token.type != tokenize.NAME or bracket.string != "[":
            continue
        close = _closing(tokens, i + 2)
        if close is None:
            continue
        inside = _cut(lines, bracket.start, close.end)
        found[name.start[0], name.string] = _parameters(inside[1:-1])
    return "".join(lines), found


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    found: list[tokenize.TokenInfo] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            found.append(token)
    except (tokenize.TokenError, SyntaxError):  # the parser will complain of it with a place
        pass
    return found


def _closing(tokens: list[tokenize.TokenInfo], at: int) -> tokenize.TokenInfo | None:
    depth = 0
    for token in tokens[at:]:
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
            if depth == 0:
                return token
    return None


def _cut(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Blank a region out of the lines, in place, and return its text."""
    taken: list[str] = []
    for number in range(start[0], end[0] + 1):
        line = lines[number - 1]
        first = start[1] if number == start[0] else 0
        last = end[1] if number == end[0] else len(line.rstrip("\n"))
        taken.append(line[first:last])
        rest = line[last:] if number == end[0] else "\\\n"  # the statement goes on
        lines[number - 1] = line[:first] + " " * (last - first) + rest
    return " ".join(taken)


def _parameters(text: str) -> tuple[TypeParameter, ...]:
    """``T, M: int32, U: (Float, Int)``: the grammar of a function's parameters."""
    try:
        header = ast.parse(f"def _({text}): pass").body[0]
    except SyntaxError:
        return ()
    assert isinstance(header, ast.FunctionDef)
    return tuple(TypeParameter(a.arg, a.annotation) for a in header.args.args)
