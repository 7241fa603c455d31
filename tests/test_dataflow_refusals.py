"""Dataflow regions: deadlocks and refusals, their words and places."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from region_engines import COMPILER, Region, ints, modules

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.errors import (
    DeadlockError,
    FlexError,
    FrontendError,
    StreamError,
    TargetError,
    UsageError,
)
from flexllm_allo.ir.types import Stream, int16, int32

N = 16
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


# ---------------------------------------------------------------------------------------- deadlocks


def crossed() -> Region:
    @df.region()
    def top(A: int32[N], B: int32[N]):
        s: Stream[int32, 4]
        t: Stream[int32, 4]

        @df.kernel(mapping=[1], args=[A])
        def f(a: int32[N]):
            for i in range(N):
                s.put(a[i])
            for i in range(N):
                t.put(a[i])

        @df.kernel(mapping=[1], args=[B])
        def g(b: int32[N]):
            for i in range(N):
                b[i] = t.get()
            for i in range(N):
                b[i] += s.get()

    return top


def test_a_deadlock_names_processes_and_fifos() -> None:
    A, B = ints(N), np.zeros(N, np.int32)
    said: list[str] = []
    for module in modules(crossed()):
        begin = time.perf_counter()
        with pytest.raises(DeadlockError) as caught:
            module(A, B)
        assert time.perf_counter() - begin < 2
        said.append(str(caught.value))
        assert caught.value.message == (
            "deadlock in 'top': f_0 waits to write FIFO 's' (full, depth 4); "
            "g_0 waits to read FIFO 't' (empty, depth 4)"
        )
        assert caught.value.hint == "make 's' deeper, or read and write the FIFOs in the same order"
    assert said[0] == said[1]


def test_a_deadlock_names_instances_that_share_code() -> None:
    @df.region()
    def top(A: int32[3]):
        s: Stream[int32, 1][3]

        @df.kernel(mapping=[3], args=[A])
        def node(a: int32[3]):
            p = df.get_pid()
            a[p] = s[p].get()
            s[(p + 1) % 3].put(a[p])

    said: list[str] = []
    for module in modules(top):
        with pytest.raises(DeadlockError) as caught:
            module(np.zeros(3, np.int32))
        said.append(str(caught.value))
        assert caught.value.message == (
            "deadlock in 'top': node_0 waits to read FIFO 's_0' (empty, depth 1); "
            "node_1 waits to read FIFO 's_1' (empty, depth 1); "
            "node_2 waits to read FIFO 's_2' (empty, depth 1)"
        )
    assert said[0] == said[1]


def test_a_deadlock_of_many_names_the_cycle_only() -> None:
    @df.region()
    def top(A: int32[4, 6]):
        right: Stream[int32, 2][4, 7]
        down: Stream[int32, 2][4, 6]

        @df.kernel(mapping=[4])
        def feed():
            i = df.get_pid()
            right[i, 0].put(i)

        @df.kernel(mapping=[4, 6], args=[A])
        def pe(a: int32[4, 6]):
            i, j = df.get_pid()
            x: int32 = right[i, j].get()
            a[i, j] = x + down[i, j].get()
            right[i, j + 1].put(x)
            down[(i + 1) % 4, j].put(x)

        @df.kernel(mapping=[4])
        def drain():
            i = df.get_pid()
            x: int32 = right[i, 6].get()

    for module in modules(top):
        begin = time.perf_counter()
        with pytest.raises(DeadlockError) as caught:
            module(np.zeros((4, 6), np.int32))
        assert time.perf_counter() - begin < 1
        waits = [f"pe_{i}_0 waits to read FIFO 'down_{i}_0' (empty, depth 2)" for i in (0, 3, 2, 1)]
        said = "; ".join([*waits, "24 more processes wait"])
        assert caught.value.message == f"deadlock in 'top': {said}"
        (place,) = caught.value.places
        assert place.label == f"{waits[0]}, and 3 more here"


def test_a_deadlock_of_many_names_the_process_that_was_left_alone() -> None:
    @df.region()
    def top(B: int32[2]):
        s: Stream[int32, 2][11]

        @df.kernel(mapping=[1])
        def feed():
            s[0].put(1)

        @df.kernel(mapping=[10])
        def stage():
            p = df.get_pid()
            for i in range(2):
                s[p + 1].put(s[p].get())

        @df.kernel(mapping=[1], args=[B])
        def drain(b: int32[2]):
            for i in range(2):
                b[i] = s[10].get()

    for module in modules(top):
        with pytest.raises(DeadlockError) as caught:
            module(np.zeros(2, np.int32))
        assert caught.value.message == (
            "deadlock in 'top': stage_0 waits to read FIFO 's_0' (empty, depth 2); 10 more processes wait"
        )


def test_steps_in_turn_are_told_to_run_at_the_same_time() -> None:
    def feed(A: int32[8], s: Stream[int32, 4]):
        for i in range(8):
            s.put(A[i])

    def drain(s: Stream[int32, 4], B: int32[8]):
        for i in range(8):
            B[i] = s.get()

    def top(A: int32[8], B: int32[8]):
        s: Stream[int32, 4]
        feed(A, s)
        drain(s, B)

    s = allo.customize(top)
    A, B = ints(8), np.zeros(8, np.int32)
    with pytest.raises(DeadlockError) as caught:
        s.build()(A, B)
    assert caught.value.hint == "make 's' deeper, or run the steps at the same time: s.dataflow(\"top\")"
    s.dataflow("top")
    s.build()(A, B)
    np.testing.assert_array_equal(B, A)


@needs_compiler
def test_c_simulation_cannot_run_a_cycle() -> None:
    module = df.build(crossed(), project=None)
    A, B = ints(N), np.zeros(N, np.int32)
    module(A, B)  # unbounded there: what the simulator is for
    np.testing.assert_array_equal(B, 2 * A)


# ----------------------------------------------------------------------------------------- refusals


def no_mapping() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def empty_mapping() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[0], args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def args_length() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A, A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def scalar_argument() -> Region:
    @df.region()
    def top(A: int32[N], n: int32):
        @df.kernel(mapping=[1], args=[A, n])
        def k(a: int32[N], n: int32):
            a[0] = n

    return top


def unknown_argument() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[Z])
        def k(a: int32[N]):
            a[0] = 1

    return top


def wrong_type() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A])
        def k(a: int16[N]):
            a[0] = 1

    return top


def wrong_shape() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N, 2]):
            a[0, 0] = 1

    return top


def both_ends() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a[0])
            a[1] = s.get()

    return top


def two_producers() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            s.put(a[0])

    return top


def two_consumers() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            p = df.get_pid()
            a[p] = s[1].get()

    return top


def runtime_index() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][N]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            for i in range(N):
                s[i].put(a[i])

    return top


def index_range() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[2], args=[A])
        def k(a: int32[N]):
            p = df.get_pid()
            s[p + 1].put(a[p])

    return top


def no_index() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2][2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a[0])

    return top


def computation() -> Region:
    @df.region()
    def top(A: int32[N]):
        for i in range(N):
            A[i] = 1

    return top


def pids() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[2, 2], args=[A])
        def k(a: int32[N]):
            i = df.get_pid()
            a[i] = 1

    return top


def block_shape() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32[2, 2], 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            s.put(a)

    return top


def twice() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]  # noqa: F842
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            a[0] = 1

    return top


def stream_value() -> Region:
    @df.region()
    def top(A: int32[N]):
        s: Stream[int32, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[N]):
            a[0] = s + 1

    return top


def uneven_shard() -> Region:
    @df.region()
    def top(A: int32[N]):
        @df.kernel(mapping=[3], args=[A])
        def k(a: int32[N] @ [allo.Layout.Shard(0)]):
            a[0] = 1

    return top


def gathered_types() -> Region:
    @df.region()
    def top(A: int32[2]):
        s: Stream[int32, 2]
        t: Stream[int16, 2]

        @df.kernel(mapping=[1], args=[A])
        def k(a: int32[2]):
            a[:] = df.gather([s, t])

    return top


REFUSALS: list[tuple[Callable[[], Region], type[FlexError], str, str, str]] = [
    (no_mapping, FrontendError, "FX107", "@df.kernel 'k' needs mapping=[...]", "@df.kernel(args=[A])"),
    (empty_mapping, FrontendError, "FX107", "mapping of 'k' must be one to 3 positive integers", "[0]"),
    (args_length, FrontendError, "FX107", "'args' length mismatch (expected 1, got 2).", "args=[A, A]"),
    (scalar_argument, FrontendError, "FX107", "Scalar 'n' cannot appear in args=[...] on @df.kernel 'k'",
     "args=[A, n]"),
    (unknown_argument, FrontendError, "FX102", "'Z' in args=[...] on @df.kernel 'k'", "args=[Z]"),
    (wrong_type, FrontendError, "FX104", "parameter a of kernel 'k' is int16[16], the argument is int32[16]",
     "a: int16[N]"),
    (wrong_shape, FrontendError, "FX105", "is int32[16, 2], the argument is int32[16]", "a: int32[N, 2]"),
    (both_ends, StreamError, "FX302", "kernel 'k_0' both reads and writes stream 's'", "s.put(a[0])"),
    (two_producers, StreamError, "FX302", "stream 's' has 2 producers: k_0, k_1", "s.put(a[0])"),
    (two_consumers, StreamError, "FX302", "stream 's_1' has 2 consumers: k_0, k_1", "s[1].get()"),
    (runtime_index, FrontendError, "FX113",
     "the index of stream s must be known at compile time, got `i`", "s[i].put"),
    (index_range, FrontendError, "FX106", "Index out of range: stream s has 2 along dimension 0, got 2",
     "s[p + 1].put"),
    (no_index, FrontendError, "FX106", "s is an array of streams with 1 dimension(s), got 0", "s.put"),
    (computation, FrontendError, "FX101", 'Unsupported node "For" in a region', "for i in range(N)"),
    (pids, FrontendError, "FX107", "the mapping has 2 dimension(s), 1 process id(s) wanted", "df.get_pid()"),
    (block_shape, FrontendError, "FX105", "stream s carries int32[2, 2], got int32[16]", "s.put(a)"),
    (twice, FrontendError, "FX111", "s is declared twice", "s: Stream[int32, 2]"),
    (stream_value, FrontendError, "FX104", "s is a stream; read it with .get()", "s + 1"),
    (uneven_shard, FrontendError, "FX105", "dimension 0 of a (16) is not a multiple of 3", "a: int32[N]"),
    (gathered_types, FrontendError, "FX104", "the streams carry different types", "[s, t]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "kind", "code", "message", "line"), REFUSALS, ids=[r[0].__name__ for r in REFUSALS]
)
def test_refusals(
    make: Callable[[], Region], kind: type[FlexError], code: str, message: str, line: str
) -> None:
    with pytest.raises(kind) as caught:
        df.customize(make())
    error = caught.value
    assert error.code == code
    assert message in error.message
    assert line in str(error)
    assert error.span is not None
    assert error.span.file == __file__


def test_all_places_of_two_producers_are_shown() -> None:
    with pytest.raises(StreamError) as caught:
        df.customize(two_producers())
    assert [p.label for p in caught.value.places] == ["written by k_0", "written by k_1"]


def test_get_pid_outside_of_a_region() -> None:
    def plain(A: int32[N]):
        p = df.get_pid()
        A[0] = p

    with pytest.raises(FrontendError, match=r"get_pid\(\) has no meaning outside of a dataflow kernel"):
        allo.customize(plain)
    with pytest.raises(UsageError, match=r"df.get_pid works in a kernel only"):
        df.get_pid()


def test_targets_and_options_of_the_npu_are_refused() -> None:
    with pytest.raises(TargetError, match="Target aie is not supported by this engine"):
        df.build(crossed(), target="aie")
    with pytest.raises(TargetError, match="Profiling is only supported for AIE target"):
        df.build(crossed(), target="simulator", profile=True)
    with pytest.raises(NotImplementedError, match="Target fpga is not supported"):
        df.build(crossed(), target="fpga")
