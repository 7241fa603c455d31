"""reuse_at, compute_at, reshape, unfold, systolic to, and what a Schedule tells."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import blur, conv2d, double, gemm, loop_names, refused, same_result, two_stages

import flexllm_allo as allo
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import ScheduleError, StreamError
from flexllm_allo.ir.types import index, int8, int32
from flexllm_allo.ir.verify import verify
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.names import LoopWrapper
from flexllm_allo.schedule.trace import MockBuffer

# ------------------------------------------------------------------------------------------- reuse


def test_line_and_window_buffers():
    def schedule(s):
        line = s.reuse_at(s.A, "y")
        window = s.reuse_at(line, "x")
        assert repr(line) == "MockBuffer(conv2d:S_y_x_0_reuse_0)"
        assert repr(window) == "MockBuffer(conv2d:S_y_x_0_reuse_1)"
        s.partition(line, dim=1)
        s.partition(window)
        s.pipeline("x")

    s = same_result(conv2d, schedule)
    assert loop_names(s) == ["y", "x", "r", "c"]
    table = buffers(s.top_func)
    assert table["S_y_x_0_reuse_0"].shape == (3, 11)
    assert table["S_y_x_0_reuse_1"].shape == (3, 3)
    assert "for y in range(5" in str(s)  # a stride of 2 and a window of 3: one iteration to fill
    assert "for x in range(11)" in str(s)
    again = allo.customize(conv2d)
    again.replay(s.trace)
    assert again.program == s.program


def test_reuse_in_a_tile():
    s = same_result(blur, lambda s: (s.split("x", 4), s.reuse_at(s.A, "x.inner")))
    assert "A[x_outer * 4 + x_inner]" in str(s)


def test_reuse_of_the_argument_reads_each_element_once():
    s = same_result(blur, lambda s: s.reuse_at("A", "x"))
    assert str(s).count("= A[") == 1


@pytest.mark.parametrize(("step", "size"), [(2, 2), (3, 2)])
def test_a_pooling_window_is_brought_in_though_nothing_is_read_twice(step, size):
    def pool(A: int32[2, 12, 12]) -> int32[2, 4, 4]:
        B: int32[2, 4, 4] = 0
        for c, y, x in allo.grid(2, 4, 4):
            v: int32 = 0
            for r, q in allo.reduction(size, size):
                v += A[c, y * step + r, x * step + q]
            B[c, y, x] = v
        return B

    def schedule(s):
        line = s.reuse_at(s.A, "y")
        s.reuse_at(line, "x")

    s = same_result(pool, schedule)
    assert buffers(s.top_func)["S_c_y_x_0_reuse_2"].shape == (size, size)
    assert "for y in range(4)" in str(s)  # no iteration to fill


# --------------------------------------------------------------------------------------- compute_at


@pytest.mark.parametrize(("axis", "loops"), [("i", ["i", "j", "j_1"]), ("j", ["i", "j"])])
def test_consumer_runs_behind_the_producer(axis, loops):
    def schedule(s):
        bands = s.get_loops()
        s.compute_at(bands.P.j, bands.Q[axis])

    s = same_result(two_stages, schedule)
    assert [band for band, _ in s.get_loops()] == ["Q"]
    assert loop_names(s) == loops
    assert "i >= 2" in str(s)


def test_compute_at_renames_the_loops_that_clash():
    def transposed(A: int32[5, 6]) -> int32[6]:
        B: int32[6, 5]
        C: int32[6] = 0
        for i, j in allo.grid(6, 5, name="P"):
            B[i, j] = A[j, i]
        for j in range(6, name="Q"):
            for i in range(5):
                C[j] += B[j, i]
        return C

    s = same_result(transposed, lambda s: s.compute_at("P.i", "Q.j"))
    assert loop_names(s) == ["j", "j_1", "i"]


def test_compute_at_refused():
    def reverse(A: int32[8]) -> int32[8]:
        B: int32[8]
        C: int32[8]
        for i in range(8, name="P"):
            B[i] = A[i]
        for i in range(8, name="Q"):
            C[i] = B[7 - i]
        return C

    s = allo.customize(reverse)
    text = refused(s, lambda s: s.compute_at("P.i", "Q.i"))
    assert 'FX203: a dependence on "B" forbids computing band "P" at "i"' in text
    assert text.count("-->") == 3
    assert 'band "Q" comes after "P"' in refused(s, lambda s: s.compute_at("Q.i", "P.i"))
    assert "in one band" in refused(s, lambda s: s.compute_at("P.i", "P.i"))


# ------------------------------------------------------------------------------------------ reshape


def row(X: int32[4]) -> int32[4]:
    Y: int32[4]
    for i in range(4):
        Y[i] = X[i] + 1
    return Y


def rows(A: int32[2, 3, 4]) -> int32[2, 3, 4]:
    B: int32[2, 3, 4]
    for i, j in allo.grid(2, 3, name="call"):
        T: int32[4] = row(A[i, j])
        for k in range(4):
            B[i, j, k] = T[k]
    return B


def test_reshape_of_a_result_an_argument_and_through_calls():
    s = same_result(double, lambda s: (s.reshape(s.C, (2, 6)), s.reshape(s.A, (12,))))
    assert "def double(A: int32[12]) -> int32[2, 6]:" in str(s)
    s = same_result(rows, lambda s: (s.reshape(s.A, (6, 4)), s.reshape("row:X", (2, 2))))
    assert s.top_func.params[0].shape == (6, 2, 2)
    assert s.program.function("row").params[0].shape == (2, 2)


def test_reshape_refused():
    s = allo.customize(rows)
    text = refused(s, lambda s: s.reshape(s.A, (2, 12)))
    assert 'a part of the array is passed to "row" and would not be one any more' in text
    s.partition(s.B, dim=2)
    assert "has banks on a dimension that changes" in refused(s, lambda s: s.reshape(s.B, (6, 4)))
    assert "cannot reshape" in refused(s, lambda s: s.reshape(s.B, (5, 5)))


# ----------------------------------------------------------------------------------------- systolic

M, N, K = 3, 2, 7


def element(A_in: int8[K], B_in: int8[K], A_out: int8[K], B_out: int8[K], C: int32[M, N], i: index, j: index):
    for k in range(K):
        a: int8 = A_in[k]
        b: int8 = B_in[k]
        C[i, j] += a * b
        A_out[k] = a
        B_out[k] = b


def called(A: int8[M, K], B: int8[K, N], C: int32[M, N]):
    A_fifo: int8[M, N + 1, K]
    B_fifo: int8[N, M + 1, K]
    A_drain: int8[M]
    B_drain: int8[N]
    for k in range(K, name="data_load"):
        for m in range(M):
            A_fifo[m, 0, k] = A[m, k]
        for n in range(N):
            B_fifo[n, 0, k] = B[k, n]
    for i, j in allo.grid(M, N, name="PE"):
        element(A_fifo[i, j], B_fifo[j, i], A_fifo[i, j + 1], B_fifo[j, i + 1], C, i, j)
    for k in range(K, name="data_drain"):
        for m in range(M):
            A_drain[m] = A_fifo[m, N, k]
        for n in range(N):
            B_drain[n] = B_fifo[n, M, k]


def written_out(A: int8[M, K], B: int8[K, N], C: int32[M, N]):
    A_fifo: int8[M, N + 1, K]
    B_fifo: int8[N, M + 1, K]
    A_drain: int8[M]
    B_drain: int8[N]
    for k in range(K, name="data_load"):
        for m in range(M):
            A_fifo[m, 0, k] = A[m, k]
        for n in range(N):
            B_fifo[n, 0, k] = B[k, n]
    for i, j in allo.grid(M, N, name="PE"):
        for k in range(K):
            a: int8 = A_fifo[i, j, k]
            b: int8 = B_fifo[j, i, k]
            C[i, j] += a * b
            A_fifo[i, j + 1, k] = a
            B_fifo[j, i + 1, k] = b
    for k in range(K, name="data_drain"):
        for m in range(M):
            A_drain[m] = A_fifo[m, N, k]
        for n in range(N):
            B_drain[n] = B_fifo[n, M, k]


@pytest.mark.parametrize("top", [called, written_out])
def test_systolic_array(top):
    s = allo.customize(top)
    pe = s.unfold("PE", [1, 0])
    assert pe == [0, 1]
    s.to(s.A_fifo, pe, axis=1, depth=2)
    s.to(MockBuffer(top.__name__, "B_fifo"), pe, axis=0, depth=2)
    verify(s.program)
    assert len(s.program.functions) == 2
    assert "PE" not in s.get_loops()
    rng = np.random.default_rng(0)
    a, b = rng.integers(-99, 99, (M, K)).astype(np.int8), rng.integers(-99, 99, (K, N)).astype(np.int8)
    for backend in (Interpreter, LLVMModule):
        c = np.zeros((M, N), np.int32)
        backend(s.program)(a, b, c)
        np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32))
    text = emit(s.program)
    assert text.count("_out.write(a)") + text.count("_fifo_1.write(a)") == 1
    assert "hls::stream< int8_t > A_fifo[3][3];" in text
    again = allo.customize(top)
    again.replay(s.trace)
    assert again.program == s.program


def test_systolic_to_refused():
    def forgotten(A: int8[4, 7]):
        F: int8[4, 5, 7]
        for m, k in allo.grid(4, 7, name="load"):
            F[m, 0, k] = A[m, k]
        for i, j in allo.grid(4, 4, name="PE"):
            for k in range(7):
                F[i, j + 1, k] = F[i, j, k]

    s = allo.customize(forgotten)
    pe = s.unfold("PE", [0, 1])
    text = refused(s, lambda s: s.to(s.F, pe, axis=1), StreamError)
    assert "where F[0, 4, 0] is written, F[1, 0, 0] is read" in text
    assert "Band PE not found" in refused(s, lambda s: s.unfold("PE", [0, 1]))


# ---------------------------------------------------------------------------------------- surface


def test_what_a_schedule_tells():
    s = allo.customize(rows)
    s.partition(s.A, dim=3, partition_type=Partition.Cyclic, factor=2)
    assert s.partitioned_arrays == {
        "row:X": [(Partition.Cyclic, 1, 2)], "rows:A": [(Partition.Cyclic, 3, 2)],
    }  # fmt: skip
    assert s.get_equivalent_variables("rows:A") == {"rows:0", "row:0"}
    assert s.get_equivalent_variables("rows:T") == {"rows:T", "row:Y"}
    assert s.get_equivalent_variables("rows:nothing") == []
    assert [(a.name, a.shape, a.dtype) for a in s.func_args["row"]] == [("X", (4,), int32)]
    assert s.func_instances == {"row": ["row"], "rows": ["rows"]}
    assert s.ext_libs == []
    assert s.top_func.name == s.top_func_name == "rows"
    assert s.primitive_sequences[0][0] == "partition"


def test_loops_by_object():
    s = allo.customize(gemm)
    bands = s.get_loops(gemm)
    band = bands["S_i_j_k_0"]
    assert [name for name, _ in band] == ["i", "j", "k"]
    assert repr(band.get_outer_most()) == "LoopWrapper(gemm:S_i_j_k_0.i)"
    assert (band.i.func, band.i.band, band.i.loop) == ("gemm", "S_i_j_k_0", "i")
    s.reorder(band.k, band.j)
    s.split(band.j, 2)
    s.pipeline(LoopWrapper("gemm:S_i_j_k_0.j.inner"))
    s.parallel(band)
    assert 'for i in range(6, name="S_i_j_k_0"):  # parallel' in str(s)
    assert s.get_loops()["S_i_j_k_0"]["j.inner"].name == "gemm:S_i_j_k_0.j.inner"


def test_compose_finds_schedules_of_the_library():
    s = allo.customize(gemm)
    with pytest.raises(TypeError, match="The first argument must be a Schedule object"):
        s.compose(3)
    with pytest.raises(ScheduleError, match="Cannot find schedule for kernel gemm"):
        s.compose(gemm)
