"""`vectorize` and what goes with it: lanes, the banks they need, and the loops left to pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_kernels import gemm, gemm_f, runtime_bound, same_result, shift, total, vadd

import flexllm_allo as allo
from flexllm_allo.errors import ScheduleError, StreamError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.nodes import Bank
from flexllm_allo.ir.types import UInt, int8, int32
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.schedule import Schedule
from flexllm_allo.schedule.stage import vectorized


def banks(s: Schedule, name: str, func: str | None = None) -> list[tuple[str, int, int]]:
    array = buffers(s.function(func or s.top_func_name).top_func)[name]
    return sorted((b.kind, b.dim, b.factor) for b in array.banks)


def marks(s: Schedule) -> dict[str, str]:
    """Loop -> what is said of it."""
    out: dict[str, str] = {}
    for loop in walk(s.top_func.body):
        if isinstance(loop, ir.For) and not loop.hidden:
            says = {"unroll": loop.attrs.unroll == 0, "pipeline": loop.attrs.pipeline == 1}
            out[loop.var] = " ".join(name for name, said in says.items() if said)
    return out


def pairs(X: int32[4, 16]) -> int32[4, 16]:
    Y: int32[4, 16]
    for r in range(4):
        late: int32[8]
        for i in range(8):
            a: int32 = X[r, 2 * i]
            b: int32 = X[r, 2 * i + 1]
            Y[r, i] = a + b
            late[i] = a - b
        for l in range(8):
            Y[r, 8 + l] = late[l]
    return Y


def gathered(X: int32[32], at: UInt(2)[8]) -> int32:
    y: int32 = 0
    for q in range(8):
        a: UInt(2) = 0
        a = at[q]
        y += X[q * 4 + a]
    return y


def reversed_(X: int32[12]) -> int32[12]:
    Y: int32[12]
    for i in range(12):
        back: int32 = 11 - i
        Y[back] = X[i]
    return Y


def diagonal(X: int32[16]) -> int32:
    y: int32 = 0
    for i, j in allo.grid(4, 4, name="sum"):
        y += X[i * 4 + j]
    return y


def twice(A: int8[12]) -> int8[12]:
    B: int8[12]
    for i in range(12):
        B[i] = A[i] + A[i]
    return B


def through(A: int8[12]) -> int8[12]:
    B = twice(A)
    C: int8[12]
    for k in range(12):
        C[k] = B[k] + 1
    return C


def test_lanes_split_a_loop_go_innermost_and_bank_what_they_reach() -> None:
    s = same_result(gemm, lambda s: s.vectorize("j", 2))
    assert marks(s) == {"i": "", "j.outer": "", "k": "", "j.inner": "unroll"}
    assert banks(s, "A") == []  # one element for all lanes
    assert banks(s, "B") == banks(s, "C") == [("cyclic", 2, 2)]
    s.pipeline()
    assert marks(s)["k"] == "pipeline"


def test_all_lanes_take_a_dimension_whole() -> None:
    s = same_result(gemm, lambda s: s.vectorize("j"))
    assert marks(s) == {"i": "", "k": "", "j": "unroll"}
    assert banks(s, "B") == banks(s, "C") == [("complete", 2, 0)]


def test_lanes_are_as_many_as_divide_the_loop() -> None:
    """A group of lanes is never short: 4 of 6 would leave two idle."""
    s = allo.customize(gemm)
    assert str(s.vectorize("i", 4)) == "LoopWrapper(gemm:S_i_j_k_0.i.outer)"
    assert banks(s, "A") == [("cyclic", 1, 3)]
    assert s.vectorize("j", 9) is None  # all four
    before = s.program
    assert s.vectorize("k", 4) is not None  # 5 is prime: nothing is done
    assert s.program == before
    assert str(s.trace).count("vectorize") == 3
    again = allo.customize(gemm)
    again.replay(s.trace)
    assert again.program == s.program


def test_float_sums_keep_their_order() -> None:
    def lanes(s: Schedule) -> None:
        for loop, wide in (("k", 5), ("i", 3), ("j", 0)):
            s.vectorize(loop, wide)
        s.pipeline()

    s = same_result(gemm_f, lanes)
    assert marks(s)["i.outer"] == "pipeline"
    assert banks(s, "A") == [("complete", 2, 0), ("cyclic", 1, 3)]
    s = allo.customize(total)
    s.vectorize("i", 4)
    assert banks(s, "x") == [("cyclic", 1, 4)]


def test_neighbours_that_a_lane_reads_together_count() -> None:
    """Two elements per lane; the banks serve the writes of both halves too."""
    s = same_result(pairs, lambda s: (s.vectorize("i", 4), s.vectorize("l", 4), s.pipeline()) and None)
    assert banks(s, "X") == [("cyclic", 2, 8)]
    assert banks(s, "Y") == [("cyclic", 2, 4)]
    assert banks(s, "late") == [("cyclic", 1, 4)]


def halves(X: int32[64]) -> int32[64]:
    Y: int32[64]
    for i in range(32):
        Y[i] = X[2 * i]
        Y[32 + i] = X[2 * i + 1]
    return Y


@pytest.mark.parametrize(
    ("lanes", "expected"), [(4, ("cyclic", 1, 4)), (16, ("cyclic", 1, 16)), (32, ("complete", 1, 0))]
)
def test_both_halves_of_a_dimension_share_the_ports_of_a_bank(
    lanes: int, expected: tuple[str, int, int]
) -> None:
    s = allo.customize(halves)
    s.vectorize("i", lanes)
    assert banks(s, "Y") == [expected]
    X = np.arange(64, dtype=np.int32)
    np.testing.assert_array_equal(s.build()(X), np.concatenate([X[::2], X[1::2]]))


def test_a_part_of_an_index_known_at_run_time_has_a_bank_for_every_value() -> None:
    s = allo.customize(gathered)
    s.vectorize("q", 2)
    assert banks(s, "X") == [("cyclic", 1, 8)]
    X, at = np.arange(32, dtype=np.int32), np.array([3, 1, 0, 2, 2, 3, 1, 0], np.uint8)
    assert s.build()(X, at) == allo.customize(gathered).build()(X, at)


def test_an_index_is_followed_through_scalars_and_backwards() -> None:
    s = allo.customize(reversed_)
    s.vectorize("i", 3)
    assert banks(s, "X") == banks(s, "Y") == [("cyclic", 1, 3)]


def test_lanes_of_two_loops_are_counted_together() -> None:
    s = allo.customize(diagonal)
    s.vectorize("j", 2)
    assert banks(s, "X") == [("cyclic", 1, 2)]
    s.vectorize("i", 2)  # rows of four: 0, 1 and 4, 5
    assert banks(s, "X") == [("cyclic", 1, 8)]


def test_banks_join_those_of_other_loops_and_go_by_all_names() -> None:
    s = allo.customize(through)
    s.vectorize("twice:i", 4)
    assert banks(s, "B") == banks(s, "B", "twice") == [("cyclic", 1, 4)]
    s.vectorize("k", 6)
    assert banks(s, "B") == banks(s, "B", "twice") == [("complete", 1, 0)]  # 12 of 12
    assert banks(s, "C") == [("cyclic", 1, 6)]
    A = np.arange(12, dtype=np.int8)
    np.testing.assert_array_equal(s.build()(A), 2 * A + 1)


def test_a_complete_partition_is_enough_and_blocks_are_refused() -> None:
    s = allo.customize(vadd)
    s.partition(s.A, Partition.Complete, dim=1)
    s.partition(s.B, Partition.Block, dim=1, factor=2)
    with pytest.raises(ScheduleError, match="dimension 1 is partitioned: block, factor 2") as caught:
        s.vectorize("i", 5)
    assert caught.value.code == "FX205"
    assert buffers(s.top_func)["A"].banks == (Bank("complete", 1),)  # nothing has changed
    s = allo.customize(vadd)
    s.partition(s.A, Partition.Complete, dim=1)
    s.vectorize("i", 5)
    assert buffers(s.top_func)["A"].banks == (Bank("complete", 1),)


def test_what_lies_in_one_word_needs_no_banks() -> None:
    s = allo.customize(vadd)
    s.pack(s.A, factor=5)
    s.vectorize("i", 5)
    assert banks(s, "A") == []
    assert banks(s, "B") == [("cyclic", 1, 5)]


def pipelined_already(s: Schedule) -> None:
    s.pipeline("i")
    s.vectorize("i", 2)


@pytest.mark.parametrize(
    ("kernel", "action", "code", "message", "hint"),
    [
        (vadd, lambda s: s.vectorize("i", -1), "FX204", "lanes must be an integer of at least 0", "0 for"),
        (runtime_bound, lambda s: s.vectorize("i", 2), "FX205", "has no constant extent", "split it"),
        (vadd, pipelined_already, "FX205", "has a directive already", "vectorize first"),
        (pairs, lambda s: s.vectorize("r", 2), "FX205", "more than one nest of loops", "lanes are innermost"),
        (shift, lambda s: s.vectorize("i", 7), "FX203", 'a dependence on "A" forbids', "keep the order"),
    ],
)  # fmt: skip
def test_refusals(kernel, action, code: str, message: str, hint: str) -> None:
    s = allo.customize(kernel)
    with pytest.raises(ScheduleError, match=message) as caught:
        action(s)
    assert caught.value.code == code
    assert hint in caught.value.hint
    assert f"primitive {len(s.trace) + 1}: vectorize" in str(caught.value)


# ------------------------------------------------------------------------- the loops that are left


def test_pipeline_without_a_loop_takes_those_that_hold_only_lanes() -> None:
    s = allo.customize(pairs)
    s.vectorize("i")
    s.pipeline("l", initiation_interval=2)
    s.pipeline()
    assert marks(s) == {"r": "", "i": "unroll", "l": ""}  # l has its own directive, and r holds it
    s = allo.customize(through)
    s.pipeline()
    assert marks(s) == {"k": "pipeline"}
    assert marks(s.function("twice")) == {"i": ""}  # another function


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        (1, {"r": "", "c": "pipeline"}),
        (2, {"r": "", "c.outer": "pipeline", "c.inner": "unroll"}),
        (8, {"r.outer": "pipeline", "r.inner": "unroll", "c": "unroll"}),
        (0, {"r": "unroll", "c": "unroll"}),
    ],
)
def test_lanes_of_a_nest_take_the_innermost_loop_first(lanes: int, expected: dict[str, str]) -> None:
    def twofold(A: int32[6, 4]) -> int32[6, 4]:
        B: int32[6, 4]
        for r, c in allo.grid(6, 4):
            B[r, c] = A[r, c] * 2
        return B

    s = same_result(twofold, lambda s: vectorized(s, {"r c": lanes}))
    assert marks(s) == expected


def test_fills_of_registers_take_no_turns() -> None:
    def sums(A: int32[4, 6]) -> int32[4]:
        B: int32[4]
        for r in range(4):
            part: int32[3] = 0
            for i, j in allo.grid(2, 3):
                part[j] += A[r, 3 * i + j]
            B[r] = part[0] + part[1] + part[2]
        return B

    s = same_result(sums, lambda s: (s.vectorize("j"), s.vectorize("i"), s.pipeline()) and None)
    assert marks(s) == {"r": "pipeline", "i": "unroll", "j": "unroll"}
    s = allo.customize(sums)
    for loop in ("i", "j"):
        s.unroll(loop)
    s.pipeline()
    assert marks(s)["r"] == ""  # the fill of a memory does


# ----------------------------------------------------------------------------- the only reader


def test_a_fifo_goes_to_the_only_reader() -> None:
    s = allo.customize(through)
    s.to(s.B, depth=4)
    named = allo.customize(through)
    named.to(named.B, "S_k_0", depth=4)
    assert s.program == named.program
    A = np.arange(12, dtype=np.int8)
    np.testing.assert_array_equal(s.build()(A), 2 * A + 1)


def test_of_several_readers_one_must_be_named() -> None:
    def two(A: int32[4]) -> int32[4]:
        B: int32[4]
        for i in range(4):
            B[i] = A[i] + 1
        C: int32[4]
        for j in range(4):
            C[j] = B[j]
        for k in range(4):
            C[k] = C[k] + B[k]
        return C

    s = allo.customize(two)
    with pytest.raises(StreamError, match='"B" is read in 2 statements; a FIFO needs one') as caught:
        s.to(s.B)
    assert caught.value.code == "FX302"
    assert caught.value.hint == "give the band or function that reads it"


def inner(X: int8[6]) -> int8[6]:
    Y: int8[6]
    for i in range(6):
        Y[i] = X[i] * 2
    return Y


def outer(X: int8[6]) -> int8[6]:
    Y = inner(X)
    return Y


def made(X: int8[6]) -> int8[6]:
    Z: int8[6]
    for i in range(6):
        Z[i] = X[i] + 1
    return Z


def streamed(X: int8[6]) -> int8[6]:
    Z = made(X)
    Y = outer(Z)
    return Y


def both(X: int8[6]) -> int8[6]:
    U = streamed(X)
    V = outer(U)
    return V


def test_what_a_second_call_reaches_stays_as_it_is() -> None:
    """`outer` is called twice; so `inner`, which it calls once, gets a FIFO in a clone of its own too."""
    s = allo.customize(both)
    s.function("streamed").to("streamed:Z", depth=2)
    assert [f.name for f in s.program.functions if f.origin in ("inner", "outer")] == [
        "inner", "inner_stream", "outer", "outer_stream",
    ]  # fmt: skip
    X = np.arange(6, dtype=np.int8)
    np.testing.assert_array_equal(s.build()(X), 4 * (X + 1))
