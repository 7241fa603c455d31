"""The trace of a schedule: what was applied, printable as Python that applies it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from ..errors import UNKNOWN, Span
from .names import LoopBand, LoopWrapper, is_identifier


@dataclass(frozen=True)
class MockBuffer:
    """A buffer by name: what ``s.C`` is. `idx` is its position among the arguments, if it is one."""

    func: str
    name: str
    idx: int | None = None
    op: object = None

    def __repr__(self) -> str:
        return f"MockBuffer({self.func}:{self.name}{'' if self.idx is None else f':{self.idx}'})"


@dataclass(frozen=True)
class Primitive:
    """One applied primitive. `func` is the function its plain names are searched in (None: the top one).

    Loops and buffers are kept as strings (``"i"``, ``"func:band.i"``, ``"C"``), so that they can be
    resolved again in another program.
    """

    name: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()
    func: str | None = None
    span: Span = field(default=UNKNOWN, compare=False)

    def __str__(self) -> str:
        parts = [_show(a) for a in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs]
        owner = "s" if self.func is None else f"s.function({json.dumps(self.func)})"
        return f"{owner}.{self.name}({', '.join(parts)})"


class Trace(tuple[Primitive, ...]):
    """Primitives in the order of application. ``str`` is a function that applies them."""

    def __str__(self) -> str:
        lines = [f"    {p}" for p in self] or ["    pass"]
        return "\n".join(["def schedule(s):", *lines])

    def steps(self) -> Iterator[tuple[str, list[object], dict[str, object]]]:
        """``(name, args, kwargs)`` of each, as Allo's ``primitive_sequences``."""
        for p in self:
            yield p.name, list(p.args), dict(p.kwargs)


@dataclass(frozen=True)
class BufferName:
    """A buffer in a trace: prints as ``s.C`` where that is possible."""

    name: str
    func: str | None = None

    @property
    def text(self) -> str:
        return self.name if self.func is None else f"{self.func}:{self.name}"


def _show(value: object) -> str:
    if isinstance(value, BufferName):
        if value.func is None and is_identifier(value.name):
            return f"s.{value.name}"
        return json.dumps(value.text)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Enum):
        return repr(value.value)
    return repr(value)


def recorded(value: object, func: str) -> object:
    """An argument as the trace keeps it: names instead of objects, the own function left out."""
    while isinstance(value, LoopBand):
        value = value.get_outer_most()
    if isinstance(value, LoopWrapper):
        text = f"{value.band}.{value.loop}"
        return text if value.func == func else f"{value.func}:{text}"
    if isinstance(value, MockBuffer):
        return BufferName(value.name, None if value.func == func else value.func)
    if isinstance(value, str) and value.startswith(f"{func}:"):
        return value.removeprefix(f"{func}:")
    if isinstance(value, list | tuple):
        return tuple(recorded(v, func) for v in value)  # pyright: ignore
    return value
