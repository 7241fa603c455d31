"""Affine forms and dependence tests against enumeration of all iterations."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexllm_allo.analysis.accesses import accesses
from flexllm_allo.analysis.affine import Affine, affine
from flexllm_allo.analysis.dependence import dependences
from flexllm_allo.analysis.integer import ONE, System
from flexllm_allo.analysis.reductions import reduction
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import FLOAT32, INDEX, INT32, Fixed, Int, UInt

I, J = ir.LoopVar("i"), ir.LoopVar("j")


def c(value: int) -> ir.Const:
    return ir.Const(value, INDEX)


def op(name: str, a: ir.Expr, b: ir.Expr | int) -> ir.Binary:
    return ir.Binary(name, a, c(b) if isinstance(b, int) else b, INDEX)


# ------------------------------------------------------------------------------------------ forms


def test_forms():
    assert affine(op("+", op("*", I, 4), J)) == Affine((("i", 4), ("j", 1)))
    assert affine(op("-", op("*", I, 4), op("*", I, 4))) == Affine()
    wide = ir.Cast(op("+", ir.Cast(I, Int(34)), 1), INDEX)
    assert affine(wide) == Affine((("i", 1),), 1)
    assert affine(op("*", I, J)) is None
    assert affine(ir.Cast(I, Int(8))) is None
    assert affine(ir.Load("n", (), INT32)) is not None
    assert affine(ir.Load("n", (), INT32), written={"n"}) is None
    assert affine(ir.Load("A", (I,), INT32)) is None


def test_quotients_of_multiples_are_exact():
    assert affine(op("//", op("+", op("*", I, 8), 3), 4)) == Affine((("i", 2),))
    assert affine(op("%", op("+", op("*", I, 8), 3), 4)) == Affine((), 3)


# ---------------------------------------------------------------------------------------- systems


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-3, 3)] * 4), max_size=3),
    st.lists(st.tuples(*[st.integers(-3, 3)] * 4), max_size=3),
)
def test_system_never_denies_a_solution(equal, positive):
    names = ["x", "y", "z"]
    system = System()
    for row in equal:
        system.add_equal({**dict(zip(names, row, strict=False)), ONE: row[3]})
    for row in positive:
        system.add_positive({**dict(zip(names, row, strict=False)), ONE: row[3]})
    for name in names:
        system.add_positive({name: 1, ONE: 2})
        system.add_positive({name: -1, ONE: 2})

    def value(row, point):
        return sum(a * b for a, b in zip(row, point, strict=False)) + row[3]

    exists = any(
        all(value(r, p) == 0 for r in equal) and all(value(r, p) >= 0 for r in positive)
        for p in product(range(-2, 3), repeat=3)
    )
    if exists:
        assert system.feasible()


def test_system_is_exact_on_what_loops_ask():
    system = System()  # 2x = 2y + 1 has no integer solution
    system.add_equal({"x": 2, "y": -2, ONE: -1})
    assert not system.feasible()


# ----------------------------------------------------------------------------------- dependences


def nest(write: ir.Expr, read: ir.Expr, triangular: bool, step: int) -> ir.For:
    """``for i in range(0, 6, step): for j in range(i + 1 or 5): A[write] = A[read]``."""
    store = ir.Store("A", (write,), ir.Load("A", (read,), INT32))
    upper = op("+", I, 1) if triangular else c(5)
    return ir.For("i", c(0), c(6), (ir.For("j", c(0), upper, (store,)),), step)


def value(expr: ir.Expr, i: int, j: int) -> int:
    match expr:
        case ir.Const(v):
            return int(v)
        case ir.LoopVar(name):
            return i if name == "i" else j
        case ir.Binary(name, a, b):
            x, y = value(a, i, j), value(b, i, j)
            return {"+": x + y, "-": x - y, "*": x * y, "//": x // y if y else 0, "%": x % y if y else 0}[
                name
            ]
        case _:
            raise AssertionError


_INDEX = st.builds(
    lambda a, b, k, q, m: op(m, op("+", op("+", op("*", I, a), op("*", J, b)), k), q),
    st.integers(-2, 3), st.integers(-2, 3), st.integers(-4, 4), st.integers(1, 4),
    st.sampled_from(["//", "%", "*"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_INDEX, _INDEX, st.booleans(), st.integers(1, 2))
def test_directions_cover_every_collision(write, read, triangular, step):
    loop = nest(write, read, triangular, step)
    common = (loop, loop.body[0])
    load, store = accesses((loop,))
    iterations = [(i, j) for i in range(0, 6, step) for j in range(i + 1 if triangular else 5)]
    for source, sink in ((store, load), (load, store), (store, store)):
        truth = {
            tuple("<" if a < b else "=" if a == b else ">" for a, b in zip(x, y, strict=True))
            for n, x in enumerate(iterations)
            for y in iterations[n + 1 :]
            if value(source.indices[0], *x) == value(sink.indices[0], *y)
        }
        found = {d.directions for d in dependences(source, sink, common)}
        assert truth <= found


@pytest.mark.parametrize(
    ("write", "read", "expected"),
    [
        (op("*", I, 2), op("+", op("*", I, 2), 1), set()),
        (op("+", I, 10), I, set()),
        (op("+", I, 1), I, {("<", "<"), ("<", "="), ("<", ">")}),
        (op("+", op("*", I, 5), J), op("+", op("*", I, 5), J), set()),
        (op("//", op("+", op("*", I, 5), J), 5), I, {("=", "<")}),
    ],
)
def test_exact_on_usual_subscripts(write, read, expected):
    loop = nest(write, read, triangular=False, step=1)
    load, store = accesses((loop,))
    found = {d.directions for d in dependences(store, load, (loop, loop.body[0]))}
    assert found == expected


def test_run_time_bounds_are_symbols():
    n = ir.Load("n", (), INDEX)
    store = ir.Store("A", (op("+", I, n),), ir.Load("A", (I,), INT32))
    loop = ir.For("i", c(0), n, (store,))
    accs = [a for a in accesses((loop,)) if a.buffer == "A"]
    load, write = accs
    assert list(dependences(write, load, (loop,))) == []
    assert list(dependences(write, load, (loop,), written={"n"}))


# ------------------------------------------------------------------------------------- reductions


def accumulate(element, mid, name, term, cast_back=True) -> ir.Store:
    load = ir.Cast(ir.Load("C", (I,), element), mid)
    total = ir.Binary(name, load, ir.Cast(ir.Load("A", (J,), term), mid), mid)
    return ir.Store("C", (I,), ir.Cast(total, element) if cast_back else total)


@pytest.mark.parametrize(
    ("store", "exact"),
    [
        (accumulate(INT32, Int(33), "+", Int(16)), True),
        (accumulate(INT32, Int(33), "-", Int(16)), True),
        (accumulate(INT32, Int(64), "*", Int(32)), True),
        (accumulate(INT32, Int(16), "+", Int(16)), False),
        (accumulate(INT32, INT32, "max", Int(16)), True),
        (accumulate(INT32, Int(40), "max", Int(40)), False),
        (accumulate(UInt(8), Int(9), "min", UInt(8)), True),
        (accumulate(FLOAT32, FLOAT32, "+", FLOAT32, cast_back=False), False),
        (accumulate(Fixed(16, 4), Fixed(17, 4), "+", Fixed(16, 4)), True),
        (accumulate(Fixed(16, 4), Fixed(32, 8), "*", Fixed(16, 4)), False),
    ],
)
def test_reductions(store, exact):
    found = reduction(store)
    assert found is not None
    assert found.exact is exact


def test_not_reductions():
    shifted = ir.Load("C", (op("-", I, 1),), INT32)
    plain = ir.Load("C", (I,), INT32)
    assert reduction(ir.Store("C", (I,), ir.Binary("+", shifted, c(1), INT32))) is None
    assert reduction(ir.Store("C", (I,), ir.Binary("+", plain, shifted, INT32))) is None
    assert reduction(ir.Store("C", (I,), ir.Binary("-", c(1), plain, INT32))) is None
