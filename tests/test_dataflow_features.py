"""Dataflow regions: blocks, nesting, templates, captured names, layouts."""

from __future__ import annotations

import numpy as np
from region_engines import check, ints, modules

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.ir.types import ConstExpr, Stateful, Stream, float32, int16, int32, int64

N = 16


# ----------------------------------------------------------------------- blocks, gather and scatter


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


# ------------------------------------------------------ nesting, templates, captured names, helpers

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


# -------------------------------------------------------------------------------------- more shapes


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
