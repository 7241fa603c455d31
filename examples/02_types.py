"""Lesson 2: integers of any width, fixed point, floats, and what an operator makes of them.

You learn that results are wide enough not to overflow, that assignment wraps to the declared type, and how
to get at single bits.  The rules are in docs/numerics.md.
"""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import Fixed, Int, UInt, float32, int8, int32, result_type, uint8

N = 8

assert result_type("+", int8, int8) == Int(9)
assert result_type("*", int8, int8) == Int(16)
assert result_type("-", uint8, uint8) == Int(9)  # a difference has a sign


def narrow(A: Int(5)[N], B: UInt(3)[N]) -> Int(8)[N]:
    C: Int(8)[N]
    for i in range(N):
        C[i] = A[i] * B[i]  # Int(8), exactly
    return C


def average(X: Fixed(12, 4)[N]) -> float32:
    total: Fixed(16, 4) = 0  # 12 integer bits: eight values cannot overflow
    for i in range(N):
        total += X[i]
    scaled: float32 = total  # conversions happen at assignments
    return scaled / N


def nibbles(x: UInt(16)) -> int32:
    low: UInt(4) = x[0:4]  # bits 0 to 3
    high: UInt(4) = x[12:16]
    return high * 16 + low


a, b = np.arange(-8, 8, 2), np.arange(8)
np.testing.assert_array_equal(allo.customize(narrow).build()(a, b), a * b)
assert allo.customize(average).build()(np.full(N, 1.25)) == 1.25
assert allo.customize(nibbles).build()(0xA00F) == 0xAF
