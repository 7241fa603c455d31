"""The Hadamard transform: stages at work on a stream of rows, or one engine with several lanes."""

from __future__ import annotations

from collections.abc import Callable

from flexllm_allo import Schedule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.memory import Partition

from .common import lanes

BASE_LANES = 32
"""Most adders of the stage for sizes that are no power of two."""


def streamed() -> dict[str, Callable[[Schedule], None]]:
    """Every stage a process of its own, an element per cycle from one to the next.

    All stages work at the same time, on the rows as they come. A row takes 1.5 N cycles of every stage:
    the sums leave while their terms arrive, the differences after them.
    """

    def butterfly(s: Schedule) -> None:
        s.pipeline("i", initiation_interval=2)  # two elements of one FIFO
        s.pipeline("i_late")

    def stages(s: Schedule) -> None:
        if "half" in buffers(s.top_func):
            s.to(s.half, _callee(s, "half"), depth=16)

    def finish(s: Schedule) -> None:
        _base(s)
        s.pipeline("i")

    return {"butterfly": butterfly, "hadamard_stages": stages, "hadamard_finish": finish}


def temporal(pairs: int = 8) -> dict[str, Callable[[Schedule], None]]:
    """One engine of `pairs` butterflies per cycle, which all stages take in turn: N / pairs cycles each."""

    def butterfly(s: Schedule) -> None:
        width = buffers(s.top_func)["X"].shape[1]
        wide = _lanes(s, "i", width // 2, pairs)
        _lanes(s, "i_late", width // 2, pairs)
        if width > 2:
            s.partition(s.X, Partition.Cyclic, dim=2, factor=2 * wide)
            s.partition(s.Y, Partition.Cyclic, dim=2, factor=2 * wide)
        if wide > 1:
            s.partition(s.late, Partition.Cyclic, dim=1, factor=wide)

    def finish(s: Schedule) -> None:
        if not _base(s):
            _lanes(s, "i", buffers(s.top_func)["X"].shape[1], 2 * pairs)
        else:
            s.pipeline("i")

    return {"butterfly": butterfly, "hadamard_finish": finish}


def _callee(s: Schedule, buffer: str) -> str:
    """The function that reads a buffer: the last call that is passed it."""
    called = [
        n.func
        for n in walk(s.top_func.body)
        if isinstance(n, ir.Call) and any(isinstance(a, ir.View) and a.buffer == buffer for a in n.args)
    ]
    return called[-1]


def _lanes(s: Schedule, loop: str, extent: int, wanted: int) -> int:
    """Run a loop on as many lanes as divide it, a new group every cycle."""
    wide = lanes(extent, wanted)
    if wide == 1:
        s.pipeline(loop)
        return wide
    s.split(loop, wide)
    s.pipeline(f"{loop}.outer")
    s.unroll(f"{loop}.inner")
    return wide


def _base(s: Schedule) -> bool:
    """Adders for the Paley matrix, if this size has one.

    A quarter of the sums are updated per cycle, so that a sum waits four cycles, the latency of an
    adder, for its next term.
    """
    if "total" not in buffers(s.top_func):
        return False
    size = buffers(s.top_func)["total"].shape[0]
    wide = _lanes(s, "b", size, min(BASE_LANES, size // 4))
    if wide > 1:
        s.partition(s.total, Partition.Cyclic, dim=1, factor=wide)
        s.partition(s.plus, Partition.Cyclic, dim=2, factor=wide)
    s.pipeline("b_keep")
    return True
