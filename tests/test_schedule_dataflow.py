"""to() and dataflow(): FIFOs that keep the result, and what cannot be one."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import (
    BackendError,
    DeadlockError,
    ScheduleError,
    ScheduleNameError,
    ScheduleValueError,
    StreamError,
)
from flexllm_allo.ir.types import index, int32
from flexllm_allo.ir.verify import verify
from flexllm_allo.ir.walk import buffers

HERE = __file__


def chain(A: int32[4, 6]) -> int32[4, 6]:
    B: int32[4, 6] = 0
    C: int32[4, 6]
    for i, j in allo.grid(4, 6, name="P"):
        B[i, j] = A[i, j] + 1
    for r, c in allo.grid(4, 6, name="Q"):
        C[r, c] = B[r, c] * 2
    return C


def reversed_reads(A: int32[10]) -> int32[10]:
    B: int32[10]
    C: int32[10]
    for i in range(10, name="P"):
        B[i] = A[i] + 1
    for i in range(10, name="Q"):
        C[i] = B[9 - i] * 2
    return C


def add_one(X: int32[6]) -> int32[6]:
    Y: int32[6]
    for i in range(6):
        Y[i] = X[i] + 1
    return Y


def double(X: int32[6]) -> int32[6]:
    Y: int32[6]
    for i in range(6):
        Y[i] = X[i] * 2
    return Y


def pipeline_of_calls(A: int32[6]) -> int32[6]:
    B: int32[6] = add_one(A)
    C: int32[6] = double(B)
    D: int32[6] = add_one(C)
    return D


def split_and_join(A: int32[6]) -> int32[6]:
    B: int32[6] = add_one(A)
    C: int32[6] = double(B)
    E: int32[6]
    for i in range(6, name="sum"):
        E[i] = B[i] + C[i]
    return E


def rows(A: int32[4, 6]) -> int32[4, 6]:
    B: int32[4, 6]
    C: int32[4, 6]
    for r in range(4, name="P"):
        T: int32[6] = add_one(A[r])
        for j in range(6):
            B[r, j] = T[j]
    for i, j in allo.grid(4, 6, name="Q"):
        C[i, j] = B[i, j] + 1
    return C


def vector(kernel) -> np.ndarray:
    (buffer,) = allo.customize(kernel).top_func.inputs
    return np.arange(np.prod(buffer.shape), dtype=np.int32).reshape(buffer.shape)


def check(kernel, schedule):
    s = allo.customize(kernel)
    a = vector(kernel)
    expected = Interpreter(s.program)(a)
    schedule(s)
    verify(s.program)
    np.testing.assert_array_equal(Interpreter(s.program)(a), expected)
    again = allo.customize(kernel)
    again.replay(s.trace)
    assert again.program == s.program
    return s


def refused(kernel, call, kind=StreamError) -> str:
    s = allo.customize(kernel)
    before = s.program
    with pytest.raises(kind) as caught:
        call(s)
    assert s.program is before
    assert not s.trace
    return str(caught.value).replace(HERE, "FILE")


# ---------------------------------------------------------------------------------- what it makes


def test_fifo_between_bands_drops_the_initialiser():
    s = check(chain, lambda s: s.to(s.B, "Q", depth=3))
    assert s.top_func.dataflow
    assert buffers(s.top_func)["B"].depth == 3
    text = str(s)
    assert "B.put(A[i, j] + 1)" in text
    assert "B_0 = B.get()" in text
    assert "B[_0" not in text


def test_default_depth_is_the_number_of_elements():
    s = check(chain, lambda s: s.to(s.B, s.get_loops().Q.r))
    assert buffers(s.top_func)["B"].depth == 24
    with pytest.raises(StreamError, match='FX302: "B" is a FIFO already'):
        s.to("B", "Q")


def test_scheduled_loops_on_both_sides():
    def schedule(s):
        for loops in ("P.i", "P.j"), ("Q.r", "Q.c"):
            s.split(loops[1], 2)
            s.reorder(loops[1] + ".outer", loops[0])
        s.to(s.B, "Q", depth=2)

    check(chain, schedule)
    text = refused(chain, lambda s: s.apply(lambda s: (s.reorder("P.j", "P.i"), s.to(s.B, "Q"))))
    assert "access 1 writes B[1, 0] but reads B[0, 1]" in text


def test_through_calls():
    def schedule(s):
        s.to(s.B, "double", depth=2)
        s.to(s.C, "add_one", depth=2)

    s = check(pipeline_of_calls, schedule)
    assert "double(X: Stream[int32, 2], Y: Stream[int32, 2])" in str(s)
    # The other call of add_one still uses arrays on one side each: two functions now.
    assert len(s.instances("add_one")) == 2


def test_fork_duplicates_the_writes():
    s = check(split_and_join, lambda s: (s.to(s.B, "double", depth=2), s.to(s.B, "sum"), s.to(s.C, "sum")))
    assert {b.name for b in buffers(s.top_func).values() if b.is_stream} == {"B_double", "B", "C"}
    check(split_and_join, lambda s: s.to(s.B, "sum"))


def filled(X: int32[6]) -> int32[6]:
    Y: int32[6] = 0
    for i in range(6):
        Y[i] = X[i] + 1
    return Y


def calls_that_fill(A: int32[6]) -> (int32[6], int32[6]):
    B = filled(A)
    C = filled(B)
    D = double(C)
    E: int32[6]
    for i in range(6, name="sum"):
        E[i] = C[i] + 1
    return D, E


def test_an_initialiser_in_the_producing_function_is_not_sent():
    def check_both(schedule):
        s = allo.customize(calls_that_fill)
        a = vector(calls_that_fill)
        schedule(s)
        verify(s.program)
        for target in ("interpreter", None):
            d, e = s.build(target)(a)
            np.testing.assert_array_equal([d, e], [2 * a + 4, a + 3])
        return s

    s = check_both(lambda s: (s.to(s.B, "filled", depth=2), s.to(s.C, "double", depth=8), s.to(s.C, "sum")))
    assert len(s.instances("filled")) == 2
    check_both(lambda s: s.to(s.C, "double", depth=8))  # the array stays for the other reader


def accumulate(A: int32[4, 4], C: int32[4, 4]):
    for i, j in allo.grid(4, 4):
        for k in allo.reduction(4):
            C[i, j] += A[i, k] * A[k, j]


def filled_by_the_caller(A: int32[4, 4]) -> int32[4, 4]:
    B: int32[4, 4] = 3
    accumulate(A, B)
    C: int32[4, 4]
    for i, j in allo.grid(4, 4, name="Q"):
        C[i, j] = B[i, j] * 2
    return C


def test_what_the_caller_filled_is_a_constant_in_the_producing_function():
    inner = allo.customize(accumulate)
    inner.reorder("k", "j")
    inner.buffer_at(inner.C, "i")
    s = check(filled_by_the_caller, lambda s: (s.compose(inner), s.to(s.B, "Q", depth=4)))
    assert "C_buf[j_init] = 3" in str(s)
    # Without the buffer every sum is stored, and read, four times.
    assert "reads it as well" in refused(filled_by_the_caller, lambda s: s.to(s.B, "Q"))


def half_filled(X: int32[6]) -> int32[6]:
    Y: int32[6] = 7
    for i in range(3):
        Y[i] = X[i]
    return Y


def reads_the_fill(A: int32[6]) -> int32[6]:
    B = half_filled(A)
    C = double(B)
    return C


def test_an_initialiser_that_is_read_stays():
    text = refused(reads_the_fill, lambda s: s.to(s.B, "double"))
    assert "FX301: B[0] is written more than once" in text


def test_a_fill_after_the_producer_is_no_initialiser():
    def cleared(A: int32[6]) -> int32[6]:
        B: int32[6]
        C: int32[6]
        for i in range(6, name="P"):
            B[i] = A[i] + 1
        B[:] = 0
        for i in range(6, name="Q"):
            C[i] = B[i]
        return C

    assert 'FX302: "B" has 2 producers' in refused(cleared, lambda s: s.to(s.B, "Q"))


def test_inside_a_callee_row_by_row():
    check(rows, lambda s: s.to(s.B, "Q"))
    check(rows, lambda s: s.to(s.T, "S_j_0"))
    s = check(rows, lambda s: s.to(s.T, s.get_loops().P.j))
    assert 'for r in range(4, name="P"):  # dataflow' in str(s)


def test_deadlock_of_a_shallow_fork_is_reported():
    def skewed(A: int32[6]) -> int32[6]:
        B: int32[6]
        C: int32[6]
        D: int32[6]
        for i in range(6, name="P"):
            B[i] = A[i]
        for i in range(6, name="Q"):
            C[i] = B[i]
        for i in range(6, name="R"):
            D[i] = B[i] + C[5 - i]
        return D

    s = allo.customize(skewed)
    s.to(s.B, "R", depth=2)
    s.to(s.B, "Q", depth=2)
    with pytest.raises(DeadlockError):
        Interpreter(s.program)(vector(skewed))
    check(skewed, lambda s: (s.to(s.B, "R"), s.to(s.B, "Q", depth=2)))


def test_run_time_extents_compare_by_form():
    def dynamic(n: index, A: int32[10]) -> int32[10]:
        B: int32[10]
        C: int32[10] = 0
        for i in range(n, name="P"):
            B[i] = A[i] + 1
        for q in range(n, name="Q"):
            C[q] = B[q] * 2
        return C

    s = allo.customize(dynamic)
    a = np.arange(10, dtype=np.int32)
    expected = Interpreter(s.program)(7, a)
    s.to(s.B, "Q", depth=1)
    np.testing.assert_array_equal(Interpreter(s.program)(7, a), expected)


def test_guards_over_loop_variables_are_followed():
    def guarded(A: int32[10]) -> int32[5]:
        B: int32[10]
        C: int32[5]
        for i in range(10, name="P"):
            if i % 2 == 0:
                B[i] = A[i]
        for i in range(5, name="Q"):
            C[i] = B[2 * i]
        return C

    check(guarded, lambda s: s.to(s.B, "Q", depth=1))


def test_dataflow_marks_functions_and_loops():
    s = allo.customize(rows)
    s.dataflow("rows")
    s.dataflow(s.get_loops().P.r)
    s.dataflow("add_one")
    assert s.top_func.dataflow
    assert s.program.function("add_one").dataflow
    assert str(s).count("# dataflow") == 3
    np.testing.assert_array_equal(Interpreter(s.program)(vector(rows)), vector(rows) + 2)
    with pytest.raises(ScheduleNameError, match="Dataflow loop nowhere not found"):
        s.dataflow("nowhere")


# --------------------------------------------------------------------------------------- refusals


def test_reversed_reads_name_the_first_that_differs():
    text = refused(reversed_reads, lambda s: s.to(s.B, "Q"))
    lines = text.splitlines()
    source = open(HERE).read().splitlines()
    write = next(i for i, line in enumerate(source) if "B[i] = A[i] + 1" in line) + 1
    assert lines[0] == (
        'StreamError FX301: "B" is not read in the order it is written: access 0 writes B[0] but reads B[9]'
    )
    assert lines[1] == f"  --> FILE:{write}:9"
    assert lines[3] == "      |         ^^^^ access 0 writes B[0]"
    assert lines[4] == f"  --> FILE:{write + 2}:16"
    assert lines[6] == "      |                ^^^^^^^^ access 0 reads B[9]"
    assert lines[9].endswith("primitive 1: to")
    assert lines[10].startswith("  help: reorder the loops")


def sums(A: int32[4, 6]) -> int32[4]:
    B: int32[4] = 0
    C: int32[4]
    for i, k in allo.grid(4, 6, name="P"):
        B[i] += A[i, k]
    for i in range(4, name="Q"):
        C[i] = B[i]
    return C


def twice_read(A: int32[4]) -> int32[4]:
    B: int32[4]
    C: int32[4]
    for i in range(4, name="P"):
        B[i] = A[i]
    for i in range(4, name="Q"):
        C[i] = B[i] * B[i]
    return C


def half_read(A: int32[4]) -> int32[4]:
    B: int32[4]
    C: int32[4] = 0
    for i in range(4, name="P"):
        B[i] = A[i]
    for i in range(3, name="Q"):
        C[i] = B[i]
    return C


def twice_written(A: int32[4]) -> int32[4]:
    B: int32[4]
    C: int32[4]
    for k, i in allo.grid(2, 4, name="P"):
        B[i] = A[i] + k
    for i in range(4, name="Q"):
        C[i] = B[i]
    return C


def data_dependent(A: int32[4]) -> int32[4]:
    B: int32[4]
    C: int32[4]
    for i in range(4, name="P"):
        B[i] = A[i]
    for i in range(4, name="Q"):
        if A[i] > 0:
            C[i] = B[i]
        else:
            C[i] = 0
    return C


def two_producers(A: int32[4]) -> int32[4]:
    B: int32[4]
    C: int32[4]
    for i in range(4, name="P"):
        B[i] = A[i]
    for i in range(4, name="P2"):
        B[i] = A[i] + 1
    for i in range(4, name="Q"):
        C[i] = B[i]
    return C


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (sums, 'FX302: the producer of "B" reads it as well'),
        (
            twice_read,
            'FX301: "B" is not read in the order it is written: access 1 writes B[1] but reads B[0]',
        ),
        (half_read, 'FX301: "B" is written 4 times but read 3 times'),
        (twice_written, "FX301: B[0] is written more than once"),
        (data_dependent, 'FX301: the order in which "B" is read is not known'),
        (two_producers, 'FX302: "B" has 2 producers; a FIFO needs one'),
    ],
)
def test_not_a_stream(kernel, message):
    text = refused(kernel, lambda s: s.to(s.B, "Q"))
    assert message in text
    assert "primitive 1: to" in text
    assert "help: " in text or "producers" in text


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda s: s.to(s.A, "Q"), StreamError, 'FX302: "A" is a parameter of "chain"'),
        (lambda s: s.to(s.B, "Z"), ScheduleNameError, 'FX201: no band or function "Z" in "chain"'),
        (lambda s: s.to(s.B, "P"), StreamError, 'FX302: "P" reads "B" in 0 statements'),
        (
            lambda s: s.to(s.B, "Q", depth=0),
            ScheduleValueError,
            "FX204: FIFO depth must be at least 1, got 0",
        ),
        (lambda s: s.to("nothing", "Q"), ScheduleNameError, "FX201: Target nothing not found"),
    ],
)
def test_to_refused(call, kind, message):
    assert message in refused(chain, call, kind)


def test_accumulation_becomes_a_stream_after_buffer_at():
    def schedule(s):
        s.buffer_at(s.B, "P.i")
        s.to(s.B, "Q", depth=1)

    check(sums, schedule)


# ------------------------------------------------------------------------------------------- random


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("PQ"), st.integers(0, 3), st.integers(1, 3)), max_size=4))
def test_accepted_streams_keep_the_result(steps):
    def schedule(s):
        for band, number, factor in steps:
            names = [f"{band}.{n}" for n in s.get_loops()[band].loops]
            if number < len(names):
                try:
                    s.split(names[number], factor)
                    s.reorder(*reversed([f"{band}.{n}" for n in s.get_loops()[band].loops][:2]))
                except ScheduleError:
                    continue
        with suppress(StreamError):
            s.to(s.B, "Q", depth=1)

    check(chain, schedule)


# -------------------------------------------------------------------------------------------- build


def test_build_targets():
    s = allo.customize(chain)
    a = vector(chain)
    np.testing.assert_array_equal(s.build(target="simulator")(a), (a + 1) * 2)
    with pytest.raises(BackendError, match="Target vits_hls is not supported") as caught:
        s.build(target="vits_hls")
    assert caught.value.hint.startswith('did you mean "vitis_hls"')
