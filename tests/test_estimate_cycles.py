"""Cycles computed by hand: intervals and depths of small loops, and what runs around them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import flexllm_allo as allo
from flexllm_allo.errors import EstimateError
from flexllm_allo.estimate.figures import Figures
from flexllm_allo.estimate.loops import CALL_OVERHEAD, LOOP_OVERHEAD, Timing
from flexllm_allo.estimate.operators import Operators
from flexllm_allo.estimate.ports import AXI_LATENCY, RAM_LATENCY
from flexllm_allo.estimate.result import Estimate, LoopTiming
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import Stream, UInt, float32, int8, int32

ADD = 4  # cycles of a float addition, operators.toml
MULTIPLY = 3
WRITE = 1  # to a RAM
PRODUCT = 3  # registers of a DSP


def loop(found: Estimate, name: str) -> LoopTiming:
    return next(row for stage in found.stages for row in stage.loops if row.loop == name)


def vadd(A: int32[100], B: int32[100]) -> int32[100]:
    C: int32[100]
    for i in range(100):
        C[i] = A[i] + B[i]
    return C


def test_a_loop_over_memory_ports() -> None:
    s = allo.customize(vadd)
    s.pipeline("i")
    found = s.estimate("u280")
    row = loop(found, "i")
    # Two ports, a word of each per cycle; the addition is logic and fits between them.
    assert (row.ii, row.depth, row.trips) == (1, 2 * AXI_LATENCY, 100)
    assert found.cycles == 2 * AXI_LATENCY + 99 + LOOP_OVERHEAD
    assert found.phases["vadd"].bytes == 3 * 100 * 4
    assert found.phases["vadd"].operations == 100


def total(A: float32[64]) -> float32:
    s: float32 = 0.0
    for i in range(64):
        s += A[i]
    return s


def test_a_float_sum_waits_for_its_adder() -> None:
    s = allo.customize(total)
    s.pipeline("i")
    row = loop(s.estimate("u280"), "i")
    assert (row.ii, row.depth) == (ADD, AXI_LATENCY + ADD)
    assert row.reason == f"an iteration waits for that of 1 before: float accumulate ({ADD} cycles)"
    assert row.cycles == AXI_LATENCY + ADD + 63 * ADD + LOOP_OVERHEAD


def test_versal_accumulates_in_one_cycle() -> None:
    s = allo.customize(total)
    s.pipeline("i")
    assert loop(s.estimate("v80"), "i").ii == 1


def test_latencies_can_be_replaced() -> None:
    s = allo.customize(total)
    s.pipeline("i")
    assert loop(s.estimate("u280", operators={"accumulate": {"latency": 7}}), "i").ii == 7


def quads(A: int32[64]) -> int32[16]:
    buffer: int32[64]
    for i in range(64):
        buffer[i] = A[i]
    B: int32[16]
    for j in range(16):
        B[j] = buffer[4 * j] + buffer[4 * j + 1] + (buffer[4 * j + 2] + buffer[4 * j + 3])
    return B


@pytest.mark.parametrize(("banks", "ii"), [(1, 2), (2, 1), (4, 1)])
def test_ports_and_banks(banks: int, ii: int) -> None:
    s = allo.customize(quads)
    s.pipeline("j")
    if banks > 1:
        s.partition(s.buffer, allo.Partition.Cyclic, factor=banks)
    row = loop(s.estimate("u280"), "j")
    assert row.ii == ii
    if ii > 1:
        assert row.reason == '"buffer": 4 accesses to it per iteration, 2 per cycle'


def test_neighbours_in_blocks_share_a_bank() -> None:
    s = allo.customize(quads)
    s.pipeline("j")
    s.partition(s.buffer, allo.Partition.Block, factor=4)
    assert loop(s.estimate("u280"), "j").ii == 2


def histogram(A: int32[256]) -> int32[64]:
    count: int32[64] = 0
    for i in range(256):
        count[A[i]] += 1
    B: int32[64]
    for j in range(64):
        B[j] = count[j]
    return B


def test_an_address_that_is_data_may_be_the_one_before() -> None:
    s = allo.customize(histogram)
    s.pipeline("i")
    row = loop(s.estimate("u280"), "i")
    assert row.ii == RAM_LATENCY + WRITE  # read, add, write, then the next may read


def shifted(A: int32[64]) -> int32[64]:
    B: int32[64]
    x: int32[72] = 0
    for i in range(64):
        x[i + 2] = x[i] * x[i] + A[i]
    for j in range(64):
        B[j] = x[j]
    return B


def test_a_dependence_over_several_iterations_divides_its_delay() -> None:
    s = allo.customize(shifted)
    s.pipeline("i")
    wide = PRODUCT + 1  # 32 by 32 bits are more than one DSP
    row = loop(s.estimate("u280"), "i")
    assert row.ii == (RAM_LATENCY + wide + WRITE) / 2  # the sum is logic
    assert row.reason.startswith("an iteration waits for that of 2 before: int32 x int32 (4 cycles)")


def matmul(A: int8[8, 16], B: int8[16, 4]) -> int32[8, 4]:
    C: int32[8, 4] = 0
    a: int8[8, 16]
    b: int8[16, 4]
    acc: int32[8, 4]
    for i0, k0 in allo.grid(8, 16):
        a[i0, k0] = A[i0, k0]
    for k1, j1 in allo.grid(16, 4):
        b[k1, j1] = B[k1, j1]
    for i2, j2 in allo.grid(8, 4):
        acc[i2, j2] = 0
    for i, j, k in allo.grid(8, 4, 16):
        acc[i, j] += a[i, k] * b[k, j]
    for i3, j3 in allo.grid(8, 4):
        C[i3, j3] = acc[i3, j3]
    return C


def test_perfect_nests_are_one_pipeline() -> None:
    s = allo.customize(matmul)
    s.pipeline("k")
    row = loop(s.estimate("u280"), "i/j/k")
    # Read, multiply, add: the sum of an element waits in a register.
    assert (row.ii, row.trips, row.depth) == (1, 8 * 4 * 16, RAM_LATENCY + PRODUCT + 1)
    assert row.cycles == row.depth + 8 * 4 * 16 - 1 + LOOP_OVERHEAD


def test_unrolled_copies_need_ports() -> None:
    s = allo.customize(matmul)
    s.pipeline("j")  # the 16 terms of a sum at once
    row = loop(s.estimate("u280"), "i/j")
    assert row.ii == 8  # 16 elements of a row through two ports
    s.partition(s.a, dim=2)
    s.partition(s.b, dim=1)
    found = s.estimate("u280")
    row = loop(found, "i/j")
    assert (row.ii, row.trips) == (1, 32)
    # A tree of four levels of 32-bit adders, two of which fit into a cycle, and the accumulation.
    assert row.depth == RAM_LATENCY + PRODUCT + 2 + WRITE
    assert found.resources.dsp == 16  # int8 by int8, none of which share an operand


def rows(A: float32[4, 32]) -> float32[4]:
    B: float32[4]
    for i in range(4):
        s: float32 = 0.0
        for j in range(32):
            s += A[i, j]
        B[i] = s
    return B


def test_imperfect_nests_drain_every_time() -> None:
    s = allo.customize(rows)
    s.pipeline("j")
    found = s.estimate("u280")
    inner = AXI_LATENCY + ADD + 31 * ADD + LOOP_OVERHEAD
    # An iteration of i: a state for its counter, the inner loop, the write through the port.
    assert found.cycles == 4 * (1 + inner + AXI_LATENCY) + LOOP_OVERHEAD
    assert loop(found, "i").reason == "loops and calls inside, in turn"


def prefix(A: float32[64], n: int32) -> float32:
    s: float32 = 0.0
    m: int32 = min(n, 48)
    for i in range(m):
        s += A[i]
    return s


def test_lengths_follow_the_scalars() -> None:
    s = allo.customize(prefix)
    s.pipeline("i")
    ten, twenty, most = (s.estimate("u280", n=n).cycles for n in (10, 20, 60))
    assert twenty - ten == 10 * ADD
    assert most - twenty == 28 * ADD


def test_an_unknown_length_is_refused_with_the_scalar_to_give() -> None:
    s = allo.customize(prefix)
    with pytest.raises(EstimateError) as refused:
        s.estimate("u280")
    error = refused.value
    assert error.code == "FX901"
    assert 'the length of loop "i" of prefix is not known: it depends on m' in error.message
    assert error.span is not None
    assert error.span.line == prefix.__code__.co_firstlineno + 3
    assert error.hint == 'give n=..., or trips={"i": ...}'
    assert s.estimate("u280", trips={"i": 7}).cycles == s.estimate("u280", n=7).cycles


def test_scalars_that_do_not_exist_are_refused() -> None:
    with pytest.raises(EstimateError) as refused:
        allo.customize(prefix).estimate("u280", m=3)
    assert (refused.value.code, refused.value.message) == ("FX902", 'there is no scalar argument "m"')
    with pytest.raises(EstimateError) as refused:
        allo.customize(vadd).estimate("u280", operators={"addd": {"latency": 1}})
    assert (refused.value.code, refused.value.hint) == ("FX902", 'did you mean "add"?')


def triangle(A: int32[16, 16]) -> int32[16]:
    B: int32[16]
    for i in range(16):
        s: int32 = 0
        for j in range(i + 1):
            s += A[i, j]
        B[i] = s
    return B


def test_iterations_of_different_lengths_are_summed() -> None:
    s = allo.customize(triangle)
    s.pipeline("j")
    row = loop(s.estimate("u280"), "j")
    assert row.cycles == sum(row.depth + i + LOOP_OVERHEAD for i in range(16))
    assert row.trips == round(sum(range(1, 17)) / 16)


def produce(A: int32[128], S: Stream[int32, 4]):
    for i in range(128):
        S.put(A[i] + 1)


def consume(S: Stream[int32, 4], B: int32[128]):
    for j in range(128):
        B[j] = S.get() * 3


def joined(A: int32[128], B: int32[128]):
    S: Stream[int32, 4]
    produce(A, S)
    consume(S, B)


def test_processes_overlap() -> None:
    s = allo.customize(joined)
    together = s.estimate("u280")
    s.dataflow()
    overlapped = s.estimate("u280")
    fill = AXI_LATENCY
    tail = PRODUCT + AXI_LATENCY
    assert together.cycles > 2 * 128
    assert (
        128 + fill + tail < overlapped.cycles < 128 + fill + tail + 2 * CALL_OVERHEAD + 2 * LOOP_OVERHEAD + 4
    )


def relay(S: Stream[int32, 4], T: Stream[int32, 4]):
    for k in range(128):
        T.put(S.get() + 2)


def relays(S: Stream[int32, 4], T: Stream[int32, 4]):
    U: Stream[int32, 4]
    relay(S, U)
    relay(U, T)


def pair_of_relays(S: Stream[int32, 4], T: Stream[int32, 4]):
    V: Stream[int32, 4]
    relays(S, V)
    relays(V, T)


def nested(A: int32[128], B: int32[128]):
    S: Stream[int32, 4]
    T: Stream[int32, 4]
    produce(A, S)
    pair_of_relays(S, T)
    consume(T, B)


def test_regions_in_regions_overlap_too() -> None:
    s = allo.customize(nested)
    for name in ("nested", "pair_of_relays", "relays"):
        s.dataflow(name)
    cycles = s.estimate("u280").cycles
    latencies = AXI_LATENCY + PRODUCT + AXI_LATENCY
    assert 128 + latencies < cycles < 128 + latencies + 6 * (CALL_OVERHEAD + LOOP_OVERHEAD + 4)


def test_figures_of_single_loops_and_statements() -> None:
    """What a simulation of FIFOs asks for: intervals and depths of loops, cycles of what has no FIFO."""
    s = allo.customize(prefix)
    s.pipeline("i")
    timing = Timing(s.program, Operators("DSP48E2", 300))
    timing.function("prefix", frozenset({"A"}), {"n": 10})
    figures = Figures(timing)
    (row,) = (stmt for stmt in s.top_func.body if isinstance(stmt, ir.For))
    assert figures.pipeline(row) == (ADD, AXI_LATENCY + ADD)
    known = SimpleNamespace(loops={}, scalars={"m": 5})
    assert figures.cycles(row, known) == AXI_LATENCY + ADD + 4 * ADD + LOOP_OVERHEAD
    with pytest.raises(EstimateError, match='the length of loop "i"'):
        figures.cycles(row, SimpleNamespace(loops={}, scalars={}))


def wide(A: int32[64, 8]) -> int32:
    total: int32 = 0
    for i in range(64):
        for j in range(8):
            total += A[i, j]
    return total


@pytest.mark.parametrize(("banks", "ii"), [(1, 8), (2, 4), (8, 1)])
def test_every_bank_of_memory_has_a_port(banks: int, ii: int) -> None:
    s = allo.customize(wide)
    s.pipeline("i")
    if banks > 1:
        s.partition(s.A, allo.Partition.Cyclic, dim=2, factor=banks)
    found = s.estimate("u280")
    assert loop(found, "i").ii == ii
    assert found.phases["wide"].bytes == 64 * 8 * 4
    ports = next(m for m in found.modules if m.name == "memory ports")
    assert ports.resources.bram18 == 2 * banks


def line(A: UInt(512)[64]) -> UInt(512):
    last: UInt(512) = 0
    for i in range(64):
        last = A[i]
    return last


def test_a_channel_bounds_wide_words() -> None:
    """64 bytes a cycle are more than a channel of 14.375 GB/s gives at 70 % and 300 MHz."""
    s = allo.customize(line)
    s.pipeline("i")
    found = s.estimate("u280")
    row = loop(found, "i")
    each = 64 / (14.375e9 * 0.70 / 300e6)
    assert row.ii == 1
    assert row.cycles == round(row.depth + 63 * each + LOOP_OVERHEAD)
    assert found.binds == 'bandwidth of the memory port "A"'


def four_sums(A: float32[64]) -> float32:
    part: float32[4] = 0.0
    for i in range(64):
        part[i % 4] += A[i]
    return part[0] + part[1] + (part[2] + part[3])


def test_partial_sums_in_turn_hide_the_adder() -> None:
    """The sum of four iterations before is there when its adder of four cycles is done."""
    s = allo.customize(four_sums)
    s.pipeline("i")
    s.partition(s.part)
    assert loop(s.estimate("u280"), "i").ii == 1
    slow = s.estimate("u280", operators={"accumulate": {"latency": 7}})
    assert loop(slow, "i").ii == 2  # seven cycles in four iterations


def test_arguments_may_lie_on_the_chip() -> None:
    s = allo.customize(vadd)
    s.pipeline("i")
    found = s.estimate("u280", on_chip=True)
    assert found.cycles == RAM_LATENCY + WRITE + 99 + LOOP_OVERHEAD
    assert found.phases["vadd"].bytes == 0
