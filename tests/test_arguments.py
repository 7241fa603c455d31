"""The calling convention: what goes in, what comes out, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexllm_allo.backend.arguments import bind, decode, encode, unbind
from flexllm_allo.errors import ArgumentError, Span
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import BOOL, INDEX, DType, Fixed, Float, Int, UFixed, UInt

BF16, F16, F32, F64 = Float(16, 7), Float(16, 10), Float(32, 23), Float(64, 52)


def buffer(dtype: DType, *shape: int) -> ir.Buffer:
    return ir.Buffer("A", dtype, shape, span=Span("kernel.py", 3))


def through(dtype: DType, values: object) -> list[object]:
    array = np.asarray(values)
    b = buffer(dtype, *array.shape)
    return np.asarray(decode(b, encode(b, array))).tolist()


@pytest.mark.parametrize(
    ("dtype", "given_", "expected"),
    [
        (Int(8), [127, 128, -129], [127, -128, 127]),
        (Int(4), [7, 8, -9, 15], [7, -8, 7, -1]),
        (UInt(4), [-1, 16, 5], [15, 0, 5]),
        (UInt(12), [4096, -1], [0, 4095]),
        (BOOL, [0, 1, 2, 3], [False, True, False, True]),
        (BOOL, [True, False], [True, False]),
        (INDEX, [-5, 7], [-5, 7]),
        (Fixed(8, 4), [1.5, -0.03, 8.0, 1e30, float("nan")], [1.5, -0.0625, -8.0, 0.0, 0.0]),
        (UFixed(6, 2), [-0.25, 16.75], [15.75, 0.75]),
        (Fixed(8, 2), np.array([3, -40]), [3.0, 24.0]),
        (F16, [1.0, 65520.0], [1.0, float("inf")]),
        (F32, [1, 2], [1.0, 2.0]),
        (BF16, [1.0, 1.00390625, 1.01171875], [1.0, 1.0, 1.015625]),
        (BF16, [1 + 2**-8 + 2**-40], [1 + 2**-7]),
    ],
)
def test_values_convert(dtype: DType, given_: object, expected: list[object]) -> None:
    assert through(dtype, given_) == expected


@given(st.integers(1, 200), st.booleans(), st.lists(st.integers(-(1 << 220), 1 << 220), min_size=1))
def test_integers_of_any_width_wrap(bits: int, signed: bool, values: list[int]) -> None:
    dtype = Int(bits) if signed else UInt(bits)
    for value in values:
        b = buffer(dtype)
        low = value % (1 << bits)
        wrapped = low - (1 << bits) if signed and low >> (bits - 1) else low
        assert decode(b, encode(b, np.array(value, object))) == wrapped


def test_wide_integers_come_out_as_bytes_little_end_first() -> None:
    b = buffer(UInt(72), 2)
    out = decode(b, encode(b, np.array([0x0102, 1 << 64], object)))
    assert isinstance(out, np.ndarray)
    assert out.dtype.names == tuple(f"f{n}" for n in range(9))
    assert out[0].tolist() == (2, 1, 0, 0, 0, 0, 0, 0, 0)
    assert out[1].tolist()[8] == 1


def test_fitting_arrays_are_not_copied() -> None:
    for dtype, kind in (
        (Int(8), np.int8),
        (UInt(8), np.int8),
        (Int(4), np.int8),
        (F32, np.float32),
        (F16, np.float16),
    ):
        a = np.zeros((4, 3), kind)
        assert np.shares_memory(encode(buffer(dtype, 4, 3), a), a)
    assert np.shares_memory(encode(buffer(BF16, 2), bits := np.zeros(2, np.uint16)), bits)


def test_strided_and_misaligned_arrays() -> None:
    a = np.arange(24, dtype=np.int32).reshape(4, 6)
    raw = encode(buffer(Int(32), 6, 4), a.T)
    assert raw.flags.c_contiguous
    assert (raw == a.T).all()
    odd = np.zeros(17, np.uint8)[1:].view(np.int32)
    assert encode(buffer(Int(32), 4), odd).flags.aligned


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "message"),
    [
        (Int(32), (2, 2), np.zeros((2, 3), np.int32), "argument 'A' should be int32[2, 2], got int32[2, 3]"),
        (Int(32), (2,), np.zeros(2), "argument 'A' should be int32[2], got float64[2]"),
        (Int(32), (), 1.5, "argument 'A' should be int32, got float64"),
        (F32, (1,), np.zeros(1, complex), "argument 'A' should be float32[1], got complex128[1]"),
        (F32, (), "x", "argument 'A' should be float32, got <U1"),
    ],
)
def test_refusals_name_the_parameter(
    dtype: DType, shape: tuple[int, ...], value: object, message: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        encode(buffer(dtype, *shape), value)
    assert caught.value.message == message
    assert caught.value.code == "FX401"
    assert caught.value.span == Span("kernel.py", 3)


PARAMS = (
    ir.Buffer("A", Int(32), (3,)),
    ir.Buffer("n", Int(8)),
    ir.Buffer("R", Int(8), (2,)),
    ir.Buffer("s", F32),
)
FUNCTION = ir.Function("f", PARAMS, (), results=2)


def test_bind_checks_the_count_and_makes_results() -> None:
    a = np.zeros(3, np.int32)
    with pytest.raises(ArgumentError, match="# of input arguments mismatch, got 1 but expected 2"):
        bind(FUNCTION, [a], frozenset())
    bound = bind(FUNCTION, [a, np.int64(3)], frozenset({"R", "s"}))
    bound.raws[2][...] = 7
    bound.raws[3][...] = 0.5
    result, scalar = unbind(bound)
    assert result.tolist() == [7, 7]
    assert scalar == 0.5
    assert isinstance(scalar, float)


def test_an_array_of_one_element_receives_a_scalar_result() -> None:
    for s in (np.zeros(1, np.float32), np.zeros((1, 1), np.float64)):
        bound = bind(FUNCTION, [np.zeros(3, np.int32), 3, np.zeros(2, np.int8), s], frozenset({"s"}))
        bound.raws[3][...] = 0.5
        assert unbind(bound) is None
        assert s.ravel().tolist() == [0.5]


def test_results_can_be_given() -> None:
    r, s = np.zeros(2, np.int64), np.zeros(())
    bound = bind(FUNCTION, [[1, 2, 3], 3, r, s], frozenset({"R", "s"}))
    bound.raws[2][...] = -1
    bound.raws[3][...] = 2.0
    assert unbind(bound) is None
    assert r.tolist() == [-1, -1]
    assert s == 2.0


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.int8, np.uint16, object])
def test_stored_arrays_are_written_back(kind: type) -> None:
    a = np.zeros(6, kind)[::2]
    bound = bind(FUNCTION, [a, 0], frozenset({"A"}))
    bound.raws[0][...] = [1, 2, 3]
    unbind(bound)
    assert a.tolist() == [1, 2, 3]


def test_stored_arguments_must_be_writable_arrays() -> None:
    with pytest.raises(ArgumentError, match="must be a writable NumPy array; got list"):
        bind(FUNCTION, [[1, 2, 3], 0], frozenset({"A"}))
    a = np.zeros(3, np.int32)
    a.flags.writeable = False
    with pytest.raises(ArgumentError, match="this array is read-only"):
        bind(FUNCTION, [a, 0], frozenset({"A"}))


def test_overlapping_arguments() -> None:
    two = ir.Function("g", (ir.Buffer("A", Int(8), (2,)), ir.Buffer("B", Int(8), (2,))), ())
    a = np.zeros(2, np.int8)
    bound = bind(two, [a, a], frozenset({"B"}))
    assert not np.shares_memory(*bound.raws)
    assert np.shares_memory(bound.raws[1], a)
    with pytest.raises(ArgumentError, match="'A' and 'B' share memory and both are written"):
        bind(two, [a, a], frozenset({"A", "B"}))
