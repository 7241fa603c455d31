"""The Hadamard transform: an engine of butterflies for rows that come one by one, or for whole blocks."""

from __future__ import annotations

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers


def base(s: Schedule) -> None:
    """Adders for the Paley matrix, at most 32.

    A quarter of the sums are updated per cycle, so that a sum waits four cycles, the latency of an
    adder, for its next term.
    """
    s.vectorize("b", min(32, buffers(s.top_func)["total"].shape[0] // 4))
    s.pipeline()


def rows(s: Schedule, lanes: tuple[int, int]) -> None:
    """Elements of a row come and go on so many lanes; if they go one by one, while the next row comes."""
    if lanes[1] == 1:
        s.dataflow("r")
    s.vectorize("i_in", lanes[0])
    s.vectorize("i", lanes[1])
    s.pipeline()
