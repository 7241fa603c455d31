"""All shortest paths."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

N = 10


def floyd_warshall(path: int32[N, N]):
    for k, i, j in allo.grid(N, N, N, name="relax"):
        through: int32 = path[i, k] + path[k, j]
        if path[i, j] >= through:
            path[i, j] = through


def ternary(path: int32[N, N]):
    for k in range(N):
        for i in range(N):
            for j in range(N):
                path[i, j] = path[i, j] if path[i, j] < path[i, k] + path[k, j] else path[i, k] + path[k, j]


def check():
    s = allo.customize(floyd_warshall)
    s.pipeline("j")
    s2 = allo.customize(ternary)
    A = np.random.randint(1, 50, (N, N)).astype(np.int32)
    want = A.copy()
    for k in range(N):
        want = np.minimum(want, want[:, k : k + 1] + want[k : k + 1])
    B = A.copy()
    s.build()(A)
    s2.build()(B)
    np.testing.assert_array_equal(A, want)
    np.testing.assert_array_equal(B, want)
