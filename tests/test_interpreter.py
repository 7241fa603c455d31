"""The reference interpreter: the rules of docs/numerics.md by example, and the checks it makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ir_build import (
    F32,
    I32,
    add,
    array,
    at,
    call,
    const,
    function,
    i,
    index,
    load,
    local,
    loop,
    program,
    store,
)

from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import BackendError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import BOOL, INDEX, DType, Fixed, Float, Int, UFixed, UInt
from flexllm_allo.ir.walk import walk

F16, BF16, F64 = Float(16, 10), Float(16, 7), Float(64, 52)


def evaluate(e: ir.Expr, *values: object) -> object:
    """The value of an expression over inputs x0, x1, ..., the same by interpreter and LLVM."""
    types = {n.buffer: n.type for n in _loads(e)}
    params = [ir.Buffer(f"x{n}", types[f"x{n}"]) for n in range(len(values))]
    out = ir.Buffer("out", e.type)
    p = program(function("f", [*params, out], store("out", e), results=1))
    expected = Interpreter(p)(*values)
    got = LLVMModule(p)(*values)
    assert got == expected or (math.isnan(got) and math.isnan(expected))
    return expected


def _loads(e: ir.Expr) -> list[ir.Load]:
    return [n for n in walk(e) if isinstance(n, ir.Load)]


def x(n: int, dtype: DType) -> ir.Load:
    return load(f"x{n}", dtype=dtype)


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("//", 7, -2, -4),
        ("%", 7, -2, -1),
        ("//", -7, 2, -4),
        ("%", -7, 2, 1),
        ("//", -128, -1, -128),
        ("<<", 3, 7, -128),
        ("<<", 1, 8, 0),
        (">>", -5, 1, -3),
        (">>", -5, 9, -1),
        (">>", 5, -1, 0),
        ("+", 127, 1, -128),
        ("-", -128, 1, 127),
        ("*", 16, 16, 0),
        ("min", -3, 2, -3),
        ("max", -3, 2, 2),
        ("^", 5, -1, -6),
        ("&", 12, 10, 8),
        ("|", 12, 10, 14),
        ("%", -128, -1, 0),
    ],
)
def test_int8_operators(op: str, a: int, b: int, expected: int) -> None:
    t = Int(8)
    assert evaluate(ir.Binary(op, x(0, t), x(1, t), t), a, b) == expected


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        (F32, Int(8), -1.9, -1),
        (F32, Int(8), 300.7, 44),
        (F32, UInt(8), -1.0, 255),
        (F32, Int(8), float("nan"), 0),
        (F64, Int(64), 1e300, 0),
        (F64, Int(70), -1e18, -(10**18)),
        (F32, Fixed(8, 4), -0.03, -0.0625),
        (Fixed(8, 4), Int(8), -1.5, -1),
        (Fixed(8, 4), UInt(4), 7.9, 7),
        (Fixed(8, 4), Fixed(8, 2), -0.0625, -0.25),
        (Fixed(8, 4), Fixed(6, 4), 3.5, -0.5),
        (Int(8), Fixed(8, 4), 9, -7.0),
        (UFixed(4, 8), F32, 0.05859375, 0.05859375),
        (Int(64), F32, (1 << 60) + (1 << 36), 2.0**60),
        (Int(32), F32, 16777217, 16777216.0),
        (Int(64), F32, (1 << 60) + (1 << 36) + 1, 2.0**60 + 2.0**37),
        (UInt(64), F64, 2**64 - 1, 2.0**64),
        (UInt(70), F32, (1 << 69) + (1 << 45) + 1, 2.0**69 + 2.0**46),
        (F64, BF16, 1 + 2**-8 + 2**-40, 1 + 2**-7),
        (F64, F16, 1 + 2**-11 + 2**-40, 1 + 2**-10),
        (F64, F16, 65519.99, 65504.0),
        (Int(32), F16, 70000, math.inf),
        (F32, BOOL, 3.0, True),
        (Int(8), BOOL, 2, False),
        (INDEX, Int(8), 200, -56),
        (UInt(1), Int(8), 1, 1),
        (F64, BF16, 1e-40, 2.0**-133),
        (F64, F16, 1e-7, 2.0**-23),
        (F32, UFixed(70, 60), 0.75, 0.75),
    ],
)
def test_conversions(source: DType, target: DType, value: float, expected: float) -> None:
    assert evaluate(ir.Cast(x(0, source), target), value) == expected


def test_float_rules() -> None:
    def on(t: DType, op: str, a: float, b: float) -> object:
        return evaluate(ir.Binary(op, x(0, t), x(1, t), t), a, b)

    nan = float("nan")
    assert on(F32, "%", -7.5, 2.0) == 0.5
    assert on(F32, "%", 7.5, -2.0) == -0.5
    assert on(F64, "//", -7.5, 2.0) == -4.0
    assert on(F32, "min", 1.0, nan) == 1.0
    assert math.isnan(on(F32, "min", nan, 1.0))
    assert on(F32, "/", 1.0, 0.0) == math.inf
    assert on(BF16, "+", 256.0, 1.0) == 256.0
    assert on(BF16, "+", 256.0, 3.0) == 260.0
    assert on(F16, "*", 300.0, 300.0) == math.inf
    assert [evaluate(ir.Math("round", (x(0, F32),), F32), v) for v in (0.5, -2.5, 0.49999997, 8388609.0)] == [
        1.0,
        -3.0,
        0.0,
        8388609.0,
    ]
    assert evaluate(ir.Math("exp", (x(0, F64),), F64), 1.0) == math.e


def test_no_fused_multiply_add() -> None:
    a, b = 1 + 2.0**-13, 1 - 2.0**-13
    product = ir.Binary("*", x(0, F32), x(1, F32), F32)
    assert evaluate(ir.Binary("-", product, x(2, F32), F32), a, b, 1.0) == 0.0


def test_fixed_point_division_is_the_floor_of_the_exact_quotient() -> None:
    t = Fixed(24, 10)
    e = ir.Binary("/", x(0, Fixed(8, 4)), x(1, Fixed(8, 4)), t)
    assert evaluate(e, -1.0, 3.0) == math.floor(-(2**10) / 3) / 2**10


def test_bit_slices() -> None:
    def bits(value: int, low: int, t: DType, width: int) -> object:
        return evaluate(ir.BitSlice(x(0, t), x(1, INDEX), UInt(width)), value, low)

    assert bits(0xABCD, 4, UInt(16), 8) == 0xBC
    assert bits(-1, 28, Int(32), 8) == 0xF
    assert bits(1 << 69, 66, UInt(70), 4) == 8
    assert bits(5, 32, Int(32), 1) is False


def test_bitcast() -> None:
    assert evaluate(ir.Bitcast(x(0, F32), UInt(32)), 1.0) == 0x3F800000
    assert evaluate(ir.Bitcast(x(0, UInt(16)), BF16), 0x4049) == 3.140625
    assert evaluate(ir.Bitcast(x(0, F16), Int(16)), -2.0) == -0x4000


def refusal(p: ir.Program, *args: object) -> BackendError:
    with pytest.raises(BackendError) as caught:
        Interpreter(p)(*args)
    assert caught.value.code == "FX404"
    return caught.value


def test_out_of_bounds_is_refused_at_its_place() -> None:
    e = ir.Load("A", (index(0), add(i, index(1), INDEX)), I32, at(5))
    p = program(function("f", [array("A", 2, 3), array("B", 3)], loop("i", 3, store("B", i, e))))
    error = refusal(p, np.zeros((2, 3), np.int32), np.zeros(3, np.int32))
    assert error.message == "index 3 is out of bounds for dimension 1 of 'A', which has 3 elements"
    assert error.span == at(5)


def test_uninitialised_elements_are_refused() -> None:
    e = ir.Load("T", (index(2),), I32, at(7))
    body = (local("T", shape=(4,)), store("T", index(1), const(1)), store("B", index(0), e))
    p = program(function("f", [array("B", 1)], *body))
    error = refusal(p, np.zeros(1, np.int32))
    assert error.message == "'T[2]' is read before it is written"
    assert error.span == at(7)


def test_division_by_zero_is_refused_by_the_interpreter_and_zero_in_machine_code() -> None:
    for op, expected in (("//", 0), ("%", 9)):
        e = ir.Binary(op, load("a"), load("b"), I32, at(2))
        p = program(function("f", [array("a"), array("b"), array("out")], store("out", e), results=1))
        assert refusal(p, 9, 0).message == f"division by zero in '{op}'"
        assert LLVMModule(p)(9, 0) == expected


def test_calls_views_and_results() -> None:
    double = function(
        "double",
        [array("row", 3), array("by"), array("last")],
        loop("i", 3, store("row", i, ir.Binary("*", load("row", i), load("by"), I32))),
        store("last", load("row", index(2))),
        results=1,
    )
    step = call("double", ir.View("A", (i,)), ir.Cast(i, I32), ir.View("L", (i,)))
    top = function("top", [array("A", 4, 3), array("L", 4)], loop("i", 4, step), results=1)
    a = np.arange(12, dtype=np.int32).reshape(4, 3)
    for engine in (Interpreter, LLVMModule):
        mine = a.copy()
        last = engine(program(double, top))(mine)
        assert (mine == a * np.arange(4)[:, None]).all()
        assert last.tolist() == mine[:, 2].tolist()
        assert engine(program(double, top)).call("double", row := np.array([1, 2, 3], np.int32), 5) == 15
        assert row.tolist() == [5, 10, 15]


def test_while_if_and_initial_contents() -> None:
    body = (
        ir.Alloc(array("T", 4), (1, 2, 3, -4)),
        ir.Alloc(array("n"), (0,)),
        store("out", const(0)),
        ir.While(
            ir.Binary("<", load("n"), const(4), BOOL),
            (
                ir.If(
                    ir.Binary(">", load("T", load("n")), const(0), BOOL),
                    (store("out", add(load("out"), load("T", load("n")))),),
                    (store("out", ir.Binary("*", load("out"), const(10), I32)),),
                ),
                store("n", add(load("n"), const(1))),
            ),
        ),
    )
    p = program(function("f", [array("out")], *body, results=1))
    assert Interpreter(p)() == LLVMModule(p)() == 60


def test_select_and_logic_evaluate_only_what_they_need() -> None:
    inside = ir.Binary("<", i, index(3), BOOL)
    positive = ir.Binary(">", load("A", i), const(0), BOOL)
    chosen = ir.Select(inside, load("A", i), const(-1), I32)
    both = ir.Cast(ir.Logic("and", inside, positive), I32)
    p = program(
        function(
            "f", [array("A", 3), array("B", 5)], loop("i", 5, store("B", i, add(chosen, both))), results=1
        )
    )
    a = np.array([5, -6, 7], np.int32)
    for engine in (Interpreter, LLVMModule):
        assert engine(p)(a).tolist() == [6, -6, 8, -1, -1]


def test_float_results_are_python_floats() -> None:
    p = program(
        function(
            "f",
            [array("a", dtype=F32), array("out", dtype=F32)],
            store("out", load("a", dtype=F32)),
            results=1,
        )
    )
    assert type(Interpreter(p)(np.float64(0.1))) is float
    assert Interpreter(p)(0.1) == float(np.float32(0.1))
