"""Kernels that the tests of schedules share, and how two schedules are compared."""

from __future__ import annotations

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import FlexError, ScheduleError
from flexllm_allo.ir.types import float32, index, int8, int32
from flexllm_allo.ir.verify import verify
from flexllm_allo.schedule.schedule import Schedule

HERE = __file__


def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
    C: int32[6, 4] = 0
    for i, j, k in allo.grid(6, 4, 5):
        C[i, j] += A[i, k] * B[k, j]
    return C


def gemm_f(A: float32[6, 5], B: float32[5, 4]) -> float32[6, 4]:
    C: float32[6, 4] = 0.0
    for i, j, k in allo.grid(6, 4, 5):
        C[i, j] += A[i, k] * B[k, j]
    return C


def stencil(A: int32[8, 8]) -> int32[8, 8]:
    B: int32[8, 8] = 0
    for t in range(3):
        for i, j in allo.grid(6, 6):
            B[i + 1, j + 1] = B[i, j + 1] + A[i + 2, j + 1] + B[i + 1, j]
    return B


def triangle(A: int32[7, 7]) -> int32[7]:
    C: int32[7] = 0
    for i in range(7):
        for j in range(i + 1):
            C[i] += A[i, j] * (j + 1)
    return C


def convolution(A: float32[10], W: float32[3, 3]) -> float32[8]:
    C: float32[8] = 0.0
    for i, r, q in allo.grid(8, 3, 3):
        C[i] += A[i + r] * W[r, q]
    return C


def shift(A: int32[8, 8]):
    for i, j in allo.grid(7, 7):
        A[i + 1, j] = A[i, j + 1]


def imperfect(A: int32[4, 4]) -> int32[4]:
    C: int32[4]
    for i in range(4):
        C[i] = 0
        for j in range(4):
            C[i] += A[i, j]
    return C


def strided(A: int32[20]) -> int32[20]:
    B: int32[20] = 0
    for i in range(1, 19, 3):
        B[i] = A[i] * 2
    return B


def runtime_bound(n: index, A: int32[20]) -> int32[20]:
    B: int32[20] = 0
    for i in range(n):
        for j in range(2):
            B[i] += A[i] + j
    return B


def vadd(A: int32[10], B: int32[10]) -> int32[10]:
    C: int32[10]
    for i in range(10):
        C[i] = A[i] + B[i]
    return C


def double(A: int32[4, 3]) -> int32[4, 3]:
    C: int32[4, 3]
    for i, j in allo.grid(4, 3):
        C[i, j] = A[i, j] * 2
    return C


def total(x: float32[8]) -> float32:
    acc: float32 = 0.0
    for i in range(8):
        acc += x[i]
    return acc


def producer_consumer(A: int32[10]) -> int32[10]:
    B: int32[10]
    C: int32[10]
    for i in range(10):
        B[i] = A[i] + 1
    for i in range(10):
        C[i] = B[i] * 2
    return C


def fork(A: int32[10]) -> (int32[10], int32[10]):
    C: int32[10]
    D: int32[10]
    for i in range(10):
        C[i] = A[i] * A[i]
    for i in range(10):
        D[i] = A[i] + 1
    return C, D


def blur(A: int32[10]) -> int32[8]:
    B: int32[8]
    for x in range(8):
        B[x] = A[x] + A[x + 1] + A[x + 2]
    return B


def conv2d(A: int32[10, 11], W: int32[3, 3]) -> int32[4, 9]:
    B: int32[4, 9] = 0
    for y, x in allo.grid(4, 9):
        v: int32 = 0
        for r, c in allo.reduction(3, 3):
            v += A[y * 2 + r, x + c] * W[r, c]
        B[y, x] = v
    return B


def two_stages(A: int32[8, 9]) -> int32[6, 7]:
    B: int32[8, 9]
    C: int32[6, 7]
    for i, j in allo.grid(8, 9, name="P"):
        B[i, j] = A[i, j] * 3
    for i, j in allo.grid(6, 7, name="Q"):
        C[i, j] = B[i, j] + B[i + 1, j + 2] - B[i + 2, j]
    return C


def inputs(kernel) -> list[np.ndarray]:
    """Random arguments for a kernel's array inputs."""
    rng = np.random.default_rng(1)
    out = []
    for buffer in allo.customize(kernel).top_func.inputs:
        if not buffer.shape:
            out.append(11)
        elif buffer.dtype.is_float:
            out.append(rng.standard_normal(buffer.shape).astype(np.float32))
        else:
            kind = np.int8 if buffer.dtype.bits == 8 else np.int32
            out.append(rng.integers(-100, 100, buffer.shape).astype(kind))
    return out


def result(s: Schedule, args: list) -> np.ndarray:
    """Run both CPU backends on copies; a kernel without results gives its first argument."""
    verify(s.program)
    outs = []
    for backend in (Interpreter, LLVMModule):
        shapes = [b.shape for b in s.program.function(s.program.top).inputs]
        given = [
            a.copy().reshape(shape) if isinstance(a, np.ndarray) else a
            for a, shape in zip(args, shapes, strict=True)
        ]
        out = backend(s.program)(*given)
        outs.append(given[0] if out is None else out)
    np.testing.assert_array_equal(outs[0], outs[1])
    return outs[0]


def same_result(kernel, schedule) -> Schedule:
    s = allo.customize(kernel)
    args = inputs(kernel)
    before = result(s, args)
    schedule(s)
    np.testing.assert_array_equal(result(s, args).reshape(before.shape), before)
    return s


def loop_names(s: Schedule) -> list[str]:
    (band,) = (band for _, band in s.get_loops())
    return list(band.loops)


def refused(s: Schedule, call, kind: type[FlexError] = ScheduleError) -> str:
    """The text of a refusal; nothing may have changed."""
    before = s.program, s.trace
    with pytest.raises(kind) as caught:
        call(s)
    assert (s.program, s.trace) == before
    return str(caught.value).replace(HERE, "KERNELS")


def rows(A: int32[6, 4], n: int32) -> int32[6, 4]:
    B: int32[6, 4] = 0
    for i in range(n, name="row"):
        scale: int32 = A[i, 0]
        double: int32[4]
        for j in range(4):
            double[j] = A[i, j] * 2
        for k in range(4):
            B[i, k] = double[k] * scale
    return B


def dots(Q: int8[4, 6], K: int8[5, 6]) -> int32[6, 4]:
    Y: int32[6, 4]
    top: int32[4] = -100000
    for s in range(5, name="key"):
        key: int8[6]
        for d_row in range(6):
            key[d_row] = K[s, d_row]
        dot: int32[4] = 0
        for d, q in allo.grid(6, 4):
            dot[q] += Q[q, d] * key[d]
        for q_out in range(4):
            Y[s, q_out] = dot[q_out]
            top[q_out] = max(top[q_out], dot[q_out])
    for q_top in range(4):
        Y[5, q_top] = top[q_top]
    return Y
