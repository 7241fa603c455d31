"""Result types, row by row of the table in docs/numerics.md (and Allo's, where the two agree)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexllm_allo.errors import DTypeError
from flexllm_allo.ir.dtypes import INDEX, DType, Fixed, Float, Int, UFixed, UInt
from flexllm_allo.ir.promotion import common_type, negative_type, power_type, result_type

F16, BF16, F32, F64 = Float(16, 10), Float(16, 7), Float(32, 23), Float(64, 52)

ROWS = [
    # left, right, +, *, common
    (Int(8), Int(5), Int(9), Int(13), Int(8)),
    (Int(8), UInt(8), Int(10), Int(16), Int(9)),
    (Int(8), UInt(3), Int(9), Int(11), Int(8)),
    (UInt(8), UInt(3), UInt(9), UInt(11), UInt(8)),
    (Int(8), INDEX, Int(34), Int(40), Int(33)),
    (UInt(8), INDEX, UInt(33), UInt(40), UInt(32)),
    (INDEX, INDEX, INDEX, INDEX, INDEX),
    (Int(8), Fixed(12, 4), Fixed(13, 4), Fixed(20, 4), Fixed(12, 4)),
    (Int(8), UFixed(12, 4), Fixed(14, 4), Fixed(20, 4), Fixed(13, 4)),
    (UInt(8), Fixed(12, 4), Fixed(14, 4), Fixed(20, 4), Fixed(13, 4)),
    (UInt(8), UFixed(10, 6), UFixed(15, 6), UFixed(18, 6), UFixed(14, 6)),
    (Fixed(12, 4), Fixed(8, 6), Fixed(15, 6), Fixed(20, 10), Fixed(14, 6)),
    (Fixed(12, 4), UFixed(8, 6), Fixed(15, 6), Fixed(20, 10), Fixed(14, 6)),
    (UFixed(12, 4), UFixed(8, 6), UFixed(15, 6), UFixed(20, 10), UFixed(14, 6)),
    (Int(8), F32, F32, F32, F32),
    (F16, F32, F32, F32, F32),
    (F16, BF16, F16, F16, F16),
    (BF16, F16, BF16, BF16, BF16),
]


@pytest.mark.parametrize(("left", "right", "total", "product", "common"), ROWS, ids=str)
def test_sum_product_and_common_type(left, right, total, product, common):
    assert result_type("+", left, right) == total
    assert result_type("*", left, right) == product
    for op in ("%", "min", "max"):
        assert result_type(op, left, right) == common


@pytest.mark.parametrize(
    ("left", "right", "quotient"),
    [
        (Int(8), UInt(16), Int(8)),
        (UInt(8), UInt(16), UInt(8)),
        (UInt(8), Int(16), Int(8)),
        (INDEX, Int(8), Int(32)),
        (INDEX, UInt(8), INDEX),
        (Fixed(12, 4), Int(8), Fixed(20, 12)),
        (Fixed(12, 4), UInt(8), Fixed(21, 12)),
        (Int(8), Fixed(12, 4), Fixed(20, 4)),
        (Int(8), UFixed(12, 4), Fixed(21, 4)),
        (Fixed(12, 4), Fixed(8, 6), Fixed(20, 6)),
        (Fixed(12, 4), UFixed(8, 6), Fixed(21, 6)),
        (F32, Int(8), F32),
    ],
    ids=str,
)
def test_quotient(left, right, quotient):
    assert result_type("/", left, right) == quotient


def test_the_difference_of_unsigned_numbers_is_signed():
    assert result_type("-", UInt(8), UInt(8)) == Int(9)
    assert result_type("-", UFixed(8, 2), UFixed(8, 2)) == Fixed(9, 2)


def test_shifts_bit_operators_power_and_minus():
    assert result_type("<<", Fixed(6, 2), Int(8)) == Fixed(6, 2)
    assert result_type("&", Int(8), UInt(16)) == Int(16)
    assert result_type("|", UInt(8), UInt(16)) == UInt(16)
    assert result_type("^", INDEX, INDEX) == INDEX
    assert [power_type(Int(8), F32), power_type(Int(64), F32), power_type(Int(8), F64)] == [F32, F64, F64]
    assert [negative_type(t) for t in (Int(8), UInt(8), UFixed(8, 2), INDEX)] == [
        Int(8), Int(9), Fixed(9, 2), Int(33),
    ]  # fmt: skip


@pytest.mark.parametrize(("op", "left"), [("&", F32), ("<<", F32), ("|", Fixed(8, 2)), ("//", Fixed(8, 2))])
def test_operators_that_are_not_defined(op, left):
    with pytest.raises(DTypeError, match="is not defined for") as caught:
        result_type(op, left, Int(8))
    assert caught.value.code == "FX109"


exact = st.one_of(
    st.builds(Int, st.integers(1, 40)),
    st.builds(UInt, st.integers(1, 40)),
    st.builds(lambda w, f: Fixed(w + f, f), st.integers(1, 20), st.integers(0, 10)),
    st.builds(lambda w, f: UFixed(w + f, f), st.integers(1, 20), st.integers(0, 10)),
)


def bounds(t: DType) -> tuple[int, int]:
    return (-(1 << t.bits - 1), (1 << t.bits - 1) - 1) if t.signed else (0, (1 << t.bits) - 1)


@given(exact, exact, st.sampled_from("+-*"))
def test_results_of_exact_operators_never_overflow(left, right, op):
    t = result_type(op, left, right)
    low, high = bounds(t)
    for a in bounds(left):
        for b in bounds(right):
            if op == "*":
                value = a * b
            else:
                x, y = a << (t.fracs - left.fracs), b << (t.fracs - right.fracs)
                value = x + y if op == "+" else x - y
            assert low <= value <= high


@given(exact, exact)
def test_the_common_type_holds_both_and_is_symmetric(left, right):
    t = common_type(left, right)
    assert t == common_type(right, left)
    low, high = bounds(t)
    for source in (left, right):
        for raw in bounds(source):
            assert low <= raw << (t.fracs - source.fracs) <= high
