"""Loop primitives: what they make, that results keep every bit, and the text of every refusal."""

from __future__ import annotations

import re

import numpy as np
import pytest
from schedule_kernels import HERE as KERNELS
from schedule_kernels import (
    convolution,
    gemm,
    gemm_f,
    imperfect,
    loop_names,
    refused,
    result,
    runtime_bound,
    same_result,
    shift,
    stencil,
    strided,
    triangle,
)

import flexllm_allo as allo
from flexllm_allo.errors import ScheduleNameError, ScheduleValueError
from flexllm_allo.ir.types import int32
from flexllm_allo.schedule.schedule import Schedule

# ---------------------------------------------------------------------------------- what they make


def test_gemm_schedule_of_the_design():
    def schedule(s):
        s.split("j", 2)
        s.reorder("k", "j.inner")
        s.pipeline("k")
        s.unroll("j.inner")

    s = same_result(gemm, schedule)
    assert loop_names(s) == ["i", "j.outer", "k", "j.inner"]
    assert str(s.trace) == (
        'def schedule(s):\n    s.split("j", 2)\n    s.reorder("k", "j.inner")\n    s.pipeline("k")\n'
        '    s.unroll("j.inner")'
    )
    assert "for k in range(5):  # pipeline II=1" in str(s)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6])
def test_split_any_factor(factor):
    s = same_result(gemm, lambda s: s.split("i", factor))
    assert loop_names(s)[:2] == ["i.outer", "i.inner"]


def test_split_twice_and_of_a_strided_loop():
    s = same_result(gemm, lambda s: (s.split("i", 4), s.split("i.inner", 2)))
    assert loop_names(s)[:3] == ["i.outer", "i.inner.outer", "i.inner.inner"]
    same_result(strided, lambda s: s.split("i", 4))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 20])
def test_split_of_a_run_time_bound(n):
    s = allo.customize(runtime_bound)
    a = np.arange(20, dtype=np.int32)
    before = result(s, [n, a])
    s.split("i", 4)
    s.fuse("i.inner", "j")
    np.testing.assert_array_equal(result(s, [n, a]), before)


def test_fuse_returns_the_fused_loop_and_it_splits_again():
    def schedule(s):
        fused = s.fuse("i", "j")
        assert repr(fused) == "LoopWrapper(gemm:S_i_j_k_0.i_j_fused)"
        s.split(fused, 5)

    s = same_result(gemm, schedule)
    assert loop_names(s) == ["i_j_fused.outer", "i_j_fused.inner", "k"]


def test_fuse_of_split_loops():
    def schedule(s):
        s.split("i", 2)
        s.split("j", 2)
        s.reorder("i.outer", "j.outer", "i.inner", "j.inner")
        s.fuse("gemm:i.outer", "gemm:j.outer")

    s = same_result(gemm, schedule)
    assert loop_names(s) == ["i.outer_j.outer_fused", "i.inner", "j.inner", "k"]


def test_loops_of_equal_names():
    def twice(A: int32[4]) -> int32[4]:
        B: int32[4]
        for i in range(4):
            B[i] = A[i]
        for i in range(4):
            B[i] = B[i] + 1
        return B

    s = allo.customize(twice)
    assert "Find multiple bands containing loop i" in refused(s, lambda s: s.split("i", 2), ScheduleNameError)
    s.split(s.get_loops()["S_i_1"]["i"], 2)
    s.pipeline("S_i_0.i")
    assert repr(s.get_loops().S_i_1) == "LoopBand(['i.outer', 'i.inner'])"
    with pytest.raises(AttributeError, match="No such loop q"):
        _ = s.get_loops().S_i_0["q"]


def test_siblings_of_equal_names_are_numbered():
    def siblings(A: int32[4, 4]) -> int32[4, 4]:
        B: int32[4, 4]
        for i in range(4):
            for j in range(4):
                B[i, j] = A[i, j]
            for j in range(4):
                B[i, j] = B[i, j] + 1
        return B

    s = allo.customize(siblings)
    assert loop_names(s) == ["i", "j", "j_1"]
    s.pipeline("j_1")
    assert str(s).count("pipeline") == 1


def test_reorder_keeps_the_places_of_loops_not_named():
    s = same_result(gemm, lambda s: s.reorder("k", "i"))
    assert loop_names(s) == ["k", "j", "i"]
    assert [band for band, _ in s.get_loops()] == ["S_i_j_k_0"]


def test_float_sum_keeps_its_order():
    s = same_result(gemm_f, lambda s: s.reorder("k", "j"))
    assert loop_names(s) == ["i", "k", "j"]


def test_reassociate_allows_what_changes_rounding():
    s = allo.customize(convolution)
    text = refused(s, lambda s: s.reorder("q", "r"))
    assert 's.reassociate("q") allows it' in text
    s.reassociate("q")
    s.reassociate("r")
    s.reorder("q", "r")
    assert loop_names(s) == ["i", "q", "r"]


def test_triangle_split():
    same_result(triangle, lambda s: (s.split("j", 2), s.split("i", 3)))


def test_parallel():
    s = allo.customize(gemm)
    s.parallel("i")
    assert 'forbids running loop "k" in parallel' in refused(s, lambda s: s.parallel("k"))


def test_inline_and_views():
    s = allo.customize(gemm)
    s.inline()
    assert s.top_func.inline


# ------------------------------------------------------------------------------- trace and replay


def test_replay_and_function_schedules():
    def tile(s: Schedule, factor: int) -> None:
        s.split("j", factor)
        s.reorder("k", "j.inner")

    a = allo.customize(gemm)
    a.apply(tile, factor=2)
    b = allo.customize(gemm)
    b.replay(a.trace)
    assert a.program == b.program
    assert b.primitive_sequences[0] == ("split", ["j", 2], {})
    scope: dict = {}
    exec(str(a.trace), scope)
    c = allo.customize(gemm)
    c.apply(scope["schedule"])
    assert c.program == a.program


def test_apply_is_all_or_nothing():
    def broken(s: Schedule) -> None:
        s.split("j", 2)
        s.split("nowhere", 2)

    refused(allo.customize(gemm), lambda s: s.apply(broken), ScheduleNameError)


# --------------------------------------------------------------------------------------- refusals


def line_of(kernel, text: str) -> tuple[int, int]:
    """Line and column (from 1) of a text in a kernel of this file."""
    lines = open(KERNELS).read().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"def {kernel.__name__}("))
    line = next(i for i in range(start, len(lines)) if text in lines[i])
    return line + 1, lines[line].index(text) + 1


def test_dependence_refused_with_both_accesses():
    s = allo.customize(shift)
    text = refused(s, lambda s: s.reorder("j", "i"))
    line, write = line_of(shift, "A[i + 1, j] =")
    read = line_of(shift, "A[i, j + 1]")[1]
    lines = text.splitlines()
    assert lines[0] == 'ScheduleError FX203: a dependence on "A" forbids the order j, i'
    assert lines[1] == f"  --> KERNELS:{line}:{write}"
    assert lines[3].endswith('^^^^^^^^^^^ "A" is written here first (i earlier, j later)')
    assert lines[4] == f"  --> KERNELS:{line}:{read}"
    assert lines[6].endswith("^^^^^^^^^^^ and the same element is read here afterwards")
    assert re.fullmatch(re.escape(f"  --> {__file__}:") + r"\d+:\d+", lines[7])
    assert lines[9].endswith("primitive 1: reorder")
    assert lines[10] == "  help: keep the order of these loops, or write the result into another buffer"


def test_imperfect_nest_names_the_statement():
    s = allo.customize(imperfect)
    text = refused(s, lambda s: s.reorder("j", "i"))
    line, column = line_of(imperfect, "C[i] = 0")
    assert 'FX202: loops "i" and "j" are not perfectly nested' in text
    assert f"--> KERNELS:{line}:{column}" in text
    assert "this statement is between" in text


def test_triangular_reorder_refused():
    assert "its bound depends on it" in refused(allo.customize(triangle), lambda s: s.reorder("j", "i"))


def transposed_sum(X: int32[4, 4], Y: int32[4, 4]):
    for i, j in allo.grid(4, 4):
        Y[i, j] = X[j, i] + 1


def apart(A: int32[4, 4], B: int32[4, 4]):
    transposed_sum(A, B)


def in_place(A: int32[4, 4]):
    transposed_sum(A, A)


def test_one_array_under_two_names():
    allo.customize(apart).reorder("transposed_sum:j", "transposed_sum:i")
    s = allo.customize(in_place)
    assert 'FX203: a dependence on "X"' in refused(
        s, lambda s: s.function("transposed_sum").reorder("j", "i")
    )


def test_a_mistyped_primitive_is_found():
    with pytest.raises(ScheduleNameError, match='did you mean "reorder"') as caught:
        allo.customize(gemm).reordre("i", "j")  # codespell:ignore
    assert "known names" not in str(caught.value)
    assert "known names: A, B, C" in refused(allo.customize(gemm), lambda s: s.foo, ScheduleNameError)


def test_loops_by_kernel():
    assert repr(allo.customize(gemm).get_loops(gemm)) == "LoopBand(['S_i_j_k_0'])"


def test_bounds_that_the_body_changes():
    def shrinking(A: int32[8]) -> int32[8]:
        n: int32 = 8
        for i in range(n):
            n = n - 1
            A[i] = n
        return A

    s = same_result(shrinking, lambda s: s.split("i", 2))  # a range is evaluated once
    assert "i.inner" in loop_names(s)


def test_stencil_time_loop_is_kept():
    s = allo.customize(stencil)
    assert "FX203" in refused(s, lambda s: s.reorder("i", "t"))
    same_result(stencil, lambda s: s.reorder("j", "i"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.split("i", 0), "FX204: split factor must be an integer of at least 1, got 0"),
        (lambda s: s.split("i", 7), 'FX204: split factor 7 exceeds the extent 6 of loop "i"'),
        (lambda s: s.pipeline("i", initiation_interval=-3), "FX204: initiation_interval must be"),
        (lambda s: s.unroll("i", -1), "FX204: unroll factor must be"),
        (lambda s: s.unroll("i", 9), "FX204: unroll factor 9 exceeds the extent 6"),
        (lambda s: s.reorder("i"), "FX204: reorder needs two loops or more"),
        (lambda s: s.fuse("i"), "FX204: fuse needs two loops or more"),
    ],
)
def test_out_of_range(call, message):
    text = refused(allo.customize(gemm), call, ScheduleValueError)
    assert message in text
    assert "primitive 1: " in text
    assert isinstance(ScheduleValueError("FX204", ""), ValueError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.split("q", 2), 'FX201: Cannot find the band of loop q in function "gemm"'),
        (lambda s: s.split("f:i", 2), "FX201: Function f not found"),
        (lambda s: s.fuse("j", "i"), "FX205: fuse needs adjacent loops, outermost first"),
        (lambda s: s.fuse("i", "k"), "FX205: fuse needs adjacent loops, outermost first"),
        (lambda s: s.reorder("i", "i"), 'FX204: loop "i" is named twice'),
        (lambda s: s.reassociate("k"), 'FX205: loop "k" carries no float reduction'),
        (lambda s: s.foo, 'FX201: no buffer or primitive "foo" in "gemm"'),
    ],
)
def test_does_not_apply(call, message):
    assert message in refused(allo.customize(gemm), call)


def test_names_catchable_as_attribute_error():
    with pytest.raises(AttributeError):
        _ = allo.customize(gemm).nothing
    assert not hasattr(allo.customize(gemm), "nothing")


def test_annotated_loops():
    s = allo.customize(gemm)
    s.unroll("k")
    assert 'loop "k" is unrolled and cannot be split any more' in refused(s, lambda s: s.split("k", 5))
    r = allo.customize(runtime_bound)
    assert "has a run-time bound and cannot be unrolled completely" in refused(r, lambda s: s.unroll("i"))
    r.unroll("i", 2)
