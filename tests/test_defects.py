"""Programs that Allo gets wrong, or rejects although they are reasonable; numbered as in the list of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from differential import agree

import flexllm_allo as allo
import flexllm_allo.ir.types as T
from flexllm_allo.errors import ArgumentError, BackendError, FrontendError
from flexllm_allo.ir.types import (
    Fixed,
    Int,
    Struct,
    UInt,
    bfloat16,
    float32,
    float64,
    index,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint32,
)

M = 3
LIST = np.array([1, 2, 3, 4], np.int32)


def cpp(kernel) -> str:
    return str(allo.customize(kernel).build(target="vhls"))


# ------------------------------------------------------------------ wrong values, silently (16.1)


def test_01_unsigned_comparison():
    def less(a: uint8, b: uint8, c: uint32, d: uint32) -> int32:
        r: int32 = 0
        if a < b:
            r += 1
        if c < d:
            r += 2
        return r

    assert agree(less, 200, 100, 3_000_000_000, 1) == 0
    assert agree(less, 100, 200, 1, 3_000_000_000) == 3


def test_02_fixed_comparison():
    def less(a: Fixed(8, 4), b: Fixed(8, 4)) -> T.bool:
        return a < b

    assert agree(less, -1.0, 1.0) == 1
    assert agree(less, 1.0, -1.0) == 0


def test_03_bitwise_not():
    def invert(a: int32, b: uint8) -> (int32, uint8):
        return ~a, ~b

    assert agree(invert, 5, 5) == [-6, 250]


def test_04_swap():
    def swap(a: int32, b: int32) -> int32:
        x: int32 = a
        y: int32 = b
        x, y = y, x
        return x * 1000 + y

    assert agree(swap, 1, 2) == 2001


def test_04_swap_elements():
    def swap(A: int32[4]):
        A[0], A[3] = A[3], A[0]

    np.testing.assert_array_equal(agree(swap, LIST)[0], [4, 2, 3, 1])


def test_05_06_division_floors_everywhere():
    def divide(a: int32, b: int32) -> (int32, int32, int32):
        return a / b, a // b, a % b

    assert agree(divide, -7, 2) == [-4, -4, 1]
    assert agree(divide, 7, -2) == [-4, -4, -1]
    assert "floor_div" in cpp(divide)


def test_07_division_of_mixed_signs():
    def divide(a: int8, b: uint8) -> int32:
        return a / b

    assert agree(divide, 100, 200) == 0


def test_08_minus_of_an_unsigned():
    def negate(a: uint8) -> int32:
        return -a

    assert agree(negate, 200) == -200


def test_09_difference_of_unsigned():
    def minus(a: uint8, b: uint8) -> int32:
        return a - b

    assert agree(minus, 1, 2) == -1


def test_10_shift_stays_in_its_width():
    def shift(a: int8) -> int32:
        return a << 4

    assert agree(shift, 100) == 64


def test_11_float64_literals():
    def literal() -> float64:
        return 0.1

    def beside(x: float64) -> float64:
        y: float64 = 3.141592653589793
        return x + y * 0.30000000000000004

    assert agree(literal) == 0.1
    assert agree(beside, 0.5) == 0.5 + 3.141592653589793 * 0.30000000000000004


def test_12_large_integer_literals():
    def literal() -> (int64, uint32):
        return 12884901888, 3000000000

    assert agree(literal) == [12884901888, 3000000000]


def test_13_and_does_not_evaluate_its_right_side():
    def guarded(a: int32) -> int32:
        r: int32 = 0
        if a > 0 and 10 / a > 1:
            r = 1
        return r

    assert agree(guarded, 0) == 0
    assert agree(guarded, 2) == 1


def test_14_indices_out_of_range():
    def negative(A: int32[4]) -> int32:
        return A[-1]

    def beyond(A: int32[4]) -> int32:
        return A[7]

    def run_time(A: int32[4], i: int32) -> int32:
        return A[i]

    with pytest.raises(FrontendError, match="Unsupported negative index"):
        allo.customize(negative)
    with pytest.raises(FrontendError, match="Index out of range"):
        allo.customize(beyond)
    with pytest.raises(BackendError, match="index 7 is out of bounds"):
        allo.customize(run_time).build(target="interpreter")(LIST, 7)


@pytest.mark.parametrize("target", ["interpreter", None])
def test_15_initialisers_apply_on_every_call(target):
    def count(x: int32) -> int32:
        A: int32[4] = [1, 2, 3, 4]
        B: int32[4] = LIST
        A[0] += x
        B[1] += x
        return A[0] * 100 + B[1]

    module = allo.customize(count).build(target=target)
    assert [module(5), module(5)] == [607, 607]


def test_16_initialised_array_returned():
    def table() -> int32[4]:
        A: int32[4] = [1, 2, 3, 4]
        A[3] = 9
        return A

    np.testing.assert_array_equal(agree(table), [1, 2, 3, 9])
    assert "{1, 2, 3, 4}" in cpp(table)


def test_17_argument_written_by_a_function_that_returns():
    def both(A: int64[4]) -> int64:
        A[0] = 7
        return A[1]

    for target in ("interpreter", None):
        given = np.arange(4, dtype=np.int64)
        assert allo.customize(both).build(target=target)(given) == 1
        assert given[0] == 7


def test_18_argument_of_the_wrong_shape():
    def first(A: int32[4]) -> int32:
        return A[0]

    with pytest.raises(ArgumentError, match=r"should be int32\[4\], got int32\[3\]"):
        allo.customize(first).build()(np.zeros(3, np.int32))


def test_19_parameter_named_as_a_visible_array():
    def total(LIST: int32[4]) -> int32:
        return LIST[0] + LIST[3]

    assert agree(total, np.array([10, 0, 0, 20], np.int32)) == 30


def test_20_unsigned_bit_slice():
    def low(x: uint32) -> int32:
        y: int32 = x[0:16]
        return y

    assert agree(low, 0xFFFF) == 0xFFFF
    assert "int16_t" not in cpp(low).replace("uint16_t", "")


def test_21_uninitialised_array_is_found():
    def read(i: int32) -> int32:
        A: int32[4]
        A[0] = 1
        return A[i]

    module = allo.customize(read).build(target="interpreter")
    assert module(0) == 1
    with pytest.raises(BackendError, match="is read before it is written"):
        module(1)


def test_22_fixed_to_int():
    def convert(a: Fixed(8, 4)) -> int32:
        return a

    assert agree(convert, -1.5) == -1


def test_23_ternary_of_fixed_and_literal():
    def clip(A: Fixed(12, 4)[4]) -> Fixed(12, 4)[4]:
        B: Fixed(12, 4)[4]
        for i in range(4):
            a: Fixed(12, 4) = A[i]
            y: Fixed(12, 4) = a if a > 0 else 0
            B[i] = y
        return B

    np.testing.assert_array_equal(agree(clip, np.array([1.25, -1.25, 3.5, 0.75])), [1.25, 0, 3.5, 0.75])


def test_24_power_with_a_float64():
    def power(a: float64) -> float64:
        return 2**a

    assert agree(power, 0.1) == 2.0**0.1


def test_25_the_nearest_caller_wins():
    M = 5

    def size(A: int32[M]) -> int32:
        return A[M - 1]

    assert allo.customize(size).program.functions[0].params[0].shape == (5,)
    assert agree(size, np.arange(5, dtype=np.int32)) == 4


def test_26_narrow_unsigned_local():
    def wrap(x: int32) -> int32:
        b: UInt(4) = x
        c: int32 = b + 1
        return c

    assert agree(wrap, 15) == 16
    assert "ap_uint<4>" in cpp(wrap)


def test_27_float_constants_read_back():
    def add(x: float32) -> float32:
        return x + 0.123456789

    assert agree(add, 0.0) == np.float32(0.123456789)
    assert "0.12345679f" in cpp(add)


# ----------------------------------------------- crashes and rejections of reasonable programs (16.3)


def test_comparison_into_a_variable_and_integer_conditions():
    def test(a: int32, b: int32) -> int32:
        cond = a < b
        r: int32 = 0
        if cond:
            r += 1
        if a:
            r += 2
        return r

    assert agree(test, 3, 4) == 3
    assert agree(test, 0, -1) == 0


def test_operators_on_every_type():
    def compare(a: bfloat16, b: bfloat16) -> T.bool:
        return a <= b

    def floors(a: uint8, b: uint8, x: float32, y: float32) -> (uint8, float32):
        return a // b, x // y

    def negatives(n: index, f: Fixed(8, 4)) -> (int32, Fixed(8, 4)):
        return -n, -f

    assert agree(compare, 1.5, 2.5) == 1
    assert agree(floors, 200, 7, -7.5, 2.0) == [28, -4.0]
    assert agree(negatives, 5, 1.25) == [-5, -1.25]


def test_extremes_and_magnitudes():
    def extremes(a: Fixed(8, 4), x: float32, n: int32) -> (Fixed(8, 4), Fixed(8, 4), float32, int32):
        return max(a, 0), max(0, a), abs(x), abs(n)

    assert agree(extremes, -1.25, -2.5, -7) == [0, 0, 2.5, 7]
    assert agree(extremes, 1.25, 2.5, 7) == [1.25, 1.25, 2.5, 7]


P = Struct({"x": int32, "y": float32})


def test_struct_arrays():
    def sums(n: int32) -> float32:
        A: P[4]
        for i in range(4):
            A[i] = {"x": i + n, "y": 0.5}
        r: float32 = 0
        for i in range(4):
            A[i]["x"] += 1
            r += A[i]["x"] * A[i]["y"]
        return r

    assert agree(sums, 10) == 25.0


def test_results_of_every_kind():
    def mixed(A: Fixed(12, 4)[2], s: Fixed(12, 4)) -> (Fixed(12, 4), Fixed(12, 4)[2]):
        B: Fixed(12, 4)[2]
        for i in range(2):
            B[i] = A[i] + s
            A[i] = 0
        return s + 1, B

    for target in ("interpreter", None):
        given = np.array([1.25, 2.5])
        scalar, array = allo.customize(mixed).build(target=target)(given, 0.75)
        assert scalar == 1.75
        np.testing.assert_array_equal(array, [2.0, 3.25])
        np.testing.assert_array_equal(given, [0, 0])


def _pair(A: int32[4], s: int32) -> (int32[4], int32[4]):
    B: int32[4]
    C: int32[4]
    for i in range(4):
        B[i] = A[i] + s
        C[i] = A[i] * s
    return B, C


def test_array_results_into_new_names():
    def top(A: int32[4]) -> int32[4]:
        B, C = _pair(A, 3)
        D: int32[4]
        for i in range(4):
            D[i] = B[i] + C[i]
        return D

    np.testing.assert_array_equal(agree(top, LIST), LIST * 4 + 3)
    assert "_pair(" in cpp(top)


def test_array_results_into_declared_arrays():
    def top(A: int32[4]) -> int32[4]:
        B: int32[4]
        C: int32[4]
        B, C = _pair(A, 3)
        for i in range(4):
            B[i] += C[i]
        return B

    np.testing.assert_array_equal(agree(top, LIST), LIST * 4 + 3)
    assert "_pair(" in cpp(top)


def test_numpy_scalars_and_strided_arrays():
    def add(A: int32[3], s: int32) -> int32[3]:
        B: int32[3]
        for i in range(3):
            B[i] = A[i] + s
        return B

    given = np.arange(6, dtype=np.int32)[::2]
    np.testing.assert_array_equal(agree(add, given, np.int32(5)), given + 5)


def test_early_return():
    def early(x: int32) -> int32:
        if x > 3:
            return 1
        return 2

    with pytest.raises(FrontendError, match="return is only supported as the last statement") as caught:
        allo.customize(early)
    assert caught.value.code == "FX112"
    assert caught.value.span is not None
    assert caught.value.span.col == 12


def test_one_literal_parameter():
    source = """
    def f[N](A: "int32[N]") -> "int32":
        return A[N - 1]

    def top(A: int32[16]) -> int32:
        return f[16](A)
    """
    text = source.split("\n\n")
    module = allo.customize(text[1] + "\n" + text[0], global_vars={"int32": int32}).build()
    assert module(np.arange(16, dtype=np.int32)) == 15


def test_closures_of_one_name():
    def make(n):
        def add(x: int32) -> int32:
            return x + n

        return add

    one, two = make(1), make(10)

    def top(x: int32) -> int32:
        return one(x) * two(x)

    schedule = allo.customize(top)
    assert [f.name for f in schedule.program.functions] == ["add", "add_1", "top"]
    assert agree(top, 5) == 6 * 15


def _endless(x: int32) -> int32:
    return _endless(x)


def test_recursion():
    with pytest.raises(FrontendError, match="_endless calls itself") as caught:
        allo.customize(_endless)
    assert caught.value.code == "FX107"


def test_recursion_over_a_parameter_ends():
    names = {"int32": int32, "allo": allo}
    tree = """
def tree[N](A: "int32[N]") -> int32:
    with allo.meta_if(N == 1):
        return A[0]
    with allo.meta_else():
        B: int32[N // 2]
        for i in range(N // 2):
            B[i] = A[i * 2] + A[i * 2 + 1]
        return tree[N // 2](B)
"""
    total = allo.customize(tree, global_vars=names, instantiate=[8]).build()
    assert total(np.arange(8, dtype=np.int32)) == 28
    endless = """
def down[N](x: int32) -> int32:
    return down[N + 1](x)
"""
    with pytest.raises(FrontendError, match="down calls itself with other parameters, 16 deep") as caught:
        allo.customize(endless, global_vars=names, instantiate=[0])
    assert caught.value.code == "FX107"


def _scaled(x: int32, factor: int32 = M, shift: int32 = 0) -> int32:
    return x * factor + shift


def test_default_and_keyword_arguments():
    def top(x: int32) -> int32:
        return _scaled(x) + _scaled(x, shift=100) + _scaled(factor=2, x=x)

    def wrong(x: int32) -> int32:
        return _scaled(x, scale=2)

    assert agree(top, 7) == 21 + 121 + 14
    with pytest.raises(FrontendError, match=r"_scaled takes \(x, factor, shift\)"):
        allo.customize(wrong)


def test_wide_types_warn():
    with pytest.warns(RuntimeWarning, match="larger than 512"):
        Int(600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Int(512)


def test_small_integers_of_numpy():
    def widen(A: int16[2]) -> int32:
        return A[0] * A[1]

    assert agree(widen, np.array([300, 300], np.int16)) == 90000
