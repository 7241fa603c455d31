"""Breadth-first search, one horizon at a time."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int8, int32

N, LEVELS = 16, 6


def bfs_bulk(adj: int8[N, N], level: int8[N], counts: int32[LEVELS]):
    for horizon in range(LEVELS):
        count: int32 = 0
        for n in range(N):
            if level[n] == horizon:
                for m in range(N):
                    if adj[n, m] != 0 and level[m] == 127:
                        level[m] = horizon + 1
                        count += 1
        counts[horizon] = count


def check():
    rng = np.random.default_rng(0)
    adj = (rng.random((N, N)) < 0.12).astype(np.int8)
    level, counts = np.full(N, 127, np.int8), np.zeros(LEVELS, np.int32)
    level[0] = 0
    want, frontier = {0: 0}, [0]
    for d in range(1, LEVELS + 1):
        frontier = sorted({int(m) for n in frontier for m in np.nonzero(adj[n])[0]} - want.keys())
        want |= dict.fromkeys(frontier, d)
    allo.customize(bfs_bulk).build()(adj, level, counts)
    np.testing.assert_array_equal(level, [want.get(n, 127) for n in range(N)])
    assert counts.sum() == len(want) - 1
