"""Figures of single loops and statements of a timed program, for analyses that walk it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Protocol

from ..hardware.devices import device as find_device
from ..ir import nodes as ir
from ..ir.walk import walk
from .fifo.behaviour import Timing as FifoTiming
from .instance import Instance, LoopPlan
from .loops import Timing, cycles_of
from .operators import Operators


class Values(Protocol):
    """Values of loop variables and of scalars, by name."""

    @property
    def loops(self) -> Mapping[str, int]: ...

    @property
    def scalars(self) -> Mapping[str, int]: ...


class Figures:
    """What the loops and statements of a program take.

    A function whose parameters lie in memory in one call and on the chip in another is looked up as it was
    run first.

    Args:
        timing: of the program; what it has not run yet is taken to be on the chip.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self._places: dict[int, tuple[ir.Stmt, Instance]] = {}
        for function in timing.program.functions:
            found = next((i for (name, _), i in timing.instances.items() if name == function.name), None)
            instance = found or timing.instance(function.name, frozenset())
            for node in walk(function.body):
                if isinstance(node, ir.Stmt):
                    self._places[id(node)] = node, instance

    def plan(self, loop: ir.For) -> LoopPlan:
        """How a loop runs."""
        return self._places[id(loop)][1].plan(loop)

    def pipeline(self, loop: ir.For) -> tuple[int, int]:
        """Cycles from one iteration of a pipelined loop to the next, and of one iteration."""
        body = self.plan(loop).body
        return (1, 1) if body is None else (body.interval, body.depth)

    def cycles(self, stmt: ir.Stmt, known: Values) -> int:
        """Cycles of a statement that waits for nobody.

        Raises:
            EstimateError: FX901, the length of a loop is not known.
        """
        values: dict[str, Any] = {**known.scalars, **known.loops}
        return round(cycles_of(self.timing, self._places[id(stmt)][1], stmt, values))


def fifo_timing(program: ir.Program, device: str, clock_mhz: float | None = None) -> FifoTiming:
    """What the analysis of FIFOs wants to know of a program on a card: intervals, depths and cycles.

    Args:
        clock_mhz: the clock; the card's usual one by default.

    Raises:
        TargetError: FX402, there is no such device.
    """
    card = find_device(device)
    operators = Operators(card.dsp_family, clock_mhz or card.default_mhz, None)
    figures = Figures(Timing(program, operators, None, inf))
    return FifoTiming(pipeline=figures.pipeline, cycles=figures.cycles)


__all__ = ["Figures", "Values", "fifo_timing"]
