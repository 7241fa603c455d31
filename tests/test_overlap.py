"""Copies for several readers, and how many buffers of an array are on their way between processes."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import fork, refused

import flexllm_allo as allo
from flexllm_allo.analysis.overlap import in_flight, stages
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ScheduleNameError, StreamError
from flexllm_allo.ir.types import int32
from flexllm_allo.ir.walk import buffers
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import hardware_top


def add_one(X: int32[4, 6]) -> int32[4, 6]:
    Y: int32[4, 6]
    for i, j in allo.grid(4, 6):
        Y[i, j] = X[i, j] + 1
    return Y


def add(X: int32[4, 6], Y: int32[4, 6]) -> int32[4, 6]:
    Z: int32[4, 6]
    for i, j in allo.grid(4, 6):
        Z[i, j] = X[i, j] + Y[i, j]
    return Z


def inner(X: int32[4, 6]) -> int32[4, 6]:
    first = add_one(X)
    second = add_one(first)
    return second


def residual(X: int32[4, 6]) -> int32[4, 6]:
    a = add_one(X)
    b = inner(a)
    c = add(X, b)
    return c


def blocks(X: int32[5, 4, 6]) -> int32[5, 4, 6]:
    Y: int32[5, 4, 6]
    for b in range(5):
        x: int32[4, 6]
        for i, j in allo.grid(4, 6, name="load"):
            x[i, j] = X[b, i, j]
        y = residual(x)
        for i, j in allo.grid(4, 6, name="store"):
            Y[b, i, j] = y[i, j]
    return Y


def in_place(X: int32[4, 6]) -> int32[4, 6]:
    Y: int32[4, 6]
    for i, j in allo.grid(4, 6, name="first"):
        Y[i, j] = X[i, j] * 2
    for i, j in allo.grid(4, 6, name="second"):
        Y[i, j] = Y[i, j] + X[i, j]
    return Y


DATA = np.arange(120, dtype=np.int32).reshape(5, 4, 6)


def overlapped() -> allo.Schedule:
    s = allo.customize(blocks)
    for name in ("inner", "residual"):
        part = s.function(name)
        part.duplicate()
        part.dataflow()
    s.dataflow("b")
    return s


def test_overlapped_blocks_give_the_same_result() -> None:
    expected = DATA + (DATA + 3)
    s = overlapped()
    np.testing.assert_array_equal(Interpreter(s.program)(DATA), expected)
    np.testing.assert_array_equal(s.build()(DATA), expected)


def test_an_array_that_passes_processes_by_has_a_buffer_for_each() -> None:
    program = overlapped().program
    residual_ = in_flight(program, program.function("residual"))
    # X_1 waits for add_one and for both processes inside `inner`.
    assert residual_ == {"X_0": 2, "X_1": 2 + 3, "a": 2, "b": 2}
    assert in_flight(program, program.function("blocks")) == {"x": 2, "y": 2}
    (call,) = [n for n in program.function("residual").body if getattr(n, "func", "") == "inner"]
    assert stages(program, call) == 2


def test_processes_joined_by_a_fifo_are_at_work_at_the_same_time() -> None:
    """In `inner` both on one block; and `inner` with `add_one`, whose result it takes element by element."""
    s = overlapped()
    s.function("inner").to("first", depth=4)
    assert in_flight(s.program, s.program.function("residual"))["X_1"] == 2 + 2
    s.function("residual").to("a", depth=4)
    assert in_flight(s.program, s.program.function("residual")) == {"X_0": 2, "X_1": 2 + 1, "b": 2}
    np.testing.assert_array_equal(s.build()(DATA), DATA + (DATA + 3))


def later(X: int32[4, 6], Y: int32[4, 6]) -> int32[4, 6]:
    first = add_one(Y)
    second = add(X, first)
    return second


def deep(X: int32[4, 6]) -> int32[4, 6]:
    a = add_one(X)
    c = later(X, a)
    return c


def test_an_array_waits_inside_a_process_too() -> None:
    s = allo.customize(deep)
    for name in ("later", "deep"):
        part = s.function(name)
        part.duplicate()
        part.dataflow()
    # X_1 waits for add_one, and for the one inside `later`.
    assert in_flight(s.program, s.program.function("deep")) == {"X_0": 2, "X_1": 2 + 2, "a": 2}


def test_vitis_is_told_how_many() -> None:
    text = str(overlapped().build(target="vhls"))
    assert text.count("type=pipo") == 1
    assert "#pragma HLS stream variable=X_1 type=pipo depth=5" in text


@pytest.mark.parametrize("dim", [1, 2])
def test_banks_go_over_to_the_copies(dim: int) -> None:
    s = allo.customize(residual)
    s.partition(s.X, dim=dim)
    s.duplicate(s.X)
    copies = [buffers(s.top_func)[name] for name in ("X_0", "X_1")]
    assert all(c.banks == buffers(s.top_func)["X"].banks for c in copies)
    assert str(s).count("# unroll") == 1  # the dimension in banks, all of it at once
    np.testing.assert_array_equal(s.build()(DATA[0]), DATA[0] + DATA[0] + 3)


def test_what_is_changed_after_it_was_read_is_refused() -> None:
    text = refused(allo.customize(in_place), lambda s: s.duplicate(), StreamError)
    assert 'FX302: "Y" is changed after it was read' in text
    assert "help: write the result of the second statement to another array" in text
    assert "read here" in text
    assert "written here" in text


@pytest.mark.parametrize(
    ("target", "message"),
    [("C", 'FX302: "C" has 0 readers'), ("nothing", "FX201: Target nothing not found")],
)
def test_other_refusals(target: str, message: str) -> None:
    kind = ScheduleNameError if target == "nothing" else StreamError
    assert message in refused(allo.customize(fork), lambda s: s.duplicate(target), kind)


def test_prefill_of_a_llama_overlaps() -> None:
    top = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 128)).top
    dataflow = {f.name for f in top.functions if f.dataflow}
    assert {"self_attention", "mlp", "attend_static", "norm_quantize"} <= dataflow
    assert in_flight(top, top.function("self_attention"))["q"] == 2
    assert in_flight(top, top.function("mlp"))["x_1"] == 6  # norm, gate, product, down
    # What goes around attention is read again, behind it: so it does not wait for all that is in front.
    assert {"x": 2, "o": 2, "again": 2}.items() <= in_flight(top, top.function("prefill")).items()
