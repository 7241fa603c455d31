"""FIFOs and dataflow regions on the CPU: the interpreter and compiled code agree, in deadlock too."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_build import (
    I32,
    add,
    array,
    at,
    call,
    const,
    fifo,
    function,
    get,
    i,
    index,
    j,
    load,
    local,
    loop,
    program,
    put,
    store,
)

from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import DeadlockError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import Fixed, Float, Int, UInt
from flexllm_allo.ir.walk import rewrite

ENGINES = (Interpreter, LLVMModule)


def run(p: ir.Program, *args: np.ndarray) -> list[list[object]]:
    """The arguments after a run, which is the same for both engines."""
    seen = []
    for engine in ENGINES:
        mine = [a.copy() for a in args]
        engine(p)(*mine)
        seen.append([a.tolist() for a in mine])
    assert seen[0] == seen[1]
    return seen[0]


def deadlock(p: ir.Program, *args: np.ndarray) -> DeadlockError:
    """The refusal, which is the same for both engines."""
    errors = []
    for engine in ENGINES:
        with pytest.raises(DeadlockError) as caught:
            engine(p)(*args)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    assert errors[0].places == errors[1].places
    return errors[1]


def feed(n: int, name: str = "feed") -> ir.Function:
    return function(name, [array("a", n), fifo("o")], loop("i", n, put("o", load("a", i), line=3)))


def drain(n: int, name: str = "drain") -> ir.Function:
    body = (*get("v", "x", line=20), store("b", i, load("v")))
    return function(name, [array("b", n), fifo("x")], loop("i", n, *body))


def stage(n: int, p: int) -> ir.Function:
    body = (*get("v", "x", line=10), store("v", add(load("v"), const(p))), put("y", load("v"), line=12))
    return function(f"stage_{p}", [fifo("x"), fifo("y")], loop("i", n, *body))


def link(p: int) -> ir.View:
    return ir.View("fifo", (index(p),))


def chain(n: int, depth: int, stages: int) -> ir.Program:
    calls = [call(f"stage_{p}", link(p), link(p + 1)) for p in range(stages)]
    top = function(
        "top",
        [array("A", n), array("B", n)],
        ir.Alloc(fifo("fifo", depth, stages + 1)),
        call("feed", "A", link(0)),
        *calls,
        call("drain", "B", link(stages)),
        dataflow=True,
    )
    return program(feed(n), *(stage(n, p) for p in range(stages)), drain(n), top)


@pytest.mark.parametrize("depth", [1, 2, 5, 100])
def test_chain(depth: int) -> None:
    a = np.arange(16, dtype=np.int32)
    _, b = run(chain(16, depth, 4), a, np.zeros(16, np.int32))
    assert b == (a + 6).tolist()


def test_a_long_chain_needs_little_memory_and_time() -> None:
    n = 200_000
    a, b = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    LLVMModule(chain(n, 2, 3))(a, b)
    assert (b == a + 3).all()


def fork_join(n: int, depth: int, batch: int) -> ir.Program:
    """`split` sends alternate batches two ways; `merge` takes all of the second way first."""
    split = loop(
        "i",
        n,
        loop("j", batch, put("left", load("A", i), line=5)),
        loop("j", batch, put("right", load("A", i), line=6)),
    )
    second = loop("j", batch, *get("r", "right", line=8), store("B", i, add(load("B", i), load("r"))))
    first = loop("j", batch, *get("l", "left", line=9), store("B", i, add(load("B", i), load("l"))))
    merge = loop("i", n, store("B", i, const(0)), second, first)
    top = function(
        "top",
        [array("A", n), array("B", n)],
        ir.Alloc(fifo("left", depth)),
        ir.Alloc(fifo("right", depth)),
        split,
        merge,
        dataflow=True,
    )
    return program(top)


def test_fork_and_join() -> None:
    a = np.arange(5, dtype=np.int32)
    assert run(fork_join(5, 4, 4), a, a * 0)[1] == (a * 8).tolist()


def test_the_message_of_a_deadlock() -> None:
    error = deadlock(fork_join(5, 3, 4), *np.zeros((2, 5), np.int32))
    assert error.code == "FX303"
    assert error.message == (
        "deadlock in 'top': over_i waits to write FIFO 'left' (full, depth 3); "
        "over_i waits to read FIFO 'right' (empty, depth 3)"
    )
    assert [p.span for p in error.places] == [at(5), at(8)]
    assert error.hint == "make 'left' deeper, or read and write the FIFOs in the same order"


def test_a_module_works_again_after_a_deadlock() -> None:
    n = ir.Cast(load("n"), i.type)
    source = loop("i", n, put("s", const(7), line=1))
    sink = loop("i", 3, *get("v", "s", line=2), store("B", i, load("v")))
    top = function("top", [array("n"), array("B", 3)], ir.Alloc(fifo("s")), source, sink, dataflow=True)
    module, b = LLVMModule(program(top)), np.zeros(3, np.int32)
    for _ in range(3):
        with pytest.raises(DeadlockError, match="over_i waits to read FIFO 's'"):
            module(2, b)
        module(3, b)
        assert b.tolist() == [7, 7, 7]


def test_fifos_of_any_element_type() -> None:
    for dtype in (Int(3), UInt(1), Int(70), Fixed(12, 4), Float(16, 10), Float(16, 7), Float(64, 52)):
        target = ir.Alloc(ir.Buffer("v", dtype))
        body = (target, ir.Get("v", "s", ()), store("B", i, load("v", dtype=dtype)))
        top = function(
            "top",
            [array("A", 9, dtype=dtype), array("B", 9, dtype=dtype)],
            ir.Alloc(fifo("s", 2, dtype=dtype)),
            loop("i", 9, put("s", load("A", i, dtype=dtype))),
            loop("i", 9, *body),
            dataflow=True,
        )
        values = np.array([-1, 0, 1, 2, 3, -3, 5, 7, 1], object if dtype.is_integer else np.float64)
        a, b = run(program(top), values, np.zeros(9, values.dtype))
        if dtype == Int(70):
            assert a == b


def test_arrays_between_processes_order_them() -> None:
    """The second process reads what the first one leaves, though a FIFO lets both start."""
    fill = loop("i", 4, put("s", load("A", i)), store("T", i, add(load("A", i), const(10))))
    use = loop("i", 4, store("B", i, load("T", i)))
    take = loop("i", 4, *get("v", "s"), store("C", i, load("v")))
    params = [array("A", 4), array("B", 4), array("C", 4)]
    setup = (ir.Alloc(fifo("s", 1)), local("T", shape=(4,)))
    top = function("top", params, *setup, fill, use, take, dataflow=True)
    a = np.arange(4, dtype=np.int32)
    assert run(program(top), a, a * 0, a * 0)[1:] == [(a + 10).tolist(), a.tolist()]


def test_a_process_that_waits_for_another_to_end() -> None:
    fill = loop("i", 4, put("s", const(1), line=5), store("T", i, const(2)))
    use = loop("j", 4, *get("v", "s", line=7), store("B", j, add(load("v"), load("T", j))))
    top = function(
        "top", [array("B", 4)], ir.Alloc(fifo("s", 2)), local("T", shape=(4,)), fill, use, dataflow=True
    )
    error = deadlock(program(top), np.zeros(4, np.int32))
    assert error.message == (
        "deadlock in 'top': over_i waits to write FIFO 's' (full, depth 2); over_j waits for over_i to end"
    )


def nested(n: int, inner_depth: int) -> ir.Program:
    """A process that is a dataflow region of its own, with FIFOs from outside and inside."""
    inner = function(
        "inner",
        [fifo("x"), fifo("y")],
        ir.Alloc(fifo("mid", inner_depth)),
        loop("i", n, *get("v", "x", line=30), put("mid", add(load("v"), const(1)), line=31)),
        loop("i", n, *get("v", "mid", line=32), put("y", load("v"), line=33)),
        dataflow=True,
    )
    top = function(
        "top",
        [array("A", n), array("B", n)],
        ir.Alloc(fifo("s")),
        ir.Alloc(fifo("t")),
        call("feed", "A", "s"),
        call("inner", "s", "t"),
        call("drain", "B", "t"),
        dataflow=True,
    )
    return program(feed(n), drain(n), inner, top)


def test_nested_regions() -> None:
    a = np.arange(8, dtype=np.int32)
    assert run(nested(8, 1), a, a * 0)[1] == (a + 1).tolist()


def test_a_deadlock_inside_a_nested_region_names_all_who_wait() -> None:
    p = nested(8, 2)
    starved = p.with_function(feed(5, "feed"))
    starved = ir.Program(
        tuple(
            function("feed", [array("a", 8), fifo("o")], *f.body) if f.name == "feed" else f
            for f in starved.functions
        ),
        "top",
    )
    error = deadlock(starved, *np.zeros((2, 8), np.int32))
    assert error.message == (
        "deadlock in 'top': over_i waits to read FIFO 's' (empty, depth 2); "
        "over_i waits to read FIFO 'mid' (empty, depth 2); drain waits to read FIFO 't' (empty, depth 2)"
    )


def layers(depth: int) -> ir.Program:
    """A dataflow function called in a loop of an ordinary one, itself called by a process."""
    n = 4
    layer = function(
        "layer",
        [array("A", n), array("B", n)],
        ir.Alloc(fifo("s", depth)),
        loop("i", n, put("s", load("A", i), line=40)),
        loop("i", n, *get("v", "s", line=41), store("B", i, add(load("v"), const(1)))),
        loop("i", 0, *get("w", "s", line=42)),
        dataflow=True,
    )
    stack = function(
        "stack",
        [array("X", 2, n)],
        loop(
            "i",
            6,
            call("layer", ir.View("X", (index(0),)), ir.View("X", (index(1),))),
            loop("j", n, store("X", index(0), j, load("X", index(1), j))),
        ),
    )
    out = function("send", [array("X", 2, n), fifo("o")], loop("i", n, put("o", load("X", index(0), i))))
    work = function("work", [array("X", 2, n), fifo("o")], call("stack", "X"), call("send", "X", "o"))
    top = function(
        "top",
        [array("X", 2, n), array("B", n)],
        ir.Alloc(fifo("t")),
        call("work", "X", "t"),
        call("drain", "B", "t"),
        dataflow=True,
    )
    return program(layer, stack, out, work, drain(n), top)


def test_regions_called_in_a_loop() -> None:
    x = np.arange(8, dtype=np.int32).reshape(2, 4)
    assert run(layers(2), x, np.zeros(4, np.int32))[1] == (x[0] + 6).tolist()


def test_a_deadlock_deep_in_calls_unwinds() -> None:
    p = layers(2)
    layer = p.function("layer")
    flood = loop("i", 9, put("s", const(1), line=40))
    body = (layer.body[0], flood, *layer.body[2:])
    stuck = function("layer", list(layer.params), *body, dataflow=True)
    error = deadlock(p.with_function(stuck), np.zeros((2, 4), np.int32), np.zeros(4, np.int32))
    assert error.message == "deadlock in 'layer': over_i waits to write FIFO 's' (full, depth 2)"


def test_fifos_in_a_sequential_function() -> None:
    def body(count: int) -> ir.Function:
        steps = (put("s", load("A", i)), *get("v", "s", line=3), store("A", i, add(load("v"), const(1))))
        extra = loop("i", count, put("s", const(0), line=9))
        return function("f", [array("A", 4)], ir.Alloc(fifo("s", 2)), loop("i", 4, *steps), extra)

    a = np.arange(4, dtype=np.int32)
    assert run(program(body(2)), a)[0] == (a + 1).tolist()
    error = deadlock(program(body(3)), a)
    assert error.message == "deadlock in 'f': f waits to write FIFO 's' (full, depth 2)"
    assert error.span == at(9)


def test_a_dataflow_loop_makes_new_fifos_in_every_iteration() -> None:
    body = (
        ir.Alloc(fifo("s", 1)),
        loop("j", 3, put("s", ir.Cast(i, I32))),
        loop("j", 3, *get("v", "s"), store("B", i, j, load("v"))),
    )
    p = program(function("f", [array("B", 4, 3)], loop("i", 4, *body, dataflow=True)))
    assert run(p, np.zeros((4, 3), np.int32))[0] == [[n] * 3 for n in range(4)]


def test_large_local_arrays_of_a_process() -> None:
    n = 1 << 16
    reverse = function(
        "reverse",
        [fifo("x"), array("b", n)],
        local("T", shape=(n,)),
        loop("i", n, *get("v", "x"), store("T", i, load("v"))),
        loop("i", n, store("b", ir.Binary("-", index(n - 1), i, i.type), load("T", i))),
    )
    calls = (call("feed", "A", "s"), call("reverse", "s", "B"))
    top = function("top", [array("A", n), array("B", n)], ir.Alloc(fifo("s")), *calls, dataflow=True)
    a, b = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    LLVMModule(program(feed(n), reverse, top))(a, b)
    assert (b == a[::-1]).all()


@pytest.mark.parametrize("n", range(1, 34, 4))
def test_vectors_in_the_frame_of_a_coroutine(n: int) -> None:
    work = function(
        "work",
        [array("a", n), fifo("o")],
        local("T", shape=(n,)),
        loop("i", n, store("T", i, const(0))),
        loop("j", 3, loop("i", n, store("T", i, add(load("T", i), load("a", i))))),
        loop("i", n, put("o", load("T", i))),
    )
    calls = (call("work", "A", "s"), call("drain", "B", "s"))
    top = function("top", [array("A", n), array("B", n)], ir.Alloc(fifo("s")), *calls, dataflow=True)
    a = np.arange(n, dtype=np.int32)
    assert run(program(work, drain(n), top), a, a * 0)[1] == (a * 3).tolist()


def random_network(r: random.Random) -> ir.Program:
    """Processes that read and write FIFOs in bursts, in an order that may or may not work out."""
    count = r.randint(2, 4)
    steps: list[list[ir.Stmt]] = [[] for _ in range(count)]
    setup: list[ir.Stmt] = []
    for s in range(r.randint(1, 5)):
        writer, reader = r.sample(range(count), 2)
        tokens = r.randint(1, 6)
        setup.append(ir.Alloc(fifo(f"s{s}", r.randint(1, 4))))
        value = add(load("sum", index(writer)), const(s))
        took = (
            *get(f"v{s}", f"s{s}", line=s),
            store("sum", index(reader), add(load("sum", index(reader)), load(f"v{s}"))),
        )
        for n in range(2):
            steps[writer].append(loop(f"w{s}_{n}", tokens, put(f"s{s}", value, line=100 + s)))
            steps[reader].append(loop(f"r{s}_{n}", tokens + (n and r.random() < 0.1), *took))
    for todo in steps:
        if r.random() < 0.5:
            r.shuffle(todo)
    functions = []
    calls = []
    names = [a.buffer.name for a in setup if isinstance(a, ir.Alloc)]
    for n, todo in enumerate(steps):
        # a part of the array per process, for processes that share an array take turns
        mine = [_one_row(stmt, n) for stmt in todo]
        functions.append(function(f"p{n}", [array("sum", 1), *(fifo(s) for s in names)], *mine))
        calls.append(call(f"p{n}", f"sum{n}", *names))
    params = [array(f"sum{n}", 1) for n in range(count)]
    return program(*functions, function("top", params, *setup, *calls, dataflow=True))


def _one_row(stmt: ir.Stmt, row: int) -> ir.Stmt:
    return rewrite(stmt, lambda n: index(0) if n == index(row) else None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 40))
def test_random_networks_end_alike(seed: int) -> None:
    p = random_network(random.Random(seed))
    outcomes = []
    for engine in ENGINES:
        sums = [np.full(1, n + 1, np.int32) for n in range(len(p.function("top").params))]
        try:
            engine(p)(*sums)
            outcomes.append([int(s[0]) for s in sums])
        except DeadlockError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_an_array_filled_while_waiting_survives_the_wait():
    """A process that suspends inside the loop that fills an array, then reads the array."""
    import flexllm_allo as allo
    from flexllm_allo.ir.types import int32

    n = 24

    def reversed_row(A: int32[n]) -> int32[n]:
        B: int32[n]
        for copied in range(n, name="copy"):
            B[copied] = A[copied]
        C: int32[n]
        for _ in range(1, name="turn"):
            row: int32[n]
            for taken in range(n):
                row[taken] = B[taken]
            for k in range(n):
                C[k] = row[n - 1 - k]
        return C

    s = allo.customize(reversed_row)
    s.to(s.B, "turn", depth=5)
    data = np.arange(n, dtype=np.int32)
    np.testing.assert_array_equal(LLVMModule(s.program)(data), data[::-1])
