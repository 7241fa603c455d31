"""Every kernel: as written = scheduled = LLVM = compiled HLS C++, bit for bit, over random sizes."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import CASES, COMPOSED, PLAIN, Case, real

import flexllm_allo as allo
from flexllm_allo import kernels
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.models import architecture
from flexllm_allo.models.engine_model import Decode
from flexllm_allo.models.flexllm_model import Prefill
from flexllm_allo.quant.activation import quantize_activation, quantize_static
from flexllm_allo.quant.formats import ActivationFormat, FloatFormat, IntFormat
from flexllm_allo.runtime.designs import decode_design, prefill_design
from flexllm_allo.schedule.stage import Stage
from flexllm_allo.schedules import cpu, decode, prefill

FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def stages(tokens: int) -> list[Stage]:
    """The hardware stages; what the CPU may reassociate is compared elsewhere."""
    return [prefill.spatial(max(2, tokens), weight_parallel=4), decode.temporal(weight_parallel=4)]


def scheduled(kernel: Callable[..., Any], sizes: dict[str, Any], stage: Stage) -> ir.Program:
    s = allo.customize(kernel, instantiate=sizes)
    stage.apply(s, [f.name for f in s.program.functions])
    return s.program


def run(module: Any, arguments: list[Any]) -> list[Any]:
    """Results and in-place arguments of a call, with fresh copies of the arguments."""
    fresh = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    out = module(*fresh)
    results = out if isinstance(out, list) else [] if out is None else [out]
    return [*results, *(a for a in fresh if isinstance(a, np.ndarray))]


def same(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))  # zeros have signs too


def draw_case(
    case: Case, data: Any, wanted: Callable[[dict[str, Any]], bool] = lambda _: True
) -> tuple[dict[str, Any], list[Any]]:
    """Sizes of an instance, and arguments for it."""
    sizes = data.draw(case.sizes.filter(wanted))
    return sizes, case.inputs(np.random.default_rng(data.draw(st.integers(0, 999))), sizes)


@pytest.mark.parametrize("name", CASES)
@FEW
@given(data=st.data())
def test_schedules_and_llvm_keep_every_bit(name: str, data: Any) -> None:
    case = CASES[name]
    sizes, arguments = draw_case(case, data)
    plain = allo.customize(case.kernel, instantiate=sizes).program
    expected = run(Interpreter(plain), arguments)
    same(expected, run(LLVMModule(plain), arguments))
    for stage in stages(sizes.get("T", 2)):
        program = scheduled(case.kernel, sizes, stage)
        same(expected, run(Interpreter(program), arguments))
        same(expected, run(LLVMModule(program), arguments))


def not_tiny(sizes: dict[str, Any]) -> bool:
    """Whether an instance is worth compiling; the first that hypothesis draws has sizes of 1."""
    extents = [v for v in sizes.values() if isinstance(v, int)]
    return sum(extents) >= 3 * len(extents)


@pytest.mark.parametrize("name", CASES)
@settings(FEW, max_examples=1)
@given(data=st.data())
def test_compiled_hls_keeps_every_bit(name: str, data: Any) -> None:
    case = CASES[name]
    sizes, arguments = draw_case(case, data, not_tiny)
    expected = run(Interpreter(allo.customize(case.kernel, instantiate=sizes).program), arguments)
    program = scheduled(case.kernel, sizes, stages(sizes.get("T", 2))[0])
    same(expected, run(CSimModule(program), arguments))


def queries_at_once(name: str, data: Any, module: Callable[[ir.Program], Any], heads: int) -> None:
    """An attention of blocks on lanes of heads and tokens, whose products share multipliers."""
    case = CASES[name]
    sizes, arguments = draw_case(case, data, lambda b: b["T"] > 1 and not_tiny(b))
    expected = run(Interpreter(allo.customize(case.kernel, instantiate=sizes).program), arguments)
    stage = prefill.overlapped(sizes["T"], 4, head_parallel=heads, macs_per_dsp=4, lanes=4)
    same(expected, run(module(scheduled(case.kernel, sizes, stage)), arguments))


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("att")])
@FEW
@given(data=st.data(), heads=st.integers(1, 4))
def test_queries_at_once_keep_every_bit(name: str, data: Any, heads: int) -> None:
    queries_at_once(name, data, LLVMModule, heads)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("att")])
@settings(FEW, max_examples=1)
@given(data=st.data())
def test_queries_at_once_keep_every_bit_as_compiled_hls(name: str, data: Any) -> None:
    queries_at_once(name, data, CSimModule, 2)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("linear", "attention"))])
@FEW
@given(data=st.data())
def test_the_cpu_schedule_keeps_every_bit_where_it_does_not_reassociate(name: str, data: Any) -> None:
    """Sums of integers in any order, and float sums in groups, whose order the CPU keeps."""
    case = CASES[name]
    reassociated = {"linear": "Tx", "attention": "Tq"}.get(name)
    sizes, arguments = draw_case(case, data, lambda b: not (reassociated and b[reassociated].is_float))
    expected = run(Interpreter(allo.customize(case.kernel, instantiate=sizes).program), arguments)
    program = scheduled(case.kernel, sizes, cpu.blocked(max(2, sizes["T"])))
    same(expected, run(LLVMModule(program), arguments))


def test_every_kernel_has_a_case() -> None:
    """Directly, or called by one that has, or in designs that `test_flexllm` and `test_decode_engine` run."""
    covered = set(CASES)
    for name, sizes in COMPOSED.items():
        program = allo.customize(CASES[name].kernel, instantiate=sizes).program
        covered |= {f.origin for f in program.functions}
    model = architecture("llama-3.2-1b", "w4a4kv8", 32)
    for design in (
        decode_design(model),
        decode_design(model, Decode(key=0, value=0)),
        prefill_design(model),
        prefill_design(model, Prefill(mlp_ports=2)),
    ):
        covered |= {f.origin for f in design.program.functions}
    written = {
        name
        for module in iter_modules(kernels.__path__, kernels.__name__ + ".")
        for name, value in vars(__import__(module.name, fromlist=["_"])).items()
        if hasattr(value, "__type_params__") and value.__module__ == module.name
    }
    assert len(written) > 30
    assert written <= covered
    assert set(CASES) <= written


# --------------------------------------------------------------------- against the NumPy definitions


def format_of(dtype: Any, kernel: str) -> ActivationFormat:
    """The format whose NumPy quantizer a plain kernel is."""
    if kernel == "keep":
        return FloatFormat(dtype.bits)
    zero = {"quantize": "none", "quantize_minimum": "float", "quantize_zero": "integer"}[kernel]
    return IntFormat(dtype.bits, "per_token", dynamic=True, zero=zero)


@pytest.mark.parametrize("rule", PLAIN, ids=lambda a: f"{a.quantize.__name__}-{a.dtype}")
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 6), width=st.integers(1, 40), seed=st.integers(0, 999), shift=st.integers(-2, 2))
def test_quantizers_are_those_of_numpy_bit_for_bit(
    rule: Any, rows: int, width: int, seed: int, shift: int
) -> None:
    """Rows around zero, above it, below it, and rows that are constant."""
    rng = np.random.default_rng(seed)
    x = real(rng, rows, width) + np.float32(shift)
    x[rng.random(rows) < 0.2] = np.float32(shift)
    codes, scale, offset = quantize_activation(x, format_of(rule.dtype, rule.quantize.__name__))
    program = allo.customize(rule.quantize, instantiate=dict(A=rule, R=rows, K=width)).program
    terms = np.stack([scale] if offset is None else [scale, offset], axis=-1)
    same([codes, terms], LLVMModule(program)(x))


@settings(max_examples=20, deadline=None)
@given(heads=st.integers(1, 4), tokens=st.integers(1, 4), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_the_static_quantizer_is_that_of_numpy(heads: int, tokens: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, scale = real(rng, tokens * heads, width), (rng.random(heads) * 0.05 + 0.001).astype(np.float32)
    case = CASES["quantize_static"]
    rule = next(a for a in PLAIN if a.quantize.__name__ == "quantize" and a.dtype.bits == 8)
    sizes = dict(A=rule, R=tokens * heads, K=width, H=heads)
    program = allo.customize(case.kernel, instantiate=sizes).program
    expected = quantize_static(x.reshape(tokens, heads, width), scale[:, None]).reshape(x.shape)
    same([expected.astype(np.int8)], [LLVMModule(program)(x, scale)])
