"""Types, bits, structs and variables with a life of their own."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from differential import agree

import flexllm_allo as allo
import flexllm_allo.ir.types as T
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.errors import BackendError, DTypeError, FrontendError
from flexllm_allo.ir.types import (
    ConstExpr,
    Fixed,
    Float,
    Int,
    Stateful,
    Stream,
    Struct,
    UFixed,
    UInt,
    bfloat16,
    float16,
    float32,
    index,
    int8,
    int16,
    int32,
    int64,
    result_type,
    uint8,
    uint16,
    uint32,
    uint64,
)

N = 16

# ------------------------------------------------------------------------------------------ types


def test_two_spellings_of_a_type():
    codes = [str(t) for t in (int8, UInt(17), Fixed(12, 4), UFixed(10, 6), float32, bfloat16, index, T.bool)]
    assert codes == ["i8", "ui17", "fixed(12, 4)", "ufixed(10, 6)", "f32", "bf16", "index", "ui1"]
    assert [repr(t) for t in (int8, UInt(17), Fixed(12, 4), bfloat16)] == [
        "int8",
        "UInt(17)",
        "Fixed(12, 4)",
        "bfloat16",
    ]
    assert f"{int8[4, 2]} {UInt(17).name}" == "int8[4, 2] UInt(17)"


def test_attributes_of_types():
    assert (Fixed(12, 4).bits, Fixed(12, 4).fracs) == (12, 4)
    assert Float(16, 7, "bf16") == bfloat16 != float16
    assert (int32 @ Stateful).stateful
    assert not int32.stateful
    assert ConstExpr[int32].constexpr
    assert result_type("+", Int(8), UInt(8)) == Int(10)
    with pytest.raises(DTypeError, match=r"Bitwidth must be an integer\."):
        Int("8")  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="maximum supported fractional bitwidth is 255"):
        Fixed(300, 256)


def test_structs_compare_by_fields():
    point = Struct({"x": int32, "y": float32})
    assert point["x"] == int32
    assert point.y == float32
    assert point.bits == 64
    assert point == Struct({"x": int32, "y": float32}) != Struct({"x": int32, "z": float32})
    assert str(point) == "struct"
    assert repr(point) == "Struct({'x': int32, 'y': float32})"
    assert point[4].shape == (4,)
    with pytest.raises(DTypeError, match="Field z not found in struct type"):
        point["z"]
    with pytest.raises(AttributeError):
        point.z  # noqa: B018


# ------------------------------------------------------------------------------------------- bits


def test_bits_of_scalars_and_elements():
    def bits(x: int32, B: uint8[4]) -> int32:
        x[0] = 1
        x[4:8] = 5
        for i in range(4):
            B[i][0:2] = i
            B[i][7] = 1
        y: int32 = x[0:4]
        x[28:32] += 3
        x[1] |= 1
        return x + y

    result = agree(bits, 16, np.zeros(4, np.uint8))
    assert result == (3 << 28) + 0b1010011 + 1


def test_bit_slices_with_a_run_time_start():
    def digits(x: uint32) -> (int32, uint32):
        total: int32 = 0
        swapped: uint32 = 0
        for p in range(4):
            total += x[p * 8 : (p + 1) * 8]
            swapped[(3 - p) * 8 : (4 - p) * 8] = x[p * 8 : p * 8 + 8]
        return total, swapped

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree(digits, 0x01020304) == [10, 0x04030201]


def test_slices_whose_width_depends_on_two_values():
    def between(x: int32, n: int32, m: int32) -> (uint32, uint32):
        y: uint32 = x[n:m]
        z: uint32 = x[0 : n % 2 + m // 4096 + 1]
        return y, z

    with pytest.warns(RuntimeWarning, match="Cannot infer the bitwidth of the slice"):
        assert agree(between, 0b110111, 1, 5) == [0b1011, 0b11]
    with pytest.warns(RuntimeWarning, match="Cannot infer the bitwidth of the slice"):
        assert agree(between, 0b110111, 2, 4) == [0b01, 0b1]


def test_a_slice_of_unknown_width_is_uint32_with_a_warning():
    def clear(x: int64, n: int32) -> (int64, int64):
        y: int64 = x[0:n]
        x[n : n + n] = 0
        return x, y

    with pytest.warns(RuntimeWarning, match=r"Cannot infer the bitwidth of the slice, use UInt\(32\)"):
        assert agree(clear, 0x7777_7777, 12) == [0x7700_0777, 0x777]


@pytest.mark.parametrize("width", [1, 7, 8, 32, 48])
def test_reverse(width):
    def reverse(x: UInt(width)) -> UInt(width):
        return x.reverse()

    value = 0x1234_5678_9ABC & ((1 << width) - 1)
    assert agree(reverse, value) == int(f"{value:0{width}b}"[::-1], 2)


def test_reverse_keeps_the_sign_of_the_type():
    def reverse(x: int32) -> int64:
        return x.reverse()

    assert agree(reverse, 1) == -(2**31)


def test_bitcast():
    def casts(a: uint16, b: int32, c: float32, d: Fixed(8, 4)) -> (float16, float32, uint32, uint8):
        return a.bitcast(), b.bitcast(), c.bitcast(), d.bitcast()

    assert agree(casts, 0x3C00, 0x40490FDB, 1.0, -1.5) == [1.0, np.float32(math.pi), 0x3F800000, 0xE8]


def test_bits_of_expressions_and_fields():
    P = Struct({"a": UInt(4), "b": Int(12), "c": float32})

    def bits(x: int32) -> int32:
        p: P = {"c": 1.0, "a": 3, "b": -2}
        p["b"][0] = 1
        p["a"] += 14
        return (x + 1)[1:3] * 1000 + p["a"] * 10 + p["b"]

    assert agree(bits, 5) == 3000 + 10 - 1


def test_bit_refusals():
    def of_float(x: float32) -> int32:
        return x[0]

    def outside(x: int8) -> int32:
        return x[8]

    def reverse(x: float32) -> float32:
        return x.reverse()

    for kernel, code, message in [
        (of_float, "FX106", r"Can only access bit \(slice\) for integers"),
        (outside, "FX106", "Index out of range: bit 8 of 8"),
        (reverse, "FX109", "reverse is not defined for float32"),
    ]:
        with pytest.raises(FrontendError, match=message) as caught:
            allo.customize(kernel)
        assert caught.value.code == code
        assert caught.value.span is not None


# ---------------------------------------------------------------------------------------- structs

Point = Struct({"x": int32, "y": float32, "on": T.bool})


def _scaled(p: Point, by: int32) -> Point:
    q: Point = p
    q["x"] = p["x"] * by
    return q


def test_structs_in_variables_arrays_and_calls():
    def kernel(n: int32) -> float32:
        p: Point = {"x": n, "y": 0.25, "on": n > 2}
        A: Point[2]
        A[0] = p
        A[1] = _scaled(p, 3)
        r: float32 = 0
        for i in range(2):
            if A[i]["on"]:
                r += A[i]["x"] + A[i]["y"]
        return r

    assert agree(kernel, 5) == 20.5
    assert agree(kernel, 1) == 0


def test_struct_arguments_are_wide_integers():
    def kernel(A: Point[2]) -> float32:
        return A[1]["y"] + A[1]["x"]

    words = [0, (int(np.float32(1.5).view(np.uint32)) << 32) | 40]
    assert agree(kernel, np.array(words, object)) == 41.5


def test_struct_refusals():
    def variable(p: Point, i: int32) -> int32:
        return p[i]

    def missing(p: Point) -> int32:
        return p["z"]

    def arithmetic(p: Point) -> int32:
        return p + 1

    def partial() -> int32:
        p: Point = {"x": 1}
        return p["x"]

    for kernel, code, message in [
        (variable, "FX106", "Struct field access must use string literal"),
        (missing, "FX106", "Field z not found in struct type"),
        (arithmetic, "FX109", "use its fields"),
        (partial, "FX104", "the fields of the struct are x, y, on"),
    ]:
        with pytest.raises(FrontendError, match=message) as caught:
            allo.customize(kernel)
        assert caught.value.code == code


# ------------------------------------------------------------------------- ConstExpr and Stateful


def _log2(n):
    return int(math.log2(n))


def test_constexpr():
    def kernel(A: int32[N]) -> int32:
        n: ConstExpr[int32] = _log2(N) * 2
        B: int32[n]
        s: int32 = 0
        for i in range(n):
            B[i] = A[i]
            s += B[i]
        with allo.meta_for(3) as k:
            m: ConstExpr[int32] = k * k
            s += A[m] * 1000
        return s

    assert agree(kernel, np.arange(N, dtype=np.int32)) == 28 + 5000


def test_constexpr_refusals():
    def empty(x: int32) -> int32:
        n: ConstExpr[int32]  # noqa: F842
        return x

    def run_time(x: int32) -> int32:
        n: ConstExpr[int32] = x
        return n

    def changed(x: int32) -> int32:
        n: ConstExpr[int32] = 4
        n = 5
        return n

    for kernel, code, message in [
        (empty, "FX113", "ConstExpr variable 'n' must be initialized"),
        (run_time, "FX113", "ConstExpr variable 'n' must be known at compile time"),
        (changed, "FX104", "n cannot be assigned to"),
    ]:
        with pytest.raises(FrontendError, match=message) as caught:
            allo.customize(kernel)
        assert caught.value.code == code


def _count(step: int32) -> int32:
    calls: int32 @ Stateful = 100
    calls += step
    return calls


def _window(x: int32) -> int32:
    window: int32[4] @ Stateful
    first: float32 @ Stateful = 0.5
    for i in range(3):
        window[i] = window[i + 1]
    window[3] = x
    a = _count(1)
    b = _count(10)
    first += 1
    return window[2] * 10000 + b * 10 + int(first)


def test_stateful_variables_keep_their_values():
    expected = [1111, 11222, 21333]
    schedule = allo.customize(_window)
    for module in (schedule.build(target="interpreter"), schedule.build(), CSimModule(schedule.program)):
        assert [module(x) for x in (1, 2, 3)] == expected
    assert [schedule.build()(x) for x in (1, 2)] == [1111, 1111]  # every module has its own


def test_stateful_refusals():
    def parameter(x: int32 @ Stateful) -> int32:
        return x

    def run_time(x: int32) -> int32:
        y: int32 @ Stateful = x
        return y

    with pytest.raises(FrontendError, match=r"Function parameter 'x' cannot be Stateful\."):
        allo.customize(parameter)
    with pytest.raises(FrontendError, match="Stateful variable 'y' must be initialized with a compile-time"):
        allo.customize(run_time)


# -------------------------------------------------------------------------------------- rule sets


def test_cpp_style_types():
    def kernel(a: int8, b: int8, c: uint8) -> (int32, int32, int32):
        return a + b, a * b, c - a

    assert agree(kernel, 100, 100, 5, typing_rule_set="cpp-style") == [-56, 16, 161]
    assert agree(kernel, 100, 100, 5) == [200, 10000, -95]


def test_cpp_style_knows_few_widths():
    def kernel(a: Int(7), b: Int(7)) -> int32:
        return a + b

    with pytest.raises(FrontendError, match="cpp-style has no type int7") as caught:
        allo.customize(kernel, typing_rule_set="cpp-style")
    assert caught.value.code == "FX109"


# --------------------------------------------------------------------------------------- literals


def test_numpy_scalars_and_constant_arrays_by_name():
    size = np.int64(4)
    factor = np.float32(0.5)
    table = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)

    def kernel(x: float32) -> float32:
        r: float32 = 0
        row: int32[size] = table[1]
        with allo.meta_for(2) as p:
            other: int32[4] = table[p]
            r += other[0]
        for i in range(size):
            r += row[i] * factor
        return r + x

    assert agree(kernel, 1.0) == 6 + 13 + 1


def test_lists_of_compile_time_expressions():
    n = 7

    def kernel() -> int32[2, 2]:
        A: int32[2, 2] = [[n, n * 2], [5, -7]]
        return A

    np.testing.assert_array_equal(agree(kernel), [[7, 14], [5, -7]])


def test_wide_integers():
    def kernel(a: uint64, b: uint64) -> UInt(128):
        return a * b

    assert agree(kernel, 2**64 - 1, 2**64 - 1) == (2**64 - 1) ** 2


def test_dtypes_in_expressions():
    Ty = Fixed(12, 4)

    def kernel(x: int16) -> int32:
        return x * Ty.bits + Ty.fracs

    assert agree(kernel, 3) == 40


# ---------------------------------------------------------------------------------- run-time sizes


def _total(A: float32[...], n: int32) -> float32:
    s: float32 = 0
    for i in range(n):
        s += A[i]
    return s


def test_arrays_of_run_time_size():
    def double(A: float32[...], B: float32[...], n: int32) -> float32:
        for i in range(n):
            B[i] = A[i] * 2
        C: float32[4] = 1
        return _total(B, n) + _total(C, 4) + A[5]

    given = np.arange(8, dtype=np.float32)
    assert agree(double, given, np.zeros(8, np.float32), 6) == 30 + 4 + 5
    schedule = allo.customize(double)
    out = np.zeros(7, np.float32)
    assert CSimModule(schedule.program)(given, out, 6) == 39
    np.testing.assert_array_equal(out, [0, 2, 4, 6, 8, 10, 0])
    assert "float *A" in str(schedule.build(target="vhls"))
    assert "A: float32[...]" in str(schedule.module)


def test_run_time_sizes_are_checked_where_they_can_be():
    def local(n: int32) -> float32:
        A: float32[...]
        return A[n]

    def whole(A: float32[...], B: float32[4]) -> float32[4]:
        B = A
        return B

    def element(A: float32[...], n: int32) -> float32:
        return A[n]

    with pytest.raises(FrontendError, match="only a parameter of rank 1 may be of run-time size") as caught:
        allo.customize(local)
    assert caught.value.code == "FX105"
    with pytest.raises(FrontendError, match=r"float32\[\.\.\.\]|run time"):
        allo.customize(whole)
    with pytest.raises(BackendError, match="index 9 is out of bounds for dimension 0 of 'A', which has 8"):
        allo.customize(element).build(target="interpreter")(np.zeros(8, np.float32), 9)


def test_constant_arrays_are_checked():
    def ragged() -> int32:
        A: int32[2, 2] = [[1, 2], [3]]
        return A[0, 0]

    def short() -> int32:
        A: int32[2, 2] = [1, 2, 3]
        return A[0, 0]

    def text() -> int32:
        A: int32[2] = ["a", "b"]
        return A[0]

    for kernel, code, message in [
        (ragged, "FX105", "the rows of a constant array must have one length"),
        (short, "FX105", r"Shape mismatch, got \(3,\) and \(2, 2\)"),
        (text, "FX104", "the elements of a constant array must be numbers"),
    ]:
        with pytest.raises(FrontendError, match=message) as caught:
            allo.customize(kernel)
        assert caught.value.code == code
        assert caught.value.span is not None


def test_infinities_by_name():
    def largest(A: float32[4]) -> (float32, float32):
        m: float32 = float("-inf")
        for i in range(4):
            m = max(m, A[i])
        return m, float("inf")

    assert agree(largest, np.array([-3, -1, -7, -2], np.float32)) == [-1, math.inf]

    def other() -> float32:
        return float("12")

    with pytest.raises(FrontendError, match="FX101: literal '12' is no number"):
        allo.customize(other)


def test_a_stream_type_by_a_call():
    assert Stream(int32) == Stream[int32]
    assert Stream(int32, (4, 4), 8) == Stream[int32[4, 4], 8]
    assert Stream(int32, depth=3, size=5) == Stream[int32, 3][5]
    with pytest.raises(DTypeError, match="FX103: the depth of a stream is a positive integer, got 0"):
        Stream(int32, (), 0)
