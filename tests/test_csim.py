"""The compiled HLS C++ against the interpreter, bit for bit."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ArgumentError, DeadlockError, ToolError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import BOOL, FLOAT32, INDEX, INT32, DType, Fixed, Float, Int, UFixed, UInt
from flexllm_allo.ir.layout import pack_array, unpack_array
from flexllm_allo.ir.types import float32, int8

COUNT = 12  # elements every expression is evaluated on


def _installed(find: Any) -> bool:
    try:
        find()
    except ToolError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _installed(find_compiler), reason="no C++ compiler")
needs_ap = pytest.mark.skipif(not _installed(find_ap_headers), reason="no ap_int headers")


def index(value: int) -> ir.Const:
    return ir.Const(value, INDEX)


class Expressions:
    """Random well-typed expressions over the input arrays."""

    def __init__(self, seed: int, widths: list[int], fixed: bool = False) -> None:
        self.random = Random(seed)
        self.widths = widths
        self.fixed = fixed
        self.inputs = [ir.Buffer(f"x{i}", self.dtype(), (COUNT,)) for i in range(6)]

    def dtype(self) -> DType:
        bits = self.random.choice(self.widths)
        if self.fixed and self.random.random() < 0.5:
            return self.random.choice([Fixed, UFixed])(bits, self.random.randrange(bits))
        return self.random.choice([Int, UInt])(bits)

    def integer(self) -> DType:
        return self.random.choice([Int, UInt])(self.random.choice(self.widths))

    def leaf(self, dtype: DType) -> ir.Expr:
        if self.random.random() < 0.3:
            low = -(1 << dtype.bits - 1) if dtype.signed else 0
            span = (1 << dtype.bits) - 1
            edge = self.random.choice(
                [low, low + span, 0, 1 if low + span >= 1 else 0, self.random.randint(low, low + span)]
            )
            return ir.Const(edge, dtype)
        source = self.random.choice(self.inputs)
        load = ir.Load(source.name, (ir.LoopVar("i"),), source.dtype)
        return load if source.dtype == dtype else ir.Cast(load, dtype)

    def nonzero(self, depth: int, dtype: DType) -> ir.Expr:
        value = self.expr(depth, dtype)
        is_zero = ir.Binary("==", value, ir.Const(0, dtype), BOOL)
        return ir.Select(is_zero, ir.Const(-1 if dtype.signed else 1, dtype), value, dtype)

    def amount(self) -> ir.Expr:
        if self.random.random() < 0.5:
            return ir.Const(self.random.randrange(0, 80), INT32)
        return self.leaf(self.random.choice([UInt(3), UInt(6), UInt(7), Int(8)]))

    def expr(self, depth: int, dtype: DType) -> ir.Expr:
        if depth == 0:
            return self.leaf(dtype)
        sub = depth - 1
        choices = ["ring", "ring", "multiply", "divide", "extremum", "unary", "select", "cast", "shift"]
        if dtype.is_integer:
            choices += ["bits", "bits", "modulo"]
            if isinstance(dtype, UInt):
                choices += ["slice"]
            if dtype == BOOL:
                choices += ["compare", "compare", "logic"]
        return getattr(self, f"_{self.random.choice(choices)}")(sub, dtype)

    def _ring(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary(self.random.choice("+-"), self.expr(sub, dtype), self.expr(sub, dtype), dtype)

    def _multiply(self, sub: int, dtype: DType) -> ir.Expr:
        if dtype.fracs:
            fracs = self.random.randrange(dtype.fracs + 1)
            kinds = (Fixed, UFixed)
            left = self.random.choice(kinds)(max(dtype.bits // 2, fracs + 1), fracs)
            right = self.random.choice(kinds)(dtype.bits, dtype.fracs - fracs)
            return ir.Binary("*", self.expr(sub, left), self.expr(sub, right), dtype)
        if dtype.is_fixed:
            return self._ring(sub, dtype)
        return ir.Binary("*", self.expr(sub, self.integer()), self.expr(sub, self.integer()), dtype)

    def _divide(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary(
            "/" if dtype.is_fixed else "//", self.expr(sub, dtype), self.nonzero(sub, dtype), dtype
        )

    def _modulo(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary("%", self.expr(sub, dtype), self.nonzero(sub, dtype), dtype)

    def _extremum(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary(
            self.random.choice(["min", "max"]), self.expr(sub, dtype), self.expr(sub, dtype), dtype
        )

    def _bits(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary(self.random.choice("&|^"), self.expr(sub, dtype), self.expr(sub, dtype), dtype)

    def _shift(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Binary(self.random.choice(["<<", ">>"]), self.expr(sub, dtype), self.amount(), dtype)

    def _unary(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Unary("-" if dtype.is_fixed else self.random.choice("-~"), self.expr(sub, dtype), dtype)

    def _select(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Select(self.expr(sub, BOOL), self.expr(sub, dtype), self.expr(sub, dtype), dtype)

    def _cast(self, sub: int, dtype: DType) -> ir.Expr:
        if self.random.random() < 0.3:
            source = self.random.choice([Int, UInt])(dtype.bits)
            return ir.Bitcast(self.expr(sub, source), dtype)
        return ir.Cast(self.expr(sub, self.dtype()), dtype)

    def _compare(self, sub: int, dtype: DType) -> ir.Expr:
        common = self.dtype()
        op = self.random.choice(["==", "!=", "<", "<=", ">", ">="])
        return ir.Binary(op, self.expr(sub, common), self.expr(sub, common), dtype)

    def _logic(self, sub: int, dtype: DType) -> ir.Expr:
        return ir.Logic(self.random.choice(["and", "or"]), self.expr(sub, BOOL), self.expr(sub, BOOL))

    def _slice(self, sub: int, dtype: DType) -> ir.Expr:
        value = self.expr(sub, Int(self.random.choice(self.widths)))
        lo = index(self.random.randrange(70)) if self.random.random() < 0.6 else self.leaf(UInt(6))
        return ir.BitSlice(value, lo, dtype)


def evaluate(inputs: list[ir.Buffer], exprs: list[ir.Expr]) -> ir.Program:
    """A program that computes every expression for every element of the inputs."""
    outputs = [ir.Buffer(f"y{i}", e.type, (COUNT,)) for i, e in enumerate(exprs)]
    stores = tuple(ir.Store(b.name, (ir.LoopVar("i"),), e) for b, e in zip(outputs, exprs, strict=True))
    body = (ir.For("i", index(0), index(COUNT), stores, band="all"),)
    return ir.Program((ir.Function("top", (*inputs, *outputs), body, results=len(outputs)),), "top")


def contents(buffer: ir.Buffer, random: np.random.Generator) -> Any:
    dtype = buffer.dtype
    if isinstance(dtype, Float):
        scale = 10.0 ** random.integers(-3, 6, COUNT)
        return (random.standard_normal(COUNT) * scale).astype(
            {16: np.float16, 32: np.float32, 64: np.float64}[dtype.bits]
        )
    if dtype.is_fixed:
        return random.standard_normal(COUNT) * 2.0 ** (dtype.bits - dtype.fracs - 2)
    low = -(1 << dtype.bits - 1) if dtype.signed else 0
    high = low + (1 << dtype.bits) - 1
    picked = [low, high, 0, high // 2] + [
        low + int(random.integers(0, 1 << 62)) * (high - low) // (1 << 62) for _ in range(COUNT - 4)
    ]
    return (
        np.array(picked, object)
        if dtype.bits > 32
        else np.array(picked, np.int64 if dtype.bits < 64 else object)
    )


def compare(program: ir.Program, args: list[Any]) -> None:
    expected, got = Interpreter(program)(*args), CSimModule(program)(*args)
    outputs = program.function(program.top).outputs
    if len(outputs) == 1:
        expected, got = [expected], [got]
    for buffer, want, have in zip(outputs, expected, got, strict=True):
        np.testing.assert_array_equal(want, have, err_msg=f"{buffer.name}: {buffer.dtype}")
        assert np.asarray(want).tobytes() == np.asarray(have).tobytes() or np.isnan(want).any()


def check(generator: Expressions, seed: int, count: int) -> None:
    exprs = [generator.expr(3, generator.dtype()) for _ in range(count)]
    random = np.random.default_rng(seed)
    compare(evaluate(generator.inputs, exprs), [contents(b, random) for b in generator.inputs])


few = settings(
    max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@few
def test_native_integers(seed: int) -> None:
    generator = Expressions(seed, [1, 8, 16, 32, 64])
    generator.integer = lambda: Random(seed).choice([Int, UInt])(8)  # keep products within 64 bits
    check(generator, seed, 40)


@needs_ap
@given(seeds)
@few
def test_narrow_integers(seed: int) -> None:
    check(Expressions(seed, [1, 2, 3, 4, 7, 8, 9, 12, 16, 17, 24, 31, 32, 33]), seed, 40)


@needs_ap
@given(seeds)
@few
def test_wide_integers(seed: int) -> None:
    check(Expressions(seed, [1, 8, 31, 32, 33, 40, 63, 64, 65, 70]), seed, 24)


@needs_ap
@given(seeds)
@few
def test_fixed_point(seed: int) -> None:
    check(Expressions(seed, [2, 5, 8, 12, 16, 20, 32], fixed=True), seed, 24)


def load(buffer: ir.Buffer) -> ir.Expr:
    return ir.Load(buffer.name, (ir.LoopVar("i"),), buffer.dtype)


@pytest.mark.parametrize("dtype", [FLOAT32, Float(64, 52), Float(16, 10), Float(16, 7)], ids=str)
def test_floats(dtype: DType) -> None:
    inputs = [
        ir.Buffer("a", FLOAT32, (COUNT,)),
        ir.Buffer("b", FLOAT32, (COUNT,)),
        ir.Buffer("n", INT32, (COUNT,)),
    ]
    a, b = (ir.Cast(load(x), dtype) for x in inputs[:2])
    size = ir.Math("abs", (a,), dtype)
    exprs: list[ir.Expr] = [
        ir.Binary(op, a, b, dtype) for op in ("+", "-", "*", "/", "//", "%", "min", "max")
    ]
    exprs += [ir.Binary(op, a, b, BOOL) for op in ("<", ">=", "==")]
    exprs += [
        ir.Math(name, (a,), dtype) for name in ("exp", "sin", "cos", "tan", "tanh", "round", "floor", "abs")
    ]
    exprs += [ir.Math(name, (size,), dtype) for name in ("log", "log2", "log10", "sqrt")]
    exprs += [ir.Math("power", (size, ir.Const(0.7, dtype)), dtype), ir.Unary("-", a, dtype)]
    exprs += [ir.Cast(load(inputs[2]), dtype), ir.Cast(a, INT32), ir.Cast(a, Int(8)), ir.Cast(a, UInt(64))]
    exprs += [ir.Cast(a, FLOAT32), ir.Cast(a, Float(64, 52)), ir.Cast(a, Float(16, 10))]
    exprs += [ir.Binary("+", ir.Binary("*", a, b, dtype), ir.Const(1.0e-7, dtype), dtype)]
    exprs += [ir.Select(ir.Binary("<", a, b, BOOL), a, ir.Const(float("inf"), dtype), dtype)]
    exprs += [ir.Bitcast(a, UInt(dtype.bits)), ir.Bitcast(ir.Bitcast(a, Int(dtype.bits)), dtype)]
    random = np.random.default_rng(1)
    compare(evaluate(inputs, exprs), [contents(x, random) for x in inputs])


@needs_ap
def test_floats_and_fixed_point() -> None:
    inputs = [
        ir.Buffer("a", FLOAT32, (COUNT,)),
        ir.Buffer("p", Fixed(12, 5), (COUNT,)),
        ir.Buffer("w", Int(70), (COUNT,)),
    ]
    a, p, w = map(load, inputs)
    exprs = [ir.Cast(a, t) for t in (Fixed(12, 5), UFixed(8, 8), Fixed(40, 20), Int(70))]
    exprs += [ir.Cast(x, t) for x in (p, w) for t in (FLOAT32, Float(64, 52), Float(16, 10), Float(16, 7))]
    exprs += [ir.Cast(p, t) for t in (INT32, Int(4), UInt(9), Fixed(20, 2), UFixed(30, 20))]
    random = np.random.default_rng(2)
    compare(evaluate(inputs, exprs), [contents(x, random) for x in inputs])


@needs_ap
@pytest.mark.parametrize("per_word", [2, 8, 16])
def test_packed_words(per_word: int) -> None:
    """Reads and writes of elements of words of 16 to 1024 bits."""

    def kernel(x: int8[32], t: float32[32]) -> float32[32]:  # type: ignore[valid-type]
        y: float32[32] = 0.0  # type: ignore[valid-type]
        for i in range(32):
            y[i] = t[i] + x[31 - i]
        return y

    s = allo.customize(kernel)
    for array in (s.x, s.t, s.y):
        s.pack(array, factor=per_word * (2 if array is s.t else 1))
    inputs = s.program.function("kernel").inputs
    random = np.random.default_rng(3)
    values = random.integers(-128, 128, 32).astype(np.int8), random.standard_normal(32).astype(np.float32)
    words = [pack_array(b, v) for b, v in zip(inputs, values, strict=True)]
    got = CSimModule(s.program)(*words)
    out = s.program.function("kernel").outputs[0]
    np.testing.assert_array_equal(unpack_array(out, got), values[1] + values[0][::-1])


def fifo_program(first: int) -> ir.Program:
    """Writes `first` elements into a stream and reads 4."""
    stream = ir.Buffer("s", INT32, depth=2)
    element = ir.Load("X", (ir.LoopVar("i"),), INT32)
    body: tuple[ir.Stmt, ...] = (
        ir.Alloc(stream),
        ir.For("i", index(0), index(first), (ir.Put("s", (), element),), band="produce"),
        ir.Alloc(ir.Buffer("t", INT32)),
        ir.For(
            "i", index(0), index(4),
            (ir.Get("t", "s", ()), ir.Store("Y", (ir.LoopVar("i"),), ir.Load("t", (), INT32))),
            band="consume",
        ),
    )  # fmt: skip
    params = (ir.Buffer("X", INT32, (4,)), ir.Buffer("Y", INT32, (4,)))
    return ir.Program((ir.Function("top", params, body, results=1, dataflow=True),), "top")


def test_streams() -> None:
    values = np.arange(4, dtype=np.int32)
    np.testing.assert_array_equal(CSimModule(fifo_program(4))(values), values)


def test_reading_an_empty_stream_is_an_error_of_the_program() -> None:
    with pytest.raises(DeadlockError, match="read from the empty stream"):
        CSimModule(fifo_program(3))(np.arange(4, dtype=np.int32))


def test_large_local_arrays_have_room() -> None:
    size = 6 << 20
    big = ir.Buffer("big", INT32, (size,))
    var = ir.LoopVar("i")
    body = (
        ir.Alloc(big),
        ir.For("i", index(0), index(size), (ir.Store("big", (var,), ir.Cast(var, INT32)),), band="fill"),
        ir.Store("y", (), ir.Load("big", (index(size - 1),), INT32)),
    )
    program = ir.Program((ir.Function("top", (ir.Buffer("y", INT32),), body, results=1),), "top")
    assert CSimModule(program)() == size - 1


def test_arguments_are_checked() -> None:
    with pytest.raises(ArgumentError, match="should be int32"):
        CSimModule(fifo_program(4))(np.zeros(5, np.int32))
