"""Linear layers: one array of multipliers, tokens x output channels x columns, which stages shape by numbers.

With many tokens it is prefill's two-dimensional array, a column of inputs against rows of W for all tokens in
every cycle; with one token and several columns decode's dot products, trees of adders over a piece of a row.
"""

from __future__ import annotations

from contextlib import suppress

from flexllm_allo import Schedule
from flexllm_allo.errors import ScheduleError


def linear(s: Schedule, rows: int, columns: int = 1, macs_per_dsp: int = 1) -> None:
    """All tokens meet `columns` columns of `rows` rows of W in every cycle.

    Up to `macs_per_dsp` products share a multiplier: 2 of one input with two rows, 4 of two inputs with two
    rows, or fewer where types are wider than that or lanes have no pairs.
    """
    n = "mac.n" if s.vectorize("mac.n", rows) is None else "mac.n.inner"
    s.vectorize("mac.t")
    s.vectorize("mac.k", columns)
    for loops in {1: [], 2: [(n,)], 4: [("mac.t", n), (n,)]}[macs_per_dsp]:
        with suppress(ScheduleError):
            s.pack_products(*loops)
            break
    s.pipeline()


def grouped(s: Schedule, columns: int, loop: str = "k") -> None:
    """Weights with scales per group: `columns` neighbours of a row meet the inputs of all tokens."""
    s.vectorize(loop, columns)
    s.vectorize("t")
    s.pipeline()
