"""A function instance before any run: which loops are pipelines, and of what kind the others are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ..ir import nodes as ir
from ..ir.simplify import binary, const, value_of, var
from ..ir.walk import buffers, substitute, walk
from .graph import GraphBuilder
from .operators import Operators
from .ops import IrregularBody
from .pipeline import Body, pipelined, straight
from .ports import Storage, storage


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """How a loop runs.

    Attributes:
        kind: ``pipelined``; ``unrolled``, copies in parallel or, of something larger, one after the other;
            ``dataflow``, iterations that overlap; ``outer``, anything else, an iteration after the other.
        nest: the loop, and the perfectly nested ones that are flattened into it, the innermost last.
        body: of the innermost loop, where it is one piece.
        note: why a loop that was to be pipelined is not.
    """

    kind: Literal["pipelined", "unrolled", "outer", "dataflow"]
    nest: tuple[ir.For, ...]
    body: Body | None = None
    note: str = ""


class Instance:
    """A function with its array parameters on or off the chip.

    Args:
        function: the function.
        off_chip: its parameters that are ports of the design to memory.
    """

    def __init__(self, function: ir.Function, off_chip: frozenset[str], operators: Operators) -> None:
        self.function, self.off_chip, self.operators = function, off_chip, operators
        self.buffers = buffers(function)
        self.places: dict[str, Storage] = {
            name: storage(b, name in off_chip) for name, b in self.buffers.items()
        }
        self._plans: dict[int, tuple[ir.For, LoopPlan]] = {}
        self._blocks: dict[tuple[int, ...], tuple[tuple[ir.Stmt, ...], Body]] = {}

    def plan(self, loop: ir.For) -> LoopPlan:
        """How a loop of this function runs."""
        found = self._plans.get(id(loop))
        if found is None:
            found = self._plans[id(loop)] = (loop, self._plan(loop))
        return found[1]

    def plan_of(self, identity: int) -> LoopPlan:
        """The plan of the loop that `Key.loop` identifies."""
        return self._plans[identity][1]

    def plans(self) -> Iterator[LoopPlan]:
        """The plans of the loops that were run so far, each nest once."""
        inner = {id(loop) for _, plan in self._plans.values() for loop in plan.nest[1:]}
        return (plan for key, (_, plan) in self._plans.items() if key not in inner)

    def block(self, body: tuple[ir.Stmt, ...]) -> Body:
        """How statements without loops and calls run."""
        key = tuple(id(stmt) for stmt in body)
        found = self._blocks.get(key)
        if found is None:
            graph = self._builder(None).build(body)
            found = self._blocks[key] = (body, straight(graph, self.places))
        return found[1]

    def blocks(self) -> Iterator[Body]:
        """The blocks asked for so far."""
        return (body for _, body in self._blocks.values())

    def _builder(self, loop: ir.For | None, around: tuple[ir.For, ...] = ()) -> GraphBuilder:
        return GraphBuilder(self.operators, self.buffers, self.places, loop, around)

    def _plan(self, loop: ir.For) -> LoopPlan:
        attrs = loop.attrs
        if attrs.dataflow:
            return LoopPlan("dataflow", (loop,))
        if attrs.unroll == 0 and attrs.pipeline is None:
            return self._unrolled(loop)
        if attrs.unroll:
            loop = _partly_unrolled(loop, attrs.unroll)
        if attrs.pipeline is not None:
            return self._pipelined(loop, attrs.pipeline)
        inner = _only_loop(loop)
        if inner is not None:
            below = self.plan(inner)
            if below.kind == "pipelined" and below.body and not below.body.once and _is_constant(below.nest):
                return self._flattened((loop, *below.nest), below)
            return LoopPlan("outer", (loop,))
        if any(isinstance(n, ir.For | ir.While | ir.Call) for n in walk(loop.body)):
            return LoopPlan("outer", (loop,))
        # Vitis HLS pipelines innermost loops by itself (config_compile -pipeline_loops, UG1399).
        return self._pipelined(loop, 1)

    def _flattened(self, nest: tuple[ir.For, ...], inner: LoopPlan) -> LoopPlan:
        """The plan of a nest; what one of its outer loops carries may hold up its pipeline."""
        graph = self._builder(nest[-1], nest[:-1]).build(nest[-1].body)
        body = pipelined(graph, self.places, nest[-1].attrs.pipeline or 1)
        return replace(inner, nest=nest, body=body)

    def _pipelined(self, loop: ir.For, requested: int) -> LoopPlan:
        try:
            graph = self._builder(loop).build(loop.body)
        except IrregularBody as error:
            return LoopPlan("outer", (loop,), note=f"not pipelined: {error.reason}")
        return LoopPlan("pipelined", (loop,), pipelined(graph, self.places, requested))

    def _unrolled(self, loop: ir.For) -> LoopPlan:
        try:
            graph = self._builder(None).build((loop,))
        except IrregularBody as error:
            return LoopPlan("unrolled", (loop,), note=f"copies run in turn: {error.reason}")
        return LoopPlan("unrolled", (loop,), straight(graph, self.places))


def _only_loop(loop: ir.For) -> ir.For | None:
    """The loop that is all there is in another one: arrays may come into being beside it."""
    rest = [s for s in loop.body if not (isinstance(s, ir.Alloc) and s.init is None)]
    return rest[0] if len(rest) == 1 and isinstance(rest[0], ir.For) else None


def _length(loop: ir.For) -> int | None:
    lower, upper = value_of(loop.lower), value_of(loop.upper)
    return None if lower is None or upper is None else max(0, -(-(upper - lower) // loop.step))


def _is_constant(nest: tuple[ir.For, ...]) -> bool:
    return all(_length(loop) is not None for loop in nest)


def _partly_unrolled(loop: ir.For, factor: int) -> ir.For:
    """The loop with `factor` iterations written as an unrolled loop inside."""
    inner = f"{loop.var}.copy"
    position = binary("+", var(loop.var), binary("*", var(inner), loop.step))
    body = substitute(loop.body, {loop.var: position})
    copies = ir.For(inner, const(0), const(factor), body, attrs=ir.LoopAttrs(unroll=0), span=loop.span)
    attrs = replace(loop.attrs, unroll=None)
    return replace(loop, body=(copies,), step=loop.step * factor, attrs=attrs)


__all__ = ["Instance", "LoopPlan"]
