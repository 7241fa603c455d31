"""Dataflow regions on the interpreter, the simulator and C simulation: one result, one refusal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import (
    DeadlockError,
    FlexError,
    FrontendError,
    StreamError,
    TargetError,
    ToolError,
    UsageError,
)
from flexllm_allo.ir.types import ConstExpr, Stateful, Stream, float32, int16, int32, int64

try:
    find_compiler()
    COMPILER = True
except ToolError:
    COMPILER = False

Region = Callable[..., Any]
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


def modules(region: Region, csim: bool = False) -> list[Any]:
    """The interpreter, the simulator, and C simulation if asked for."""
    s = df.customize(region)
    made = [s.build("interpreter"), df.build(region, target="simulator")]
    if csim and COMPILER:
        made.append(df.build(region, target="vitis_hls", mode="csim", project=None))
    return made


def check(region: Region, *args: Any, expect: list[Any], csim: bool = False) -> None:
    """Every engine leaves `expect` in the last arguments."""
    for module in modules(region, csim):
        mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        module(*mine)
        for got, wanted in zip(mine[len(mine) - len(expect) :], expect, strict=True):
            np.testing.assert_array_equal(got, wanted)


# ------------------------------------------------------------------------------- chains and forks

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


def ints(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-9, 9, shape).astype(np.int32)


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


# -------------------------------------------------------------------------------- systolic arrays


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


# --------------------------------------------------------------------- blocks, gather and scatter


@df.region()
def blocks(A: float32[4, 2, 2], B: float32[4, 2, 2], C: float32[4, 4]):
    squares: Stream[float32[2, 2], 2]
    rows: Stream[float32[4], 2]

    @df.kernel(mapping=[1], args=[A])
    def send(a: float32[4, 2, 2]):
        for i in range(3):
            block: float32[2, 2] = 0
            for x, y in allo.grid(2, 2):
                block[x, y] = a[i, x, y] * 2.0
            squares.put(block)
        squares.put(a[3] * 2.0)

    @df.kernel(mapping=[1], args=[B])
    def reshape(b: float32[4, 2, 2]):
        for i in range(4):
            block = squares.get()
            row: float32[4] = 0
            for x, y in allo.grid(2, 2):
                row[2 * x + y] = block[x, y]
            rows.put(row)
            b[i] = block + 1.0

    @df.kernel(mapping=[1], args=[C])
    def receive(c: float32[4, 4]):
        for i in range(4):
            c[i, :] = rows.get()


def test_streams_of_blocks() -> None:
    A = ints(4, 2, 2).astype(np.float32)
    B, C = np.zeros_like(A), np.zeros((4, 4), np.float32)
    check(blocks, A, B, C, expect=[2 * A + 1, (2 * A).reshape(4, 4)], csim=True)


def test_blocks_are_vectors_in_hls_text() -> None:
    code = str(df.build(blocks, target="vhls"))
    assert "// Stream of vectors: each vector packs float array[2][2] into hls::vector<float, 4>" in code
    assert "hls::stream< hls::vector< float, 4 > > squares;" in code
    assert "#pragma HLS stream variable=squares depth=2" in code


def test_gather_and_scatter() -> None:
    @df.region()
    def fan(A: int32[4, 8], B: int32[4, 8]):
        p: Stream[int32, 4][4]
        q: Stream[int16[8], 4][2, 2]

        @df.kernel(mapping=[1], args=[A])
        def send(a: int32[4, 8]):
            for i in range(8):
                column: int32[4] = 0
                for r in range(4):
                    column[r] = a[r, i]
                df.scatter(column, p)
            df.scatter(a, q[:, 0:2])

        @df.kernel(mapping=[1], args=[B])
        def receive(b: int32[4, 8]):
            for i in range(8):
                column = df.gather([p[0], p[1], p[2], p[3]])
                for r in range(4):
                    b[r, i] = column[r]
            table = df.gather(q)
            for r, i in allo.grid(4, 8):
                b[r, i] += table[r, i] * 100

    A = ints(4, 8)
    check(fan, A, np.zeros_like(A), expect=[A * 101], csim=True)


# --------------------------------------------------- nesting, templates, captured names, helpers

P0, P1 = allo.params("P0, P1")


@allo.template(P0, P1)
@df.region()
def tiled_sum(A: int32[4, 4], B: int32[4, 4], C: int32[4, 4]):
    s: Stream[int32, 4][P0, P1]

    @df.kernel(mapping=[P0, P1], args=[A])
    def load(a: int32[4, 4]):
        p, q = df.get_pid()
        for i in range(4 // P0):
            for j in range(4 // P1):
                s[p, q].put(a[p * (4 // P0) + i, q * (4 // P1) + j])

    @df.kernel(mapping=[P0, P1], args=[B, C])
    def add(b: int32[4, 4], c: int32[4, 4]):
        p, q = df.get_pid()
        m: ConstExpr[int32] = 4 // P0
        n: ConstExpr[int32] = 4 // P1
        for i, j in allo.grid(m, n):
            c[p * m + i, q * n + j] = s[p, q].get() + b[p * m + i, q * n + j]


def test_regions_in_kernels_with_template_arguments() -> None:
    @df.region()
    def outer(A: int32[4, 4], B: int32[4, 4], C: int32[4, 4], D: int32[4, 4]):
        @df.kernel(mapping=[1], args=[A, B, C])
        def one(A: int32[4, 4], B: int32[4, 4], C: int32[4, 4]):
            tiled_sum[2, 2](A, B, C)

        @df.kernel(mapping=[1], args=[A, B, D])
        def two(A: int32[4, 4], B: int32[4, 4], D: int32[4, 4]):
            tiled_sum[4, 1](B, A, D)

    A, B = ints(4, 4), ints(4, 4).T.copy()
    empty = np.zeros_like(A)
    check(outer, A, B, empty, empty, expect=[A + B, A + B], csim=True)


def test_streams_as_arguments() -> None:
    @df.region()
    def sink(s: Stream[int32, 4], B: int32[8]):
        @df.kernel(mapping=[1], args=[s, B])
        def take(t: Stream[int32, 4], b: int32[8]):
            for i in range(8):
                b[i] = t.get()

    @df.region()
    def top(A: int32[8], B: int32[8]):
        s: Stream[int32, 4][2]

        @df.kernel(mapping=[1], args=[A, s])
        def source(a: int32[8], o: Stream[int32, 4][2]):
            for i in range(8):
                o[1].put(a[i])

        @df.kernel(mapping=[1], args=[B])
        def use(b: int32[8]):
            sink(s[1], b)

    A = ints(8)
    check(top, A, np.zeros_like(A), expect=[A], csim=True)


def double(x: int32) -> int32:
    y: int32 = x * 2
    return y


def send_row(s: Stream[int32, 4], row: int32[4]):
    for i in range(4):
        s.put(row[i])


def test_scalars_are_captured_and_kernels_call_kernels() -> None:
    @df.region()
    def top(A: int32[4, 4], B: int32[4, 4], n: int32):
        s: Stream[int32, 4][2]

        @df.kernel(mapping=[1], args=[A])
        def source(a: int32[4, 4]):
            for i in range(4):
                send_row(s[0], a[i])

        @df.kernel(mapping=[1])
        def middle():
            for i in range(16):
                s[1].put(double(s[0].get()) + n)

        @df.kernel(mapping=[1], args=[B])
        def sink(b: int32[4, 4]):
            for i, j in allo.grid(4, 4):
                b[i, j] = s[1].get()

    A = ints(4, 4)
    for module in modules(top, csim=True):
        B = np.zeros_like(A)
        module(A, B, 7)
        np.testing.assert_array_equal(B, 2 * A + 7)


def test_every_instance_has_its_own_state() -> None:
    @df.region()
    def count(A: int32[2], B: int32[2]):
        @df.kernel(mapping=[2], args=[A, B])
        def add(a: int32[2], b: int32[2]):
            p = df.get_pid()
            total: int32 @ Stateful = 0
            total += a[p]
            b[p] = total

    A = np.array([1, 10], np.int32)
    for module in modules(count, csim=True):
        B = np.zeros_like(A)
        for calls in (1, 2, 3):
            module(A, B)
            np.testing.assert_array_equal(B, calls * A)


def test_compile_time_names_of_a_region_and_every_spelling_of_get_pid() -> None:
    from flexllm_allo.dataflow import get_pid

    @df.region()
    def top(A: int32[8], B: int32[8]):
        Q = 2
        n: ConstExpr[int32] = 8 // Q
        s: Stream[int32, 2][Q]

        with allo.meta_for(Q) as q:

            @df.kernel(mapping=[1], args=[A])
            def source(a: int32[8]):
                z = get_pid()
                for i in range(n):
                    s[q].put(a[q * n + i] + z)

        @df.kernel(mapping=[Q], args=[B])
        def sink(b: int32[8]):
            q = allo.get_pid()
            with allo.meta_for(1) as z:
                for i in range(n):
                    b[q * n + i] = s[q + z].get()

    A = ints(8)
    check(top, A, np.zeros_like(A), expect=[A], csim=True)


def test_layouts_shard_arguments() -> None:
    S, R = allo.Layout.Shard, allo.Layout.Replicate
    LA, LB, LC = [S(0), R], [R, S(1)], allo.Layout([S(0), S(1)])

    @df.region()
    def top(A: int32[4, 6], B: int32[6, 4], C: int32[4, 4]):
        @df.kernel(mapping=[2, 2], args=[A, B, C])
        def gemm(a: int32[4, 6] @ LA, b: int32[6, 4] @ LB, c: int32[4, 4] @ LC):
            for i, j in allo.grid(2, 2):
                total: int32 = 0
                for k in range(6):
                    total += a[i, k] * b[k, j]
                c[i, j] = total

    A, B = ints(4, 6), ints(6, 4)
    check(top, A, B, np.zeros((4, 4), np.int32), expect=[A @ B], csim=True)


def test_types_of_instances_are_checked_one_by_one() -> None:
    @df.region()
    def top(A: int64[2], B: int64[2]):
        @df.kernel(mapping=[2], args=[A, B])
        def widen(a: int64[2], b: int64[2]):
            p = df.get_pid()
            with allo.meta_if(p == 0):
                x: int16 = a[p]
                b[p] = x
            with allo.meta_else():
                y: int64 = a[p]
                b[p] = y

    A = np.array([70000, 70000], np.int64)
    check(top, A, np.zeros_like(A), expect=[np.array([70000 - 65536, 70000])])


# ------------------------------------------------------------------------------------- deadlocks


def crossed() -> Region:
    @df.region()
    def top(A: int32[N], B: int32[N]):
        s: Stream[int32, 4]
        t: Stream[int32, 4]

        @df.kernel(mapping=[1], args=[A])
        def f(a: int32[N]):
            for i in range(N):
                s.put(a[i])
            for i in range(N):
                t.put(a[i])

        @df.kernel(mapping=[1], args=[B])
        def g(b: int32[N]):
            for i in range(N):
                b[i] = t.get()
            for i in range(N):
                b[i] += s.get()

    return top


def test_a_deadlock_names_processes_and_fifos() -> None:
    A, B = ints(N), np.zeros(N, np.int32)
    said: list[str] = []
    for module in modules(crossed()):
        begin = time.perf_counter()
        with pytest.raises(DeadlockError) as caught:
            module(A, B)
        assert time.perf_counter() - begin < 2
        said.append(str(caught.value))
        assert caught.value.message == (
            "deadlock in 'top': f_0 waits to write FIFO 's' (full, depth 4); "
            "g_0 waits to read FIFO 't' (empty, depth 4)"
        )
        assert caught.value.hint == "make 's' deeper, or read and write the FIFOs in the same order"
    assert said[0] == said[1]


def test_a_deadlock_names_instances_that_share_code() -> None:
    @df.region()
    def top(A: int32[3]):
        s: Stream[int32, 1][3]

        @df.kernel(mapping=[3], args=[A])
        def node(a: int32[3]):
            p = df.get_pid()
            a[p] = s[p].get()
            s[(p + 1) % 3].put(a[p])

    said: list[str] = []
    for module in modules(top):
        with pytest.raises(DeadlockError) as caught:
            module(np.zeros(3, np.int32))
        said.append(str(caught.value))
        assert caught.value.message == (
            "deadlock in 'top': node_0 waits to read FIFO 's_0' (empty, depth 1); "
            "node_1 waits to read FIFO 's_1' (empty, depth 1); "
            "node_2 waits to read FIFO 's_2' (empty, depth 1)"
        )
    assert said[0] == said[1]


@needs_compiler
def test_c_simulation_cannot_run_a_cycle() -> None:
    module = df.build(crossed(), project=None)
    A, B = ints(N), np.zeros(N, np.int32)
    module(A, B)  # unbounded there: what the simulator is for
    np.testing.assert_array_equal(B, 2 * A)


# -------------------------------------------------------------------------------------- refusals


def no_mapping() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def empty_mapping() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[0], args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def args_length() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A, A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def scalar_argument() -> Region:
    @df.region()
    def top(A: int32[N], n: int32):
        @df.kernel(mapping=[1], args=[A, n])
        def k(a: int32[N], n: int32):
            a[0] = n

    return top


def unknown_argument() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[Z])
        def k(a: int32[N]):
            a[0] = 1

    return top


def wrong_type() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A])
        def k(a: int16[N]):
            a[0] = 1

    return top


def wrong_shape() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N, 2]):
            a[0, 0] = 1

    return top


def both_ends() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a[0])
            a[1] = s.get()

    return top


def two_producers() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            s.put(a[0])

    return top


def two_consumers() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            p = df.get_pid()
            a[p] = s[1].get()

    return top


def runtime_index() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][N]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            for i in range(N):
                s[i].put(a[i])

    return top


def index_range() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            p = df.get_pid()
            s[p + 1].put(a[p])

    return top


def no_index() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a[0])

    return top


def computation() -> Region:
    @df.region()
    def top(A: int32[N]):
        for i in range(N):
            A[i] = 1

    return top


def pids() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[2, 2], args=[A])
        def k(a: int32[N]):
            i = df.get_pid()
            a[i] = 1

    return top


def block_shape() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32[2, 2], 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a)

    return top


def twice() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]  # noqa: F842
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def stream_value() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            a[0] = s + 1

    return top


def uneven_shard() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[3], args=[A])
        def k(a: int32[N] @ [allo.Layout.Shard(0)]):
            a[0] = 1

    return top


def gathered_types() -> Region:
    @df.region()
    def top(A: int32[2]):
        s: Stream[int32, 2]
        t: Stream[int16, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[2]):
            a[:] = df.gather([s, t])

    return top


REFUSALS: list[tuple[Callable[[], Region], type[FlexError], str, str, str]] = [
    (no_mapping, FrontendError, "FX107", "@df.kernel 'k' needs mapping=[...]", "@df.kernel(args=[A])"),
    (empty_mapping, FrontendError, "FX107", "mapping of 'k' must be one to 3 positive integers", "[0]"),
    (args_length, FrontendError, "FX107", "'args' length mismatch (expected 1, got 2).", "args=[A, A]"),
    (scalar_argument, FrontendError, "FX107", "Scalar 'n' cannot appear in args=[...] on @df.kernel 'k'",
     "args=[A, n]"),
    (unknown_argument, FrontendError, "FX102", "'Z' in args=[...] on @df.kernel 'k'", "args=[Z]"),
    (wrong_type, FrontendError, "FX104", "parameter a of kernel 'k' is int16[16], the argument is int32[16]",
     "a: int16[N]"),
    (wrong_shape, FrontendError, "FX105", "is int32[16, 2], the argument is int32[16]", "a: int32[N, 2]"),
    (both_ends, StreamError, "FX302", "kernel 'k_0' both reads and writes stream 's'", "s.put(a[0])"),
    (two_producers, StreamError, "FX302", "stream 's' has 2 producers: k_0, k_1", "s.put(a[0])"),
    (two_consumers, StreamError, "FX302", "stream 's_1' has 2 consumers: k_0, k_1", "s[1].get()"),
    (runtime_index, FrontendError, "FX113",
     "the index of stream s must be known at compile time, got `i`", "s[i].put"),
    (index_range, FrontendError, "FX106", "Index out of range: stream s has 2 along dimension 0, got 2",
     "s[p + 1].put"),
    (no_index, FrontendError, "FX106", "s is an array of streams with 1 dimension(s), got 0", "s.put"),
    (computation, FrontendError, "FX101", 'Unsupported node "For" in a region', "for i in range(N)"),
    (pids, FrontendError, "FX107", "the mapping has 2 dimension(s), 1 process id(s) wanted", "df.get_pid()"),
    (block_shape, FrontendError, "FX105", "stream s carries int32[2, 2], got int32[16]", "s.put(a)"),
    (twice, FrontendError, "FX111", "s is declared twice", "s: Stream[int32, 2]"),
    (stream_value, FrontendError, "FX104", "s is a stream; read it with .get()", "s + 1"),
    (uneven_shard, FrontendError, "FX105", "dimension 0 of a (16) is not a multiple of 3", "a: int32[N]"),
    (gathered_types, FrontendError, "FX104", "the streams carry different types", "[s, t]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "kind", "code", "message", "line"), REFUSALS, ids=[r[0].__name__ for r in REFUSALS]
)
def test_refusals(
    make: Callable[[], Region], kind: type[FlexError], code: str, message: str, line: str
) -> None:
    with pytest.raises(kind) as caught:
        df.customize(make())
    error = caught.value
    assert error.code == code
    assert message in error.message
    assert line in str(error)
    assert error.span is not None
    assert error.span.file == __file__


def test_all_places_of_two_producers_are_shown() -> None:
    with pytest.raises(StreamError) as caught:
        df.customize(two_producers())
    assert [p.label for p in caught.value.places] == ["written by k_0", "written by k_1"]


def test_get_pid_outside_of_a_region() -> None:
    def plain(A: int32[N]):
        p = df.get_pid()
        A[0] = p

    with pytest.raises(FrontendError, match=r"get_pid\(\) has no meaning outside of a dataflow kernel"):
        allo.customize(plain)
    with pytest.raises(UsageError, match=r"df.get_pid works in a kernel only"):
        df.get_pid()


def test_targets_and_options_of_the_npu_are_refused() -> None:
    with pytest.raises(TargetError, match="Target aie is not supported by this engine"):
        df.build(chain, target="aie")
    with pytest.raises(TargetError, match="Profiling is only supported for AIE target"):
        df.build(chain, target="simulator", profile=True)
    with pytest.raises(NotImplementedError, match="Target fpga is not supported"):
        df.build(chain, target="fpga")


# ------------------------------------------------------------------------------------ more shapes


def test_three_hundred_processes() -> None:
    stages = 300

    @df.region()
    def long(A: int32[8], B: int32[8]):
        s: Stream[int32, 2][stages + 1]

        @df.kernel(mapping=[1], args=[A])
        def feed(a: int32[8]):
            for i in range(8):
                s[0].put(a[i])

        @df.kernel(mapping=[stages])
        def stage():
            p = df.get_pid()
            for i in range(8):
                s[p + 1].put(s[p].get() + p)

        @df.kernel(mapping=[1], args=[B])
        def drain(b: int32[8]):
            for i in range(8):
                b[i] = s[stages].get()

    A, B = ints(8), np.zeros(8, np.int32)
    df.build(long, target="simulator")(A, B)
    np.testing.assert_array_equal(B, A + stages * (stages - 1) // 2)


def test_arrays_of_a_region_and_arrays_captured_by_name() -> None:
    @df.region()
    def top(A: int32[4], B: int32[4]):
        T: int32[4] = 0

        @df.kernel(mapping=[1], args=[T])
        def first(t: int32[4]):
            for i in range(4):
                t[i] = A[i] * 2

        @df.kernel(mapping=[2], args=[T, B])
        def second(t: int32[4], b: int32[4]):
            p = df.get_pid()
            for i in range(2):
                b[2 * p + i] = t[2 * p + i] + p

    A = ints(4)
    check(top, A, np.zeros_like(A), expect=[2 * A + np.array([0, 0, 1, 1])], csim=True)


def test_connected_processes_work_on_one_array_at_once() -> None:
    @df.region()
    def top(C: int32[3]):
        s: Stream[int32, 1][4]

        @df.kernel(mapping=[1])
        def feed():
            for i in range(8):
                s[0].put(i)

        @df.kernel(mapping=[3], args=[C])
        def pe(c: int32[3]):
            p = df.get_pid()
            for i in range(8):
                v: int32 = s[p].get()
                c[p] += v
                s[p + 1].put(v)

        @df.kernel(mapping=[1])
        def drain():
            for i in range(8):
                v: int32 = s[3].get()

    check(top, np.ones(3, np.int32), expect=[np.full(3, 29)], csim=True)


def test_process_ids_as_values_bounds_and_contents() -> None:
    @df.region()
    def top(A: int32[8], B: int32[8]):
        @df.kernel(mapping=[4], args=[A, B])
        def k(a: int32[8], b: int32[8]):
            p = df.get_pid()
            x: int32 = p
            y: int32[2] = [p, p + 1]
            start: ConstExpr[int32] = p * 2
            for i in range(start, start + 2):
                if p % 2 == 0:
                    b[i] = a[i] * x + y[0]
                else:
                    b[i] = a[i] // (p + 1) - y[1]

    A = ints(8)
    p = np.arange(8) // 2
    want = np.where(p % 2 == 0, A * p + p, A // (p + 1) - (p + 1))
    check(top, A, np.zeros_like(A), expect=[want], csim=True)
