"""The MLIR export: upstream MLIR parses, verifies and runs it to the same bits as our LLVM."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import ir_random
import mlir_jit
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.containers import width
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.backend.mlir import to_mlir
from flexllm_allo.errors import BackendError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import DType, Float
from flexllm_allo.ir.types import (
    Fixed,
    Int,
    Stateful,
    Stream,
    UInt,
    float16,
    float32,
    float64,
    index,
    int8,
    int32,
    int64,
    uint8,
)

N = 16
pytestmark = pytest.mark.filterwarnings("ignore::flexllm_allo.errors.DTypeWarning")


def run(program: ir.Program, text: str, *args: object) -> Any:
    if find_spec("torch_mlir") is None:
        pytest.skip("torch-mlir is not installed: pip install torch-mlir")
    return mlir_jit.run(program, text, *args)


def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
    C: int32[6, 4] = 0
    for i, j, k in allo.grid(6, 4, 5):
        C[i, j] += A[i, k] * B[k, j]
    return C


def odd_widths(A: Int(5)[N], B: UInt(7)[N]) -> Int(13)[N]:
    C: Int(13)[N]
    for i in range(N):
        C[i] = A[i] * B[i] - (B[i] >> 2) + (A[i] << 1)
    return C


def floor_division(A: int32[N], B: int32[N]) -> (int32[N], int32[N]):
    Q: int32[N]
    R: int32[N]
    for i in range(N):
        Q[i] = A[i] // B[i]
        R[i] = A[i] % B[i]
    return Q, R


def unsigned_compare(A: uint8[N], B: uint8[N]) -> uint8[N]:
    C: uint8[N]
    for i in range(N):
        C[i] = A[i] if A[i] < B[i] else max(A[i], 100)
    return C


def softmax(X: float32[4, N]) -> float32[4, N]:
    Y: float32[4, N]
    for i in range(4):
        top: float32 = X[i, 0]
        for j in range(N):
            top = max(top, X[i, j])
        total: float32 = 0.0
        for j in range(N):
            Y[i, j] = allo.exp(X[i, j] - top)
            total += Y[i, j]
        for j in range(N):
            Y[i, j] = Y[i, j] / total
    return Y


def half_precision(A: float16[N], B: float16[N]) -> float16[N]:
    C: float16[N]
    for i in range(N):
        C[i] = A[i] * B[i] + allo.sqrt(A[i] * A[i])
    return C


def doubles(A: float64[N]) -> float64[N]:
    C: float64[N]
    for i in range(N):
        C[i] = A[i] % 0.75 + A[i] // 0.1
    return C


def row_sum(row: int32[N], bias: int32) -> int32:
    total: int32 = bias
    for i in range(N):
        total += row[i]
    return total


def calls_with_views(A: int32[3, N]) -> int32[3]:
    C: int32[3]
    for i in range(3):
        C[i] = row_sum(A[i], i)
    return C


def collatz(n: int32) -> int32:
    steps: int32 = 0
    value: int64 = n
    while value != 1:
        if value % 2 == 0:
            value = value // 2
        elif value > 0:
            value = 3 * value + 1
        else:
            value = 1
        steps += 1
    return steps


def triangle(n: index, A: int32[N, N]) -> int32[N]:
    C: int32[N] = 0
    for i in range(N):
        for j in range(i, N, 2):
            if j % 3 != 0 and A[i, j] > 0:
                C[i] += A[i, j]
    for i in range(n):
        C[i] = -C[i]
    return C


def table(A: UInt(4)[N]) -> Int(9)[N]:
    lut: Int(9)[16] = [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, 144, 169, 196, 225]
    C: Int(9)[N]
    for i in range(N):
        C[i] = lut[A[i]] - 128
    return C


def fixed_point(A: Fixed(12, 4)[N], B: Fixed(10, 6)[N]) -> Fixed(16, 5)[N]:
    C: Fixed(16, 5)[N]
    for i in range(N):
        C[i] = A[i] * B[i] - A[i]
    return C


def running_sum(A: int32[4]) -> int32[4]:
    B: int32[4]
    total: int32 @ Stateful = 100
    for i in range(4):
        total += A[i]
        B[i] = total
    return B


def any_length(A: int32[...], n: int32) -> int32:
    total: int32 = 0
    for i in range(n):
        total += A[i]
    return total


def bits(A: UInt(16)[N]) -> UInt(16)[N]:
    C: UInt(16)[N]
    for i in range(N):
        C[i] = ~(A[i][4:12] ^ A[i][0:8]) | (A[i] << 9)
    return C


def stencil_in_place(A: int32[N]):
    for i in range(1, N - 1):
        A[i] = A[i - 1] + A[i + 1]


KERNELS = [
    gemm, odd_widths, floor_division, unsigned_compare, softmax, half_precision, doubles, calls_with_views,
    collatz, triangle, table, fixed_point, bits, stencil_in_place, running_sum,
]  # fmt: skip


def draw(dtype: DType, shape: tuple[int, ...], r: np.random.Generator) -> Any:
    if dtype.is_float or dtype.is_fixed:
        return r.normal(0, 4, shape).astype(np.float64)
    low, high = (-(1 << (dtype.bits - 1)), 1 << (dtype.bits - 1)) if dtype.signed else (0, 1 << dtype.bits)
    values = r.integers(low, high, shape, dtype=np.int64)
    values[np.abs(values) < 1] = 1
    return values if shape else 27 if dtype.bits == 32 and dtype.signed else 5


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_upstream_mlir_computes_the_same(kernel: Callable[..., Any]) -> None:
    s, r = allo.customize(kernel), np.random.default_rng(1)
    inputs = [draw(b.dtype, b.shape, r) for b in s.top_func.inputs]
    if kernel is stencil_in_place:
        inputs = [inputs[0].astype(np.int32)]
    given = [[x.copy() if isinstance(x, np.ndarray) else x for x in inputs] for _ in range(2)]
    expected, got = s.build()(*given[0]), run(s.program, s.mlir(), *given[1])
    for a, b in zip([expected, *given[0]], [got, *given[1]], strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
            np.testing.assert_array_equal(x, y)


class NarrowIR(ir_random.RandomIR):
    """Random columns whose division fits 64 bits (else a compiler library is called), without libm."""

    def dtype(self) -> DType:
        while True:
            dtype = super().dtype()
            if isinstance(dtype, Float) and dtype.fracs != 7:
                return dtype
            if not isinstance(dtype, Float) and width(dtype) <= 24 and dtype.fracs <= 16:
                return dtype

    def expr(self, t: DType, depth: int) -> ir.Expr:
        return super().expr(t, depth if width(t) <= 64 else 0)

    def float_expr(self, t: DType, depth: int) -> ir.Expr:
        while True:
            e = super().float_expr(t, depth)
            exact = ("sqrt", "abs", "floor", "round")
            if not isinstance(e, ir.Math) or e.name in exact:
                return e


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 40))
def test_random_expressions_compute_the_same(seed: int) -> None:
    source = NarrowIR(seed)
    p, values = source.program(outputs=3, depth=2), source.values()
    text = to_mlir(p)
    for a, b in zip(LLVMModule(p)(*values), run(p, text, *values), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_text_shows_the_schedule_and_the_source() -> None:
    s = allo.customize(gemm)
    s.split("i", 4)
    s.pipeline("j", initiation_interval=2)
    s.unroll("k", 5)
    s.partition(s.A, dim=2)
    text = s.mlir()
    assert "affine.for %i.inner = 0 to min affine_map<(d0) -> (4, d0 * -4 + 6)>(%i.outer)" in text
    assert '{loop_name = "j", pipeline_ii = 2 : i32}' in text
    assert '{loop_name = "k", unroll = 5 : i32}' in text
    assert 'flexllm.partition = [{kind = "complete", dim = 2 : i32}]' in text
    assert "affine.load %A[%i.inner + %i.outer * 4, %k] : memref<6x5xi8> loc(#loc" in text
    line = gemm.__code__.co_firstlineno + 3
    assert re.search(rf'#loc\d+ = loc\(".*test_mlir\.py":{line}:9\)', text)
    assert "loc(" not in s.mlir(locations=False)
    a, b = np.ones((6, 5), np.int8), np.ones((5, 4), np.int8)
    np.testing.assert_array_equal(run(s.program, text, a, b), np.full((6, 4), 5))


def test_bounds_and_indices_that_are_not_affine_are_left_to_scf_and_memref() -> None:
    text = allo.customize(triangle).mlir()
    assert "affine.for %j = affine_map<(d0) -> (d0)>(%i) to 16 step 2" in text
    assert "scf.for %i_" in text
    assert "memref.load %lut[" in allo.customize(table).mlir()


def test_arrays_of_any_length() -> None:
    s = allo.customize(any_length)
    text = s.mlir()
    assert "%A: memref<?xi32>" in text
    assert run(s.program, text, np.arange(7, dtype=np.int32), 7) == 21


def streamed(A: int32[8]) -> int32[8]:
    B: int32[8]
    fifo: Stream[int32, 2]
    for i in range(8):
        fifo.put(A[i])
        B[i] = fifo.get()
    return B


def test_streams_are_refused_with_their_place() -> None:
    with pytest.raises(BackendError) as caught:
        allo.customize(streamed).mlir()
    error = caught.value
    assert error.code == "FX403"
    assert "MLIR export cannot express a FIFO ('fifo')" in str(error)
    assert error.span is not None
    assert error.span.line == streamed.__code__.co_firstlineno + 2
    assert "before `to`" in error.hint


def test_cpp_functions_are_refused() -> None:
    program = allo.customize(row_sum).program
    outside = replace(program.function("row_sum"), extern=ir.Extern("row_sum", "row_sum.cpp"), body=())
    with pytest.raises(
        BackendError, match=r"row_sum is written in C\+\+, which MLIR's dialects cannot hold"
    ) as caught:
        to_mlir(program.with_function(outside))
    assert caught.value.span == program.function("row_sum").span
