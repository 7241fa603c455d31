"""Dataflow regions: instances, streams, systolic arrays; one result on every engine."""

from __future__ import annotations

import time

import numpy as np
import pytest
from region_engines import Region, check, ints

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.ir.types import Stream, int16, int32

# --------------------------------------------------------------------------------- chains and forks

N = 16
P = 4


@df.region()
def chain(A: int32[N], B: int32[N]):
    fifo: Stream[int32, 4][P + 1]

    @df.kernel(mapping=[1], args=[A])
    def feed(a: int32[N]):
        for i in range(N):
            fifo[0].put(a[i])

    @df.kernel(mapping=[P])
    def stage():
        p = df.get_pid()
        for i in range(N):
            v: int32 = fifo[p].get() + p
            fifo[p + 1].put(v)

    @df.kernel(mapping=[1], args=[B])
    def drain(b: int32[N]):
        for i in range(N):
            b[i] = fifo[P].get()


def test_a_chain_of_instances() -> None:
    A = ints(N)
    check(chain, A, np.zeros_like(A), expect=[A + 6], csim=True)


def test_calling_a_region_runs_the_simulator() -> None:
    A, B = ints(N), np.zeros(N, np.int32)
    chain(A, B)
    np.testing.assert_array_equal(B, A + 6)


def test_every_instance_is_a_function_by_its_name() -> None:
    names = [f.name for f in df.customize(chain).program.functions]
    assert names == ["feed_0", "stage_0", "stage_1", "stage_2", "stage_3", "drain_0", "chain"]


def test_equal_instances_share_one_function_in_hls_text() -> None:
    code = str(df.build(chain, target="vhls"))
    assert code.count("void stage_") == 1
    assert "stage_0(fifo_0, fifo_1, 0);" in code
    assert "stage_0(fifo_3, fifo_4, 3); // stage_3" in code
    assert "hls::stream< int32_t > fifo_4;" in code
    assert "#pragma HLS stream variable=fifo_0 depth=4" in code
    assert code.count("#pragma HLS dataflow") == 1


def test_scheduling_one_instance_splits_it_off() -> None:
    s = df.customize(chain)
    s.pipeline("stage_1:i")
    s.partition("chain:A", dim=1, factor=2, partition_type=2)
    code = str(s.build("vhls"))
    assert code.count("void stage_") == 2
    assert code.count("#pragma HLS pipeline II=1") == 1
    assert "stage_1(fifo_1, fifo_2);" in code
    assert "stage_0(fifo_2, fifo_3, 2); // stage_2" in code
    assert "array_partition variable=A cyclic dim=1 factor=2" in code
    A, B = ints(N), np.zeros(N, np.int32)
    s.build()(A, B)
    np.testing.assert_array_equal(B, A + 6)


def test_opt_default_pipelines_every_innermost_loop() -> None:
    s = df.customize(chain, opt_default=True)
    assert str(s.build("vhls")).count("#pragma HLS pipeline II=1 rewind") == 3
    A, B = ints(N), np.zeros(N, np.int32)
    s.build()(A, B)
    np.testing.assert_array_equal(B, A + 6)


@df.region()
def fork(A: int32[N], B: int32[N], C: int32[N]):
    odd: Stream[int32, 2]
    even: Stream[int32, 2]

    @df.kernel(mapping=[1], args=[A])
    def split(a: int32[N]):
        for i in range(N // 2):
            even.put(a[2 * i])
            odd.put(a[2 * i + 1])

    @df.kernel(mapping=[1], args=[B])
    def left(b: int32[N]):
        for i in range(N // 2):
            b[i] = even.get()

    @df.kernel(mapping=[1], args=[C])
    def right(c: int32[N]):
        for i in range(N // 2):
            c[i] = odd.get() * 2


def test_a_fork() -> None:
    A = ints(N)
    B, C = np.zeros_like(A), np.zeros_like(A)
    left, right = B.copy(), C.copy()
    left[: N // 2], right[: N // 2] = A[::2], A[1::2] * 2
    check(fork, A, B, C, expect=[left, right], csim=True)


def test_declaration_order_does_not_matter() -> None:
    @df.region()
    def backwards(A: int32[N], B: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[B])
        def consumer(b: int32[N]):
            for i in range(N):
                b[i] = s.get()

        @df.kernel(mapping=[1], args=[A])
        def producer(a: int32[N]):
            for i in range(N):
                s.put(a[i])

    A = ints(N)
    check(backwards, A, np.zeros_like(A), expect=[A], csim=True)


def test_kernels_without_streams_run_in_order() -> None:
    @df.region()
    def two_steps(A: int32[N], B: int32[N], C: int32[N]):
        @df.kernel(mapping=[1], args=[A, B])
        def first(a: int32[N], b: int32[N]):
            for i in range(N):
                b[i] = a[i] + 1

        @df.kernel(mapping=[1], args=[B, C])
        def second(b: int32[N], c: int32[N]):
            for i in range(N):
                c[i] = b[i] * 2

    A = ints(N)
    check(two_steps, A, np.zeros_like(A), np.zeros_like(A), expect=[A + 1, 2 * A + 2], csim=True)


def test_a_ring_of_streams() -> None:
    @df.region()
    def ring(A: int32[4], B: int32[4]):
        s: Stream[int32, 2][4]

        @df.kernel(mapping=[4], args=[A, B])
        def node(a: int32[4], b: int32[4]):
            p = df.get_pid()
            v: int32 = a[p]
            total: int32 = v
            for i in range(3):
                s[(p + 1) % 4].put(v)
                v = s[p].get()
                total += v
            b[p] = total

    A = ints(4)
    check(ring, A, np.zeros_like(A), expect=[np.full(4, A.sum())])


# ---------------------------------------------------------------------------------- systolic arrays


def systolic(size: int) -> Region:
    """An output-stationary array with a frame of feeders and drains, as in Allo's tutorial."""
    M = K = size

    @df.region()
    def top(A: int16[M, K], B: int16[K, M], C: int16[M, M]):
        fifo_A: Stream[int16, 4][M + 2, M + 2]
        fifo_B: Stream[int16, 4][M + 2, M + 2]

        @df.kernel(mapping=[M + 2, M + 2], args=[A, B, C])
        def gemm(A: int16[M, K], B: int16[K, M], C: int16[M, M]):
            i, j = df.get_pid()
            with allo.meta_if(i in {0, M + 1} and j in {0, M + 1}):
                pass
            with allo.meta_elif(j == 0):
                for k in range(K):
                    fifo_A[i, j + 1].put(A[i - 1, k])
            with allo.meta_elif(i == 0):
                for k in range(K):
                    fifo_B[i + 1, j].put(B[k, j - 1])
            with allo.meta_elif(i == M + 1 and j > 0):
                for k in range(K):
                    b: int16 = fifo_B[i, j].get()
            with allo.meta_elif(j == M + 1 and i > 0):
                for k in range(K):
                    a: int16 = fifo_A[i, j].get()
            with allo.meta_else():
                c: int16 = 0
                for k in range(K):
                    a: int16 = fifo_A[i, j].get()
                    b: int16 = fifo_B[i, j].get()
                    c += a * b
                    fifo_A[i, j + 1].put(a)
                    fifo_B[i + 1, j].put(b)
                C[i - 1, j - 1] = c

    return top


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_systolic_arrays(size: int) -> None:
    A, B = ints(size, size).astype(np.int16), ints(size, size).astype(np.int16)
    check(systolic(size), A, B, np.zeros_like(A), expect=[A @ B], csim=size == 2)


def test_a_large_systolic_array_is_built_once_per_kind_of_process() -> None:
    size = 16
    begin = time.perf_counter()
    s = df.customize(systolic(size))
    module = s.build()
    A, B = ints(size, size).astype(np.int16), ints(size, size).astype(np.int16)
    C = np.zeros_like(A)
    module(A, B, C)
    assert time.perf_counter() - begin < 15  # two seconds alone; other work may share the machine
    np.testing.assert_array_equal(C, A @ B)
    code = str(s.build("vhls"))
    assert code.count("void gemm_") == 6  # corners, four sides, and the one processing element
    assert code.count("gemm_1_1(A, B, C, ") == size * size


def test_cannon_on_a_torus() -> None:
    T = 3

    @df.region()
    def cannon(A: int32[T, T], B: int32[T, T], C: int32[T, T]):
        east: Stream[int32, 2][T, T]
        south: Stream[int32, 2][T, T]

        @df.kernel(mapping=[T, T], args=[A, B, C])
        def pe(A: int32[T, T], B: int32[T, T], C: int32[T, T]):
            i, j = df.get_pid()
            a: int32 = A[i, (i + j) % T]
            b: int32 = B[(i + j) % T, j]
            c: int32 = 0
            for k in range(T):
                c += a * b
                east[i, (j - 1) % T].put(a)
                south[(i - 1) % T, j].put(b)
                a = east[i, j].get()
                b = south[i, j].get()
            C[i, j] = c

    A, B = ints(T, T), ints(T, T).T.copy()
    check(cannon, A, B, np.zeros_like(A), expect=[A @ B])
