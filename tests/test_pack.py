"""pack: words in memory, the same values in the kernel; layout and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ArgumentError, ScheduleError, ScheduleValueError
from flexllm_allo.ir.dtypes import Fixed, Float, Int, UFixed, UInt
from flexllm_allo.ir.layout import pack_array, unpack_array
from flexllm_allo.ir.nodes import Buffer
from flexllm_allo.ir.types import Int as IntType
from flexllm_allo.ir.types import float32, int4, int8, int32
from flexllm_allo.ir.verify import verify

int5 = IntType(5)


def matvec(W: int4[6, 8], x: int8[8]) -> int32[6]:
    y: int32[6] = 0
    for i, k in allo.grid(6, 8):
        y[i] += W[i, k] * x[k]
    return y


def through(A: float32[2, 8]) -> float32[2, 8]:
    B: float32[2, 8]
    for i, j in allo.grid(2, 8):
        B[i, 7 - j] = A[i, j] + 1.0
    return B


def halves(X: int5[8]) -> int5[8]:
    Y: int5[8]
    for i in range(8):
        Y[i] = X[i] + 1
    return Y


def caller(A: int5[2, 8]) -> int5[2, 8]:
    B: int5[2, 8]
    for r in range(2):
        T: int5[8] = halves(A[r])
        for i in range(8):
            B[r, i] = T[i]
    return B


def words_of(s, name: str) -> Buffer:
    return next(p for p in s.top_func.params if p.name == name)


def test_element_zero_is_in_the_low_bits():
    buffer = Buffer("W", UInt(16), (1, 2), words=4, logical=Int(4))
    words = pack_array(buffer, np.array([[1, -1, 3, 4, 5, 6, 7, -8]], np.int8))
    assert words.dtype == np.uint16
    assert [hex(w) for w in words[0]] == ["0x43f1", "0x8765"]


_TYPES = st.one_of(
    st.integers(1, 70).map(Int), st.integers(1, 70).map(UInt), st.integers(2, 40).map(lambda w: Fixed(w, 1)),
    st.integers(2, 40).map(lambda w: UFixed(w, 1)),
    st.sampled_from([Float(16, 10), Float(32, 23), Float(64, 52), Float(16, 7)]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    _TYPES, st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False)
)  # fmt: skip
def test_unpack_is_the_inverse(dtype, words, rows, columns, random):
    buffer = Buffer("W", UInt(dtype.bits * words), (rows, columns), words=words, logical=dtype)
    count = rows * columns * words
    raw = [random.getrandbits(dtype.bits) for _ in range(count)]
    if dtype.signed and not dtype.is_float:
        raw = [v - (1 << dtype.bits) if v >> (dtype.bits - 1) else v for v in raw]
    values = np.array(raw, object).reshape(rows, columns * words)
    if dtype.is_float:
        values = values.astype(f"u{dtype.bits // 8}")
        values = values if dtype == Float(16, 7) else values.view(f"f{dtype.bits // 8}")
    packed = pack_array(buffer, values)
    assert packed.shape == buffer.shape
    size = packed.dtype.itemsize
    assert size == (next(n for n in (1, 2, 4, 8) if n * 8 >= buffer.dtype.bits) if buffer.dtype.bits <= 64
                    else -(-buffer.dtype.bits // 8))  # fmt: skip
    back = unpack_array(buffer, packed)
    assert back.tobytes() == unpack_array(buffer, pack_array(buffer, back)).tobytes()
    as_ints = [int.from_bytes(v.tobytes(), "little") % (1 << dtype.bits) for v in back.ravel()]
    assert as_ints == [r % (1 << dtype.bits) for r in raw] or dtype.is_float
    if dtype.is_float:
        assert back.tobytes() == np.ascontiguousarray(values).tobytes()


def test_wrong_shape():
    buffer = Buffer("W", UInt(16), (1, 2), words=4, logical=Int(4))
    with pytest.raises(ArgumentError, match=r'FX401: "W" holds int4\[1, 8\], got shape \[8\]'):
        pack_array(buffer, np.zeros(8, np.int8))


def run_packed(s, *args):
    """Run with packed inputs given as words; packed results come back unpacked."""
    verify(s.program)
    function = s.top_func
    given = [pack_array(b, a) if b.words > 1 else a for b, a in zip(function.inputs, args, strict=True)]
    out = Interpreter(s.program)(*given)
    (result,) = function.outputs
    return unpack_array(result, out) if result.words > 1 else out


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_packed_reads(factor):
    rng = np.random.default_rng(0)
    w, x = rng.integers(-8, 8, (6, 8)).astype(np.int8), rng.integers(-99, 99, 8).astype(np.int8)
    s = allo.customize(matvec)
    expected = Interpreter(s.program)(w, x)
    s.pack(s.W, factor)
    np.testing.assert_array_equal(run_packed(s, w, x), expected)
    assert words_of(s, "W").shape == (6, 8 // factor)


def test_word_bits_and_the_text():
    s = allo.customize(matvec)
    s.pack(s.W, word_bits=32)
    assert words_of(s, "W").dtype == UInt(32)
    assert words_of(s, "W").logical == Int(4)
    assert "W[i, k // 8][k % 8 * 4:k % 8 * 4 + 4].bitcast(int4)" in str(s)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_packed_floats_written_in_any_order(factor):
    a = np.linspace(-3, 3, 16, dtype=np.float32).reshape(2, 8)
    s = allo.customize(through)
    expected = Interpreter(s.program)(a)
    s.pack(s.A, factor)
    s.pack(s.B, factor)
    np.testing.assert_array_equal(run_packed(s, a), expected)


@pytest.mark.parametrize("target", ["caller:A", "halves:X", "halves:Y", "caller:T", "caller:B"])
def test_pack_reaches_callees_and_callers(target):
    a = np.arange(-16, 0, dtype=np.int8).reshape(2, 8)
    s = allo.customize(caller)
    expected = Interpreter(s.program)(a)
    s.pack(target, factor=4)
    np.testing.assert_array_equal(run_packed(s, a), expected)
    if target in ("caller:A", "halves:X"):
        assert words_of(s, "A").shape == (2, 2)


def test_packed_along_the_rows():
    rng = np.random.default_rng(0)
    w, x = rng.integers(-8, 8, (6, 8)).astype(np.int8), rng.integers(-99, 99, 8).astype(np.int8)
    s = allo.customize(matvec)
    expected = Interpreter(s.program)(w, x)
    s.pack(s.W, factor=3, dim=1)
    assert words_of(s, "W").shape == (2, 8)
    np.testing.assert_array_equal(run_packed(s, w, x), expected)
    packed = pack_array(words_of(s, "W"), w)
    np.testing.assert_array_equal(unpack_array(words_of(s, "W"), packed), w)
    assert packed[0, 5] & 15 == w[0, 5] & 15
    assert packed[0, 5] >> 8 == w[2, 5] & 15


def test_packed_constants():
    def table() -> int32[4]:
        T: int8[4] = [1, -2, 3, -4]
        y: int32[4]
        for i in range(4):
            y[i] = T[i]
        return y

    s = allo.customize(table)
    s.pack(s.T, factor=2)
    assert Interpreter(s.program)().tolist() == [1, -2, 3, -4]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"factor": 3}, "3 elements per word do not divide the last dimension 8"),
        ({"word_bits": 6}, "a word of 6 bits does not hold whole elements"),
        ({}, "pack needs either factor or word_bits"),
        ({"factor": 2, "word_bits": 8}, "pack needs either factor or word_bits"),
        ({"factor": 0}, "factor must be an integer of at least 1, got 0"),
    ],
)
def test_pack_out_of_range(args, message):
    s = allo.customize(matvec)
    with pytest.raises(ScheduleValueError, match=message):
        s.pack(s.W, **args)
    assert not s.trace


def test_pack_refused():
    s = allo.customize(matvec)
    s.partition(s.W, dim=2)
    with pytest.raises(ScheduleError, match='"W" has banks on that dimension and cannot be packed'):
        s.pack(s.W, 2)
    s.pack(s.x, 2)
    with pytest.raises(ScheduleError, match='"x" is packed already, 2 per word'):
        s.pack(s.x, 2)


def put(codes: int8[3, 16], pos: int32, n: int32, cache: int8[8, 16]):
    for t in range(n, name="token"):
        for d in range(16, name="element"):
            cache[pos + t, d] = codes[t, d]


def shifted(cache: int8[8, 16]):
    for t in range(7):
        for d in range(16):
            cache[t, d] = cache[t + 1, d]


def some(codes: int8[3, 16], cache: int8[8, 16]):
    for t in range(3):
        for d in range(10):
            cache[t, d + 3] = codes[t, d]


@pytest.mark.parametrize("factor", [4, 16])
@pytest.mark.parametrize("wide", [False, True])
def test_rows_of_whole_words_are_written_word_by_word(factor, wide):
    """Every element comes to its place, its neighbours of other tokens stay, and no word is read."""
    rng = np.random.default_rng(0)
    codes, cache = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((3, 16), (8, 16)))
    s = allo.customize(put)
    s.pack(s.cache, factor)
    text = str(s)
    inner = "d_inner" if factor == 16 else "d_outer * 4 + d_inner"
    assert f"codes[t, {inner}]" in text
    assert "= cache[" not in text
    if wide:
        s.vectorize("d.inner")
        s.pipeline()
    for module in (Interpreter(s.program), s.build()):
        for pos, n in ((0, 3), (5, 1), (4, 2)):
            words, expected = pack_array(words_of(s, "cache"), cache), cache.copy()
            module(codes, pos, n, words)
            expected[pos : pos + n] = codes[:n]
            np.testing.assert_array_equal(unpack_array(words_of(s, "cache"), words), expected)


@pytest.mark.parametrize("kernel", [shifted, some])
def test_other_writes_keep_the_rest_of_their_word(kernel):
    """What reads the array itself, or writes a part of a word."""
    rng = np.random.default_rng(1)
    args = [rng.integers(-128, 128, (3, 16)).astype(np.int8)] if kernel is some else []
    cache = rng.integers(-128, 128, (8, 16)).astype(np.int8)
    s = allo.customize(kernel)
    expected = cache.copy()
    Interpreter(s.program)(*args, expected)
    s.pack(s.cache, 4)
    assert "cache_word" not in str(s)
    words = pack_array(words_of(s, "cache"), cache)
    Interpreter(s.program)(*args, words)
    np.testing.assert_array_equal(unpack_array(words_of(s, "cache"), words), expected)
