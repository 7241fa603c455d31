"""Linear layers: one array of multipliers, tokens x output channels x columns, which stages shape by numbers.

With many tokens it is prefill's two-dimensional array, a column of inputs against rows of W for all tokens in
every cycle; with one token and several columns decode's dot products, trees of adders over a piece of a row.
"""

from __future__ import annotations

from contextlib import suppress

from flexllm_allo import Partition, Schedule
from flexllm_allo.errors import ScheduleError
from flexllm_allo.ir.walk import buffers

from .parallelism import Parallelism


def linear(s: Schedule, p: Parallelism) -> None:
    """All tokens meet `block_parallel` columns of `weight_parallel` rows of W in every cycle.

    Up to `macs_per_dsp` products share a multiplier: 2 of one input with two rows, 4 of two inputs with two
    rows, or fewer where types are wider than that or lanes have no pairs. With several `lanes` sums wait in
    registers, a tile at a time, and so many rows are scaled per cycle. A layer that is done within `cycles`
    on fewer rows has no more of them.
    """
    rows, columns = p.weight_parallel, p.block_parallel
    size = buffers(s.top_func)
    n_rows, n_columns = size["Y"].shape[1], size["X"].shape[1]
    if p.cycles:
        rows = min(rows, -(-n_rows * n_columns // (columns * p.cycles)))
        rows = next(n for n in range(rows, n_rows + 1) if n_rows % n == 0)
    n = "mac.n.inner"
    if p.lanes > 1 and rows < n_rows and size["Y"].shape[0] > 1:
        tiles(s, rows, p.lanes)
        s.vectorize(n)
    elif s.vectorize("mac.n", rows) is None:
        n = "mac.n"
    s.vectorize("mac.t")
    s.vectorize("mac.k", columns)
    for loops in {1: [], 2: [(n,)], 4: [("mac.t", n), (n,)]}[p.macs_per_dsp]:
        with suppress(ScheduleError):
            s.pack_products(*loops)
            break
    s.pipeline()


def tiles(s: Schedule, rows: int, lanes: int) -> None:
    """The sums of `rows` rows of W for all tokens in registers while these are read; `lanes` are scaled."""
    s.partition(s.acc, partition_type=Partition.Cyclic, dim=2, factor=max(2, rows))
    s.vectorize("scale.n", lanes)
    s.split("mac.n", rows)
    s.reorder("mac.n.outer", "mac.t")
    s.buffer_at(s.acc, "mac.n.outer")
    s.pipeline("t_init")
    s.pipeline("t_back")
