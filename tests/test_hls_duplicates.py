"""One function in the text for processes that schedules made alike, and two for engines that are apart."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hadamard_stream import streamed
from ir_build import add as plus
from ir_build import array, const, load, loop, program, store
from ir_build import i as counter

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.duplicates import without_duplicates
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ToolError
from flexllm_allo.ir import nodes as ir


def butterflies() -> ir.Program:
    """A Hadamard transform of 16: `to` makes all its stages but the first read a FIFO, each on its own."""
    return streamed(2, 16).program


def functions(code: str, stem: str) -> list[str]:
    return re.findall(rf"^void ({stem}\w*)\(", code, re.M)


def test_processes_that_are_alike_are_one_function() -> None:
    p = butterflies()
    assert sum(f.origin == "butterfly" for f in p.functions) == 4
    for flow in ("vhls", "vitis", "tapa"):
        assert len(functions(emit(p, flow), "butterfly")) == 2  # the first reads an array


def test_the_text_computes_the_same() -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    p = butterflies()
    x = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    np.testing.assert_array_equal(CSimModule(p)(x), Interpreter(p)(x))


def twins(*, dataflow: bool, amounts: tuple[int, int] = (1, 1), static: bool = False) -> ir.Program:
    """A function that calls two copies of another."""
    state = [ir.Alloc(array("kept", 1), (0,), static=True)] if static else []

    def step(name: str, amount: int) -> ir.Function:
        body = loop("i", 4, store("y", counter, plus(load("x", counter), const(amount))))
        return ir.Function(name, (array("x", 4), array("y", 4)), (*state, body), origin="step")

    calls = [
        ir.Call(name, (ir.View("a"), ir.View(result))) for name, result in (("left", "b"), ("right", "c"))
    ]
    top = ir.Function("top", tuple(array(n, 4) for n in "abc"), tuple(calls), dataflow=dataflow)
    return program(step("left", amounts[0]), step("right", amounts[1]), top)


def test_what_is_merged_and_what_is_not() -> None:
    merged = without_duplicates(twins(dataflow=True))
    assert [f.name for f in merged.functions] == ["left", "top"]
    assert [s.func for s in merged.function("top").body] == ["left", "left"]
    for apart in (
        twins(dataflow=False),  # two engines, as the program says
        twins(dataflow=True, amounts=(1, 2)),
        twins(dataflow=True, static=True),  # each keeps its own state
    ):
        assert without_duplicates(apart) is apart
    other = twins(dataflow=True)
    banks = replace(array("y", 4), banks=(ir.Bank("complete", 1),))
    partitioned = replace(other.function("right"), params=(array("x", 4), banks))
    assert without_duplicates(other.with_function(partitioned)).function("right") == partitioned
