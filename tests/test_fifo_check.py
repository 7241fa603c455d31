"""Depths that would stop a design are refused, with the cycle and the depth that frees it."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hadamard_stream import streamed
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_graphs import graph
from test_cpu_streams import chain, fork_join, layers, nested

import flexllm_allo as allo
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import DeadlockError, EstimateError, StreamWarning, source_line
from flexllm_allo.estimate.fifo.analysis import check_streams, fifo_depths
from flexllm_allo.estimate.fifo.behaviour import Behaviours, Timing
from flexllm_allo.estimate.fifo.fifos import DECLARED, UNLIMITED
from flexllm_allo.estimate.fifo.plain import plain_timing
from flexllm_allo.estimate.fifo.simulate import simulate
from flexllm_allo.ir.types import Stream, int8, int32
from flexllm_allo.library.systolic import schedule_systolic, systolic
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.schedule.depths import with_depths

N = 16


def skip(X: int32[N]) -> int32[N]:
    Y: int32[N]
    way: Stream[int32, 4]
    past: Stream[int32, 2]
    total: int32 = 0
    for i in range(N, name="fork"):
        way.put(X[i])
        past.put(X[i])
    for i in range(N, name="add"):
        total += way.get()
    for i in range(N, name="join"):
        Y[i] = past.get() + total
    return Y


def skip_schedule() -> allo.Schedule:
    s = allo.customize(skip)
    s.dataflow()
    return s


def test_a_skip_connection_that_is_too_shallow():
    s = skip_schedule()
    with pytest.raises(DeadlockError) as caught:
        s.check_streams()
    error = caught.value
    assert error.code == "FX303"
    assert error.message == (
        "deadlock in 'skip': fork waits to write FIFO 'past' (full, depth 2); "
        "add waits to read FIFO 'way' (empty, depth 4); join waits for add to end"
    )
    assert error.hint == "give 'past' depth 15, which frees it; s.size_fifos() finds depths for all FIFOs"
    assert [p.label for p in error.places][-1] == "depth 2, 15 are needed"
    lines = [source_line(p.span) for p in error.places]
    assert [line.strip() for line in lines] == [
        "past.put(X[i])",
        "total += way.get()",
        'for i in range(N, name="join"):',
        "past: Stream[int32, 2]",
    ]


@pytest.mark.parametrize(("target", "mode"), [("vhls", None), ("vitis_hls", "csyn"), ("vitis_hls", None)])
def test_hardware_that_would_stop_is_not_built(target, mode, tmp_path):
    with pytest.raises(DeadlockError, match="fork waits to write FIFO 'past'"):
        skip_schedule().build(target=target, mode=mode, project=str(tmp_path / "p"))
    assert not (tmp_path / "p").exists()


def test_c_simulation_warns(tmp_path):
    with pytest.warns(StreamWarning, match="hardware would stop, unlike C simulation: .*FX303") as caught:
        skip_schedule().build(target="vitis_hls", mode="csim", project=str(tmp_path / "p"))
    assert caught[0].filename == __file__


def test_sized_it_runs_and_the_trace_sizes_another():
    s = skip_schedule()
    report = s.fifo_depths()
    assert [(d.stream, d.depth, d.safe) for d in report.streams] == [("way", 4, 1), ("past", 2, 15)]
    assert str(report).splitlines()[0].split() == [
        "function",
        "stream",
        "depth",
        "no",
        "deadlock",
        "full",
        "speed",
    ]
    s.size_fifos(full_speed=False)
    s.check_streams()
    x = np.arange(N, dtype=np.int32)
    for target in ("llvm", "simulator"):
        np.testing.assert_array_equal(s.build(target=target)(x), x + x.sum())
    assert "s.size_fifos(full_speed=False)" in str(s.trace)
    again = allo.customize(skip)
    again.replay(s.trace)
    assert again.program == s.program


def test_one_less_deadlocks():
    s = skip_schedule()
    program = with_depths(s.program, {("skip", "past"): 14, ("skip", "way"): 1})
    for engine in (Interpreter, LLVMModule):
        with pytest.raises(DeadlockError):
            engine(program)(np.zeros(N, np.int32))
    with pytest.raises(DeadlockError, match="full, depth 14"):
        check_streams(program)


def unbalanced(X: int32[N], n: int32) -> int32[N]:
    Y: int32[N]
    way: Stream[int32, 4]
    for i in range(n, name="some"):
        way.put(X[i])
    for i in range(N, name="all"):
        Y[i] = way.get()
    return Y


def test_no_depth_helps_where_tokens_are_missing():
    s = allo.customize(unbalanced)
    s.dataflow()
    s.check_streams(n=N)
    with pytest.raises(DeadlockError) as caught:
        s.check_streams(n=N - 1)
    assert caught.value.message == "deadlock in 'unbalanced': all waits to read FIFO 'way' (empty, depth 4)"
    assert caught.value.hint == "a FIFO is read more often than it is written, or before it is written"


def balanced_then_stuck(X: int32[N], n: int32) -> int32[N]:
    Y = unbalanced(X, n)
    Z = skip(Y)
    return Z


def test_what_is_known_is_checked_beside_what_is_not():
    s = allo.customize(balanced_then_stuck)
    for name in ("unbalanced", "skip"):
        s.function(name).dataflow()
    with pytest.raises(DeadlockError, match="deadlock in 'skip'"):
        s.check_streams()
    with pytest.raises(EstimateError, match="what 'unbalanced' does to its FIFOs depends on"):
        check_streams(with_depths(s.program, {("skip", "past"): 15}))


def test_what_depends_on_data_is_refused_with_what_to_give():
    s = allo.customize(unbalanced)
    s.dataflow()
    with pytest.raises(EstimateError) as caught:
        s.check_streams()
    error = caught.value
    assert error.code == "FX921"
    assert error.message == "what 'unbalanced' does to its FIFOs depends on \"n\""
    assert error.hint == "give the scalars of 'unbalanced' that decide it: n"
    assert "range(n" in source_line(error.span)
    s.build(target="vhls")  # only a run can tell


@pytest.mark.parametrize(
    "program", [chain(16, 1, 4), fork_join(5, 3, 4), fork_join(5, 4, 4), nested(8, 1), layers(1), layers(4)]
)
def test_as_the_cpu_does(program):
    assert _refused(lambda: check_streams(program)) == _refused(lambda: _run(program))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 40))
def test_as_compiled_code_does(seed):
    p = graph(random.Random(seed))
    assert _refused(lambda: check_streams(p)) == _refused(lambda: _run(p, LLVMModule))


def _run(program, engine=Interpreter):
    arrays = [np.zeros(b.shape, np.int32) for b in program.function(program.top).params]
    engine(program)(*arrays)


def _refused(action) -> str:
    """The message, without hints: the analysis has better ones."""
    try:
        action()
    except DeadlockError as error:
        return error.message
    return ""


def test_a_dataflow_loop_and_layers_that_share_a_function():
    report = fifo_depths(layers(1))
    assert [(d.function, d.stream, d.safe, d.fast) for d in report.streams] == [
        ("layer", "s", 1, 1),
        ("top", "t", 1, 1),
    ]


# ------------------------------------------------------------------------ kernels of the repository


def systolic_array():
    s = allo.customize(systolic, instantiate=[int8, int8, int32, 4, 8, 4, 2, 2])
    schedule_systolic(s)
    shapes = (np.int8, (4, 8)), (np.int8, (8, 4)), (np.int32, (4, 4))
    return s, [np.ones(shape, dtype) for dtype, shape in shapes]


def transform():
    s = streamed(2, 16)
    return s, [np.ones((2, 16), np.float32)]


@pytest.mark.parametrize("made", [systolic_array, transform])
def test_streamed_kernels_with_their_least_depths(made):
    s, arrays = made()
    s.check_streams()
    s.size_fifos(full_speed=False)
    expected = s.build()(*[a.copy() for a in arrays])
    found = s.build(target="simulator")(*arrays)
    np.testing.assert_array_equal(found, expected)
    for stream in s.fifo_depths(full_speed=False).streams:
        assert stream.depth == stream.safe
        if stream.depth > 1:
            less = with_depths(s.program, {(stream.function, stream.stream): stream.depth - 1})
            assert _refused(lambda less=less: check_streams(less))
            with pytest.raises(DeadlockError):
                Interpreter(less)(*arrays)


def test_a_deeper_pipeline_needs_a_deeper_way_past_it():
    def way_past(X: int32[N], Y: int32[N]):
        way: Stream[int32, 2]
        past: Stream[int32, 2]
        back: Stream[int32, 2]
        for i in range(N, name="fork", pipeline=1):
            way.put(X[i])
            past.put(X[i])
        for i in range(N, name="work", pipeline=1):
            back.put(way.get() + 1)
        for i in range(N, name="join", pipeline=1):
            Y[i] = past.get() + back.get()

    s = allo.customize(way_past)
    s.dataflow()
    for depth in (1, 5, 9):
        cycles = {"fork": 1, "work": depth, "join": 1}
        timing = Timing(lambda loop, cycles=cycles: (1, cycles[loop.band]), lambda stmt, known: 1)
        fast = {d.stream: d.fast for d in fifo_depths(s.program, timing=timing).streams}
        # Put in cycle k, got when `back` has come: put in k + depth, there a cycle later.
        assert fast == {"way": 2, "past": depth + 2, "back": 2}


def test_a_streamed_transform_at_full_speed():
    s, arrays = transform()
    (top,) = [f for f in s.program.functions if f.name == s.program.top]
    s.size_fifos()
    made = Behaviours(s.program, plain_timing(s.program)).of(top.name)
    sized = simulate(made, DECLARED)
    assert sized.cycles == simulate(made, UNLIMITED).cycles
    assert max(sized.peaks.values()) > 2
    np.testing.assert_array_equal(s.build(target="simulator")(*arrays), transform()[0].build()(*arrays))


def test_the_top_of_a_16_layer_model_is_analysed_in_seconds():
    """Depths that do not deadlock at once; those that do not slow, by some 150 runs of a long chain."""
    s = hardware_top(architecture("llama-3.2-1b", "w4a4kv8", 2048)).schedule
    begin = time.process_time()
    s.check_streams()
    assert time.process_time() - begin < 1
    report = s.fifo_depths()
    assert time.process_time() - begin < 10  # about 4 on a laptop
    assert len(report.streams) >= 6
    assert all(d.safe == 1 for d in report.streams)
    fast = {d.stream: d.fast for d in report.streams if d.function == "rotate_quantize"}
    assert fast == {"rotated": 2}  # rows of the transform follow each other without a pause
