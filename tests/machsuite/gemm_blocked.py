"""Matrix product in blocks, written out and as a schedule of the plain loops."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int32

N, BLOCK = 16, 4


def blocked(A: float32[N, N], B: float32[N, N], C: float32[N, N]):
    for jj in range(0, N, BLOCK):
        for kk in range(0, N, BLOCK):
            for i in range(N):
                for k in range(BLOCK):
                    a: float32 = A[i, kk + k]
                    for j in range(BLOCK):
                        C[i, jj + j] += a * B[kk + k, jj + j]


def plain(A: int32[N, N], B: int32[N, N]) -> int32[N, N]:
    C: int32[N, N] = 0
    for i, j, k in allo.grid(N, N, N, name="gemm"):
        C[i, j] += A[i, k] * B[k, j]
    return C


def check():
    A, B = np.random.rand(2, N, N).astype(np.float32)
    C = np.zeros((N, N), np.float32)
    allo.customize(blocked).build()(A, B, C)
    np.testing.assert_allclose(C, A @ B, rtol=1e-5)
    s = allo.customize(plain)
    s.split("i", BLOCK)
    s.split("j", BLOCK)
    s.split("k", BLOCK)
    s.reorder("i.outer", "j.outer", "k.outer", "i.inner", "k.inner", "j.inner")
    s.pipeline("k.inner")
    s.unroll("j.inner")
    s.partition(s.C, dim=2, partition_type=2, factor=BLOCK)
    A, B = np.random.randint(-9, 9, (2, N, N)).astype(np.int32)
    np.testing.assert_array_equal(s.build()(A, B), A @ B)
    assert list(s.get_loops()["gemm"].loops) == [
        "i.outer",
        "j.outer",
        "k.outer",
        "i.inner",
        "k.inner",
        "j.inner",
    ]
