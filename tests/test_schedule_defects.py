"""Schedules that change the meaning of a program, or corrupt it, elsewhere: here they work or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import conv2d, gemm, imperfect, loop_names, refused, result, same_result, shift, vadd

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ScheduleNameError, ScheduleValueError, StreamError
from flexllm_allo.ir.types import int32
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.memory import Partition


def test_reorder_against_a_dependence_names_both_accesses():
    text = refused(allo.customize(shift), lambda s: s.reorder("j", "i"))
    assert "FX203" in text
    assert '"A" is read here first' in text or '"A" is written here first' in text
    assert text.count("A[i + 1, j] = A[i, j + 1]") == 2


def test_reorder_across_an_imperfect_nest():
    s = allo.customize(imperfect)
    assert 'loops "i" and "j" are not perfectly nested' in refused(s, lambda s: s.reorder("j", "i"))
    assert loop_names(s) == ["i", "j"]


def test_what_is_refused_is_not_recorded_and_leaves_nothing_behind():
    s = allo.customize(gemm)
    for call in (lambda: s.split("nowhere", 2), lambda: s.pipeline("k", initiation_interval=-3)):
        with pytest.raises(RuntimeError):
            call()
    assert s.primitive_sequences == []
    assert s.program is s.original
    s.build(target="vhls")


def unordered(A: int32[10]) -> int32[8]:
    B: int32[8]
    for x in range(8):
        B[x] = A[x + 2] - A[x] * A[x + 1]
    return B


def conditional(A: int32[10]) -> int32[10]:
    B: int32[10] = 0
    for x in range(10):
        if x > 0:
            B[x] = A[x] + A[x - 1]
    return B


def backwards(A: int32[10]) -> int32[8]:
    B: int32[8]
    for x in range(8):
        B[x] = A[9 - x] + A[8 - x]
    return B


def updated(A: int32[10]) -> int32[10]:
    for x in range(8):
        A[x] = A[x + 1] + A[x + 2]
    return A


def test_reuse_of_unordered_reads_is_right():
    same_result(unordered, lambda s: s.reuse_at(s.A, "x"))


@pytest.mark.parametrize(
    ("kernel", "axis", "why"),
    [
        (conditional, "x", '"A" is read under a condition'),
        (backwards, "x", '"A" is read backwards'),
        (updated, "x", 'the loop writes "A"'),
        (gemm, "j", 'it indexes no dimension of "A"'),
        (vadd, "i", 'no element of "A" is read again'),
        (conv2d, "r", 'it indexes several dimensions of "A"'),
    ],
)
def test_reuse_refused(kernel, axis, why):
    def diagonal(A: int32[6, 6]) -> int32[4]:
        B: int32[4] = 0
        for r in range(4):
            for q in range(2):
                B[r] += A[r + q, r]
        return B

    s = allo.customize(diagonal if axis == "r" else kernel)
    text = refused(s, lambda s: s.reuse_at(s.A, axis))
    assert f"Cannot find reuse pattern on axis {axis}: {why}" in text
    assert "primitive 1: reuse_at" in text
    assert "help: " in text


def reversed_reads(A: int32[10]) -> int32[10]:
    B: int32[10] = 0
    C: int32[10]
    for i in range(10, name="P"):
        B[i] = A[i]
    for i in range(10, name="Q"):
        C[i] = B[9 - i]
    return C


def in_order(A: int32[10]) -> int32[10]:
    B: int32[10] = 0
    C: int32[10]
    for i in range(10, name="P"):
        B[i] = A[i]
    for i in range(10, name="Q"):
        C[i] = B[i]
    return C


def test_streams_keep_the_order_and_drop_the_initialiser():
    text = refused(allo.customize(reversed_reads), lambda s: s.to(s.B, "Q"), StreamError)
    assert "access 0 writes B[0] but reads B[9]" in text
    text = refused(allo.customize(in_order), lambda s: s.to(s.B, "nowhere"), ScheduleNameError)
    assert 'no band or function "nowhere"' in text
    text = refused(allo.customize(in_order), lambda s: s.to(s.A, "P"), StreamError)
    assert '"A" is a parameter of "in_order"' in text
    s = same_result(in_order, lambda s: s.to(s.B, "Q", depth=2))
    assert str(s).count("B.put") == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.split("i", 0),
        lambda s: s.partition(s.A, dim=5),
        lambda s: s.partition(s.A, partition_type=Partition.Cyclic, dim=1, factor=0),
        lambda s: s.partition(s.A, partition_type=Partition.Block, dim=1, factor=100),
        lambda s: s.pipeline("i", initiation_interval=-3),
        lambda s: s.unroll("i", factor=-1),
        lambda s: s.reshape(s.A, (7, 5)),
        lambda s: s.unfold("S_i_j_k_0", [0, 2]),
    ],
)
def test_values_out_of_range(call):
    assert "FX204" in refused(allo.customize(gemm), call, ScheduleValueError)


def test_partition_after_a_complete_one_is_merged_or_refused():
    s = allo.customize(gemm)
    s.partition(s.A)
    s.partition(s.A, dim=1)
    assert [b.dim for b in buffers(s.top_func)["A"].banks] == [1, 2]
    text = refused(s, lambda s: s.partition(s.A, dim=1, partition_type=2, factor=2), ScheduleValueError)
    assert "Cannot partition the same array on dimension 1 twice: gemm:A" in text


def test_buffer_at_of_an_array_that_is_not_written():
    assert 'loop "i" does not write "A"' in refused(allo.customize(gemm), lambda s: s.buffer_at(s.A, "i"))


@pytest.mark.parametrize("written", ["grid", "range"])
def test_interleaved_accumulation_without_reduction_loops(written):
    def with_range(A: int32[6, 5], B: int32[5, 4]) -> int32[6, 4]:
        C: int32[6, 4] = 0
        for i, j in allo.grid(6, 4):
            for k in range(5):
                C[i, j] += A[i, k] * B[k, j]
        return C

    kernel = gemm if written == "grid" else with_range
    s = same_result(kernel, lambda s: (s.reorder("k", "j"), s.buffer_at(s.C, "i"), s.pipeline("j")))
    assert loop_names(s) == ["i", "j_init", "k", "j", "j_back"]


def stages(A: int32[6, 4]) -> int32[6, 4]:
    B: int32[6, 4]
    C: int32[6, 4]
    for i, j in allo.grid(6, 4, name="P"):
        B[i, j] = A[i, j] + 1
    for i, j in allo.grid(6, 4, name="Q"):
        C[i, j] = B[i, j] * 2
    return C


def caller(A: int32[6, 4]) -> int32[6, 4]:
    return stages["one"](A)


def test_compose_replays_every_primitive():
    inner = allo.customize(stages)
    inner.compute_at("P.i", "Q.i")
    inner.split("Q.i", 3)
    inner.dataflow("stages")
    inner.inline("stages")
    inner.partition("stages:B", dim=2)
    s = allo.customize(caller)
    s.compose(inner, id="one")
    function = s.program.function("stages_one")
    assert function.dataflow
    assert function.inline
    assert list(s.get_loops("stages_one").loops) == ["Q"]
    a = np.arange(24, dtype=np.int32).reshape(6, 4)
    np.testing.assert_array_equal(Interpreter(s.program)(a), (a + 1) * 2)


def test_compose_of_fuse_by_string():
    inner = allo.customize(stages)
    fused = inner.fuse("stages:P.i", "stages:P.j")
    assert repr(fused) == "LoopWrapper(stages:P.i_j_fused)"
    s = allo.customize(caller)
    s.compose(inner, id="one")
    assert list(s.get_loops("stages_one")["P"].loops) == ["i_j_fused"]


def test_fuse_with_function_names_looks_in_that_function():
    s = allo.customize(caller)
    fused = s.fuse("stages_one:P.i", "stages_one:P.j")
    assert repr(fused) == "LoopWrapper(stages_one:P.i_j_fused)"
    s.split(fused, 8)


def test_split_by_the_whole_extent():
    s = same_result(gemm, lambda s: s.split("j", 4))
    a, b = (np.ones(shape, np.int8) for shape in ((6, 5), (5, 4)))
    np.testing.assert_array_equal(result(s, [a, b]), np.full((6, 4), 5))
