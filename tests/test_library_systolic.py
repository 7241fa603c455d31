"""Systolic arrays and GEMV of the library against NumPy, bit for bit, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import FlexError, ToolError
from flexllm_allo.ir.types import Int, float32, int8, int16, int32
from flexllm_allo.library import KERNEL2SCHEDULE
from flexllm_allo.library.gemv import int8xint8_mat_vec
from flexllm_allo.library.systolic import (
    PE_kernel_packed_int4xint8,
    PE_kernel_packed_int8xint8,
    packed_int8xint8_systolic,
    packed_systolic,
    schedule_systolic,
    systolic,
)


def _no_compiler() -> bool:
    try:
        find_compiler(), find_ap_headers()
    except ToolError:
        return True
    return False


needs_compiler = pytest.mark.skipif(_no_compiler(), reason="no C++ compiler or ap_int headers")


def integers(bits: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Any value of the type, the extremes first: their products are the widest."""
    top = 2 ** (bits - 1)
    values = np.random.default_rng(seed).integers(-top, top, shape)
    values.flat[:2] = (-top, top - 1)
    return values.astype(np.int8)


def pack(values: np.ndarray, dtype: Any, axis: int) -> np.ndarray:
    """Neighbours along an axis as bytes of one word, the first lowest."""
    last = np.ascontiguousarray(np.moveaxis(values.astype(np.int8), axis, -1))
    return np.ascontiguousarray(np.moveaxis(last.view(dtype), -1, axis))


def unpack(words: np.ndarray, axis: int) -> np.ndarray:
    last = np.ascontiguousarray(np.moveaxis(words, axis, -1))
    return np.moveaxis(last.view(np.int8), -1, axis)


def everywhere(s: allo.Schedule, *args: np.ndarray) -> np.ndarray:
    """What LLVM writes into the last argument, once the interpreter agrees."""
    inputs, out = args[:-1], args[-1]
    s.build()(*inputs, out)
    checked = np.zeros_like(out)
    Interpreter(s.program)(*inputs, checked)
    np.testing.assert_array_equal(checked, out)
    return out


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize(("M", "K", "N", "Mt", "Nt"), [(4, 4, 4, 4, 4), (8, 5, 4, 2, 4), (6, 3, 6, 3, 2)])
def test_systolic(M, K, N, Mt, Nt, scheduled):
    s = allo.customize(systolic, instantiate=[int8, int8, int32, M, K, N, Mt, Nt])
    if scheduled:
        schedule_systolic(s)
    A, B = integers(8, M, K), integers(8, K, N, seed=1)
    C = everywhere(s, A, B, np.full((M, N), 99, np.int32))
    np.testing.assert_array_equal(C, A.astype(int) @ B)


def test_systolic_of_floats():
    s = allo.customize(systolic, instantiate=[float32, float32, float32, 4, 8, 4, 2, 2])
    A, B = (np.random.default_rng(i).random((4, 8), dtype=np.float32) for i in range(2))
    C = everywhere(s, A, B.reshape(8, 4), np.zeros((4, 4), np.float32))
    np.testing.assert_allclose(C, A @ B.reshape(8, 4), rtol=1e-5)


@pytest.mark.parametrize("kernel", [packed_systolic, packed_int8xint8_systolic])
@pytest.mark.parametrize(("P", "word"), [(2, np.int16), (4, np.int32)])
@pytest.mark.parametrize("scheduled", [False, True])
def test_packed_words_of_int8(kernel, P, word, scheduled):
    M, K, N = 8, 6, 8
    types = [int8, int8, int8] if kernel is packed_systolic else []
    s = allo.customize(kernel, instantiate=[*types, M, K, N, 4, 4, P])
    if scheduled:
        KERNEL2SCHEDULE[kernel](s)
    A, B = integers(8, M, K), integers(8, K, N, seed=1)
    C = everywhere(s, pack(A, word, 0), pack(B, word, 1), np.zeros((M // P, N), word))
    np.testing.assert_array_equal(unpack(C, 0), (A.astype(int) @ B).astype(np.int8))


def every_pair(a_bits: int, b_bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of a, b0, b1: all pairs (a, b0), each with one random b1."""
    a, b0 = np.meshgrid(
        np.arange(-(2 ** (a_bits - 1)), 2 ** (a_bits - 1)), np.arange(-(2 ** (b_bits - 1)), 2 ** (b_bits - 1))
    )
    b1 = np.random.default_rng(2).integers(-(2 ** (b_bits - 1)), 2 ** (b_bits - 1), a.size)
    return a.ravel(), b0.ravel(), b1


@pytest.mark.parametrize(
    ("pe", "bits", "word"),
    [(PE_kernel_packed_int8xint8, 8, np.int16), (PE_kernel_packed_int4xint8, 4, np.int8)],
)
def test_two_products_in_one_are_exact_for_every_pair(pe, bits, word):
    a, b0, b1 = every_pair(8, bits)
    K = a.size
    packed = ((b1 << bits) | (b0 & (2**bits - 1))).astype(word)
    run = allo.customize(pe, instantiate=[K, 1, 2]).build()
    a_out, b_out, C = np.zeros(K, np.int8), np.zeros(K, word), np.zeros((1, 2), np.int32)
    run(a.astype(np.int8), packed, a_out, b_out, C, 0, 0)
    np.testing.assert_array_equal(C[0], [a @ b0, a @ b1])
    np.testing.assert_array_equal(b_out, packed)
    one = allo.customize(pe, instantiate=[1, 1, 2]).build()
    for k in range(0, K, 997):  # single products, so that errors cannot cancel
        one(a[k : k + 1].astype(np.int8), packed[k : k + 1], a_out[:1].copy(), b_out[:1].copy(), C, 0, 0)
        assert tuple(C[0]) == (a[k] * b0[k], a[k] * b1[k])


@pytest.mark.parametrize("scheduled", [False, True])
def test_mat_vec(scheduled):
    L, D, P = 6, 8, 4
    s = allo.customize(int8xint8_mat_vec, instantiate=[L, D, P])
    if scheduled:
        KERNEL2SCHEDULE[int8xint8_mat_vec](s)
    X, y = integers(8, D, L), integers(8, L, seed=3)
    out = everywhere(s, pack(X, np.int32, 0), y, np.zeros(D, np.int8))
    np.testing.assert_array_equal(out, (X.astype(int) @ y).astype(np.int8))


@needs_compiler
@pytest.mark.parametrize("kernel", [systolic, packed_int8xint8_systolic, int8xint8_mat_vec])
def test_compiled_hls(kernel):
    if kernel is int8xint8_mat_vec:
        sizes, args = [6, 8, 4], (pack(integers(8, 8, 6), np.int32, 0), integers(8, 6), np.zeros(8, np.int8))
    elif kernel is systolic:
        sizes = [int8, Int(4), int16, 4, 6, 4, 2, 2]
        args = (integers(8, 4, 6), integers(4, 6, 4), np.zeros((4, 4), np.int16))
    else:
        sizes = [4, 6, 4, 2, 2, 2]
        A, B = pack(integers(8, 4, 6), np.int16, 0), pack(integers(8, 6, 4), np.int16, 1)
        args = (A, B, np.zeros((2, 4), np.int16))
    s = allo.customize(kernel, instantiate=sizes)
    KERNEL2SCHEDULE[kernel](s)
    expected = everywhere(s, *args[:-1], args[-1].copy())
    CSimModule(s.program)(*args)
    np.testing.assert_array_equal(args[-1], expected)


def test_the_array_in_a_program():
    def top(A: int8[4, 8], B: int8[8, 4]) -> int32[4, 4]:
        C: int32[4, 4]
        systolic[int8, int8, int32, 4, 8, 4, 2, 2, "mm"](A, B, C)
        return C

    s = allo.customize(top)
    part = allo.customize(systolic, instantiate=[int8, int8, int32, 4, 8, 4, 2, 2])
    s.compose(schedule_systolic(part), id="mm")
    A, B = integers(8, 4, 8), integers(8, 8, 4)
    np.testing.assert_array_equal(s.build()(A, B), A.astype(int) @ B)
    assert "array_partition variable=local_C complete" in s.build(target="vhls").hls_code


def test_two_arrays_of_one_size_share_their_elements():
    """Both are composed; what both call is scheduled once."""

    def top(A: int8[4, 4], B: int8[4, 4]) -> int8[4, 4]:
        C: int8[4, 4]
        D: int8[4, 4]
        systolic[int8, int8, int8, 4, 4, 4, 2, 2, "one"](A, B, C)
        systolic[int8, int8, int8, 4, 4, 4, 2, 2, "two"](C, B, D)
        return D

    s = allo.customize(top)
    for id in ("one", "two"):
        s.compose(systolic, id=id, instantiate=[int8, int8, int8, 4, 4, 4, 2, 2])
    assert [len(s.get_loops(f"systolic_{id}")["outer_tile"].loops) for id in ("one", "two")] == [7, 7]
    A, B = integers(8, 4, 4), integers(8, 4, 4, seed=1)
    want = ((A.astype(int) @ B).astype(np.int8).astype(int) @ B).astype(np.int8)
    np.testing.assert_array_equal(s.build()(A, B), want)
    np.testing.assert_array_equal(Interpreter(s.program)(A, B), want)


def test_tiles_must_divide_the_matrix():
    with pytest.raises(FlexError, match=r"systolic needs M % Mt == 0, got M = 6, Mt = 4") as caught:
        allo.customize(systolic, instantiate=[int8, int8, int32, 6, 4, 4, 4, 4])
    assert caught.value.code == "FX108"
