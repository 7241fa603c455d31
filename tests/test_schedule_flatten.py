"""`flatten`: one nest of what a loop does, with arrays as small as an iteration needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from schedule_kernels import dots, rows, same_result

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.errors import ScheduleError
from flexllm_allo.estimate.result import LoopTiming
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import int32
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.schedule import Schedule
from flexllm_allo.schedule.stage import vectorized


def flat(s: Schedule, queries: int) -> None:
    vectorized(s, {"d_row": 0, "q": queries, "q_out": queries, "d": 0}, pairs="q", flat="s")


def shape(s: Schedule, name: str) -> tuple[int, ...]:
    return buffers(s.top_func)[name].shape


def loops(s: Schedule, **scalars: int) -> list[LoopTiming]:
    return [row for stage in s.estimate("u280", **scalars).stages for row in stage.loops]


@pytest.mark.parametrize("queries", [1, 2, 4])
def test_a_row_meets_some_queries_per_iteration_and_keeps_every_bit(queries: int) -> None:
    s = same_result(dots, lambda s: flat(s, queries))
    pipelines = [n.var for n in walk(s.top_func.body) if isinstance(n, ir.For) and n.attrs.pipeline]
    assert pipelines[-2] == ("s" if queries == 4 else "q_out.outer" if queries == 2 else "q_out")
    assert shape(s, "dot") == (queries if queries < 4 else 4,)
    assert shape(s, "key") == (6,)  # what all iterations of a row read


def test_the_nest_is_one_pipeline_and_reads_a_row_once() -> None:
    s = allo.customize(dots)
    flat(s, 1)
    row = next(r for r in loops(s) if r.loop[0] == "s")
    assert (row.loop, row.trips, row.ii) == ("s/q_out", 20, 1)
    apart = allo.customize(dots)
    vectorized(apart, {"d_row": 0, "d": 0})
    cycles = [sum(r.cycles for r in loops(each) if r.loop[0] == "s") for each in (s, apart)]
    assert cycles[0] < cycles[1] / 3


@pytest.mark.parametrize("n", [0, 3, 6])
def test_what_comes_before_the_nest_runs_in_its_first_iteration(n: int) -> None:
    s = allo.customize(rows)
    a = np.random.default_rng(0).integers(-99, 99, (6, 4), np.int32)
    expected = s.build()(a, n)
    s.flatten("i")
    s.pipeline()
    assert shape(s, "double") == (1,)
    for module in (s.build(), s.build(target="simulator"), CSimModule(s.program)):
        np.testing.assert_array_equal(module(a, n), expected)


def shared(A: int32[6, 4]) -> int32[6, 4]:
    B: int32[6, 4]
    for i in range(6):
        line: int32[8] = 0
        for j in range(4):
            line[j] = A[i, j]
        for k in range(4):
            B[i, k] = line[k] + line[k + 4]
    return B


def moved(A: int32[6, 5]) -> int32[6, 4]:
    B: int32[6, 4]
    for i in range(6):
        for j in range(1, 5):
            A[i, j] = A[i, j] + 1
        for k in range(1, 5):
            j: int32 = A[i, k] * 3
            B[i, k - 1] = j
    return B


def test_loops_need_not_begin_at_zero() -> None:
    same_result(moved, lambda s: s.flatten("i"))


def late(A: int32[6, 4]) -> int32[6, 4]:
    B: int32[6, 4]
    for i in range(6):
        line: int32[4]
        for j in range(4):
            line[j] = A[i, j]
        for k in range(4):
            B[i, k] = line[3 - k]
    return B


def summed(A: int32[6, 4]) -> int32[6]:
    B: int32[6]
    for i in range(6):
        total: int32 = 0
        for j in range(4):
            total += A[i, j]
        half: int32 = total // 2
        for k in range(4):
            B[i] = half + k
    return B


def ragged(A: int32[6, 4]) -> int32[6]:
    B: int32[6]
    for i in range(6):
        line: int32[4]
        for j in range(3):
            line[j] = A[i, j]
        for k in range(4):
            B[i] = line[k]
    return B


def trailing(A: int32[6, 4]) -> int32[6, 4]:
    B: int32[6, 4]
    for i in range(6):
        for j in range(4):
            B[i, j] = A[i, j]
        B[i, 0] = 1
    return B


def test_an_array_that_iterations_share_stays_as_large() -> None:
    def tables(A: int32[6, 4]) -> int32[6, 4]:
        B: int32[6, 4]
        for i in range(6):
            line: int32[4]
            for j in range(4):
                line[j] = A[i, j]
            for k in range(4):
                B[i, k] = line[k] + line[0]
        return B

    s = same_result(tables, lambda s: s.flatten("i"))
    assert shape(s, "line") == (4,)


@pytest.mark.parametrize(
    ("kernel", "loop", "code", "message", "hint"),
    [
        (late, "i", "FX203", 'a dependence on "line" forbids it', "keep the nests apart"),
        (summed, "i", "FX203", 'a dependence on "total" forbids it', "keep the nests apart"),
        (ragged, "i", "FX205", 'what cannot run in one iteration of "k"', "unroll it"),
        (shared, "i", "FX205", 'what cannot run in one iteration of "k"', "unroll it"),
        (trailing, "i", "FX205", "does not end in a nest of constant extent", "the last statement"),
    ],
)
def test_refusals(kernel: Any, loop: str, code: str, message: str, hint: str) -> None:
    s = allo.customize(kernel)
    before = s.program
    with pytest.raises(ScheduleError, match=f'loop "{loop}" cannot become one nest: .*{message}') as caught:
        s.flatten(loop)
    assert caught.value.code == code
    assert hint in caught.value.hint
    assert "primitive 1: flatten" in str(caught.value)
    assert s.program is before
