"""The language in C++: many small kernels in one program, compiled once, against the other backends."""

from __future__ import annotations

import numpy as np
from differential import same

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.ir.types import (
    Fixed,
    Int,
    Stateful,
    Struct,
    UInt,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
)

Word = Struct({"a": UInt(4), "b": Int(12), "c": float32, "d": Fixed(10, 3)})


def bits(x: int32) -> int32:
    x[0] = 1
    x[4:8] = 5
    x[28:32] += 3
    y: UInt(7) = x[3:10]
    return x + y.reverse()


def digits(x: uint32, n: int32) -> uint32:
    swapped: uint32 = 0
    for p in range(4):
        swapped[(3 - p) * 8 : (4 - p) * 8] = x[p * 8 : p * 8 + 8]
    swapped[n : n + 3] = 0
    return swapped


def wide(x: uint32) -> uint32:
    y: UInt(200) = x
    y[130:162] = x
    y[3] = 1
    z: UInt(200) = y.reverse()
    return z[38:70]


def structs(x: int32) -> float64:
    w: Word = {"a": x, "b": -x, "c": x * 0.5, "d": 1.375}
    A: Word[2]
    A[1] = w
    A[1]["b"] += 1
    A[1]["a"][2] = 1
    v: Word = A[1]
    return v["a"] + v["b"] * 100 + v["c"] + v["d"]


def bitcasts(x: float32, h: uint16) -> float32:
    u: uint32 = x.bitcast()
    u[31] = ~u[31]
    k: int32 = u
    return k.bitcast() + h.bitcast()


def divisions(a: int32, b: int32) -> int32:
    return (a // b) * 1000000 + (a % b) * 1000 + (a / b)


def mixed(a: uint8, b: int8, f: Fixed(8, 4)) -> int32:
    r: int32 = -a
    r += (a - 255) * 1000
    if a < b or f < 0:
        r += 7
    c = not (a > b)
    return r + int(max(f, 0) * 16) + c


def strides(n: int32, step: int32) -> int32:
    r: int32 = 0
    for i in range(1, n, step):
        r = r * 7 + i
        n += 1
    return r


def literals(x: float64) -> float64:
    return x * 3.141592653589793 + 5000000000


def counted(x: int32) -> int32:
    total: int32 @ Stateful = 5
    total += x
    return total


def top(
    n: int32, u: uint32, x: float32, d: float64, a: uint8, b: int8, f: Fixed(8, 4)
) -> (int64[10], float64[4]):
    R: int64[10] = 0
    F: float64[4] = 0
    R[0] = bits(n)
    R[1] = digits(u, 5)
    R[2] = wide(u)
    R[3] = divisions(n, b)
    R[4] = mixed(a, b, f)
    R[5] = strides(20, 3)
    R[6] = counted(n)
    R[7] = counted(n)
    R[8] = ~n ^ (n << 3)
    F[0] = structs(n)
    F[1] = bitcasts(x, 0x4248)
    F[2] = literals(d)
    F[3] = n if f > 0 else f
    return R, F


def test_every_backend_agrees():
    schedule = allo.customize(top)
    modules = [schedule.build(target="interpreter"), schedule.build(), CSimModule(schedule.program)]
    for given in [
        (123456, 0x01020384, 1.5, 0.1, 200, -100, -1.25),
        (-7, 0xFFFFFFFF, -0.25, -2.5, 0, 127, 3.5),
        (5, 1, 3.0, 1e10, 255, 3, 0.0625),
    ]:
        first, *others = [module(*given) for module in modules]
        for other in others:
            assert same(first, other), (given, first, other)
    numbers, floats = modules[0](5, 1, 3.0, 0.1, 255, 3, 0.0625)
    assert numbers[1] == 0x01000000
    assert numbers[3] == 1 * 1000000 + 2 * 1000 + 1
    np.testing.assert_array_equal(floats[2:], [0.1 * 3.141592653589793 + 5e9, 5.0])
