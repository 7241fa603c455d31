"""partition under all names of an array; buffer_at and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import PlacementError, ScheduleError, ScheduleValueError
from flexllm_allo.ir.nodes import Bank, For
from flexllm_allo.ir.simplify import value_of
from flexllm_allo.ir.types import float32, int8, int32
from flexllm_allo.ir.verify import verify
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.schedule.memory import Partition


def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
    C: int32[6, 4] = 0
    for i, j, k in allo.grid(6, 4, 5):
        C[i, j] += A[i, k] * B[k, j]
    return C


def gemm_f(A: float32[6, 5], B: float32[5, 4]) -> float32[6, 4]:
    C: float32[6, 4] = 0.0
    for i, j in allo.grid(6, 4):
        for k in allo.reduction(5):
            C[i, j] += A[i, k] * B[k, j]
    return C


def update(A: int32[6, 5], C: int32[6]):
    for i, k in allo.grid(6, 5):
        C[i] += A[i, k]


def row_sum(X: int32[4]) -> int32[4]:
    Y: int32[4]
    for i in range(4):
        Y[i] = X[i] + 1
    return Y


def rows(A: int32[3, 4]) -> int32[3, 4]:
    B: int32[3, 4]
    for r in range(3):
        T: int32[4] = row_sum(A[r])
        for j in range(4):
            B[r, j] = T[j]
    return B


def banks(s, name: str) -> tuple[Bank, ...]:
    func, _, buffer = name.rpartition(":")
    return buffers(s.program.function(func or s.program.top))[buffer].banks


# -------------------------------------------------------------------------------------- partition


def test_partition_of_one_and_of_all_dimensions():
    s = allo.customize(gemm)
    s.partition(s.A, dim=2, partition_type=Partition.Cyclic, factor=5)
    s.partition("gemm:B", dim=1, partition_type=1, factor=2)
    s.partition(s.C)
    assert banks(s, "A") == (Bank("cyclic", 2, 5),)
    assert banks(s, "B") == (Bank("block", 1, 2),)
    assert banks(s, "C") == (Bank("complete", 1), Bank("complete", 2))
    assert str(s.trace).splitlines()[1:] == [
        "    s.partition(s.A, dim=2, partition_type=2, factor=5)",
        '    s.partition("B", dim=1, partition_type=1, factor=2)',
        "    s.partition(s.C)",
    ]


def test_partition_reaches_callees_and_callers():
    s = allo.customize(rows)
    s.partition(s.A, dim=2, partition_type=2, factor=2)
    assert banks(s, "row_sum:X") == (Bank("cyclic", 1, 2),)
    s.partition("row_sum:Y", dim=1)
    assert banks(s, "rows:T") == (Bank("complete", 1),)
    s.partition(s.A, dim=1)
    assert banks(s, "A") == (Bank("cyclic", 2, 2), Bank("complete", 1))
    assert banks(s, "row_sum:X") == (Bank("cyclic", 1, 2),)


def test_the_same_partition_again_changes_nothing():
    s = allo.customize(gemm)
    s.partition(s.A, dim=1)
    before = s.program
    s.partition(s.A, dim=1)
    assert s.program == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"partition_type": 7}, "FX204: Invalid partition type 7"),
        ({"dim": 5}, 'FX204: Invalid dimension 5 of "A"'),
        ({"dim": -1}, "FX204: Invalid dimension -1"),
        ({"partition_type": 2, "dim": 1}, "FX204: Invalid factor 0"),
        ({"partition_type": 2, "dim": 1, "factor": -2}, "FX204: Invalid factor -2"),
        (
            {"partition_type": 2, "dim": 1, "factor": 100},
            'FX204: Invalid factor 100 exceeds the extent 6 of "A"',
        ),
    ],
)
def test_partition_out_of_range(args, message):
    s = allo.customize(gemm)
    before = s.program
    with pytest.raises(ScheduleValueError) as caught:
        s.partition(s.A, **args)
    assert message in str(caught.value)
    assert "primitive 1: partition" in str(caught.value)
    assert s.program is before
    assert not s.trace


def test_partition_twice_otherwise():
    s = allo.customize(gemm)
    s.partition(s.A, dim=1)
    with pytest.raises(ScheduleError, match="Cannot partition the same array on dimension 1 twice: gemm:A"):
        s.partition(s.A, dim=1, partition_type=2, factor=2)
    with pytest.raises(ScheduleError, match=r"Cannot mix all-dim partitioning \(dim=0\)"):
        s.partition(s.A, partition_type=2, factor=2)
    with pytest.raises(ScheduleError, match=r"Cannot mix all-dim partitioning \(dim=0\)"):
        s.partition(s.A)
    with pytest.raises(ScheduleError, match="Target Q not found"):
        s.partition("gemm:Q")


# -------------------------------------------------------------------------------------- buffer_at


def check(kernel, schedule, *args):
    s = allo.customize(kernel)
    before = [a.copy() for a in args]
    expected = Interpreter(s.program)(*before)
    schedule(s)
    verify(s.program)
    after = [a.copy() for a in args]
    got = Interpreter(s.program)(*after)
    np.testing.assert_array_equal(got, expected)
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)
    return s


def matrices(kind=np.int8):
    rng = np.random.default_rng(0)
    return [rng.integers(-9, 9, shape).astype(kind) for shape in ((6, 5), (5, 4))]


def test_interleaved_accumulation():
    s = check(gemm, lambda s: (s.reorder("k", "j"), s.buffer_at(s.C, axis="i"), s.pipeline("j")), *matrices())
    assert repr(s.get_loops().S_i_j_k_0) == "LoopBand(['i', 'j_init', 'k', 'j', 'j_back'])"
    text = str(s)
    assert "for j_init in range(4):  # pipeline II=1\n            C_buf[j_init] = 0" in text
    assert "C_buf: int32[4]" in text


def test_scalar_accumulator_and_float():
    s = check(gemm_f, lambda s: s.buffer_at(s.C, "j"), *matrices(np.float32))
    assert "C_buf: float32\n" in str(s)
    check(gemm_f, lambda s: (s.reorder("k", "j"), s.buffer_at(s.C, "i")), *matrices(np.float32))


def test_existing_content_is_kept():
    a = np.arange(30, dtype=np.int32).reshape(6, 5)
    s = check(update, lambda s: s.buffer_at(s.C, "i"), a, np.arange(6, dtype=np.int32))
    assert "C_buf = C[i]" in str(s)


def test_tiles_with_a_reduction_loop_outside():
    def schedule(s):
        s.split("k", 2)
        s.reorder("k.outer", "i", "j", "k.inner")
        s.buffer_at(s.C, "i")

    s = check(gemm, schedule, *matrices())
    assert "C_buf[j_init] = C[i, j_init]" in str(s)


def test_buffer_of_split_loops():
    def schedule(s):
        s.split("j", 3)
        s.reorder("k", "j.outer", "j.inner")
        s.buffer_at(s.C, "i")

    s = check(gemm, schedule, *matrices())
    assert "C_buf: int32[2, 3]" in str(s)


@pytest.mark.parametrize(
    ("target", "axis", "message"),
    [
        ("A", "i", 'FX205: loop "i" does not write "A"'),
        ("C", "k", "FX205: Cannot buffer at the inner-most loop"),
    ],
)
def test_buffer_at_refused(target, axis, message):
    s = allo.customize(gemm)
    with pytest.raises(ScheduleError) as caught:
        s.buffer_at(target, axis)
    assert message in str(caught.value)
    assert str(caught.value).count("-->") == 2
    assert not s.trace


def test_buffer_at_a_reduction_loop():
    s = allo.customize(gemm)
    s.reorder("k", "j")
    with pytest.raises(ScheduleError, match="Cannot buffer inside the reduction loops"):
        s.buffer_at(s.C, "k")


def test_buffer_at_needs_one_element_per_iteration():
    def skewed(A: int32[4, 4]) -> int32[8, 4]:
        C: int32[8, 4] = 0
        for i, j in allo.grid(4, 4):
            for q in range(3):
                C[i + j, q] += A[i, j]
        return C

    def neighbours(A: int32[4, 4]) -> int32[4, 4]:
        C: int32[4, 4] = 0
        for i in range(4):
            for j in range(1, 4):
                C[i, j] = C[i, j - 1] + A[i, j]
        return C

    check(skewed, lambda s: s.buffer_at(s.C, "i"), np.ones((4, 4), np.int32))
    with pytest.raises(ScheduleError, match='accesses to "C" in loop "i" differ'):
        allo.customize(neighbours).buffer_at("C", "i")


# ---------------------------------------------------------------------------------------- compose


def outer(A: int8[6, 5], B: int8[5, 4], B2: int8[5, 4]) -> int32[6, 4]:
    C: int32[6, 4] = gemm["left"](A, B)
    D: int32[6, 4] = gemm["right"](A, B2)
    E: int32[6, 4]
    for i, j in allo.grid(6, 4, name="sum"):
        E[i, j] = C[i, j] + D[i, j]
    return E


def test_compose_replays_everything_on_the_instances():
    inner = allo.customize(gemm)
    inner.split("j", 2)
    inner.fuse("i", "j.outer")
    inner.buffer_at(inner.C, "i_j.outer_fused")
    inner.partition(inner.B, dim=1)
    inner.dataflow("gemm")
    inner.inline()
    a, b = matrices()

    def schedule(s):
        s.compose(inner, id="left")
        s.pipeline("sum.j")

    s = check(outer, schedule, a, b, b)
    assert "i_j.outer_fused" in next(iter(s.get_loops("gemm_left")))[1]
    assert banks(s, "B") == (Bank("complete", 1),)
    assert banks(s, "B2") == ()
    assert s.program.function("gemm_left").dataflow
    assert not s.program.function("gemm_right").dataflow
    assert str(s.trace).splitlines()[1] == '    s.function("gemm_left").split("j", 2)'
    again = allo.customize(outer)
    again.replay(s.trace)
    assert again.program == s.program
    both = check(outer, lambda s: s.compose(inner), a, b, b)
    assert both.program.function("gemm_right").inline


def test_compose_of_a_composed_schedule():
    inner = allo.customize(row_sum)
    inner.split("i", 2)
    middle = allo.customize(rows)
    middle.compose(inner)
    middle.pipeline("j")

    def twice(A: int32[3, 4]) -> int32[3, 4]:
        B: int32[3, 4] = rows(A)
        C: int32[3, 4] = rows["again"](B)
        return C

    s = check(twice, lambda s: s.compose(middle, id="again"), np.ones((3, 4), np.int32))
    assert "i.outer" in next(iter(s.get_loops("row_sum")))[1]


def test_compose_refused():
    s = allo.customize(outer)
    with pytest.raises(ScheduleError, match='FX206: no instance of kernel "row_sum"'):
        s.compose(allo.customize(row_sum))
    with pytest.raises(ScheduleError, match='kernel "gemm" has no instance with id "middle"'):
        s.compose(allo.customize(gemm), id="middle")
    assert s.instances("gemm") == ["gemm_left", "gemm_right"]


# ------------------------------------------------------------------------------ kinds of memory, fills


def test_bind_storage_reaches_all_names_of_an_array_and_the_hls_code() -> None:
    s = allo.customize(gemm)
    s.bind_storage(s.C, "uram", "ram_s2p")
    (text,) = [line for line in str(s.build(target="vhls")).splitlines() if "bind_storage" in line]
    assert text.split() == "#pragma HLS bind_storage variable=C type=ram_s2p impl=uram".split()
    s.bind_storage(s.C, "AUTO")
    assert "bind_storage" not in str(s.build(target="vhls"))


def test_bind_storage_refuses_what_has_no_memory() -> None:
    s = allo.customize(gemm)
    with pytest.raises(PlacementError, match="Invalid resource 'DRAM'"):
        s.bind_storage(s.C, "DRAM")
    s = allo.customize(scaled)
    with pytest.raises(ScheduleError, match='FX205: "a" is a scalar and lies in no memory'):
        s.bind_storage(s.a, "URAM")


def scaled(X: int32[4]) -> int32[4]:
    Y: int32[4]
    a: int32 = 3
    for i in range(4):
        Y[i] = X[i] * a
    return Y


def test_banks_are_filled_at_once() -> None:
    """Four columns of eight have a bank each, and so have both halves of the rows."""

    def kernel(A: int32[6, 8]) -> int32[6, 8]:
        C: int32[6, 8] = 7
        for i, j in allo.grid(6, 8):
            C[i, j] += A[i, j]
        return C

    s = allo.customize(kernel)
    s.partition(s.C, partition_type=Partition.Cyclic, dim=1, factor=2)
    s.partition(s.C, partition_type=Partition.Complete, dim=2)
    s.pipeline()
    (fill,) = [n for n in s.top_func.body if isinstance(n, For) and n.hidden]
    assert (value_of(fill.upper), fill.attrs.pipeline) == (3, 1)
    loops = [n for n in walk(fill.body) if isinstance(n, For)]
    assert [(value_of(n.upper), n.attrs.unroll) for n in loops] == [(2, 0), (8, 0)]
    data = np.arange(48, dtype=np.int32).reshape(6, 8)
    verify(s.program)
    np.testing.assert_array_equal(s.build()(data), data + 7)
    np.testing.assert_array_equal(Interpreter(s.program)(data), data + 7)
    once = str(s.top_func)
    s.pipeline()
    assert str(s.top_func) == once


def test_banks_that_do_not_divide_an_array_are_filled_one_by_one() -> None:
    s = allo.customize(gemm)
    s.partition(s.C, partition_type=Partition.Cyclic, dim=2, factor=3)
    before = [n for n in s.top_func.body if isinstance(n, For) and n.hidden]
    s.pipeline()
    assert [n for n in s.top_func.body if isinstance(n, For) and n.hidden] == before
