"""`narrow`: sums in as few bits as hold them, to the last value that terms can have."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import gemm_f

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ScheduleError, ToolError
from flexllm_allo.ir.types import Int, UInt, int8, int32
from flexllm_allo.ir.walk import buffers

Tx, Tw = allo.params("Tx, Tw")


@allo.template(Tx, Tw)
def dots(X: Tx[3, 40], W: Tw[5, 40]) -> int32[3, 5]:
    acc: int32[3, 5] = 0
    for t, n, k in allo.grid(3, 5, 40, name="mac"):
        acc[t, n] += X[t, k] * W[n, k]
    Y: int32[3, 5]
    for t, n in allo.grid(3, 5, name="out"):
        Y[t, n] = acc[t, n] - 1
    return Y


def halves(X: int8[10]) -> int32[4]:
    """Even elements get terms of one loop, odd ones of another, and start from 100."""
    acc: int32[4] = 100
    for k, i in allo.grid(10, 2, name="even"):
        acc[2 * i] += X[k]
    for k2, i2 in allo.grid(5, 2, name="odd"):
        acc[2 * i2 + 1] = X[k2] + acc[2 * i2 + 1]
    Y: int32[4]
    for j in range(4):
        Y[j] = acc[j]
    return Y


def both_signs(X: int8[10]) -> int32[1]:
    """Terms that are never small behind terms that are never large: the sum is lowest between them."""
    acc: int32[1] = 0
    for k in range(10):
        acc[0] += X[k]
    for k2 in range(10):
        acc[0] += 300
    Y: int32[1]
    Y[0] = acc[0]
    return Y


def cut(X: int32[10]) -> int32[1]:
    """A term that a conversion makes smaller first."""
    acc: int32[1] = 0
    for k in range(10):
        x: int8 = X[k]
        acc[0] += x
    Y: int32[1]
    Y[0] = acc[0]
    return Y


def moved(X: int8[10]) -> int32[10]:
    acc: int32[10] = 0
    for k in range(9):
        acc[k + 1] = acc[k] + X[k]
    Y: int32[10]
    for j in range(10):
        Y[j] = acc[j]
    return Y


def run_time(X: int8[10], n: int32) -> int32[1]:
    acc: int32[1] = 0
    for k in range(n):
        acc[0] += X[k]
    Y: int32[1]
    Y[0] = acc[0]
    return Y


@pytest.mark.parametrize(
    ("x", "w", "expected"),
    [
        (UInt(4), Int(4), 14),  # 40 products of -120 .. 105
        (Int(8), Int(8), 21),  # of -16,256 .. 16,384
        (UInt(4), UInt(4), 15),  # of 0 .. 225
    ],
)
def test_all_sums_fit(x: allo.ir.dtypes.DType, w: allo.ir.dtypes.DType, expected: int) -> None:
    s = allo.customize(dots, instantiate=[x, w])
    s.narrow(s.acc)
    assert buffers(s.top_func)["acc"].dtype == Int(expected)
    ends = [
        np.array([[-(2 ** (t.bits - 1)), 2 ** (t.bits - 1) - 1] if t.signed else [0, 2**t.bits - 1]])
        for t in (x, w)
    ]
    X, W = (np.resize(np.repeat(e, 40, 1), (rows, 40)) for e, rows in zip(ends, (3, 5), strict=True))
    X[1], X[2], W[1:4] = ends[0][0, 0], ends[0][0, 1], np.array([ends[1][0, 0], ends[1][0, 1], 0])[:, None]
    X, W = X.astype(np.int8 if x.signed else np.uint8), W.astype(np.int8 if w.signed else np.uint8)
    total = X.astype(np.int32) @ W.astype(np.int32).T - 1
    np.testing.assert_array_equal(Interpreter(s.program)(X, W), total)
    np.testing.assert_array_equal(s.build()(X, W), total)
    try:
        find_compiler()
    except ToolError:
        return
    np.testing.assert_array_equal(CSimModule(s.program)(X, W), total)


def test_terms_of_other_elements_do_not_count() -> None:
    s = allo.customize(halves)
    s.narrow(s.acc)
    assert buffers(s.top_func)["acc"].dtype == Int(12)  # 100 - 10 * 128 is the least
    for x in (-128, 127):
        X = np.full(10, x, np.int8)
        np.testing.assert_array_equal(s.build()(X), [100 + 10 * x, 100 + 5 * x] * 2)


def test_sums_fit_on_the_way_too() -> None:
    s = allo.customize(both_signs)
    s.narrow(s.acc)
    assert buffers(s.top_func)["acc"].dtype == Int(14)  # -1,280 .. 4,270
    for x in (-128, 127):
        assert s.build()(np.full(10, x, np.int8)).tolist() == [10 * x + 3000]


def test_a_term_is_what_its_conversion_leaves() -> None:
    s = allo.customize(cut)
    s.narrow(s.acc)
    assert buffers(s.top_func)["acc"].dtype == Int(12)
    X = np.full(10, 255 + 127, np.int32)
    assert s.build()(X).tolist() == [10 * 126]


@pytest.mark.parametrize(
    ("kernel", "target", "message", "line"),
    [
        (moved, "acc", '"acc" is more than a sum', "acc[k + 1] = acc[k] + X[k]"),
        (run_time, "acc", "how many terms are added is known at run time only", "acc[0] += X[k]"),
        (moved, "X", '"X" is no local array of signed integers', "X: int8[10]"),
        (gemm_f, "C", '"C" is no local array of signed integers', "C: "),
    ],
)
def test_refusals(kernel, target: str, message: str, line: str) -> None:
    s = allo.customize(kernel)
    before = s.program
    with pytest.raises(ScheduleError) as caught:
        s.narrow(target)
    assert caught.value.code == "FX205"
    assert message in str(caught.value)
    assert line in str(caught.value)
    assert s.program is before
