"""to(lanes=...): tokens of several elements, the gearbox between two widths, and what does not fit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_kernels import refused

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import ScheduleValueError, StreamError, source_line
from flexllm_allo.ir.types import index, int32
from flexllm_allo.ir.verify import verify
from flexllm_allo.ir.walk import buffers

R, D = 2, 16


def scale(X: int32[R, D]) -> int32[R, D]:
    Y: int32[R, D]
    for r, j in allo.grid(R, D):
        Y[r, j] = X[r, j] * 3 - r
    return Y


def norm(X: int32[R, D]) -> int32[R, D]:
    Y: int32[R, D]
    for r in range(R):
        row: int32[D]
        total: int32 = 0
        for i in range(D, name="load"):
            row[i] = X[r, i]
        for k in range(D, name="sum"):
            total += row[k] * row[k]
        for j in range(D, name="scale"):
            Y[r, j] = row[j] * (total % 7)
    return Y


def matvec(X: int32[R, D]) -> int32[R, D]:
    Y: int32[R, D]
    for r in range(R):
        row: int32[D]
        sums: int32[D] = 0
        for i in range(D, name="load"):
            row[i] = X[r, i]
        for k, n in allo.grid(D, D, name="mac"):
            sums[n] += row[k] * (k - n)
        for j in range(D, name="store"):
            Y[r, j] = sums[j]
    return Y


OPERATORS = {scale: "j j", norm: "i j", matvec: "i j"}
"""Operators, and the loops that read and write their arrays."""


def pipeline(*operators) -> allo.Schedule:
    first, second = operators[:2]

    def two(A: int32[R, D]) -> int32[R, D]:
        B = first(A)
        C = second(B)
        return C

    if len(operators) == 2:
        return allo.customize(two)
    third = operators[2]

    def three(A: int32[R, D]) -> int32[R, D]:
        B = first(A)
        C = second(B)
        E = third(C)
        return E

    return allo.customize(three)


DATA = np.random.default_rng(3).integers(-99, 99, (R, D)).astype(np.int32)
LANES = st.sampled_from([1, 2, 4, 8])


def joined(operators, lanes, depth=2, auto=False) -> allo.Schedule:
    """The pipeline with each kind of operator on its lanes, for reading and writing, joined by FIFOs."""
    s = pipeline(*operators)
    for kernel in dict.fromkeys(operators):
        part, (taking, giving) = s.function(kernel.__name__), OPERATORS[kernel].split()
        for loop in dict.fromkeys((taking, giving)):
            part.vectorize(loop, lanes[kernel][loop == giving])
        part.pipeline()
    for name, writer, reader in zip("BC", operators, operators[1:], strict=False):
        s.to(name, depth=depth, lanes=0 if auto else (lanes[writer][1], lanes[reader][0]))
    verify(s.program)
    return s


def widths(lanes, operators):
    """An operator of one loop has as many lanes on both sides."""
    return {k: (b, b) if k is scale else (a, b) for k, (a, b) in zip(operators, lanes, strict=False)}


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from(list(OPERATORS)), min_size=2, max_size=3),
    st.lists(st.tuples(LANES, LANES), min_size=3, max_size=3),
    st.integers(1, 3),
    st.booleans(),
)
def test_pipelines_keep_every_bit(operators, lanes, depth, auto):
    expected = Interpreter(pipeline(*operators).program)(DATA)
    s = joined(operators, widths(lanes, operators), depth, auto)
    for module in (Interpreter, LLVMModule):
        np.testing.assert_array_equal(module(s.program)(DATA), expected)
    s.check_streams()
    s.size_fifos()
    np.testing.assert_array_equal(LLVMModule(s.program)(DATA), expected)


@pytest.mark.parametrize(
    ("operators", "lanes"),
    [((norm, matvec, scale), [(2, 8), (2, 4), (4, 4)]), ((scale, norm), [(8, 8), (1, 2)])],
)
def test_compiled_pipelines_keep_every_bit(operators, lanes):
    expected = Interpreter(pipeline(*operators).program)(DATA)
    s = joined(operators, widths(lanes, operators))
    np.testing.assert_array_equal(CSimModule(s.program)(DATA), expected)


def test_tapa_takes_the_gearbox():
    lanes = {scale: (2, 2), norm: (8, 1)}
    expected = Interpreter(pipeline(scale, norm).program)(DATA)
    module = CSimModule(joined((scale, norm), lanes).program, flow="tapa")
    np.testing.assert_array_equal(module(DATA), expected)


# ---------------------------------------------------------------------------------- what it makes


def chain(A: int32[4, 16]) -> int32[4, 16]:
    B: int32[4, 16]
    C: int32[4, 16]
    for i, j in allo.grid(4, 16, name="P"):
        B[i, j] = A[i, j] + 1
    for r, c in allo.grid(4, 16, name="Q"):
        C[r, c] = B[r, c] * 2
    return C


def fork(A: int32[4, 16]) -> int32[4, 16]:
    B: int32[4, 16]
    C: int32[4, 16]
    E: int32[4, 16]
    for i, j in allo.grid(4, 16, name="P"):
        B[i, j] = A[i, j] + 1
    for r, c in allo.grid(4, 16, name="Q"):
        C[r, c] = B[r, c] * 2
    for x, y in allo.grid(4, 16, name="S"):
        E[x, y] = B[x, y] + C[x, y]
    return E


def on_lanes(kernel, *joins, **lanes) -> allo.Schedule:
    """The kernel with loops on lanes, pipelined, and its arrays as FIFOs; results are those of the kernel."""
    s = allo.customize(kernel)
    a = np.arange(np.prod(s.top_func.inputs[0].shape), dtype=np.int32).reshape(s.top_func.inputs[0].shape)
    expected = Interpreter(s.program)(a)
    for loop, n in lanes.items():
        s.vectorize(loop, n)
    s.pipeline()
    for name, band, widths in joins:
        s.to(name, band, lanes=widths)
    verify(s.program)
    for module in (Interpreter, LLVMModule):
        np.testing.assert_array_equal(module(s.program)(a), expected)
    return s


def test_all_iterations_as_one_token():
    s = on_lanes(chain, ("B", "Q", 16), j=0, c=0)
    assert buffers(s.top_func)["B"].token == (16,)
    assert buffers(s.top_func)["B"].depth == 4


def test_the_process_of_lanes_without_a_loop_around_is_one_statement():
    def row(A: int32[8]) -> int32[8]:
        B: int32[8]
        C: int32[8]
        for i in range(8, name="P"):
            B[i] = A[i] + 1
        for j in range(8, name="Q"):
            C[j] = B[j] * 2
        return C

    s = on_lanes(row, ("B", "Q", (8, 8)), i=0, j=0)
    assert str(s).count(".outer") == 0
    assert 'for i_outer in range(1, name="P"):' in str(s)
    assert 'for j_outer in range(1, name="Q"):' in str(s)


def test_several_readers_on_lanes_of_their_own():
    s = on_lanes(fork, ("B", "Q", (8, 2)), ("B", "S", 8), ("C", "S", (2, 8)), j=8, c=2, y=8)
    tokens = {b.name: b.token for b in buffers(s.top_func).values() if b.is_stream}
    assert tokens == {"B_Q": (8,), "B_Q_2": (2,), "B": (8,), "C": (2,), "C_8": (8,)}
    assert {f.name for f in s.program.functions} == {"fork", "deal_2_8", "collect_2_8"}
    array_stays = on_lanes(fork, ("B", "Q", 4), j=4, c=4)
    assert "B[i, j_outer * 4 + j_inner] = B_token[j_inner]" in str(array_stays)


def test_tokens_of_a_block_of_rows():
    """Lanes along another dimension, as in FlexLLM's FIFOs that carry an element of each token."""

    def columns(A: int32[4, 10]) -> int32[4, 10]:
        B: int32[4, 10]
        C: int32[4, 10]
        for j, i in allo.grid(10, 4, name="P"):
            B[i, j] = A[i, j] + 1
        for c, r in allo.grid(10, 4, name="Q"):
            C[r, c] = B[r, c] * 2
        return C

    s = on_lanes(columns, ("B", "Q", 0), i=0, r=0)
    assert buffers(s.top_func)["B"].token == (4,)


def test_equal_gearboxes_are_one_function():
    def twice(A: int32[4, 16]) -> int32[4, 16]:
        B: int32[4, 16]
        C: int32[4, 16]
        E: int32[4, 16]
        for i, j in allo.grid(4, 16, name="P"):
            B[i, j] = A[i, j] + 1
        for r, c in allo.grid(4, 16, name="Q"):
            C[r, c] = B[r, c] * 2
        for x, y in allo.grid(4, 16, name="S"):
            E[x, y] = C[x, y] - 3
        return E

    s = on_lanes(twice, ("B", "Q", 0), ("C", "S", 0), j=8, c=4, y=2)
    assert {f.name for f in s.program.functions} == {"twice", "deal_4_8", "deal_2_4"}
    s = on_lanes(twice, ("B", "Q", (1, 4)), ("C", "S", (1, 4)), c=4, y=4)
    assert [f.name for f in s.program.functions] == ["collect_1_4", "twice"]
    text = str(s.build(target="vhls"))
    assert "hls::stream< hls::vector< int32_t, 4 > > B_4;" in text
    assert "collect_1_4(B, B_4);" in text
    assert "collect_1_4(C, C_4);" in text


CPP = """
    l_j_outer: for (int j_outer = 0; j_outer < 2; j_outer++) {
    #pragma HLS pipeline II=1
      int32_t B_token[8];
      #pragma HLS array_partition variable=B_token complete dim=1

      l_j_inner: for (int j_inner = 0; j_inner < 8; j_inner++) {
      #pragma HLS unroll
        B_token[j_inner] = (int64_t)A[i][j_outer * 8 + j_inner] + 1;
      }
      {
        hls::vector< int32_t, 8 > B_block;
        for (int b0 = 0; b0 < 8; b0++) {
        #pragma HLS unroll
          B_block[b0] = B_token[b0];
        }
        B.write(B_block);
      }
    }
"""


def test_the_hls_text_of_a_writer_on_lanes():
    assert CPP in str(on_lanes(chain, ("B", "Q", 8), j=8, c=8).build(target="vhls"))


# ------------------------------------------------------------------------------------ what it takes


def long_chain(A: int32[4, 4096]) -> int32[4, 4096]:
    B: int32[4, 4096]
    C: int32[4, 4096]
    for i, j in allo.grid(4, 4096, name="P"):
        B[i, j] = A[i, j] + 1
    for r, c in allo.grid(4, 4096, name="Q"):
        C[r, c] = B[r, c] * 2
    return C


def cycles(writer: int, reader: int, lanes) -> int:
    s = allo.customize(long_chain)
    s.vectorize("j", writer)
    s.vectorize("c", reader)
    s.pipeline()
    s.to("B", "Q", depth=2, lanes=lanes)
    return s.estimate("u280").cycles


def test_eight_lanes_take_an_eighth_of_the_cycles():
    scalar, wide = cycles(8, 8, 1), cycles(8, 8, 8)
    assert scalar > 4 * 4096
    assert wide < scalar / 8 + 150  # what the pipelines take to fill
    for writer, reader in ((2, 8), (8, 2)):  # a narrow token per cycle
        assert scalar / 2 < cycles(writer, reader, 0) + 150 < scalar / 2 + 300


def test_depths_are_found_in_tokens():
    s = on_lanes(chain, ("B", "Q", 0), j=2, c=8)
    assert buffers(s.top_func)["B"].depth == 32
    s.size_fifos()
    assert {b.name: b.depth for b in buffers(s.top_func).values() if b.is_stream} == {"B": 2, "B_8": 1}
    s.check_streams()
    before = on_lanes(chain, ("B", "Q", 0), j=2, c=8).estimate("u280").cycles
    assert s.estimate("u280").cycles == before


# --------------------------------------------------------------------------------------- refusals


def lanes_refused(*lanes, then, kernel=chain, kind=StreamError) -> str:
    """The message of a `to` after loops were put on lanes."""

    def call(s):
        for loop, n in lanes:
            s.vectorize(loop, n)
        then(s)

    return refused(allo.customize(kernel), lambda s: s.apply(call), kind)


@pytest.mark.parametrize(
    ("lanes", "given", "message", "hint"),
    [
        (
            [("j", 8), ("c", 8)], (8, 6),
            'FX304: "B" cannot go from tokens of 8 to tokens of 6 elements',
            "one is a multiple of the other: next to 6 the reader may take 4 or 8",
        ),
        (
            [("j", 8), ("c", 8)], 5,
            'FX304: "B" is written on 8 lanes, its tokens hold 5 elements',
            "lanes=8 on this side, or put the loop on 5 lanes",
        ),
        (
            [], 6,
            'FX304: "B" is written element by element, its tokens hold 6 elements',
            "16 iterations do not fit 6 lanes, the nearest are 4 or 8",
        ),
        (
            [("j", 8), ("c", 8)], (8, 4),
            'FX304: "B" is read on 8 lanes, its tokens hold 4 elements',
            "lanes=8 on this side, or put the loop on 4 lanes",
        ),
        (
            [("c", 8)], 8,
            'FX304: "B" is written element by element, its tokens hold 8 elements',
            'first put the innermost loop on lanes: vectorize("j", 8)',
        ),
        (
            [("j", 4)], (4, 8),
            'FX304: "B" is read element by element, its tokens hold 8 elements',
            'first put the innermost loop on lanes: vectorize("c", 8)',
        ),
        (
            [], 32,
            'FX304: "B" is written element by element, its tokens hold 32 elements',
            "16 iterations do not fit 32 lanes, the nearest are 16",
        ),
    ],
)  # fmt: skip
def test_lanes_that_do_not_fit(lanes, given, message, hint):
    text = lanes_refused(*lanes, then=lambda s: s.to(s.B, "Q", lanes=given))
    assert message in text
    assert f"help: {hint}" in text


def test_the_access_and_its_loop_are_shown():
    s = pipeline(scale, norm)
    s.function("scale").vectorize("j", 4)
    with pytest.raises(StreamError) as caught:
        s.to("B", lanes=4)
    error = caught.value
    assert error.code == "FX304"
    assert error.message == '"B" is read element by element, its tokens hold 4 elements'
    assert error.hint == 'first put the innermost loop of "norm" on lanes: vectorize("i", 4)'
    lines = [source_line(place.span).strip() for place in error.places]
    assert lines == ["row[i] = X[r, i]", 'for i in range(D, name="load"):', 's.to("B", lanes=4)']
    assert [place.label for place in error.places[:2]] == ["read here", 'loop "i"']


@pytest.mark.parametrize("lanes", [-1, True, 2.0, (1, 2, 3), (4, -4), "4"])
def test_no_numbers_of_lanes(lanes):
    text = lanes_refused(then=lambda s: s.to(s.B, "Q", lanes=lanes), kind=ScheduleValueError)
    assert f"FX204: lanes must be one or two integers of at least 0, got {lanes!r}" in text
    assert "help: elements per token; 0 for as many as there are lanes" in text


def test_an_array_of_fifos_has_no_lanes():
    text = lanes_refused(then=lambda s: s.to(s.B, [0], lanes=2), kind=ScheduleValueError)
    assert "FX204: an array of FIFOs has tokens of one element" in text
    assert "help: lanes are for one FIFO between two statements" in text


def guarded(A: int32[16]) -> int32[16]:
    B: int32[16]
    C: int32[16]
    for i in range(16, name="P"):
        if i % 4 < 2:
            B[i] = A[i]
        else:
            B[i] = -A[i]
    for j in range(16, name="Q"):
        C[j] = B[j]
    return C


def reordered(A: int32[16, 4]) -> int32[16, 4]:
    B: int32[16, 4]
    C: int32[16, 4]
    for i, j in allo.grid(16, 4, name="P"):
        B[i, j] = A[i, j]
    for c, r in allo.grid(4, 16, name="Q"):
        C[r, c] = B[r, c]
    return C


def test_a_gearbox_counts_what_is_written():
    def half(n: int32, A: int32[4, 16]) -> int32[4, 16]:
        B: int32[4, 16]
        C: int32[4, 16] = 0
        for i, j in allo.grid(2, 16, name="P"):
            B[i, j] = A[i, j] + n
        for r, c in allo.grid(2, 16, name="Q"):
            C[r, c] = B[r, c] * 2
        return C

    s = allo.customize(half)
    for loop, lanes in (("j", 2), ("c", 8)):
        s.vectorize(loop, lanes)
    s.to(s.B, "Q", depth=2, lanes=(2, 8))
    data = np.arange(64, dtype=np.int32).reshape(4, 16)
    for module in (Interpreter, LLVMModule):
        found = module(s.program)(3, data)
        np.testing.assert_array_equal(found[:2], (data[:2] + 3) * 2)
        assert not found[2:].any()


def run_time(n: index, A: int32[16]) -> int32[16]:
    B: int32[16]
    C: int32[16] = 0
    for i, u in allo.grid(n, 4, name="P"):
        B[i * 4 + u] = A[i * 4 + u] + 1
    for j, v in allo.grid(n, 4, name="Q"):
        C[j * 4 + v] = B[j * 4 + v] * 2
    return C


def test_run_time_extents_need_equal_widths():
    s = allo.customize(run_time)
    s.unroll("u")
    s.unroll("v")
    text = refused(s, lambda s: s.to(s.B, "Q", lanes=(1, 4)), StreamError)
    assert 'FX304: how many elements of "B" a gearbox takes is not known' in text
    assert "help: the same number of lanes on both sides needs no gearbox" in text
    s.to(s.B, "Q", depth=1, lanes=0)
    data = np.arange(16, dtype=np.int32)
    expected = np.where(data < 12, (data + 1) * 2, 0)
    for module in (Interpreter, LLVMModule):
        np.testing.assert_array_equal(module(s.program)(3, data), expected)


def mixed(A: int32[16]) -> int32[16]:
    B: int32[16]
    C: int32[16]
    for h in range(1, name="P"):
        for i in range(8):
            B[i] = A[i]
        for k in range(8):
            B[k + 8] = -A[k + 8]
    for j in range(16, name="Q"):
        C[j] = B[j]
    return C


def test_lanes_that_differ_in_one_process():
    text = lanes_refused(("k", 8), then=lambda s: s.to(s.B, "Q", lanes=0), kernel=mixed)
    assert 'FX304: "B" is written on 8 lanes, its tokens hold one element' in text


def test_what_lanes_do_not_change():
    """The order of elements decides as before; lanes that not all store, or that store twice, are none."""
    text = lanes_refused(("i", 4), ("j", 4), then=lambda s: s.to(s.B, "Q", lanes=4), kernel=guarded)
    assert 'FX304: "B" is written element by element' in text
    text = lanes_refused(("j", 4), ("r", 4), then=lambda s: s.to(s.B, "Q", lanes=4), kernel=reordered)
    assert (
        'FX301: "B" is not read in the order it is written: access 1 writes B[0, 1] but reads B[1, 0]' in text
    )
    text = lanes_refused(then=lambda s: s.to(s.A, "P", lanes=4))
    assert 'FX302: "A" is a parameter' in text


def test_memory_of_processes_is_aligned_as_arrays_are():
    """LLVM may move the arrays of an inlined callee into the memory of a process."""
    text = LLVMModule(joined((norm, matvec), {norm: (2, 8), matvec: (2, 4)}).program).ir
    processes = re.findall(r"presplitcoroutine .*?^}", text, re.M | re.S)
    arrays = [int(n) for n in re.findall(r"alloca .*align (\d+)", text)]
    memory = [int(n) for p in processes for n in re.findall(r"@aligned_alloc\(i64 (\d+)", p)]
    assert len(memory) == len(processes) >= 3
    assert min(memory) >= max(arrays) > 16


def test_as_many_as_there_are_lanes_are_those_of_one_loop():
    """Tokens of more than the innermost loop's lanes would be put, or taken, one after the other."""

    def blocks(A: int32[4, 16]) -> int32[4, 16]:
        B: int32[4, 16]
        C: int32[4, 16]
        for i, j in allo.grid(4, 16, name="P"):
            B[i, j] = A[i, j] + 1
        for r, c in allo.grid(4, 16, name="Q"):
            C[r, c] = B[r, c] * 2
        return C

    def unrolled(s, lanes):
        s.unroll("i")
        s.vectorize("j", 16)
        s.vectorize("c", 16)
        s.to(s.B, "Q", lanes=lanes)

    text = lanes_refused(then=lambda s: unrolled(s, 0), kernel=blocks)
    assert 'FX304: "B" is written on 64 lanes, but 16 in the innermost loop' in text
    assert "help: a token holds what iterations of one unrolled loop access, one element each" in text
    s = allo.customize(blocks)
    unrolled(s, 16)
    data = np.arange(64, dtype=np.int32).reshape(4, 16)
    np.testing.assert_array_equal(LLVMModule(s.program)(data), (data + 1) * 2)
