"""Lines of one MLIR function under construction."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from json import dumps

from ...errors import UNKNOWN, Span
from ...ir.dtypes import DType
from .types import element, number


class Locations:
    """Source locations as aliases at the end of a module."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._numbers: dict[Span, int] = {}

    def of(self, span: Span) -> str:
        """What follows an operation that stems from `span`."""
        if not self.wanted or not span.line:
            return ""
        return f" loc(#loc{self._numbers.setdefault(span, len(self._numbers))})"

    def aliases(self) -> list[str]:
        return [f"#loc{n} = loc({dumps(s.file)}:{s.line}:{s.col + 1})" for s, n in self._numbers.items()]


class Writer:
    """Appends operations at the current indentation; constants are gathered at the function's start."""

    def __init__(self, locations: Locations) -> None:
        self.lines: list[str] = []
        self.constants: dict[tuple[str, str], str] = {}
        self.span: Span = UNKNOWN
        self.locations = locations
        self._level = 2
        self._count = 0
        self._taken: set[str] = set()

    def fresh(self, hint: str = "") -> str:
        """The name of a value not used before: a number, or the user's name as far as it is free."""
        self._count += 1
        plain = "".join(c if c.isalnum() or c in "._" else "_" for c in hint)
        if not plain:
            return f"%{self._count}"
        if plain[0].isdigit() or not plain.isascii():
            plain = "v"
        name = f"%{plain}" if plain not in self._taken else f"%{plain}_{self._count}"
        self._taken.add(name[1:])
        return name

    def do(self, text: str, span: Span | None = None) -> None:
        """An operation without result; it stems from the current statement unless `span` is given."""
        self.lines.append("  " * self._level + text + self.locations.of(span or self.span))

    def op(self, text: str, hint: str = "") -> str:
        """An operation with one result, whose name is returned."""
        name = self.fresh(hint)
        self.do(f"{name} = {text}")
        return name

    def constant(self, value: float, dtype: DType) -> str:
        """A literal."""
        return self._constant(number(value, dtype), element(dtype))

    def integer(self, value: int, bits: int) -> str:
        """A signless integer literal of any width."""
        return self._constant(
            "true" if bits == 1 and value else "false" if bits == 1 else str(value), f"i{bits}"
        )

    def _constant(self, text: str, kind: str) -> str:
        key = (text, kind)
        if key not in self.constants:
            self.constants[key] = self.fresh(f"c{text}" if text.isdigit() else "cst")
        return self.constants[key]

    def constant_lines(self) -> list[str]:
        """Definitions of the literals used."""
        return [
            f"    {name} = arith.constant {text}" + ("" if kind == "i1" else f" : {kind}")
            for (text, kind), name in self.constants.items()
        ]

    @contextmanager
    def block(self, head: str, close: str = "}") -> Generator[None]:
        """Lines between ``head {`` and ``}``; the location goes behind the closing brace."""
        span = self.span
        self.lines.append("  " * self._level + head + " {")
        self._level += 1
        yield
        self._level -= 1
        self.do(close, span)

    def otherwise(self, head: str = "} else {") -> None:
        """The seam between two regions of one operation."""
        self.lines.append("  " * (self._level - 1) + head)
