"""RNA secondary structure: the most base pairs by dynamic programming."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32

N = 10


def match(b1: int32, b2: int32) -> int32:
    paired: int32 = 0
    if b1 + b2 == 3:
        paired = 1
    return paired


def nussinov(seq: int32[N], table: int32[N, N]):
    for i_inv in range(N):
        i: int32 = N - 1 - i_inv
        for j in range(i + 1, N):
            if j - 1 >= 0:
                table[i, j] = max(table[i, j], table[i, j - 1])
            if i + 1 < N:
                table[i, j] = max(table[i, j], table[i + 1, j])
            if j - 1 >= 0 and i + 1 < N:
                if i < j - 1:
                    w: int32 = seq[i] + seq[j]
                    table[i, j] = max(table[i, j], table[i + 1, j - 1] + match(seq[i], seq[j]))
                else:
                    table[i, j] = max(table[i, j], table[i + 1, j - 1])
            for k in range(i + 1, j):
                table[i, j] = max(table[i, j], table[i, k] + table[k + 1, j])


def check():
    seq = np.random.randint(0, 4, N).astype(np.int32)
    got, want = np.zeros((N, N), np.int32), np.zeros((N, N), np.int32)
    nussinov(seq, want)
    s = allo.customize(nussinov)
    s.build()(seq, got)
    np.testing.assert_array_equal(got, want)
    assert got[0, N - 1] == got.max()
