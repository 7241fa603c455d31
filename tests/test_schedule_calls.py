"""Loops around calls: what a callee touches is known in terms of its arguments, element by element."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import refused, same_result

import flexllm_allo as allo
from flexllm_allo.ir.types import Stateful, float32, int32
from flexllm_allo.schedule.schedule import Schedule

G, D = 3, 4


def own_columns(X: int32[5], group: int32, n: int32, Y: int32[5, 24]):
    total: int32[G] = 0
    for t in range(n):
        for j, d in allo.grid(G, D):
            total[j] += X[t]
            Y[t, (group * G + j) * D + d] = total[j] + d


def by_group(X: int32[5]) -> int32[5, 24]:
    Y: int32[5, 24] = 0
    for g in range(2):
        own_columns(X, g, 4, Y)
    return Y


def one_too_many(X: int32[5], group: int32, Y: int32[5, 25]):
    for t in range(5):
        for j, d in allo.grid(G, D + 1):
            Y[t, (group * G + j) * D + d] = X[t] + d


def overlapping(X: int32[5]) -> int32[5, 25]:
    Y: int32[5, 25] = 0
    for g in range(2):
        one_too_many(X, g, Y)
    return Y


def row_of_choice(X: int32[5], t: int32, Y: int32[5]):
    r: int32 = X[t]
    Y[r] = t


def scattered(X: int32[5]) -> int32[5]:
    Y: int32[5] = 0
    for t in range(5):
        row_of_choice(X, t, Y)
    return Y


def moved_on(t: int32, Y: int32[6]):
    t = t // 2
    Y[t] = t


def moved(X: int32[5]) -> int32[6]:
    Y: int32[6] = 0
    for t in range(5):
        moved_on(t, Y)
    return Y


def count(Y: int32[1]):
    calls: int32 @ Stateful = 0
    calls += 1
    Y[0] = calls


def counting() -> int32[5, 1]:
    Y: int32[5, 1] = 0
    for t in range(5):
        count(Y[t])
    return Y


def row_sum(A: float32[6], total: float32[1]):
    for k in range(6):
        total[0] += A[k]


def rows(A: float32[4, 6]) -> float32[4, 1]:
    S: float32[4, 1] = 0.0
    for i in range(4):
        row_sum(A[i], S[i])
    return S


def all_rows(A: float32[4, 6]) -> float32[1]:
    S: float32[1] = 0.0
    for i in range(4):
        row_sum(A[i], S)
    return S


def next_row(A: int32[6], B: int32[6]):
    for k in range(6):
        B[k] = A[k] + 1


def chained(A: int32[5, 6]):
    for i in range(4):
        next_row(A[i], A[i + 1])


@pytest.mark.parametrize(("kernel", "loop"), [(by_group, "g"), (rows, "i")])
def test_iterations_whose_calls_write_apart_may_be_parallel(kernel, loop):
    same_result(kernel, lambda s: s.parallel(loop))


@pytest.mark.parametrize(
    ("kernel", "loop", "buffer", "line"),
    [
        (overlapping, "g", "Y", "Y[t, (group * G + j) * D + d] = X[t] + d"),
        (scattered, "t", "Y", "Y[r] = t"),
        (moved, "t", "Y", "Y[t] = t"),
        (counting, "t", "count.calls", "calls += 1"),
        (all_rows, "i", "S", "total[0] += A[k]"),
        (chained, "i", "A", "B[k] = A[k] + 1"),
    ],
)
def test_what_calls_share_is_refused_at_the_callees_line(kernel, loop, buffer, line):
    s = allo.customize(kernel)
    text = refused(s, lambda s: s.parallel(loop))
    assert f'FX203: a dependence on "{buffer}" forbids running loop "{loop}" in parallel' in text
    assert line in text


def twice(A: int32[6], row: int32, B: int32[4, 6]):
    for k in range(6):
        B[row, k] = 2 * A[k]


def nested(A: int32[4, 6]) -> int32[4, 6]:
    B: int32[4, 6] = 0
    for i in range(4):
        through(A, i, B)
    return B


def through(A: int32[4, 6], i: int32, B: int32[4, 6]):
    twice(A[3 - i], 3 - i, B)


def test_calls_of_calls():
    same_result(nested, lambda s: s.parallel("i"))


def test_threads_take_such_a_loop():
    def grid(X: float32[8, 4096]) -> float32[8, 4096]:
        Y: float32[8, 4096] = 0.0
        for g in range(8):
            spread(X[g], g, Y)
        return Y

    def spread(X: float32[4096], group: int32, Y: float32[8, 4096]):
        for i in range(4096):
            Y[group, i] = X[i] * 2.0

    s: Schedule = allo.customize(grid)
    s.parallel("g")
    X = np.random.default_rng(0).standard_normal((8, 4096), np.float32)
    np.testing.assert_array_equal(s.build()(X), X * 2)
