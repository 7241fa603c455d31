"""The LLVM backend against the interpreter, and what it promises beyond equality."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable

import ir_random
import numpy as np
import pytest
import random_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_build import (
    F32,
    I8,
    I32,
    add,
    array,
    call,
    const,
    function,
    i,
    index,
    j,
    k,
    load,
    local,
    loop,
    program,
    store,
)

import flexllm_allo as allo
import flexllm_allo.ir.types as T
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import BackendError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import BOOL, INDEX, Float, Int


def same_bits(a: object, b: object) -> bool:
    """Equal in every bit; any NaN equals any NaN."""
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind == "f":
        nan = np.isnan(x) & np.isnan(y)
        return bool(np.all(nan | ((x == y) & (np.signbit(x) == np.signbit(y)))))
    return x.dtype == y.dtype and x.tobytes() == y.tobytes()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 40))
def test_random_expressions_equal_the_interpreter(seed: int) -> None:
    draw = ir_random.RandomIR(seed)
    p, values = draw.program(outputs=5, depth=3), draw.values()
    expected, got = Interpreter(p)(*values), LLVMModule(p)(*values)
    for n, (a, b) in enumerate(zip(expected, got, strict=True)):
        assert same_bits(a, b), f"out{n}: interpreter {a}, LLVM {b}"


def multiply_add(acc: ir.Load, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    """``acc + a * b`` on int8 with the widths of the type rules, narrowed to int32."""
    product = ir.Cast(ir.Binary("*", a, b, Int(16)), Int(33))
    return ir.Cast(ir.Binary("+", ir.Cast(acc, Int(33)), product, Int(33)), I32)


def gemm(n: int) -> ir.Program:
    """Row-wise order i, k, j."""
    params = [array("A", n, n, dtype=I8), array("B", n, n, dtype=I8), array("C", n, n)]
    update = multiply_add(load("C", i, j), load("A", i, k, dtype=I8), load("B", k, j, dtype=I8))
    body = (
        loop("i", n, loop("j", n, store("C", i, j, const(0)))),
        loop("i", n, loop("k", n, loop("j", n, store("C", i, j, update)))),
    )
    return program(function("gemm", params, *body, results=1))


def gemm_by_dots(n: int) -> ir.Program:
    """B transposed, one scalar accumulator."""
    params = [array("A", n, n, dtype=I8), array("B", n, n, dtype=I8), array("C", n, n)]
    update = multiply_add(load("acc"), load("A", i, k, dtype=I8), load("B", j, k, dtype=I8))
    inner = (
        local("acc"),
        store("acc", const(0)),
        loop("k", n, store("acc", update)),
        store("C", i, j, load("acc")),
    )
    return program(function("dots", params, loop("i", n, loop("j", n, *inner)), results=1))


def rows_dot(rows: int, n: int, *, reassociate: bool) -> ir.Program:
    """float32 matrix times vector, accumulated in the result array."""
    params = [array("A", rows, n, dtype=F32), array("x", n, dtype=F32), array("y", rows, dtype=F32)]
    product = ir.Binary("*", load("A", i, k, dtype=F32), load("x", k, dtype=F32), F32)
    update = ir.Binary("+", load("y", i, dtype=F32), product, F32)
    body = (store("y", i, const(0.0, F32)), loop("k", n, store("y", i, update), reassociate=reassociate))
    return program(function("rows_dot", params, loop("i", rows, *body), results=1))


def seconds(run: Callable[[], object]) -> float:
    run()
    times: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(("make", "transposed"), [(gemm, False), (gemm_by_dots, True)])
def test_integer_gemm_is_right_and_vectorised(make: Callable[[int], ir.Program], transposed: bool) -> None:
    n, r = 256, np.random.default_rng(0)
    a, b = (r.integers(-128, 128, (n, n)).astype(np.int8) for _ in range(2))
    module = LLVMModule(make(n))
    expected = a.astype(np.int32) @ (b.T if transposed else b).astype(np.int32)
    assert (module(a, b) == expected).all()
    assert " x i32>" in module.optimised
    assert seconds(lambda: module(a, b)) < n**3 / 1e9  # far from what it does, for busy machines


def test_float_sums_keep_their_order_unless_a_schedule_lets_go() -> None:
    r = np.random.default_rng(1)
    a, x = r.standard_normal((20, 512)).astype(np.float32), r.standard_normal(512).astype(np.float32)
    strict, loose = (LLVMModule(rows_dot(20, 512, reassociate=flag)) for flag in (False, True))
    assert (strict(a, x) == Interpreter(rows_dot(20, 512, reassociate=True))(a, x)).all()
    np.testing.assert_allclose(loose(a, x), a @ x, rtol=1e-4, atol=1e-4)
    assert "fadd reassoc <" in loose.optimised
    assert "fadd reassoc" not in strict.optimised
    assert "contract" not in loose.optimised


def test_results_are_fresh_and_weights_are_not_copied() -> None:
    module = LLVMModule(gemm(8))
    a = np.eye(8, dtype=np.int8)
    first, second = module(a, a), module(a, a)
    assert first is not second
    assert not np.shares_memory(first, second)


def test_large_local_arrays_live_on_the_heap() -> None:
    n = 1 << 20
    p = program(
        function(
            "f",
            [array("A", n), array("out")],
            local("T", shape=(n,)),
            loop("i", n, store("T", i, load("A", i))),
            store("out", const(0)),
            loop("i", n, store("out", ir.Binary("^", load("out"), load("T", i), I32))),
            results=1,
        )
    )
    a = np.random.default_rng(2).integers(-(2**31), 2**31, n).astype(np.int32)
    module = LLVMModule(p)
    for _ in range(20):
        assert module(a) == np.bitwise_xor.reduce(a)


def test_initial_contents_come_back_on_every_call() -> None:
    table = tuple(range(100))
    step = (ir.Alloc(array("T", 100), table), ir.Alloc(array("R", 100), table))
    bump = loop("i", 100, store("T", i, add(load("T", i), load("R", i))))
    out = loop("i", 100, store("out", i, load("T", i)))
    p = program(function("f", [array("out", 100)], *step, bump, out, results=1))
    module = LLVMModule(p)
    for _ in range(2):
        assert (module() == np.arange(100) * 2).all()
    assert Interpreter(p)().tolist() == module().tolist()


def test_a_buffer_handed_over_twice() -> None:
    shift = function(
        "shift",
        [array("A", 4), array("B", 4)],
        loop("i", 3, store("B", add(i, index(1), INDEX), load("A", i))),
    )
    top = function("top", [array("X", 4)], call("shift", "X", "X"))
    for engine in (Interpreter, LLVMModule):
        x = np.array([1, 2, 3, 4], np.int32)
        engine(program(shift, top))(x)
        assert x.tolist() == [1, 1, 1, 1]


def test_a_buffer_read_twice_is_no_alias() -> None:
    """LLVM vectorises what it knows to be apart: only an array that is written must not come twice."""
    buffers = [array("A", 4), array("B", 4), array("C", 4)]
    step = loop("i", 4, store("C", i, add(load("A", i), load("B", i))))
    inner = function("inner", buffers, step)
    outer = function("outer", buffers, call("inner", "A", "B", "C"))
    for names, alias in (("XXY", "noalias "), ("XYX", ""), ("XYZ", "noalias ")):
        top = function("top", [array(n, 4) for n in "XYZ"], call("outer", *names))
        p = program(inner, outer, top)
        text = LLVMModule(p).ir
        for name in ("inner", "outer"):
            line = next(x for x in text.splitlines() if x.startswith(f'define internal void @"f.{name}"'))
            assert line.count("ptr") == 3
            assert line.count(f"ptr {alias}%") == 3
        results = []
        for engine in (Interpreter, LLVMModule):
            arrays = [np.arange(4, dtype=np.int32) + n for n in range(3)]
            engine(p)(*arrays)
            results.append([a.tolist() for a in arrays])
        assert results[0] == results[1]


def test_integers_beyond_64_bits_in_arrays() -> None:
    wide = Int(100)
    total = ir.Binary("+", load("s", dtype=wide), load("A", i, dtype=wide), wide)
    body = (store("s", const(0, wide)), loop("i", 3, store("s", total)))
    p = program(function("f", [array("A", 3, dtype=wide), array("s", dtype=wide)], *body, results=1))
    values = np.array([1 << 98, -(1 << 90), 12345], object)
    assert LLVMModule(p)(values) == Interpreter(p)(values) == sum(values.tolist())


def test_bounds_of_loops_may_be_values() -> None:
    bound = ir.Cast(load("n"), INDEX)
    inner = ir.For("j", i, bound, (store("out", add(load("out"), const(1))),), step=2)
    p = program(
        function("f", [array("n"), array("out")], store("out", const(0)), loop("i", bound, inner), results=1)
    )
    for n in (0, 1, 5, 6, -3):
        expected = sum(len(range(row, n, 2)) for row in range(n))
        assert LLVMModule(p)(n) == Interpreter(p)(n) == expected


def test_half_and_bfloat16_arrays() -> None:
    r = np.random.default_rng(3)
    for dtype in (Float(16, 10), Float(16, 7)):
        params = [array("A", 64, dtype=dtype), array("x", 64, dtype=dtype), array("s", dtype=dtype)]
        product = ir.Binary("*", load("A", i, dtype=dtype), load("x", i, dtype=dtype), dtype)
        update = ir.Binary("+", load("s", dtype=dtype), product, dtype)
        p = program(
            function("f", params, store("s", const(0.0, dtype)), loop("i", 64, store("s", update)), results=1)
        )
        a, x = r.standard_normal((2, 64))
        assert LLVMModule(p)(a, x) == Interpreter(p)(a, x)


def test_fifo_parameters_cannot_be_called_from_python() -> None:
    p = program(function("f", [ir.Buffer("s", I32, (), depth=2)], ir.Put("s", (), const(1))))
    with pytest.raises(BackendError, match="parameter 's' of 'f' is a FIFO"):
        LLVMModule(p)


def test_threads_run_in_parallel_on_one_module() -> None:
    module, r = LLVMModule(gemm(64)), np.random.default_rng(4)
    inputs = [[r.integers(-128, 128, (64, 64)).astype(np.int8) for _ in range(2)] for _ in range(8)]
    right = [False] * 8

    def work(n: int) -> None:
        a, b = inputs[n]
        right[n] = all((module(a, b) == a.astype(np.int32) @ b).all() for _ in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(right)


def test_a_while_loop_with_a_bool_scalar() -> None:
    body = (
        local("go", BOOL),
        store("go", const(1, BOOL)),
        store("n", const(0)),
        ir.While(
            load("go", dtype=BOOL),
            (
                store("n", add(load("n"), const(3))),
                store("go", ir.Binary("<", load("n"), load("limit"), BOOL)),
            ),
        ),
    )
    p = program(function("f", [array("limit"), array("n")], *body, results=1))
    assert LLVMModule(p)(10) == Interpreter(p)(10) == 12


def test_an_unsigned_conversion_sees_all_bits_of_a_sign_extended_value():
    """LLVM's SLP vectoriser makes 2**32 of 2**64 - 4: it narrows, and forgets that the sign goes on."""

    def kernel(A: T.int8[8]) -> T.float32[8]:
        out: T.float32[8] = 0
        for n in range(8):
            v: T.uint64 = A[n]
            out[n] = v + 0.5
        return out

    s = allo.customize(kernel)
    A = np.arange(-4, 4, dtype=np.int8)
    np.testing.assert_array_equal(LLVMModule(s.program)(A), Interpreter(s.program)(A))


def test_an_unsigned_conversion_of_33_bits():
    """Found by random kernels: 2**32 for 2**33 - 1, for the same reason."""

    def kernel(A: T.Int(1)[6]) -> T.UInt(33)[6]:
        out: T.UInt(33)[6] = 0
        for n in range(6):
            out[n] = A[n]
            out[n] += 0.5
        return out

    s = allo.customize(kernel)
    A = np.array([-1, 0, 0, -1, -1, -1], np.int8)
    np.testing.assert_array_equal(LLVMModule(s.program)(A), Interpreter(s.program)(A))


def test_a_negative_sum_wraps_into_unsigned_fixed_point():
    """Found by random kernels: LLVM makes zeros of these if they are computed as i15 (`register_bits`)."""

    def kernel(A: T.UInt(2)[6], B: T.UInt(2)[6]) -> T.UFixed(15, 3)[6]:
        out: T.UFixed(15, 3)[6] = 0
        for n, m in allo.grid(2, 3):
            v: T.UFixed(13, 1) = A[n * 3 + m]
            out[n * 3 + m] += int((B[4] + v) + (B[5 - (n * 3 + m)] - 128))
        return out

    s = allo.customize(kernel)
    A, B = np.array([0, 3, 0, 2, 1, 1], np.uint8), np.array([0, 3, 0, 3, 2, 3], np.uint8)
    np.testing.assert_array_equal(LLVMModule(s.program)(A, B), Interpreter(s.program)(A, B))


ARITHMETIC = re.compile(
    r"= (?:add|sub|mul|[su]div|[su]rem|shl|lshr|ashr|and|or|xor)(?: [a-z]+)* (?:<\d+ x )?i(\d+)\b"
)


def widths(text: str) -> set[int]:
    return {int(bits) for bits in ARITHMETIC.findall(text)}


def random_module(seed: int) -> LLVMModule:
    r = random.Random(seed)
    s = allo.customize(random_kernels.RandomKernel(r).source, global_vars=random_kernels.NAMES)
    random_kernels.schedule(s, r)
    return LLVMModule(s.program)


@pytest.mark.parametrize("seed", range(40))
def test_integers_are_computed_in_the_usual_widths(seed: int) -> None:
    found = widths(random_module(seed).ir)
    assert found
    assert found <= {1, 8, 16, 32, 64, 128, 256}


@pytest.mark.parametrize(("seed", "narrow"), [(2003063, 31), (2002519, 36), (9001417, 63)])
def test_optimisation_knows_the_widths_of_the_machine(seed: int, narrow: int) -> None:
    """Without its data layout LLVM narrows sums of these kernels to `narrow` bits."""
    found = widths(random_module(seed).optimised)
    assert found
    assert narrow not in found
