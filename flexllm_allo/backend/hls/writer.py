"""Indented lines of text, built front to back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Writer:
    """Collects lines; `indented` and `block` nest."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._level = 0

    def line(self, text: str = "") -> None:
        self._lines.append("  " * self._level + text if text else "")

    def pragma(self, directive: str) -> None:
        """A directive of the enclosing loop: on the level of its head."""
        self._lines.append("  " * (self._level - 1) + f"#pragma HLS {directive}")

    @contextmanager
    def indented(self) -> Generator[None]:
        self._level += 1
        yield
        self._level -= 1

    @contextmanager
    def block(self, head: str) -> Generator[None]:
        """``head {``, the lines written inside, ``}``."""
        self.line(f"{head} {{" if head else "{")
        with self.indented():
            yield
        self.line("}")

    @contextmanager
    def continued(self, head: str) -> Generator[None]:
        """``} head {`` in the place of the end of the block just written."""
        end = self._lines.pop()
        with self.block(f"}} {head}"):
            assert end.strip() == "}"
            yield

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
