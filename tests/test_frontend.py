"""The kernel language: what is accepted means what docs/numerics.md says, what is refused points there."""

from __future__ import annotations

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.customize import lower
from flexllm_allo.errors import FrontendError, source_line
from flexllm_allo.ir.printer import print_program
from flexllm_allo.ir.types import Fixed, Int, Stream, UInt, float32, float64, index, int8, int16, int32, uint8

M, N, K = 3, 4, 5
TABLE = np.arange(4, dtype=np.int32) * 10


def run(fn, *args, **names):
    return Interpreter(lower(fn, names=names))(*args)


# --------------------------------------------------------------------------------- what it means


def gemm(A: int8[M, K], B: int8[K, N]) -> int32[M, N]:
    C: int32[M, N] = 0
    for i, j, k in allo.grid(M, N, K, name="mac"):
        C[i, j] += A[i, k] * B[k, j]
    return C


def test_gemm_equals_numpy_and_prints_as_python():
    rng = np.random.default_rng(0)
    A, B = rng.integers(-128, 128, (M, K), np.int8), rng.integers(-128, 128, (K, N), np.int8)
    np.testing.assert_array_equal(run(gemm, A, B), A.astype(np.int32) @ B.astype(np.int32))
    text = print_program(lower(gemm))
    assert 'for i in range(3, name="mac"):' in text
    assert "C[i, j] += A[i, k] * B[k, j]" in text


def swap(a: int32, b: int32) -> (int32, int32):
    x: int32 = a
    y: int32 = b
    x, y = y, x
    return x, y


def test_tuple_assignment_evaluates_all_right_sides_first():
    assert run(swap, 3, 7) == [7, 3]


def short_circuit(a: int32) -> int32:
    r: int32 = 0
    if a > 0 and 10 // a > 1:
        r = 1
    return r


def test_and_does_not_evaluate_the_right_side_when_the_left_decides():
    assert run(short_circuit, 0) == 0
    assert run(short_circuit, 4) == 1


def subtract(a: uint8, b: uint8) -> int32:
    return a - b


def divide(a: int8, b: uint8) -> int32:
    return a // b


def negate(a: uint8) -> int32:
    return -a


def invert(a: int32) -> int32:
    return ~a


def shift(a: int8) -> int32:
    return a << 4


def compare(a: uint8, b: uint8) -> int32:
    less = a < b
    return less


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (subtract, (1, 2), -1),
        (divide, (100, 200), 0),
        (divide, (-7, 2), -4),
        (negate, (200,), -200),
        (invert, (5,), -6),
        (shift, (100,), 64),
        (compare, (200, 100), 0),
    ],
)
def test_scalars_where_the_original_went_wrong(fn, args, expected):
    assert run(fn, *args) == expected


def clamp(A: Fixed(12, 4)[4]) -> Fixed(12, 4)[4]:
    B: Fixed(12, 4)[4]
    for i in range(4):
        B[i] = A[i] if A[i] > 0 else 0
    return B


def test_fixed_point_selection_keeps_its_fraction():
    out = run(clamp, np.array([1.25, -1.25, 3.5, 0.75]))
    np.testing.assert_array_equal(out, [1.25, 0, 3.5, 0.75])


def tenth(a: float64) -> float64:
    return a * 0.1


def test_a_float_literal_takes_the_type_of_its_partner():
    assert run(tenth, 1.0) == 0.1


def table_row(i: int32) -> int32:
    T: int32[4] = TABLE
    T[0] = T[0] + 1
    return T[i]


def test_initialised_arrays_are_fresh_on_every_call():
    module = Interpreter(lower(table_row))
    assert [module(0), module(0), module(2)] == [1, 1, 20]


def nibble(x: int32, p: index) -> int32:
    return x[p * 4 : (p + 1) * 4]


def test_bit_slices_are_unsigned_and_may_start_at_run_time():
    assert [run(nibble, 0xF3, 0), run(nibble, 0xF3, 1)] == [3, 15]


def pick(a: int32) -> int32:
    r: int32 = 0
    with allo.meta_if(N == 3):
        r = 1
    with allo.meta_elif(N == 4):
        r = 2
    with allo.meta_else():
        r = 3
    with allo.meta_for(3) as i:
        r = r * 10 + i
    return r + a


def test_meta_statements_choose_and_repeat_at_compile_time():
    assert run(pick, 0) == 2012


Ty, L = allo.params("Ty, L")


@allo.template(Ty, L)
def double(X: Ty[L]) -> Ty[L]:
    Y: Ty[L]
    for i in range(L):
        Y[i] = X[i] * 2
    return Y


def callers_of_templates(A: int8[3], B: int16[5]) -> int16[5]:
    a = double(A)
    b = double(B)
    c = double[int16, 5](b)
    c[0] = a[0]
    return c


def test_template_arguments_are_deduced_and_equal_instances_shared():
    program = lower(callers_of_templates)
    assert [f.name for f in program.functions] == ["double", "double_1", "callers_of_templates"]
    out = Interpreter(program)(np.array([1, 2, 3], np.int8), np.arange(5, dtype=np.int16))
    np.testing.assert_array_equal(out, [2, 4, 8, 12, 16])


def test_sizes_may_be_locals_of_the_caller_and_the_nearest_wins():
    M = 2

    def ones() -> int32[M]:
        A: int32[M] = 1
        return A

    np.testing.assert_array_equal(allo.customize(ones).build("interpreter")(), [1, 1])


def test_string_kernels():
    text = """
    def inc(A: int32[n]) -> int32[n]:
        B: int32[n]
        for i in range(n):
            B[i] = A[i] + 1
        return B
    """
    out = run(text, np.arange(3, dtype=np.int32), n=3, int32=int32)
    np.testing.assert_array_equal(out, [1, 2, 3])


def row_sum(row: int32[K]) -> int32:
    total: int32 = 0
    for k in range(K):
        total += row[k]
    return total


def sum_rows(A: int32[M, K]) -> int32[M]:
    out: int32[M]
    for i in range(M):
        out[i] = row_sum(A[i])
    return out


def test_rows_are_passed_as_views():
    A = np.arange(M * K, dtype=np.int32).reshape(M, K)
    np.testing.assert_array_equal(run(sum_rows, A), A.sum(1))


def through_a_fifo(A: int32[8]) -> int32[8]:
    pipe: Stream[int32, 8]
    B: int32[8]
    for i in range(8):
        pipe.put(A[i] + 1)
    for i in range(8):
        B[i] = pipe.get() * 2
    return B


def test_streams_in_a_kernel():
    np.testing.assert_array_equal(run(through_a_fifo, np.arange(8, dtype=np.int32)), (np.arange(8) + 1) * 2)


# ------------------------------------------------------------------------------ what is refused


def comprehension(A: int8[4]):
    for i in range(4):
        A[i] = [x for x in range(3)]


def unknown_name(A: int8[4]):
    for i in range(4):
        A[i] = Bee[i]


def beyond(A: int8[4]):
    A[7] = 3


def negative(A: int8[4]):
    A[-1] = 3


def chained(a: int32) -> int32:
    b = c = a
    return b


def two_comparisons(a: int32) -> int32:
    r: int32 = 0
    if 0 < a < 5:
        r = 1
    return r


def untyped(a, b: int32):
    b = a


def not_a_type(a: TABLE) -> int32:
    return 0


def early(a: int32) -> int32:
    if a > 0:
        return 1
    return 0


def no_result(a: int32) -> int32:
    a = 1


def shadow(A: int8[4]):
    for i in range(4):
        for i in range(2):
            A[i] = 0


def step(A: int8[4]):
    for i in range(0, 4, -1):
        A[i] = 0


def over_a_list(A: int8[4]):
    for i in [1, 2]:
        A[i] = 0


def array_as_scalar(A: int8[4]) -> int32:
    return A + 1


def wrong_shape(A: int32[M, M]) -> int32[M]:
    out: int32[M]
    for i in range(M):
        out[i] = row_sum(A[i])
    return out


def too_few(a: int32) -> int32:
    return row_sum()


def float_bits(a: float32) -> float32:
    return a & 1


def integer_exp(a: int32) -> int32:
    return allo.exp(a)


def undetermined(a: int32) -> int32:
    b = blank()
    return a


@allo.template(L)
def blank() -> int32[L]:
    A: int32[L] = 0
    return A


def twice(a: int32):
    b: int32 = 0
    b: int8 = 1


def itself(a: int32) -> int32:
    return itself(a)


def misspelt(count: int32) -> int32:
    return cuont + 1


@pytest.mark.parametrize(
    ("fn", "code", "at", "text"),
    [
        (comprehension, "FX101", "[x for", 'Unsupported node "ListComp"'),
        (unknown_name, "FX102", "Bee", "Variable Bee not defined in current scope."),
        (misspelt, "FX102", "cuont", 'did you mean "count"?'),
        (beyond, "FX106", "7", "Index out of range: 7"),
        (negative, "FX106", "-1", "Unsupported negative index"),
        (chained, "FX101", "b = c", "chained assignment not supported"),
        (two_comparisons, "FX101", "0 < a", "Only support one comparator for now"),
        (untyped, "FX103", "a, b", "parameter a has no type"),
        (not_a_type, "FX103", "TABLE", "is not a type"),
        (early, "FX112", "return 1", "last statement"),
        (no_result, "FX112", "def no_result", "Missing return statement"),
        (shadow, "FX111", "i in range(2)", "choose a different name for the loop iterator"),
        (step, "FX110", "-1", "Step in for loop range should be positive, got: -1"),
        (over_a_list, "FX110", "[1, 2]", "cannot loop over"),
        (array_as_scalar, "FX104", "A + 1", "A is an array"),
        (wrong_shape, "FX105", "A[i]", "parameter row of row_sum is int32[5], got int32[3]"),
        (too_few, "FX107", "row_sum()", "row_sum takes 1 arguments, got 0"),
        (float_bits, "FX109", "a & 1", "operator & is not defined for float32"),
        (integer_exp, "FX109", "allo.exp(a)", "exp is defined for floats, got int32"),
        (undetermined, "FX108", "blank()", "template parameter L of blank is not determined"),
        (twice, "FX104", "b: int8", "type mismatch"),
        (itself, "FX107", "itself(a)", "itself calls itself"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_refusals_name_the_rule_and_point_at_the_place(fn, code, at, text):
    with pytest.raises(FrontendError) as caught:
        lower(fn)
    error = caught.value
    assert error.code == code
    assert text in str(error)
    assert error.span is not None
    line = source_line(error.span)
    assert line is not None
    assert line[error.span.col :].startswith(at), f"the caret is at {line[error.span.col :]!r}"


def test_the_whole_text_of_an_error():
    with pytest.raises(FrontendError) as caught:
        lower(misspelt)
    head, place, line, caret, hint = str(caught.value).splitlines()
    assert head == "FrontendError FX102: Variable cuont not defined in current scope."
    assert place.startswith("  --> ")
    assert "test_frontend.py:" in place
    assert place.endswith(":12")
    assert line.endswith("|     return cuont + 1")
    assert caret == "      |            ^^^^^"
    assert hint == '  help: did you mean "count"?'


def test_a_lambda_has_no_source_to_compile():
    with pytest.raises(FrontendError, match="is not a function definition"):
        lower(lambda a: a)


def test_widths_of_unnamed_types():
    assert (Int(7).name, Int(33).name, UInt(70).name) == ("int7", "Int(33)", "UInt(70)")
