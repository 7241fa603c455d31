"""G = (A B) (C D), stages joined by FIFOs."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int8, int16, int32

N = 8


def mm1(A: int8[N, N], B: int8[N, N]) -> int16[N, N]:
    out: int16[N, N] = 0
    for i, j, k in allo.grid(N, N, N, name="mm1"):
        out[i, j] += A[i, k] * B[k, j]
    return out


def mm2(C: int8[N, N], D: int8[N, N]) -> int16[N, N]:
    out: int16[N, N] = 0
    for i, j in allo.grid(N, N, name="mm2"):
        acc: int16 = 0
        for k in range(N):
            acc += C[i, k] * D[k, j]
        out[i, j] = acc
    return out


def mm3(E: int16[N, N], F: int16[N, N]) -> int32[N, N]:
    out: int32[N, N] = 0
    for i, j in allo.grid(N, N, name="mm3"):
        for k in allo.reduction(N, pipeline=True):
            out[i, j] += E[i, k] * F[k, j]
    return out


def three_mm(A: int8[N, N], B: int8[N, N], C: int8[N, N], D: int8[N, N]) -> int32[N, N]:
    E = mm1(A, B)
    F = mm2(C, D)
    G = mm3(E, F)
    return G


def check():
    s = allo.customize(three_mm)
    s1 = allo.customize(mm1)
    s1.split("j", 4)
    s1.unroll("j.inner")
    s1.partition(s1.B, partition_type=allo.Partition.Cyclic, dim=2, factor=4)
    s2 = allo.customize(mm2)
    s2.pipeline("k", initiation_interval=2)
    s.compose([s1, s2])
    A, B, C, D = (np.random.randint(-3, 4, (N, N)).astype(np.int8) for _ in range(4))
    a, b, c, d = (x.astype(np.int32) for x in (A, B, C, D))
    np.testing.assert_array_equal(s.build()(A, B, C, D), (a @ b) @ (c @ d))
    code = s.build(target="vhls").hls_code
    assert "cyclic dim=2 factor=4" in code
    assert "II=2" in code
