"""The check of directives: what Vitis would not take is refused with the kernel's and schedule's line."""

from __future__ import annotations

import re
from dataclasses import replace

import hls_programs as programs
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.hls.module import HLSModule
from flexllm_allo.backend.hls.pragmas import check_directives, check_ports, check_text
from flexllm_allo.backend.hls.tapa_project import tapa_project
from flexllm_allo.backend.hls.vitis import vitis_project
from flexllm_allo.build import build
from flexllm_allo.errors import BackendError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import int32
from flexllm_allo.ir.walk import rewrite


def scale(A: int32[8, 12]) -> int32[8, 12]:
    B: int32[8, 12]
    for i, j in allo.grid(8, 12):
        B[i, j] = A[i, j] * 2
    return B


def with_bank(bank: ir.Bank) -> tuple[ir.Program, allo.Schedule]:
    """The kernel with a partition that no primitive lets through."""
    s = allo.customize(scale)
    s.partition(s.A, dim=2, partition_type=allo.Partition.Cyclic, factor=4)
    top = s.program.function("scale")
    params = tuple(replace(b, banks=(bank,)) if b.name == "A" else b for b in top.params)
    return s.program.with_function(replace(top, params=params)), s


@pytest.mark.parametrize(
    ("bank", "text"),
    [
        (ir.Bank("cyclic", 2, 5), "'A' of 12 elements cannot be in 5 cyclic banks"),
        (ir.Bank("block", 0, 3), "'A' of 8 elements cannot be in 3 block banks"),
        (ir.Bank("complete", 3), "'A' has 2 dimensions, not 3"),
        (ir.Bank("cyclic", 1, 0), "'A' of 8 elements cannot be in 0 cyclic banks"),
    ],
)
def test_a_partition_that_does_not_fit(bank: ir.Bank, text: str) -> None:
    program, s = with_bank(bank)
    with pytest.raises(BackendError) as caught:
        vitis_project(program, trace=s.trace)
    assert caught.value.code == "FX403"
    assert text in caught.value.message
    kernel, schedule = caught.value.places
    assert kernel.span.file == schedule.span.file == __file__
    assert kernel.span.line == scale.__code__.co_firstlineno
    assert schedule.label == "scheduled here"
    assert "s.partition(s.A, dim=2" in str(caught.value)


@pytest.mark.parametrize(
    ("attrs", "text"), [({"pipeline": 0}, "interval 0"), ({"unroll": -2}, "unrolled by -2")]
)
def test_impossible_numbers_on_loops(attrs: dict[str, int], text: str) -> None:
    program = allo.customize(scale).program
    top = program.function("scale")

    def change(node: object) -> object:
        return replace(node, attrs=ir.LoopAttrs(**attrs)) if isinstance(node, ir.For) else None

    with pytest.raises(BackendError, match=text):
        check_directives(program.with_function(replace(top, body=rewrite(top.body, change))))


def test_a_fifo_joins_two_processes() -> None:
    fifo, a = ir.Buffer("pipe", int32, depth=4), ir.Buffer("A", int32, (1,))
    zero = ir.Const(0, int32)
    produce = ir.Function("produce", (fifo,), (ir.Put("pipe", (), zero),))
    take = (ir.Alloc(ir.Buffer("t", int32)), ir.Get("t", "pipe", ()), ir.Store("A", (zero,), zero))
    consume = ir.Function("consume", (fifo, a), take)
    second = ir.Call("consume", (ir.View("pipe"), ir.View("A")))
    body = (ir.Alloc(fifo), ir.Call("produce", (ir.View("pipe"),)), second)
    top = ir.Function("top", (a,), body, dataflow=True)
    program = ir.Program((produce, consume, top), "top")
    check_directives(program)
    with pytest.raises(BackendError, match="FIFO 'pipe' joins 3 processes"):
        check_directives(program.with_function(replace(top, body=(*body, second))))


def test_a_while_loop_is_no_process() -> None:
    program = programs.producer_consumer()
    region = next(f for f in program.functions if f.dataflow)
    loop = ir.While(ir.Const(0, ir.BOOL), (region.body[-1],))
    with pytest.raises(BackendError, match="a while loop as a process"):
        check_directives(program.with_function(replace(region, body=(*region.body, loop))))


def test_directives_of_the_text_name_variables() -> None:
    s = allo.customize(scale)
    s.partition(s.A, dim=2, partition_type=allo.Partition.Cyclic, factor=4)
    code = emit(s.program)
    check_text(code)
    with pytest.raises(BackendError, match="has a directive for 'AA', which 'scale' lacks"):
        check_text(code.replace("variable=A ", "variable=AA "))


def test_ports_are_counted() -> None:
    check_ports(32, 32, "card")
    check_ports(99, None, "card")
    with pytest.raises(BackendError, match=r"33 memory ports, 1 more than card takes \(32\)"):
        check_ports(33, 32, "card")


@pytest.mark.parametrize("target", ["vhls", "vivado_hls", "vitis_hls", "tapa"])
def test_every_build_checks_its_directives(target: str) -> None:
    program, _ = with_bank(ir.Bank("cyclic", 2, 5))
    with pytest.raises(BackendError, match="'A' of 12 elements cannot be in 5 cyclic banks"):
        build(program, target=target, wrap_io=False)


def test_every_build_checks_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a directive that names no variable, as a defect of the emitter could write one."""
    wrong = "void f(\n) {\n  #pragma HLS bind_storage variable=lost impl=bram\n}\n"
    program = allo.customize(scale).program
    for module in ("module", "vitis", "tapa_project"):
        monkeypatch.setattr(f"flexllm_allo.backend.hls.{module}.emit", lambda *_: wrong)
    for make in (vitis_project, tapa_project, HLSModule):
        with pytest.raises(BackendError, match="line 3 of the C\\+\\+ has a directive for 'lost'"):
            make(program)


def test_what_outer_loops_of_a_nest_carry_is_said_to_be_so_far_apart() -> None:
    """Vitis sees the innermost loop; a bound that holds for every pair of accesses, or nothing."""

    def sums(X: int32[8, 6], at: int32[6]) -> int32[6]:
        near: int32[6] = 0
        other: int32[6] = 0
        far: int32[3, 6] = 0
        for k in range(8):
            for r in range(3):
                for i in range(6):
                    near[i] += X[k, i]
                    far[r, i] += X[k, i]
                    other[at[i]] += X[k, i]
        for o in range(6):
            near[o] += far[2, o] + other[o]
        return near

    s = allo.customize(sums)
    s.pipeline("i")
    found = re.findall(r"dependence variable=(\w+) (.*)", emit(s.program))
    rest = "type=inter direction=RAW distance={} dependent=true"
    assert found == [("far", rest.format(18)), ("near", rest.format(6))]
    assert emit(s.program).index("pipeline II=1") < emit(s.program).index("dependence")
