"""Breadth-first search with a queue."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

NODES, EDGES = 8, 12


def bfs(
    begin: int32[NODES], end: int32[NODES], dst: int32[EDGES], start: int32, level: int32[NODES]
) -> int32:
    queue: int32[NODES] = 0
    q_in: int32 = 1
    q_out: int32 = 0
    queue[0] = start
    level[start] = 0
    while q_out < q_in:
        n: int32 = queue[q_out]
        q_out += 1
        e: int32 = begin[n]
        while e < end[n]:
            to: int32 = dst[e]
            if level[to] < 0:
                level[to] = level[n] + 1
                queue[q_in] = to
                q_in += 1
            e += 1
    return q_in


def check():
    adjacency = [[1, 2], [3], [3, 4], [5], [5], [6, 0], [], [0, 1, 2]]
    dst = np.array([t for out in adjacency for t in out], np.int32)
    ends = np.cumsum([len(o) for o in adjacency]).astype(np.int32)
    begins = (ends - np.array([len(o) for o in adjacency])).astype(np.int32)
    level = np.full(NODES, -1, np.int32)
    s = allo.customize(bfs)
    assert s.build()(begins, ends, np.resize(dst, EDGES).astype(np.int32), 0, level) == 7
    np.testing.assert_array_equal(level, [0, 1, 1, 2, 2, 3, 4, -1])
