"""Parts of an estimate by hand: regions and dataflow loops, memories, units, instances on the die."""

from __future__ import annotations

import pytest

import flexllm_allo as allo
from flexllm_allo.estimate.cost import Cost, Key
from flexllm_allo.estimate.dataflow import FIFO_LATENCY, Process, region, repeated
from flexllm_allo.estimate.hardware_copies import copies
from flexllm_allo.estimate.loops import LOOP_OVERHEAD
from flexllm_allo.estimate.operators import Operators
from flexllm_allo.estimate.pace import Stretch
from flexllm_allo.estimate.ports import AXI_LATENCY
from flexllm_allo.estimate.resources import buffer_resources
from flexllm_allo.hardware.devices import Resources
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import (
    Int,
    UInt,
    bfloat16,
    float16,
    float32,
    float64,
    index,
    int4,
    int8,
    int32,
    uint4,
    uint8,
)
from flexllm_allo.library.systolic import schedule_systolic, systolic
from flexllm_allo.memory import Memory


def process(cycles: float, reads: str = "", writes: str = "", **tokens: tuple[float, float]) -> Process:
    """With the first and the last access to each FIFO."""
    paces = {name: (Stretch(first, last),) for name, (first, last) in tokens.items()}
    return Process(Cost(cycles, tokens=paces), frozenset(reads.split()), frozenset(writes.split()))


# ------------------------------------------------------------------------------- processes


def test_a_reader_of_an_array_waits_for_its_end() -> None:
    assert region([process(10, writes="a"), process(20, reads="a")]).cycles == 30
    assert region([process(10), process(20)]).cycles == 20


def test_a_reader_of_a_fifo_begins_with_the_first_token() -> None:
    """It takes one a cycle from its third cycle on; the writer puts one a cycle from its fifth on."""
    writer = process(100, writes="s", s=(5, 99))
    reader = process(110, reads="s", s=(3, 98))
    assert region([writer, reader]).cycles == 5 + FIFO_LATENCY - 3 + 110


def test_a_fast_reader_of_a_fifo_ends_after_its_writer() -> None:
    """The last token comes at 990, and behind it the reader has 10 cycles of work."""
    writer = process(980, writes="s", s=(5, 990))
    reader = process(60, reads="s", s=(0, 50))
    assert region([writer, reader]).cycles == 990 + FIFO_LATENCY + 60 - 50


def test_a_pause_of_the_writer_holds_the_reader_back_and_what_follows_it() -> None:
    """Half of the tokens, a pause, the others; the reader had caught up, and its own reader waits too."""
    given = (Stretch(100, 499, 400), Stretch(1000, 1399, 400))
    writer = Process(Cost(1400, tokens={"s": given}), frozenset(), frozenset({"s"}))
    reader = process(510, reads="s", writes="t", s=(0, 500), t=(5, 505))
    last = process(401, reads="t", t=(0, 400))
    assert region([writer, reader]).cycles == 1399 + FIFO_LATENCY + 510 - 500
    assert region([writer, reader, last]).cycles == pytest.approx(1404 + 2 * FIFO_LATENCY + 1, abs=3)


def test_iterations_overlap_up_to_the_slowest() -> None:
    chain = [process(10, writes="a"), process(20, reads="a", writes="b"), process(5, reads="b")]
    total = repeated([(50, chain)])
    assert total.cycles == (10 + 20 + 5) + 49 * 20


def test_iterations_of_different_lengths() -> None:
    """Process 1 of the second run takes 50: it ends at 20 + 50, and the third follows it."""

    def chain(second: float) -> list[Process]:
        return [process(10, writes="a"), process(second, reads="a")]

    assert repeated([(1, chain(5)), (1, chain(50)), (1, chain(5))]).cycles == 20 + 50 + 5


def test_a_double_buffer_holds_its_writer_back() -> None:
    """The fourth run of the writer waits until the reader has left the buffer of the second: 10 + 2 * 30."""
    key = Key("writer", frozenset())
    cost = Cost(10, key=key)
    writer, reader = Process(cost, frozenset(), frozenset({"a"})), process(30, reads="a")
    total = repeated([(4, [writer, reader])])
    assert total.cycles == 10 + 4 * 30
    assert total.counts()[key].last == 10 + 2 * 30 + 10


def step(A: int32[16], B: int32[16]):
    for i in range(16):
        B[i] = A[i] + 1


def twice(A: int32[16], B: int32[16]):
    C: int32[16]
    step(A, C)
    step(C, B)


def blocks(A: int32[4, 16], B: int32[4, 16]):
    for b in range(4):
        C: int32[16]
        step(A[b], C)
        step(C, B[b])


def test_a_dataflow_loop_overlaps_its_iterations() -> None:
    s = allo.customize(blocks)
    inner = 16 + 15  # what a run of `step` takes without its latencies
    apart = s.estimate("u280").cycles
    s.dataflow("b")
    together = s.estimate("u280").cycles
    assert together < apart
    assert together < 4 * (AXI_LATENCY + inner) + 2 * (AXI_LATENCY + inner)


def large(A: int32[4, 1024], B: int32[4, 1024]):
    for b in range(4):
        C: int32[1024]
        for i in range(1024):
            C[i] = A[b, i] + 1
        for j in range(1024):
            B[b, j] = C[j] * 3


def test_arrays_between_processes_are_double_buffers() -> None:
    s = allo.customize(large)
    before = s.estimate("u280").resources.bram18
    s.dataflow("b")
    assert s.estimate("u280").resources.bram18 == before + 2


def test_what_runs_in_turn_is_one_instance_and_what_runs_at_once_is_two() -> None:
    s = allo.customize(twice)
    off = frozenset({"A", "B"})
    one = copies(s.program, {"twice": off})
    assert one["step", frozenset({"A"})] == one["step", frozenset({"B"})] == 1

    def twice_alike(A: int32[16], B: int32[16]):
        step(A, B)
        step(A, B)

    alike = allo.customize(twice_alike)
    key = ("step", frozenset({"A", "B"}))
    assert copies(alike.program, {"twice_alike": off})[key] == 1
    alike.dataflow()
    assert copies(alike.program, {"twice_alike": off})[key] == 2


# ------------------------------------------------------------------------------- resources


def buffer(dtype: object, shape: tuple[int, ...], **options: object) -> ir.Buffer:
    return ir.Buffer("x", dtype, shape, **options)  # pyright: ignore


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (buffer(int32, (1024,)), {"bram18": 2}),  # 1024 x 18 twice
        (buffer(float32, (2048, 4)), {"bram18": 16}),  # 8192 x 2
        (buffer(float32, (512,)), {"bram18": 1}),
        (buffer(int8, (64,)), {"lut": 16}),  # 64 x 7 in 8 LUTs
        (buffer(int8, (64,), banks=(ir.Bank("complete", 1),)), {"ff": 512}),
        (buffer(int32, (1024,), banks=(ir.Bank("cyclic", 1, 4),)), {"bram18": 4}),
        (buffer(Int(72), (4096,), memory=Memory("URAM")), {"uram": 1}),
        (buffer(int32, (), depth=16), {"lut": 20 + 32, "ff": 10}),
        (buffer(int32, (), depth=1024), {"lut": 20, "ff": 10, "bram18": 2}),
        (buffer(int32, ()), {"ff": 32}),
    ],
)
def test_memories(held: ir.Buffer, expected: dict[str, int]) -> None:
    none = {"lut": 0, "ff": 0, "dsp": 0, "bram18": 0, "uram": 0}
    assert buffer_resources(held) == Resources(**{**none, **expected})


def array(X: uint4[8, 64], W: int4[16, 64]) -> int32[8, 16]:
    acc: int32[8, 16] = 0
    Y: int32[8, 16]
    for k, t, n in allo.grid(64, 8, 16):
        acc[t, n] += X[t, k] * W[n, k]
    for t1, n1 in allo.grid(8, 16):
        Y[t1, n1] = acc[t1, n1]
    return Y


def test_narrow_products_are_logic() -> None:
    """Vitis HLS makes products of few bits of LUTs, and does not pack wider ones by itself."""
    s = allo.customize(array)
    for loop in ("t", "n"):
        s.unroll(loop)
    s.pipeline("k")
    s.partition(s.acc)
    s.partition(s.X, dim=1)
    s.partition(s.W, dim=1)
    found = s.estimate("u280").resources
    assert found.dsp == 0
    assert found.lut > 8 * 16 * 4 * 4


def pairs(X: int8[2, 64], Y: int32[2]):
    acc: int32[64] = 0
    for n in range(4):
        for k in range(64):
            for p in range(8):
                acc[n * 16 + 2 * p] += X[0, k]
                acc[n * 16 + 2 * p + 1] += X[1, k]
    Y[0] = acc[0]
    Y[1] = acc[63]


def test_elements_side_by_side_do_not_wait_for_each_other() -> None:
    s = allo.customize(pairs)
    s.unroll("p")
    s.pipeline("k")
    row = next(r for stage in s.estimate("u280").stages for r in stage.loops if r.loop == "n/k")
    assert row.ii == 2  # two words of X through one port; each sum waits in a register of its own
    assert row.reason == '"X": 2 accesses to it per iteration, 1 per cycle'
    # Of 16 elements that change places with registers at every n, two go at a time, there and back.
    assert row.cycles == row.depth + (4 * 64 - 1) * 2 + 4 * (16 - 1) + LOOP_OVERHEAD


def halves(A: int32[32], B: int32[64]):
    for i in range(4):
        for p in range(8):
            B[16 * i + 2 * p] = A[8 * i + (2 * p) // 8] + 1
            B[16 * i + 2 * p + 1] = A[8 * i + (2 * p + 1) // 8] - 1


def test_an_element_is_read_once_however_it_is_written() -> None:
    s = allo.customize(halves)
    s.unroll("p")
    s.pipeline("i")
    row = next(r for stage in s.estimate("u280").stages for r in stage.loops)
    assert row.reason == '"B": 16 accesses to it per iteration, 1 per cycle'
    assert s.estimate("u280").phases["halves"].bytes == (4 * 2 + 64) * 4


def test_an_interval_shares_units() -> None:
    def scale(A: float32[64], B: float32[64]):
        for i in range(64):
            B[i] = A[i] * 1.5 + A[i] * 2.5

    s = allo.customize(scale)
    s.pipeline("i", initiation_interval=2)
    table = Operators("DSP48E2", 300).float
    assert s.estimate("u280").resources.dsp == table["multiply"].dsp + table["add"].dsp


def test_clocks_scale_latencies() -> None:
    assert Operators("DSP48E2", 304).float["add"].latency == 4
    assert Operators("DSP48E2", 150).float["add"].latency == 2
    assert Operators("DSP58", 300).float["accumulate"].latency == 1


def test_widths_of_floats() -> None:
    def add(dtype: object) -> ir.Expr:
        return ir.Binary("+", ir.Load("x", (), dtype), ir.Load("y", (), dtype), dtype)  # pyright: ignore

    table = Operators("DSP48E2", 300)
    assert [table.of(add(t)).name for t in (float16, bfloat16, float32, float64)] == [
        "half add", "half add", "float add", "double add",
    ]  # fmt: skip
    assert table.of(add(float64)).latency > table.of(add(float32)).latency


def test_processing_elements_work_at_the_same_time() -> None:
    """A tile takes the words of its inputs, one at a time per side, and the way through the array."""
    made = allo.customize(systolic, instantiate=[int8, int8, int32, 8, 256, 8, 8, 8])
    s = schedule_systolic(made)
    found = s.estimate("u280")
    elements = [m for m in found.modules if m.name.startswith("PE_kernel")]
    assert len(elements) == 64
    assert found.resources.dsp == 64
    loops = {row.loop: row for stage in found.stages for row in stage.loops if stage.name == "PE_kernel"}
    assert (loops["k"].ii, loops["k"].trips) == (1, 256)
    tile = next(stage for stage in found.stages if stage.name == "PE_kernel")
    feed = 256 * 2 * 11  # both loops that feed a row of FIFOs, element by element
    assert tile.end - tile.start < feed + 64 * 16


def words(A: uint8[64], B: UInt(256)[2]):
    for i in range(2):
        word: UInt(256) = 0
        for j in range(32):
            low: index = j * 8
            word[low : low + 8] = A[i * 32 + j]
        B[i] = word


def test_words_are_put_together_by_wires() -> None:
    """Shifts and masks by constants of each copy cost nothing: what is left is control and the ports."""
    s = allo.customize(words)
    s.unroll("j")
    s.pipeline("i")
    logic = next(m for m in s.estimate("u280").modules if m.name == "words").resources.lut
    assert logic < 32 * 64
