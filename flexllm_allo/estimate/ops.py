"""Operations of a body, their copies, and what they wait for."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from ..errors import Span
from ..ir import nodes as ir
from .operators import Operator


class IrregularBody(Exception):
    """The body cannot be one pipeline: `reason` says why, `span` where."""

    def __init__(self, reason: str, span: Span) -> None:
        super().__init__(reason)
        self.reason, self.span = reason, span


@dataclass(slots=True, eq=False)
class Access:
    """The memory access an operation is.

    Attributes:
        banks: of the different elements that all copies touch, for every sample; None: not known.
        elements: that all copies touch, for every sample; None: not known.
        held: its element is the same in every iteration, and waits in a register.
        pinned: variables of loops around the body of which one value alone lets it happen.
    """

    buffer: str
    write: bool
    indices: tuple[ir.Expr, ...]
    copies: int
    banks: list[Any] | None = None
    elements: list[frozenset[int]] | None = None
    held: bool = False
    affine: tuple[ir.Expr, ...] = ()
    pinned: frozenset[str] = frozenset()

    def misses(self, other: Access) -> bool:
        """Whether the two never touch one element in the same iteration."""
        if self.elements is None or other.elements is None:
            return False
        return all(a.isdisjoint(b) for a, b in zip(self.elements, other.elements, strict=True))


@dataclass(slots=True, eq=False)
class Op:
    """An operation and its copies. `chain` is how many of them follow one after the other in an iteration."""

    operator: Operator
    copies: int
    span: Span
    access: Access | None = None
    chain: float = 1.0
    latency: int = 0
    result: object = None


@dataclass(frozen=True, slots=True)
class Link:
    """`sink` needs what `source` made, `distance` iterations before; `extra` cycles later."""

    source: int
    sink: int
    distance: int = 0
    extra: int = 0
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is: the operation that makes it, and the unrolled variables it differs over."""

    op: int | None = None
    vars: frozenset[str] = frozenset()


@dataclass(slots=True)
class Graph:
    """Operations in program order, and what they wait for."""

    ops: list[Op] = field(default_factory=lambda: list[Op]())
    links: list[Link] = field(default_factory=lambda: list[Link]())


def chain(graph: Graph, period_ns: float) -> None:
    """Give every operation its latency: logic is chained while it fits into a cycle."""
    into: list[list[int]] = [[] for _ in graph.ops]
    for link in graph.links:
        if link.distance == 0 and link.source < link.sink:
            into[link.sink].append(link.source)
    late = [0.0] * len(graph.ops)
    for n, op in enumerate(graph.ops):
        if op.operator.latency:
            op.latency = ceil(op.operator.latency * op.chain)
        else:
            begin = max((late[p] for p in into[n]), default=0.0)
            each, steps = op.operator.delay_ns, max(1, round(op.chain)) if op.chain else 0
            for _ in range(steps if each else 0):
                if begin + each > period_ns:
                    op.latency, begin = op.latency + 1, 0.0
                begin += each
            late[n] = begin


__all__ = ["Access", "Graph", "IrregularBody", "Link", "Op", "Value", "chain"]
