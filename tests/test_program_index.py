"""What is kept with functions against what a walk over the whole program finds, on a scheduled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexllm_allo.analysis.accesses import accesses, call_effects
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import allocations, buffers, calls, statements, walk
from flexllm_allo.models import load
from flexllm_allo.runtime.preset import parse_preset, preset_top
from flexllm_allo.schedule.buffers import aliases, change_buffer

TINY = Path(__file__).parents[1] / "models" / "tiny"
PRESET = """\
name = "small"
device = "u280"
model = "tiny"
recipe = "w4a8kv8"
clock_mhz = 300.0
[prefill]
schedule = "spatial"
token_parallel = 4
lanes = 2
[decode]
schedule = "overlapped"
"""


@pytest.fixture(scope="module")
def program() -> ir.Program:
    return preset_top(parse_preset(PRESET), load(TINY, "w4a8kv8", 32)).program


def test_declarations_calls_and_statements_are_those_of_a_walk(program: ir.Program) -> None:
    for f in program.functions:
        nodes = list(walk(f.body))
        assert list(allocations(f)) == [n for n in nodes if isinstance(n, ir.Alloc)]
        assert list(calls(f)) == [n for n in nodes if isinstance(n, ir.Call)]
        kinds = (ir.Alloc, ir.Store, ir.Put, ir.Get, ir.For, ir.While, ir.If, ir.Call)
        assert [id(s) for s in statements(f.body)] == [id(n) for n in nodes if isinstance(n, kinds)]


def test_a_call_does_what_the_accesses_of_its_function_do(program: ir.Program) -> None:
    seen = 0
    for f in program.functions:
        for call in calls(f):
            callee = program.function(call.func)
            found = accesses(callee.body, program)
            done = {(a.buffer, a.write) for a in found}
            expected = [
                (arg, (p.name, False) in done, (p.name, True) in done)
                for p, arg in zip(callee.params, call.args, strict=True)
                if isinstance(arg, ir.View)
            ]
            assert list(call_effects(program, call)) == expected
            seen += len(expected)
    assert seen > 100


def test_aliases_are_closed_under_calls(program: ir.Program) -> None:
    """A name that a call binds to another one is among the aliases of both, dimensions shifted."""
    f = program.function(program.top)
    for p in [p for p in f.params if p.shape and not p.is_stream][:6]:
        found = {(a.func, a.buffer.name): a.shift for a in aliases(program, f.name, p.name)}
        assert len(found) > 1
        for caller in program.functions:
            for call in calls(caller):
                for param, arg in zip(program.function(call.func).params, call.args, strict=True):
                    if not isinstance(arg, ir.View):
                        continue
                    ends = (caller.name, arg.buffer), (call.func, param.name)
                    assert (ends[0] in found) == (ends[1] in found)
                    if ends[0] in found:
                        assert found[ends[1]] - found[ends[0]] == len(arg.indices)


def test_a_changed_declaration_leaves_the_rest_as_it_is(program: ir.Program) -> None:
    f = max(program.functions, key=lambda f: len(allocations(f)))
    for alloc in allocations(f):
        new = ir.Buffer(alloc.buffer.name, alloc.buffer.dtype, (*alloc.buffer.shape, 3))
        changed = change_buffer(f, new)
        assert buffers(changed) == buffers(f) | {new.name: new}
        kept = [a is b for a, b in zip(f.body, changed.body, strict=True)]
        assert kept.count(False) == 1
