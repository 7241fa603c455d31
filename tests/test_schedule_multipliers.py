"""`pack_products`: every product is exact, over all values of the operands, and the C++ computes it."""

from __future__ import annotations

import numpy as np
import pytest
from format_models import random_model, random_tokens
from schedule_kernels import gemm, gemm_f

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ScheduleError, ToolError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import Int, UInt, int8, int16, int32
from flexllm_allo.ir.walk import walk
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.build import weight_words
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedules import decode, prefill


def shared(W: int8[65536, 2], X: int8[256]) -> int16[256, 65536, 2]:
    Y: int16[256, 65536, 2]
    for b, a, i in allo.grid(256, 65536, 2):
        Y[b, a, i] = X[b] * W[a, i]
    return Y


Tw, Tx = allo.params("Tw, Tx")


@allo.template(Tw, Tx)
def outer(W: Tw[256, 2], X: Tx[256, 2]) -> int32[256, 256, 2, 2]:
    Y: int32[256, 256, 2, 2]
    for a, b, i, j in allo.grid(256, 256, 2, 2):
        Y[a, b, i, j] = W[a, i] * X[b, j]
    return Y


def pairs_of(low: int, high: int, dtype: type) -> np.ndarray:
    """All pairs of values, [n * n, 2]."""
    values = np.arange(low, high, dtype=dtype)
    return np.stack(np.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2)


def multiplications(program: ir.Program) -> int:
    """Products of data: those of index arithmetic are of type index."""
    found = [n for f in program.functions for n in walk(f.body) if isinstance(n, ir.Binary) and n.op == "*"]
    return sum(n.type.is_integer and not repr(n.type).startswith("index") for n in found)


def test_two_products_of_int8_for_all_operands() -> None:
    s = allo.customize(shared)
    s.vectorize("i")
    s.pack_products("i")
    assert multiplications(s.program) == 1
    W, X = pairs_of(-128, 128, np.int8), np.arange(-128, 128, dtype=np.int8)
    Y = s.build()(W, X)
    for b, x in enumerate(X):
        np.testing.assert_array_equal(Y[b], W.astype(np.int16) * np.int16(x))


def four(signed: bool) -> tuple[allo.Schedule, np.ndarray, np.ndarray]:
    s = allo.customize(outer, instantiate=[Int(4), Int(4) if signed else UInt(4)])
    for loop in ("j", "i"):
        s.vectorize(loop)
    s.pack_products("i", "j")
    assert multiplications(s.program) == 1
    return s, pairs_of(-8, 8, np.int8), pairs_of(-8, 8, np.int8) if signed else pairs_of(0, 16, np.uint8)


@pytest.mark.parametrize("signed", [False, True])
def test_four_products_of_four_bits_for_all_operands(signed: bool) -> None:
    s, W, X = four(signed)
    Y = s.build()(W, X)
    np.testing.assert_array_equal(Y, W.astype(np.int32)[:, None, :, None] * X.astype(np.int32)[None, :, None])


def test_four_products_as_compiled_cpp_for_all_operands() -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    s, W, X = four(signed=False)
    Y = CSimModule(s.program)(W, X)
    np.testing.assert_array_equal(Y, W.astype(np.int32)[:, None, :, None] * X.astype(np.int32)[None, :, None])


def test_sums_and_traces() -> None:
    s = allo.customize(gemm)
    s.vectorize("j")
    s.pack_products("j")
    s.pipeline()
    again = allo.customize(gemm)
    again.replay(s.trace)
    assert again.program == s.program
    rng = np.random.default_rng(0)
    A, B = (rng.integers(-128, 128, n).astype(np.int8) for n in ((6, 5), (5, 4)))
    np.testing.assert_array_equal(Interpreter(s.program)(A, B), A.astype(np.int32) @ B.astype(np.int32))


def wide(A: int16[4], B: int16) -> int32[4]:
    C: int32[4]
    for i in range(4):
        C[i] = A[i] * B
    return C


def square(A: int8[4]) -> int32[4]:
    C: int32[4]
    for i in range(4):
        C[i] = A[i] * A[i]
    return C


@pytest.mark.parametrize(
    ("kernel", "loops", "message", "hint"),
    [
        (gemm, ["k"], 'loop "k" has no pairs of lanes to share multipliers', "even number of lanes"),
        (gemm_f, ["j"], 'loop "j" does not hold one statement with one whole product', "narrow types"),
        (square, ["i"], 'loop "i" indexes 2 operands of the product', "one operand depends"),
        (wide, ["i"], "operands of 49 and 16 bits do not fit a multiplier of 27 x 18", "narrower types"),
    ],
)
def test_refusals(kernel, loops: list[str], message: str, hint: str) -> None:
    s = allo.customize(kernel)
    for loop in loops:
        s.vectorize(loop)
    before = s.program
    with pytest.raises(ScheduleError, match=message) as caught:
        s.pack_products(*loops)
    assert caught.value.code == "FX205"
    assert hint in caught.value.hint
    assert s.program is before


def test_models_multiply_so_and_keep_every_bit() -> None:
    """W4A4: four products per multiplier in prefill, two in decode, where a block is one token."""
    model = random_model("w4a4kv8 static")
    stages = [(prefill.spatial(4, 4, macs_per_dsp=m), decode.temporal(4, macs_per_dsp=m)) for m in (1, 4)]
    plain, packed = (hybrid(model, a, b, weight_words(model)) for a, b in stages)
    for function in packed.top.functions:
        if function.origin == "linear":
            tokens = dict(function.bindings)["T"]
            pairs = [n for n in walk(function.body) if isinstance(n, ir.For) and n.var.endswith(".pair")]
            assert len(pairs) == {4: 2, 1: 1}[tokens]
            assert all(n.attrs.unroll == 0 for n in pairs)
    assert len(emit(packed.top)) > len(emit(plain.top))
    session, reference = Session(model, packed), ReferenceLlama(model.weights, sequential=True)
    tokens = random_tokens(7, seed=7)
    for stage in ("prefill", "decode"):
        np.testing.assert_array_equal(session.logits(tokens, stage), reference.prefill(tokens))
