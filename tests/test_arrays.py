"""Whole arrays, views and slices: against NumPy, on the interpreter and the CPU, some in C simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.errors import FrontendError, ToolError
from flexllm_allo.frontend.broadcast import common_shape, fits
from flexllm_allo.ir.types import Fixed, float32, float64, int8, int32, uint1, uint8

TYPES = {"int32": int32, "int8": int8, "uint8": uint8, "float32": float32, "allo": allo}


def runs(kernel: Callable[..., Any] | str, *args: Any, **options: Any) -> tuple[Any, list[Any]]:
    """The result and the arguments after a call, the same on the interpreter and the CPU."""
    s = allo.customize(kernel, **options)
    outcomes: list[tuple[Any, list[Any]]] = []
    for target in ("interpreter", "llvm"):
        own = [np.copy(a) if isinstance(a, np.ndarray) else a for a in args]
        outcomes.append((s.build(target=target)(*own), own))
    (result, after), (result_cpu, after_cpu) = outcomes
    np.testing.assert_array_equal(result, result_cpu)
    for a, b in zip(after, after_cpu, strict=True):
        np.testing.assert_array_equal(a, b)
    return result, after


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-50, 50, shape).astype(np.int32)


# ------------------------------------------------------------------------------- whole arrays


def arithmetic(A: int32[3, 4], B: int32[3, 4], C: int32[4], k: int32) -> int32[3, 4]:
    D = A + B
    E: int32[3, 4] = (D - C) * 2
    E += A
    E[1] -= C * k
    E = -E + E % 7
    return E


def test_operators_and_augmented_forms():
    A, B, C = numbers(3, 4), numbers(3, 4, seed=1), numbers(4, seed=2)
    E = (A + B - C) * 2 + A
    E[1] -= C * 5
    result, _ = runs(arithmetic, A, B, C, 5)
    np.testing.assert_array_equal(result, -E + E % 7)


def nested_without_temporaries(A: int32[8], B: int32[8]) -> int32[8]:
    return (A + B) * A - B


def test_nested_operators_make_one_nest():
    text = str(allo.customize(nested_without_temporaries).module)
    assert text.count("for ") == 1
    assert "value" not in text


def wide(A: int8[4], B: int8[4]) -> int32[4]:
    S = A + B
    P = A * B
    return S + P


def test_results_are_as_wide_as_the_scalar_rules_say():
    A, B = np.full(4, -128, np.int8), np.full(4, -128, np.int8)
    result, _ = runs(wide, A, B)
    assert result.tolist() == [-256 + 16384] * 4
    assert "S: int9[4]" in str(allo.customize(wide).module)


def comparisons(A: int32[5], B: int32[5]) -> uint1[5]:
    return A < B


def selection(A: int32[5], B: int32[5], flag: int32) -> int32[5]:
    C = A if flag > 0 else B
    return min(C, 3) + abs(B)


def test_comparisons_selection_and_builtins():
    A, B = numbers(5), numbers(5, seed=1)
    np.testing.assert_array_equal(runs(comparisons, A, B)[0], A < B)
    for flag, C in ((1, A), (0, B)):
        np.testing.assert_array_equal(runs(selection, A, B, flag)[0], np.minimum(C, 3) + np.abs(B))


def literals(A: float64[3]) -> float64[3]:
    return A * 0.1


def test_a_literal_takes_the_type_of_the_array():
    A = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(runs(literals, A)[0], A * 0.1)


def fixed_point(A: Fixed(12, 4)[3], B: Fixed(12, 4)[3]) -> Fixed(12, 4)[3]:
    return (A - B) * 2


def test_fixed_point_arrays():
    result, _ = runs(fixed_point, np.array([1.25, -1.0, 3.5]), np.array([0.5, 0.25, 8.0]))
    assert result.tolist() == [1.5, -2.5, -9.0]


def fills(A: int32[2, 3]) -> int32[2, 3]:
    B: int32[2, 3] = 7
    B[:] = A[0, 0]
    B[1, :] = 9
    C = B
    C[0] = A[1]
    D: int32[2, 3]
    D[:, :] = B + C
    A[:] = A[1, 1]
    return D


def test_fills_and_copies():
    A = numbers(2, 3)
    B = np.full((2, 3), A[0, 0])
    B[1] = 9
    C = B.copy()
    C[0] = A[1]
    result, after = runs(fills, A)
    np.testing.assert_array_equal(result, B + C)
    np.testing.assert_array_equal(after[0], np.full((2, 3), A[1, 1]))


def turned(A: int32[3, 3]) -> int32[3, 3]:
    A = A.T
    B = A.copy()
    B[0] = A[1]
    return B


def overlapping(A: int32[6], B: int32[4, 3]):
    A[1:6] = A[0:5]
    A[0:3], A[3:6] = A[3:6], A[0:3]
    B[0:3] = B[1:4]
    B += B[0]


def test_the_value_is_computed_before_it_is_stored():
    A = numbers(3, 3)
    result, after = runs(turned, A)
    np.testing.assert_array_equal(after[0], A.T)
    np.testing.assert_array_equal(result[0], A.T[1])
    A, B = numbers(6), numbers(4, 3)
    _, after = runs(overlapping, A, B)
    shifted = np.concatenate([A[:1], A[:5]])
    np.testing.assert_array_equal(after[0], np.concatenate([shifted[3:], shifted[:3]]))
    rows = B[[1, 2, 3, 3]]
    np.testing.assert_array_equal(after[1], rows + rows[0])


def raise_all(X: int32[4], by: int32) -> int32[4]:
    return X + by


def touch(X: int32[4]) -> int32[4]:
    X[0] = 100
    return X + 0


def calls_on_arrays(A: int32[4], B: int32[4]) -> int32[4]:
    C = raise_all(A + B, 3)
    D: int32[4] = raise_all(raise_all(C, 1), 2) * 2
    D += raise_all(A, 1)[0:4]
    x: int32 = raise_all(A, 5)[2]
    E = (A + 1) + touch(A)
    return D + x + E


def test_array_expressions_as_arguments_and_results():
    A, B = numbers(4), numbers(4, seed=1)
    touched = A.copy()
    touched[0] = 100
    expected = (A + B + 6) * 2 + (A + 1) + (A[2] + 5) + (A + 1) + touched
    np.testing.assert_array_equal(runs(calls_on_arrays, A, B)[0], expected)


TABLE = np.array([[1, 2, 3], [4, 5, 6]], np.int32)


def constants(A: int32[2, 3], i: int32) -> int32[2, 3]:
    return A * TABLE + TABLE[i, 2]


def test_visible_numpy_arrays():
    A = numbers(2, 3)
    np.testing.assert_array_equal(runs(constants, A, 1)[0], A * TABLE + 6)


# ------------------------------------------------------------------------------- broadcasting

shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


@given(shapes, shapes)
@settings(max_examples=60, deadline=None)
def test_shapes_broadcast_as_numpy(a: tuple[int, ...], b: tuple[int, ...]):
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        expected = None
    assert common_shape(a, b) == expected
    assert fits(a, b) == (expected == b)


@given(shapes, st.data())
@settings(max_examples=12, deadline=None)
def test_random_shapes_broadcast_in_kernels(target: tuple[int, ...], data: st.DataObject):
    drawn = [
        tuple(1 if data.draw(st.booleans()) else size for size in target[data.draw(st.integers(0, 1)) :])
        for _ in range(2)
    ]
    left, right = (shape or (1,) for shape in drawn)
    out = ", ".join(map(str, target))
    text = (
        f"def k(A: int32[{', '.join(map(str, left))}], B: int32[{', '.join(map(str, right))}], "
        f"C: int32[{out}]) -> int32[{out}]:\n"
        "    C += A * B\n"
        f"    D: int32[{out}] = A - B\n"
        "    return D + C\n"
    )
    A, B, C = numbers(*left), numbers(*right, seed=1), numbers(*target, seed=2)
    result, after = runs(text, A, B, C, global_vars=TYPES)
    np.testing.assert_array_equal(after[2], C + A * B)
    np.testing.assert_array_equal(result, np.broadcast_to(A - B, target) + C + A * B)


# --------------------------------------------------------------------------- slices and views


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_random_slices_read_and_write_as_numpy(data: st.DataObject):
    shape = data.draw(st.tuples(st.integers(2, 5), st.integers(2, 5)))

    def item(size: int) -> str:
        low = data.draw(st.integers(0, size - 1))
        high = data.draw(st.integers(low + 1, size))
        step = data.draw(st.integers(1, high - low))
        return data.draw(
            st.sampled_from([f"{low}:{high}:{step}", f"{low}:{high}", ":", f"{low}:", f":{high}"])
        )

    key = f"{item(shape[0])}, {item(shape[1])}"
    if data.draw(st.booleans()):
        key = f"p, {item(shape[1])}"
    dims = ", ".join(map(str, shape))
    text = f"def k(A: int32[{dims}], B: int32[{dims}], p: int32):\n    A[{key}] = B[{key}] * 2 + A[{key}]\n"
    A, B, p = numbers(*shape), numbers(*shape, seed=1), shape[0] - 1
    _, after = runs(text, A, B, p, global_vars=TYPES)
    expected = A.copy()
    exec(f"A[{key}] = B[{key}] * 2 + A[{key}]", {"A": expected, "B": B, "p": p})
    np.testing.assert_array_equal(after[0], expected)


def extents_of_one(A: int32[3, 4, 2]) -> int32[1, 2]:
    C = A[2, 0:1, :]
    return C


def chains(A: int32[4, 6]) -> int32[2]:
    A[0:2][1] = A[2:4][0]
    A[1:4:2][1, 0:3] += 1
    return A[0:4:2][:, 1]


def test_extents_of_one_stay_and_subscripts_chain():
    A = numbers(3, 4, 2)
    np.testing.assert_array_equal(runs(extents_of_one, A)[0], A[2, 0:1, :])
    A = numbers(4, 6)
    result, after = runs(chains, A)
    A[0:2][1] = A[2:4][0]
    A[1:4:2][1, 0:3] += 1
    np.testing.assert_array_equal(after[0], A)
    np.testing.assert_array_equal(result, A[0:4:2][:, 1])


def named_views(A: int32[4, 3], p: int32) -> int32:
    row = A[p]
    q: int32 = p
    other = A[q, 0:2]
    q = 0
    row[1] = 50
    other += 1
    total: int32 = 0
    for i in range(4):
        r = A[i]
        r[2] = i
        total += r[0] + r[2]
    row = A[0]
    return total + row[1] + other[0]


def test_a_named_row_is_a_view():
    A = numbers(4, 3)
    result, after = runs(named_views, A, 2)
    A[2, 1] = 50
    A[2, 0:2] += 1
    A[:, 2] = range(4)
    np.testing.assert_array_equal(after[0], A)
    assert result == A[:, 0].sum() + 6 + A[0, 1] + A[2, 0]


def double(X: int32[2, 3]):
    for i, j in allo.grid(2, 3):
        X[i, j] = X[i, j] * 2


def total(X: int32[2, 3]) -> int32:
    s: int32 = 0
    for i, j in allo.grid(2, 3):
        s += X[i, j]
    return s


def through(X: int32[2, 3]):
    double(X)


def slice_arguments(A: int32[4, 6]) -> int32:
    through(A[1:3, 1:6:2])
    double(A[0:2, 0:3])
    return total(A[2:4, 3:6])


def test_slices_as_arguments_are_copied_in_and_out():
    A = numbers(4, 6)
    result, after = runs(slice_arguments, A)
    A[1:3, 1:6:2] *= 2
    A[0:2, 0:3] *= 2
    np.testing.assert_array_equal(after[0], A)
    assert result == A[2:4, 3:6].sum()
    copies_back = str(allo.customize(slice_arguments).module).count("] = value")
    assert copies_back == 2, "what is only read is not copied back"


# ------------------------------------------------------------------------------------ refusals


def add_rows(A: int32[3, 4], B: int32[3]) -> int32[3, 4]:
    return A + B


def stretch_target(A: int32[3, 4], B: int32[4]):
    B[:] = A


def grow(A: int32[1, 4], B: int32[3, 4]):
    A += B


def wrong_fill(A: int32[3, 4], B: int32[3]):
    A[:] = B


def negative(A: int32[4]) -> int32[2]:
    return A[-2:4]


def negative_row(A: int32[4, 2]) -> int32[2]:
    return A[-1]


def beyond(A: int32[4]) -> int32[3]:
    return A[2:5]


def backwards(A: int32[4]) -> int32[4]:
    return A[::-1]


def long_step(A: int32[4]) -> int32[1]:
    return A[0:2:3]


def empty(A: int32[4], B: int32[4]):
    A[2:2] = B[2:2]


def dynamic(A: int32[4], B: int32[2], p: int32):
    B[:] = A[p : p + 2]


def ellipsis(A: int32[4, 4], B: int32[4]):
    B[:] = A[..., 0]


def truth_of_array(A: int32[4], B: int32[4]) -> int32[4]:
    return A if A > B else B


def rebound(A: int32[4, 2], n: int32) -> int32:
    row = A[0]
    for i in range(4):
        row = A[i]
    return row[0]


def both(X: int32[2], Y: int32[4]):
    X[0] = Y[1]


def shared(A: int32[4]):
    both(A[0:4:2], A)


def wrong_result(A: int32[4]) -> int32[3]:
    return A + 1


def unknown(A: int32[4]) -> int32[4]:
    return nowhere(A)


REFUSED = [
    (add_rows, "FX105", "Shape mismatch, got int32[3, 4] and int32[3], and cannot be broadcasted", "A + B"),
    (stretch_target, "FX105", "Shape mismatch, got int32[3, 4] and int32[4]", "A"),
    (grow, "FX105", "Cannot broadcast Int(33)[3, 4] to int32[1, 4]", "A += B"),
    (wrong_fill, "FX105", "Cannot broadcast int32[3] to int32[3, 4]", "B"),
    (negative, "FX106", "Unsupported negative index", "-2:4"),
    (negative_row, "FX106", "Unsupported negative index: -1 in dimension 1 of A", "-1"),
    (beyond, "FX106", "Index out of range: the slice 2:5:1", "2:5"),
    (backwards, "FX106", "Unsupported negative step", "::-1"),
    (long_step, "FX106", "Step larger than range", "0:2:3"),
    (empty, "FX106", "Index out of range: the slice 2:2:1 is empty", "2:2"),
    (dynamic, "FX106", "Dynamic offset is incompatible", "p"),
    (ellipsis, "FX106", "Unsupported slice type", "..."),
    (truth_of_array, "FX105", "the condition of a selection must be a scalar", "A > B"),
    (rebound, "FX104", "row is a view and cannot be bound again in an inner block", "row"),
    (shared, "FX107", "a slice of A and another part of it are arguments of both", "A[0:4:2]"),
    (wrong_result, "FX105", "Shape mismatch: the result is declared as int32[3], `A + 1` is", "A + 1"),
    (unknown, "FX102", "Unsupported function call nowhere", "nowhere"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c[0].__name__)
def test_refusals(case: tuple[Any, str, str, str]):
    kernel, code, text, marked = case
    with pytest.raises(FrontendError) as caught:
        allo.customize(kernel)
    error = caught.value
    assert error.code == code
    assert error.message.startswith(text)
    assert error.hint
    span = error.span
    assert span is not None
    with open(span.file, encoding="utf-8") as file:
        line = file.read().splitlines()[span.line - 1]
    assert line[span.col : span.end_col] == marked


# -------------------------------------------------------------------------------- C simulation


def in_hardware(A: int32[4, 6], B: int8[6], p: int32) -> int32[4, 6]:
    C = (A + B) * 2
    C[1:4, 0:2] += A[0:3, 4:6]
    row = A[p]
    row[2] = 9
    double(A[0:2, 1:4])
    A[2], A[3] = A[3], A[2]
    D = A.T[0:6]
    return C - D.T + A[0]


def _installed() -> bool:
    try:
        find_compiler()
        find_ap_headers()
    except ToolError:
        return False
    return True


@pytest.mark.skipif(not _installed(), reason="no C++ compiler or no ap_int headers")
def test_c_simulation_agrees():
    A, B = numbers(4, 6), numbers(6, seed=1).astype(np.int8)
    expected, after = runs(in_hardware, A, B, 1)
    own = A.copy()
    result = CSimModule(allo.customize(in_hardware).program)(own, B, 1)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(own, after[0])
