"""Linear layers: one array of multipliers, tokens x output channels x columns, which stages shape by numbers.

With many tokens it is prefill's two-dimensional array, a column of inputs against rows of W for all tokens in
every cycle; with one token and several columns decode's dot products, trees of adders over a piece of a row.
"""

from __future__ import annotations

from contextlib import suppress

from flexllm_allo import Schedule
from flexllm_allo.errors import ScheduleError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.tiles import sum_tiles, use_tiles

from .parallelism import Parallelism


def linear(s: Schedule, p: Parallelism) -> None:
    """All tokens meet `block_parallel` columns of `weight_parallel` rows of W in every cycle.

    Up to `macs_per_dsp` products share a multiplier: 2 of one input with two rows, 4 of two inputs with two
    rows, or fewer where types are wider than that or lanes have no pairs. With several `lanes` sums wait in
    registers, a tile at a time; it is scaled while the next one is summed up, on as many lanes as keep up
    with that. A layer that is done within `cycles` on fewer rows has no more of them.
    """
    rows, columns = p.weight_parallel, p.block_parallel
    size = buffers(s.top_func)
    (tokens, n_rows), n_columns = size["Y"].shape, size["X"].shape[1]
    if p.cycles:
        rows = min(rows, -(-n_rows * n_columns // (columns * p.cycles)))
        rows = next(n for n in range(rows, n_rows + 1) if n_rows % n == 0)
    n = "mac.n.inner" if rows < n_rows else "mac.n"
    tiled = p.lanes > 1 and tokens > 1 and rows < n_rows and n_rows % rows == 0
    if tiled:
        sum_tiles(s, s.acc, "mac", "t", "n", rows)
    s.vectorize(n if tiled else "mac.n", rows)
    s.vectorize("mac.t")
    s.vectorize("mac.k", columns)
    for loops in {1: [], 2: [(n,)], 4: [("mac.t", n), (n,)]}[p.macs_per_dsp]:
        with suppress(ScheduleError):
            s.pack_products(*loops)
            break
    if tiled:
        use_tiles(s, s.acc, ("mac", "scale"), "t", "n", rows, -(-tokens * rows * columns // n_columns))
    s.pipeline()
