"""Matrix products of small integers in tiles, loops that threads share: equal to NumPy and to one thread."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.containers import container
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule, jit, threads, tiles
from flexllm_allo.errors import UsageError
from flexllm_allo.ir.dtypes import DType, Int, UInt
from flexllm_allo.ir.types import float32, int8, int16, int32, uint8
from flexllm_allo.kernels.linear import linear


def product(tx: DType, tw: DType, t: int, n: int, k: int, packed: bool = False) -> LLVMModule:
    """The kernel of linear layers, scheduled as the CPU schedules do it."""
    s = allo.customize(linear, instantiate={"Tx": tx, "Tw": tw, "T": t, "N": n, "K": k, "P": 1})
    s.reorder("mac.n", "mac.t")
    s.parallel("mac.n")
    if packed:
        s.pack(s.W, factor=2, dim=2)
    return LLVMModule(s.program)


def codes(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    low, high = (
        (-(1 << dtype.bits - 1), (1 << dtype.bits - 1)) if isinstance(dtype, Int) else (0, 1 << dtype.bits)
    )
    return rng.integers(low, high, shape).astype(np.int8 if isinstance(dtype, Int) else np.uint8)


def run(module: LLVMModule, x: np.ndarray, w: np.ndarray, packed: bool) -> np.ndarray:
    if packed:
        w = (w[:, 0::2] & 15 | (w[:, 1::2] & 15) << 4).astype(np.uint8)
    return module(x, np.ones((len(x), 1), np.float32), w, np.ones((len(w), 1), np.float32))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_products_equal_numpy(data):
    tx = data.draw(st.sampled_from([Int(8), Int(4), Int(3), UInt(8), UInt(7), UInt(4)]))
    tw = data.draw(st.sampled_from([Int(8), Int(4), Int(2), UInt(4), UInt(8)]))
    if tx == UInt(8) and tw == UInt(8):
        tw = Int(8)
    packed = tw.bits == 4 and data.draw(st.booleans())
    t, n = data.draw(st.integers(1, 9)), data.draw(st.integers(64, 90))
    k = 2 * data.draw(st.integers(32, 150))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, w = codes(rng, tx, (t, k)), codes(rng, tw, (n, k))
    x[0], w[0] = x[0].max(), w[0].min()  # sums far from zero
    module = product(tx, tw, t, n, k, packed)
    assert "flex.product" in module.ir
    np.testing.assert_array_equal(
        run(module, x, w, packed), (x.astype(np.int64) @ w.astype(np.int64).T).astype(np.float32)
    )


@pytest.mark.parametrize("packed", [False, True])
def test_the_instruction_and_the_general_form_agree(monkeypatch, packed):
    rng = np.random.default_rng(0)
    x, w = codes(rng, Int(8), (5, 200)), codes(rng, Int(4), (70, 200))
    expected = run(product(Int(8), Int(4), 5, 70, 200, packed), x, w, packed)
    monkeypatch.setattr(jit, "DOT_GENERIC", "no such text")  # so that nothing is put in its place
    module = product(Int(8), Int(4), 5, 70, 200, packed)
    assert tiles.DOT_GENERIC in module.ir
    assert "vpdpbusd" not in module.optimised
    np.testing.assert_array_equal(run(module, x, w, packed), expected)


def untouched(name: str):
    """Kernels that look like products and are none."""

    def cut(X: int8[4, 64], W: int8[64, 64]) -> int32[4, 64]:
        Y: int32[4, 64] = 0
        for t, n, k in allo.grid(4, 64, 64):
            p: int8 = X[t, k] * W[n, k]
            Y[t, n] += p
        return Y

    def wide(X: int16[4, 64], W: int8[64, 64]) -> int32[4, 64]:
        Y: int32[4, 64] = 0
        for t, n, k in allo.grid(4, 64, 64):
            Y[t, n] += X[t, k] * W[n, k]
        return Y

    def triangle(X: int8[64, 64], W: int8[64, 64]) -> int32[64, 64]:
        Y: int32[64, 64] = 0
        for n in range(64):
            for t in range(n):
                for k in range(64):
                    Y[t, n] += X[t, k] * W[n, k]
        return Y

    def narrow(X: int8[4, 64], W: int8[64, 64]) -> int16[4, 64]:
        Y: int16[4, 64] = 0
        for t, n, k in allo.grid(4, 64, 64):
            Y[t, n] += X[t, k] * W[n, k]
        return Y

    def diagonal(X: int8[64, 64], W: int8[64, 64]) -> int32[64]:
        Y: int32[64] = 0
        for n, k in allo.grid(64, 64):
            Y[n] += X[n, k] * W[n, k]
        return Y

    def unsigned(X: uint8[4, 64], W: uint8[64, 64]) -> int32[4, 64]:
        Y: int32[4, 64] = 0
        for t, n, k in allo.grid(4, 64, 64):
            Y[t, n] += X[t, k] * W[n, k]
        return Y

    return locals()[name]


@pytest.mark.parametrize("name", ["cut", "wide", "triangle", "narrow", "diagonal", "unsigned"])
def test_other_nests_stay_as_they_are(name):
    s = allo.customize(untouched(name))
    module = LLVMModule(s.program)
    assert "flex.product" not in module.ir
    rng = np.random.default_rng(0)
    args = [rng.integers(0, 100, p.shape).astype(container(p.dtype)) for p in s.top_func.inputs]
    np.testing.assert_array_equal(module(*args), Interpreter(s.program)(*args))


def beginning(name: str):
    """Kernels whose sums begin with something; only `cleared` sets all of it to zero."""

    def cleared(X: int8[5, 80], W: int8[66, 80]) -> int32[66, 5]:
        Y: int32[66, 5] = 0
        for n, t, k in allo.grid(66, 5, 80):
            Y[n, t] += X[t, k] * W[n, k]
        return Y

    def ones(X: int8[5, 80], W: int8[66, 80]) -> int32[66, 5]:
        Y: int32[66, 5] = 1
        for n, t, k in allo.grid(66, 5, 80):
            Y[n, t] += X[t, k] * W[n, k]
        return Y

    def in_part(X: int8[5, 80], W: int8[66, 80]) -> int32[66, 5]:
        Y: int32[66, 5] = 7
        for i, j in allo.grid(66, 4):
            Y[i, j] = 0
        for n, t, k in allo.grid(66, 5, 80):
            Y[n, t] += X[t, k] * W[n, k]
        return Y

    def diagonal(X: int8[66, 80], W: int8[66, 80]) -> int32[66, 66]:
        Y: int32[66, 66] = 7
        for i, j in allo.grid(66, 66):
            Y[i, i] = 0
        for n, t, k in allo.grid(66, 66, 80):
            Y[n, t] += X[t, k] * W[n, k]
        return Y

    def larger(X: int8[5, 80], W: int8[66, 80]) -> int32[70, 5]:
        Y: int32[70, 5] = 0
        for n, t, k in allo.grid(66, 5, 80):
            Y[n, t] += X[t, k] * W[n, k]
        return Y

    def other(X: int8[5, 80], W: int8[66, 80]) -> int32[66, 5]:
        Y: int32[66, 5] = 3
        Z: int32[66, 5] = 0
        for n, t, k in allo.grid(66, 5, 80):
            Y[n, t] += X[t, k] * W[n, k]
        for i, j in allo.grid(66, 5):
            Y[i, j] += Z[i, j]
        return Y

    return locals()[name]


@pytest.mark.parametrize("name", ["cleared", "ones", "in_part", "diagonal", "larger", "other"])
def test_sums_begin_with_what_was_there(name):
    s = allo.customize(beginning(name))
    module = LLVMModule(s.program)
    assert "flex.product" in module.ir
    stored = not re.search(r"load (<4 x i32>|i32), ptr %(acc|v\d+), align 4\n  %v\d+ = add", module.ir)
    assert stored == (name == "cleared")
    rng = np.random.default_rng(0)
    args = [codes(rng, Int(8), p.shape) for p in s.top_func.inputs]
    np.testing.assert_array_equal(module(*args), Interpreter(s.program)(*args))


def test_the_accumulator_keeps_what_it_holds():
    def kernel(X: int8[3, 80], W: int8[66, 80], Y: int32[66, 3]):
        for n, t, k in allo.grid(66, 3, 80):
            Y[n, t] += X[t, k] * W[n, k]

    rng = np.random.default_rng(0)
    x, w = codes(rng, Int(8), (3, 80)), codes(rng, Int(8), (66, 80))
    y = rng.integers(-(1 << 31), 1 << 31, (66, 3)).astype(np.int32)
    with np.errstate(over="ignore"):
        expected = y + (w.astype(np.int32) @ x.astype(np.int32).T)
    module = LLVMModule(allo.customize(kernel).program)
    assert "flex.product" in module.ir
    module(x, w, y)
    np.testing.assert_array_equal(y, expected)


# --------------------------------------------------------------------------------------- threads


def softmax(X: float32[96, 400], Y: float32[96, 400]):
    for r in range(96, name="row"):
        row: float32[400]
        total: float32 = 0.0
        for i in range(400):
            row[i] = allo.exp(X[r, i])
            total += row[i]
        for j in range(400):
            Y[r, j] = row[j] / total


@pytest.fixture
def workers(monkeypatch):
    """Gives the process a pool with that many threads, and its own one back."""
    made: list[threads.Pool] = []

    def use(count: int) -> None:
        monkeypatch.setenv("FLEXLLM_THREADS", str(count))
        made.append(threads.Pool())
        jit._llvm.add_symbol(threads.SYMBOL, made[-1].address)
        monkeypatch.setattr(threads, "pool", lambda: made[-1])

    own = threads.pool()
    yield use
    jit._llvm.add_symbol(threads.SYMBOL, own.address)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(workers, count):
    workers(count)
    plain, shared = allo.customize(softmax), allo.customize(softmax)
    shared.parallel("r")
    x = np.random.default_rng(0).standard_normal((96, 400)).astype(np.float32)
    one, many = LLVMModule(plain.program), LLVMModule(shared.program)
    assert "call void @flex.parallel" not in one.ir
    assert "call void @flex.parallel" in many.ir
    expected, got = np.zeros_like(x), np.zeros_like(x)
    one(x, expected)
    assert threads.thread_count() == count
    for _ in range(20):
        got[:] = 0
        many(x, got)
        np.testing.assert_array_equal(got, expected)


def test_calls_from_several_threads_at_once(workers):
    workers(3)
    s = allo.customize(softmax)
    s.parallel("r")
    module, plain = LLVMModule(s.program), LLVMModule(allo.customize(softmax).program)
    module.prepare("softmax")
    rng, wrong = np.random.default_rng(0), []
    inputs = [rng.standard_normal((96, 400)).astype(np.float32) for _ in range(4)]
    expected = [np.zeros_like(x) for x in inputs]
    for x, y in zip(inputs, expected, strict=True):
        plain(x, y)

    def work(x, expected):
        for _ in range(10):
            y = np.zeros_like(x)
            module(x, y)
            if not np.array_equal(y, expected):
                wrong.append(x)

    started = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert not wrong


def test_small_loops_stay_on_one_thread():
    def small(X: float32[8, 8], Y: float32[8, 8]):
        for r in range(8, name="row"):
            for i in range(8):
                Y[r, i] = X[r, i] * 2.0

    s = allo.customize(small)
    s.parallel("r")
    assert "call void @flex.parallel" not in LLVMModule(s.program).ir


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_a_bad_number_of_threads_is_refused(monkeypatch, value):
    monkeypatch.setenv("FLEXLLM_THREADS", value)
    with pytest.raises(UsageError, match="FLEXLLM_THREADS") as caught:
        threads.thread_count()
    assert caught.value.code == "FX703"
