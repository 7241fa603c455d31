"""What a process does over time, as a compact program of waits and accesses to FIFOs.

A `Behaviour` is what one function does for given values of its scalars.  Names of FIFOs are those of
the function, so that all calls share one behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import Span
from ...ir import nodes as ir


@dataclass(frozen=True, slots=True)
class Wait:
    """Work without FIFOs."""

    cycles: int


@dataclass(frozen=True, slots=True)
class Access:
    """One token into a FIFO (`put`) or out of it; `member` chooses one of an array of FIFOs.

    `offset` counts cycles from the start of the iteration of a pipelined loop.
    """

    fifo: str
    member: int
    put: bool
    span: Span
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Create:
    """New FIFOs, empty."""

    buffer: ir.Buffer


@dataclass(frozen=True, slots=True)
class Repeat:
    """Steps, one iteration after the other."""

    trips: int
    steps: tuple[Step, ...]


Run = tuple[int, tuple[Access, ...]]
"""A number of iterations with the same accesses."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """A pipelined loop of `runs`, `repeat` times: iterations start every `ii` cycles and take `depth`."""

    ii: int
    depth: int
    runs: tuple[Run, ...]
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Invoke:
    """A call: `fifos` gives for each FIFO parameter the caller's FIFO and where its members start."""

    behaviour: Behaviour
    fifos: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Process:
    """One statement of a dataflow region; it starts when the processes `after` have ended."""

    label: str
    steps: tuple[Step, ...]
    after: tuple[int, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Parallel:
    """A dataflow region: what runs first, then processes that overlap."""

    first: tuple[Step, ...]
    processes: tuple[Process, ...]


Step = Wait | Access | Create | Repeat | Pipe | Invoke | Parallel


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """What a function does; behaviours are compared by identity."""

    function: str
    steps: tuple[Step, ...]


def outside(steps: Sequence[Step]) -> set[str]:
    """The FIFOs that steps use and do not make."""
    used: set[str] = set()
    made: set[str] = set()
    for step in steps:
        match step:
            case Access():
                used.add(step.fifo)
            case Create(buffer):
                made.add(buffer.name)
            case Repeat(_, inner):
                used |= outside(inner)
            case Pipe(_, _, runs):
                used |= {a.fifo for _, run in runs for a in run}
            case Invoke(_, fifos):
                used |= {name for _, name, _ in fifos}
            case Parallel(first, processes):
                used |= outside([*first, *(s for p in processes for s in p.steps)])
            case Wait():
                pass
    return used - made


__all__ = [
    "Access", "Behaviour", "Create", "Invoke", "Parallel", "Pipe", "Process", "Repeat", "Run", "Step", "Wait",
    "outside",
]  # fmt: skip
