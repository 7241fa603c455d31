"""The Hadamard transform: stages at work on a stream of rows, or one engine with several lanes."""

from __future__ import annotations

from collections.abc import Callable

from flexllm_allo import Schedule
from flexllm_allo.ir.walk import buffers

from .common import banks, parallel, users

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
            s.to(s.half, users(s, "half")[-1].name, depth=16)

    def finish(s: Schedule) -> None:
        _base(s)
        s.pipeline("i")

    return {"butterfly": butterfly, "hadamard_stages": stages, "hadamard_finish": finish}


def temporal(pairs: int = 8) -> dict[str, Callable[[Schedule], None]]:
    """One engine of `pairs` butterflies per cycle, which all stages take in turn: N / pairs cycles each."""

    def butterfly(s: Schedule) -> None:
        wide = parallel(s, "i", pairs)
        parallel(s, "i_late", pairs)
        for buffer in ("X", "Y") if buffers(s.top_func)["X"].shape[1] > 2 else ():
            banks(s, buffer, 2, 2 * wide)
        banks(s, "late", 1, wide)

    def finish(s: Schedule) -> None:
        parallel(s, "i", 1 if _base(s) else 2 * pairs)

    return {"butterfly": butterfly, "hadamard_finish": finish}


def _base(s: Schedule) -> bool:
    """Adders for the Paley matrix, if this size has one.

    A quarter of the sums are updated per cycle, so that a sum waits four cycles, the latency of an
    adder, for its next term.
    """
    if "total" not in buffers(s.top_func):
        return False
    size = buffers(s.top_func)["total"].shape[0]
    wide = parallel(s, "b", min(BASE_LANES, size // 4))
    banks(s, "total", 1, wide)
    banks(s, "plus", 2, wide)
    s.pipeline("b_keep")
    return True
