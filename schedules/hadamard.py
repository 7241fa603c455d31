"""The Hadamard transform: stages at work on a stream of rows, or one engine with several lanes."""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers

BASE_LANES = 32
"""Most adders of the stage for sizes that are no power of two."""


def streamed(s: Schedule) -> None:
    """A stage that is a process of its own, an element per cycle from one to the next.

    All stages work at the same time, on the rows as they come. A row takes 1.5 N cycles of every stage:
    the sums leave while their terms arrive, the differences after them.
    """
    s.pipeline("i", initiation_interval=2)  # two elements of one FIFO
    s.pipeline("i_late")


def finish(s: Schedule, lanes: int = 1) -> None:
    """Adders for the Paley matrix, if this size has one; else the scale, on `lanes` lanes.

    A quarter of the sums are updated per cycle, so that a sum waits four cycles, the latency of an
    adder, for its next term.
    """
    sums = buffers(s.top_func).get("total")
    if sums:
        s.vectorize("b", min(BASE_LANES, sums.shape[0] // 4))
    else:
        s.vectorize("i", lanes)
    s.pipeline()
