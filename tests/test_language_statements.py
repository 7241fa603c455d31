"""Statements, scopes, names and templates of the kernel language."""

# ruff: noqa: UP037

from __future__ import annotations

import functools
import linecache
import math
import subprocess
import sys

import numpy as np
import pytest
from differential import agree

import flexllm_allo as allo
import flexllm_allo.ir.types as T
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.errors import FrontendError
from flexllm_allo.ir.types import (
    Float,
    Int,
    Stateful,
    Stream,
    UInt,
    float32,
    int8,
    int16,
    int32,
    int64,
    uint1,
    uint8,
)
from flexllm_allo.memory import Memory

N = 4
SIZES = (3, 5)

# ----------------------------------------------------------------------------------------- scopes


def test_scopes_are_blocks():
    def scopes(x: int32) -> int32:
        r: int32 = 0
        if x > 0:
            z: int32 = 1
            r += z
        else:
            z: float32 = 2.5
            r += z * 2
        for i in range(2):
            z: int8 = i
            r += z
        with allo.meta_if(True):
            z: int16 = 7
            r += z
        z: int64 = 100
        return r + z

    assert [agree(scopes, 1), agree(scopes, -1)] == [109, 113]


def test_assignments():
    def kernel(A: int32[4], x: int32) -> (int32, int32[4]):
        y: int32 = 1
        x, y = y, x
        A[0], A[1] = A[1], A[0]
        x += y
        A[2] -= x
        A[3] <<= 2
        y //= 2
        y %= 3
        y: int32 = y + 100
        return x + y, A

    scalar, array = agree(kernel, np.arange(1, 5, dtype=np.int32), 9)
    assert scalar == 111
    np.testing.assert_array_equal(array, [2, 1, -7, 16])


def _pair(x: int32) -> (int32, int32):
    return x + 1, x * 2


def test_results_of_calls():
    def kernel(x: int32) -> int64:
        a, _ = _pair(x)
        c: int32 = 0
        d: int64 = 0
        c, d = _pair(a)
        return a + c * 10 + d * 100

    assert agree(kernel, 5) == 6 + 70 + 1200


def test_rows_are_views():
    def kernel(A: int32[3, 4]) -> int32:
        first = A[1]
        first[0] = 100
        s: int32 = 0
        for i in range(3):
            row = A[i]
            row[1] = 5
            s += row[0] + row[1]
        return s

    assert agree(kernel, np.arange(12, dtype=np.int32).reshape(3, 4)) == 0 + 100 + 8 + 15


# ------------------------------------------------------------------------------------------ loops


def test_loops():
    def kernel(A: int32[4, 6], n: int32) -> int32:
        s: int32 = 0
        for i, j in allo.grid(4, 6, name="g", pipeline=[False, 2]):
            if i <= j:
                s += A[i, j]
        for i in range(n):
            for j in range(i, n, 2, name="jj", unroll=True):
                s += A[i][j]
        for k in allo.reduction(4):
            s += k
        i: int32 = 0
        while i < n and A[i, 0] >= 0:
            i += 1
            s -= 1
        return s

    A = np.arange(24, dtype=np.int32).reshape(4, 6)
    expected = np.triu(A).sum() + A[0, 0] + A[0, 2] + A[1, 1] + A[2, 2] + 6 - 3
    assert agree(kernel, A, 3) == expected
    text = str(allo.customize(kernel))
    assert "pipeline II=2" in text
    assert "unroll" in text


def test_calls_run_only_when_needed():
    def count(x: int32) -> int32:
        calls: int32 @ Stateful = 0
        calls = calls + x
        return calls

    def kernel(x: int32) -> int32:
        r: int32 = 0
        if x > 0 and count(1) > 0:
            r += 100
        if x > 0 or count(10) > 0:
            r += 200
        y: float32 = count(1000) if x > 0 else 0.5
        r += int(y * 10)
        return r + count(0)

    assert agree(kernel, 1) == 300 + 10010 + 1001
    assert agree(kernel, 0) == 200 + 5 + 10


def test_calls_with_constant_arguments_keep_the_types_of_the_kernel():
    def more(x: int8) -> int8:
        return x + 1

    def third(n: int) -> int:
        return -(-n // 3)

    def kernel(A: int32[4]) -> int32:
        r: int32 = 0
        if more(127) > 0:
            r += 1000
        for i in range(third(10)):
            r += A[i]
        return r + A[more(1)] + (-more(127))

    assert agree(kernel, np.arange(4, dtype=np.int32)) == 6 + 2 - 128


def test_loop_conditions_that_call_and_read():
    def collatz(x: int32, limit: int32) -> uint1:
        return x > 1 and x < limit

    def steps(n: int32) -> int32:
        x: int32 = n
        s: int32 = 0
        while s < 9 and collatz(x, 100):
            s += 1
            x = x // 2 if x % 2 == 0 else 3 * x + 1
        return s * 1000 + x

    def positive(A: int32[6]) -> int32:
        pipe: Stream[int32, 6]
        s: int32 = 0
        for i in range(6):
            pipe.put(A[i])
        while pipe.get() > 0:
            s += 1
        while s < 5 and pipe.get() > 0:
            s += 1
        return s

    assert agree(steps, 6) == 8001
    assert agree(steps, 27) == 3124
    assert agree(steps, 1) == 1
    assert agree(positive, np.array([3, 1, 2, 0, 7, 9], np.int32)) == 5


@pytest.mark.parametrize("bounds", [(0, 20, 3), (2, 19, 1), (5, 5, 2), (7, 3, 2), (0, 20, 7), (0, 4, -1)])
def test_run_time_bounds_and_steps(bounds):
    def kernel(A: int32[20], a: int32, b: int32, s: int32) -> int32:
        r: int32 = 0
        for i in range(a, b, s):
            r = r * 3 + A[i]
        return r

    A = np.arange(20, dtype=np.int32)
    a, b, step = bounds
    expected = 0
    for i in range(a, b, step) if step > 0 else ():
        expected = expected * 3 + int(A[i])
    assert agree(kernel, A, *bounds) == expected
    assert [band for band, _ in allo.customize(kernel).get_loops()] == ["S_i_0"]


def test_bounds_are_evaluated_once():
    def kernel() -> int32:
        n: int32 = 3
        r: int32 = 0
        for _j in range(n):
            n += 1
            r += 1
        return r * 10 + n

    assert agree(kernel) == 36
    assert CSimModule(allo.customize(kernel).program)() == 36


# -------------------------------------------------------------------------------- compile time


def test_meta_statements():
    def kernel(A: int32[N]) -> int32:
        s: int32 = 0
        with allo.meta_for(1, N, 2) as i:
            with allo.meta_if(i == 1):
                x: int32 = A[i]
                s += x
            with allo.meta_elif(i == 2):
                s += 1000
            with allo.meta_else():
                x: int64 = A[i] * 100
                s += x
        with allo.meta_if(N > 3):
            return s
        with allo.meta_else():
            return s + 1

    assert agree(kernel, np.array([1, 2, 3, 4], np.int32)) == 2 + 400


def test_kernels_in_kernels():
    def kernel(A: int32[N]) -> int32[N]:
        K: T.ConstExpr[int32] = 3

        def scaled(x: int32, k: int32 = 5) -> int32:
            return x + k * K + N

        def twice(x: int32) -> int32:
            return scaled(x, k=1) + scaled(x)

        B: int32[N] = 0
        for i in range(N):
            B[i] = twice(A[i])
        return B

    np.testing.assert_array_equal(agree(kernel, np.arange(4, dtype=np.int32)), [26, 28, 30, 32])


def test_inner_kernels_see_no_variables():
    def conflict(A: int32[N]) -> int32:
        def inner(A: int32) -> int32:
            return A

        return inner(1)

    def capture(x: int32) -> int32:
        y: int32 = x

        def inner(z: int32) -> int32:
            return z + y

        return inner(1)

    with pytest.raises(FrontendError, match="Argument name 'A' conflicts with an existing symbol") as caught:
        allo.customize(conflict)
    assert caught.value.code == "FX111"
    with pytest.raises(FrontendError, match="Variable y not defined in current scope"):
        allo.customize(capture)


# -------------------------------------------------------------------------------------- templates

TEMPLATES = """
def top[T, M](A: "T[M]") -> "int32[M]":
    C: float32[M] = k[T, M, float32](A)
    D: int32[M] = k[T, M, int32](A)
    E: int32[M] = k[T, M, int32](A)
    F: int32[M] = k[T, M, int32, "out"](A)
    for i in range(M):
        D[i] = C[i] + D[i] + E[i] + F[i]
    return D

def k[
    T, M: int32,
    U: (Float, Int),
](A: "T[M]") -> "U[M]":
    B: U[M] = 0
    for i in range(M):
        B[i] = A[i] + M
    return B
"""
NAMES = {"Float": Float, "Int": Int, "float32": float32, "int32": int32}


def test_names_of_instances():
    schedule = allo.customize(TEMPLATES, instantiate=[int8, 4], global_vars=NAMES)
    assert [f.name for f in schedule.program.functions] == ["k", "k_1", "k_out", "top"]
    np.testing.assert_array_equal(schedule.build()(np.arange(4, dtype=np.int8)), [16, 20, 24, 28])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([int8, 4, UInt(4)], "Cannot resolve type U with uint4"),
        ([int8, float32, int32], "Cannot resolve type M with float32"),
        ([int8, 4, int32, 4], "Type parameters mismatch, got 4 and 3"),
        ([int8, 4], "Type parameters mismatch, got 2 and 3"),
    ],
)
def test_template_arguments_are_checked(given, message):
    text = "def k[" + TEMPLATES.split("def k[")[1]
    with pytest.raises(FrontendError, match=message) as caught:
        allo.customize(text, instantiate=given, global_vars=NAMES)
    assert caught.value.code == "FX108"


def test_types_in_templates():
    text = """
    def kernel[Ty, P](A: "Ty[P]") -> "Int(Ty.bits * P)":
        x: Int(Ty.bits * P) = 0
        with allo.meta_if(Ty == int8):
            with allo.meta_for(P) as p:
                x[p * Ty.bits:(p + 1) * Ty.bits] = A[p]
        return x
    """
    names = {"allo": allo, "Int": Int, "int8": int8}
    module = allo.customize(text, instantiate=[int8, 4], global_vars=names).build()
    assert module(np.array([1, -1, 2, 0], np.int8)) == 0x0002FF01


# ------------------------------------------------------------------------------------------ names


def _keep(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


@_keep
def _decorated(x: int32) -> int32:
    return x + 1


def test_decorators_are_ignored():
    def kernel(x: int32) -> int32:
        return _decorated(x) * 2

    assert agree(_decorated, 4) == 5
    assert agree(kernel, 4) == 10


def test_signatures_outlive_the_names_in_them():
    def make(n):
        def kernel(A: T.int32[n]) -> T.int32[n]:
            B: int32[4] = 1
            return B

        kernel.__annotations__ = {"A": int32[n], "return": int32[n]}
        return kernel

    np.testing.assert_array_equal(agree(make(4), np.zeros(4, np.int32)), [1, 1, 1, 1])


def test_quoted_annotations_and_placements():
    fast = Memory("URAM")

    def kernel(A: "int32[4] @ fast", b: "allo.ir.types.float32") -> "int32":
        C: "float32[4] @ Memory('BRAM', 'RAM_2P')" = 0.0
        C[1] = 2.0
        return A[0] + int(b * C[1])

    assert agree(kernel, np.array([7, 0, 0, 0], np.int32), 1.5) == 10
    text = str(allo.customize(kernel).build(target="vhls"))
    assert "bind_storage variable=A impl=uram" in text
    assert "bind_storage variable=C type=ram_2p impl=bram" in text


def test_kernels_without_source():
    names = {"int32": int32}
    exec("def kernel(x: int32) -> int32:\n    return x", names)
    with pytest.raises(FrontendError, match="cannot read the source of kernel") as caught:
        allo.customize(names["kernel"])
    assert caught.value.code == "FX100"
    with pytest.raises(FrontendError, match="is not a function definition"):
        allo.customize(lambda x: x)


def test_bare_prompt():
    lines = "\n".join(
        [
            "import flexllm_allo as allo",
            "from flexllm_allo.ir.types import int32",
            "def kernel(x: int32) -> int32:",
            "    return x",
            "",
            "try: allo.customize(kernel)",
            "except allo.FlexError as error: print(error.code)",
            "",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True, check=True
    )
    assert "FX100" in done.stdout


# --------------------------------------------------------------------------------------- refusals

HEAD = "def k(A: int32[4], x: int32) -> int32:\n    y: int32 = 0\n    "
REFUSED = {
    "for i in range(4):\n        break": 'FX101 Unsupported node "Break"',
    "for i in range(4):\n        continue": 'FX101 Unsupported node "Continue"',
    "for i in range(4):\n        y = 1\n    else:\n        y = 2": "FX101 for ... else",
    "while x > 3:\n        x -= 1\n    else:\n        y = 2": "FX101 while ... else",
    "for i, a in enumerate(A):\n        y = a": "FX110 cannot loop over `enumerate(A)`",
    "for i in range(3, 0, -1):\n        y = 1": "FX110 Step in for loop range should be positive, got: -1",
    "for i in range(3, 0, 0):\n        y = 1": "FX110 Step in for loop range should be positive, got: 0",
    "for i in range(4):\n        i = 3": "FX104 i cannot be assigned to",
    "for x in range(4):\n        y = 1": "FX111 x is already in use here",
    "y = [A[i] for i in range(4)]": 'FX101 Unsupported node "ListComp"',
    "f = lambda z: z": 'FX101 Unsupported node "Lambda"',
    "print(x)": "FX101 Unsupported function call print",
    "y = foo(x)": "FX102 Unsupported function call foo",
    "assert x > 0": 'FX101 Unsupported node "Assert"',
    "try:\n        y = 1\n    except ValueError:\n        y = 2": 'FX101 Unsupported node "Try"',
    "global z": 'FX101 Unsupported node "Global"',
    "match x:\n        case 1:\n            y = 2": 'FX101 Unsupported node "Match"',
    "y = (z := 3)": 'FX101 Unsupported node "NamedExpr"',
    "a = b = x": "FX101 chained assignment not supported",
    "del y": 'FX101 Unsupported node "Delete"',
    "class C:\n        pass": 'FX101 Unsupported node "ClassDef"',
    "y = f'{x}'": 'FX101 Unsupported node "JoinedStr"',
    "y = 1 if 0 < x < 3 else 2": "FX101 Only support one comparator for now",
    "y = min(x, y, 3)": "FX107 Only support two arguments for min and max",
    "x + 1": "FX101 only a call can stand alone",
    "y: int32": "FX111 y is declared twice",
    "y: float32 = 1.0": "FX104 Invalid assignment to y, type mismatch.",
    "z += 1": "FX102 Variable z not defined in current scope.",
    "z[0] = 1": "FX102 Variable z not defined in current scope.",
    "if x > 0:\n        z: int32 = 1\n    y = z": "FX102 Variable z not defined in current scope.",
    "for i in range(4):\n        y = 1\n    y = i": "FX102 Variable i not defined in current scope.",
    "with allo.meta_elif(x > 0):\n        y = 1": "FX101 Unmatched allo.meta_elif()",
    "with allo.meta_if(x > 0):\n        y = 1": "FX113 the condition of meta_if must be known",
    "if x > 0:\n        return 1": "FX112 return is only supported as the last statement",
    "y = allo.sin(x)": "FX109 sin is defined for floats, got int32",
    "y = A[0, 1]": "FX106 too many indices for A",
    "A[0, 1] = 1": "FX106 too many indices for A",
    "y = x << 1.5": "FX109 operator << is not defined",
}


@pytest.mark.parametrize("body", REFUSED)
def test_refusals(body):
    names = {"int32": int32, "float32": float32, "uint8": uint8, "allo": allo}
    with pytest.raises(FrontendError) as caught:
        allo.customize(HEAD + body + "\n    return y\n", global_vars=names)
    error = caught.value
    assert f"{error.code} {error.message}".startswith(REFUSED[body])
    assert error.span is not None
    assert error.span.line >= 3
    assert "^" in str(error)


def test_nothing_returned():
    def kernel(A: int32[2]):
        A[0] = 1
        return None

    np.testing.assert_array_equal(agree(kernel, np.zeros(2, np.int32))[0], [1, 0])


def test_kernels_of_a_notebook():
    text = "def cell(x: int32) -> int32:\n    return x + step\n"
    name = "<ipython-input-7-abc>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names = {"int32": int32, "step": 5}
    exec(compile(text, name, "exec"), names)
    assert agree(names["cell"], 2) == 7
    text = text.replace("step", "missing")
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), names)
    with pytest.raises(FrontendError) as caught:
        allo.customize(names["cell"])
    assert caught.value.span is not None
    assert str(caught.value.span) == f"{name}:2:16"
    assert "return x + missing" in str(caught.value)


def test_kernels_in_kernels_on_arrays():
    def kernel(A: int32[N]) -> int32[N]:
        def doubled(X: int32[N]) -> int32[N]:
            Y: int32[N]
            for i in range(N):
                Y[i] = X[i] * 2
            return Y

        B = doubled(A)
        C: int32[N] = doubled(B)
        return C

    np.testing.assert_array_equal(agree(kernel, np.arange(4, dtype=np.int32)), [0, 4, 8, 12])


def test_python_computes_what_is_known():
    def kernel(x: float32) -> float32:
        n: int32 = math.log2(N * 2)
        return x * np.float32(0.5) + n + len(SIZES) + np.pi * 0

    assert agree(kernel, 3.0) == 1.5 + 3 + 2
