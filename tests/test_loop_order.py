"""The CPU backend's own loop order: contiguous where it may, the program's where it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.containers import container
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule, loop_order
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import float32, int8, int32
from flexllm_allo.ir.walk import walk

N = 20


def gemm(A: int8[N, N], B: int8[N, N]) -> int32[N, N]:
    C: int32[N, N] = 0
    for i, j, k in allo.grid(N, N, N):
        C[i, j] += A[i, k] * B[k, j]
    return C


def gemm_f(A: float32[N, N], B: float32[N, N]) -> float32[N, N]:
    C: float32[N, N] = 0.0
    for i, j, k in allo.grid(N, N, N):
        C[i, j] += A[i, k] * B[k, j]
    return C


def by_rows(A: float32[N, N], B: float32[N, N]) -> float32[N, N]:
    C: float32[N, N] = 0.0
    for i, j, k in allo.grid(N, N, N):
        C[i, j] += A[i, k] * B[j, k]
    return C


def columns_summed(A: float32[N, N], y: float32[N]):
    for j in range(N):
        for i in range(N):
            y[j] += A[i, j]


def diagonal_wave(A: int32[N, N]):
    for j, i in allo.grid(N - 1, N - 1):
        A[i + 1, j] = A[i, j + 1] + 1


def sum_of_all(A: float32[N, N]) -> float32:
    total: float32 = 0.0
    for j in range(N):
        for i in range(N):
            total += A[i, j]
    return total


@pytest.fixture(autouse=True)
def _small_nests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_order, "WORTH_IT", 1)


def order(kernel: Callable[..., Any]) -> str:
    program = loop_order.contiguous_loops(allo.customize(kernel).program)
    loops = [n for n in walk(program.function(program.top).body) if isinstance(n, ir.For)]
    return "".join(loop.var for loop in loops if not loop.var.startswith("_"))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (gemm, "ikj"),
        (gemm_f, "ikj"),  # each element still sums over k upwards
        (by_rows, "ijk"),  # contiguous already
        (columns_summed, "ij"),
        (diagonal_wave, "ji"),  # the other order reads what is not written yet
        (sum_of_all, "ji"),  # another order rounds differently
    ],
)
def test_order(kernel: Callable[..., Any], expected: str) -> None:
    assert order(kernel) == expected
    s = allo.customize(kernel)
    given_: list[list[Any]] = []
    for _ in range(2):
        r = np.random.default_rng(0)
        shapes = [(container(b.dtype), b.shape) for b in s.top_func.inputs]
        given_.append([(r.standard_normal(shape) * 50).astype(kind) for kind, shape in shapes])
    expected_out, out = Interpreter(s.program)(*given_[0]), LLVMModule(s.program)(*given_[1])
    np.testing.assert_array_equal(out, expected_out)
    for a, b in zip(*given_, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def nests(draw: st.DrawFn) -> str:
    """A nest of three loops in any order around one update with indices shifted and exchanged."""
    loops = draw(st.permutations("ijk"))
    index = st.tuples(st.sampled_from("ijk"), st.integers(0, 2)).map(lambda t: f"{t[0]} + {t[1]}")
    pair = st.tuples(index, index).map(lambda t: f"{t[0]}, {t[1]}")
    op = draw(st.sampled_from(["=", "+="]))
    arrays = [draw(st.sampled_from(["A", "B", "C"])) for _ in range(2)]
    dtype = draw(st.sampled_from(["int32", "float32"]))
    left, x, y = (draw(pair) for _ in range(3))
    return (
        f"def f(A: {dtype}[6, 6], B: {dtype}[6, 6], C: {dtype}[6, 6]):\n"
        f"    for {', '.join(loops)} in allo.grid(4, 3, 4):\n"
        f"        C[{left}] {op} {arrays[0]}[{x}] + {arrays[1]}[{y}]\n"
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nests())
def test_random_nests_keep_every_bit(source: str) -> None:
    s = allo.customize(source, global_vars={"allo": allo, "int32": int32, "float32": float32})
    kind = np.int32 if "int32" in source else np.float32
    runs: list[list[Any]] = []
    for backend in (Interpreter, LLVMModule):
        r = np.random.default_rng(3)
        arrays = [(r.standard_normal((6, 6)) * 100).astype(kind) for _ in range(3)]
        backend(s.program)(*arrays)
        runs.append(arrays)
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
