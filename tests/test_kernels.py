"""Every kernel: as written = scheduled = LLVM = compiled HLS C++, bit for bit, over random sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import Int, float32, int8
from flexllm_allo.kernels import attention, embedding, linear, mlp, norm, quantize, rope, sampling
from flexllm_allo.schedule.stage import Stage
from flexllm_allo.schedules import cpu, decode, prefill

size = st.integers(1, 9)
wide = st.integers(1, 40)  # beyond the depth of the FIFOs, so that both ends wait


@dataclass(frozen=True)
class Case:
    """A kernel, a strategy for its template arguments, and inputs for an instance."""

    kernel: Callable[..., Any]
    sizes: dict[str, Any]
    inputs: Callable[[np.random.Generator, dict[str, Any]], list[Any]]


def codes(rng: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    if dtype.is_float:
        return rng.standard_normal(shape).astype(np.float32)
    top = 2 ** (dtype.bits - 1)
    return rng.integers(-top, top, shape).astype(np.int8)


def real(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3)
    return np.where(rng.random(shape) < 0.1, 0.0, values).astype(np.float32)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.random(shape) + 0.01).astype(np.float32)


def linear_inputs(rng: np.random.Generator, b: dict[str, Any]) -> list[Any]:
    return [
        codes(rng, b["Tx"], b["T"], b["K"]), positive(rng, b["T"]),
        codes(rng, b["Tw"], b["N"], b["K"]), positive(rng, b["N"]),
    ]  # fmt: skip


def attention_inputs(rng: np.random.Generator, b: dict[str, Any]) -> list[Any]:
    n = int(rng.integers(1, b["T"] + 1))
    pos = int(rng.integers(0, b["S"] - n + 1))
    cache = (b["KV"], b["S"])
    return [
        codes(rng, b["Tq"], b["T"] * b["H"], b["D"]), positive(rng, b["T"] * b["H"]),
        codes(rng, b["Tc"], *cache, b["D"]), positive(rng, *cache),
        codes(rng, b["Tc"], *cache, b["D"]), positive(rng, *cache), pos, n,
    ]  # fmt: skip


def append_inputs(rng: np.random.Generator, b: dict[str, Any]) -> list[Any]:
    n = int(rng.integers(1, b["R"] // b["KV"] + 1))
    pos = int(rng.integers(0, b["S"] - n + 1))
    return [
        codes(rng, b["Tc"], b["R"], b["D"]), positive(rng, b["R"]), pos, n,
        codes(rng, b["Tc"], b["KV"], b["S"], b["D"]), positive(rng, b["KV"], b["S"]),
    ]  # fmt: skip


@st.composite
def attention_sizes(draw: Any) -> dict[str, Any]:
    kv, group, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from([int8, float32]))
    s = draw(st.integers(tokens, 9))
    return dict(H=kv * group, T=tokens, Tq=kind, Tc=kind, KV=kv, S=s, D=draw(size))


@st.composite
def append_sizes(draw: Any) -> dict[str, Any]:
    kv, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return dict(Tc=int8, R=kv * tokens, KV=kv, S=draw(st.integers(tokens, 9)), D=draw(size))


@st.composite
def rope_sizes(draw: Any) -> dict[str, Any]:
    heads, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return dict(H=heads, T=draw(st.integers(1, 4)), W=2 * pairs * heads, S=draw(size), P=pairs)


def fixed(**sizes: Any) -> Any:
    return st.fixed_dictionaries(sizes)


weights = st.sampled_from([int8, Int(4)])
CASES = {
    "linear": Case(
        linear.linear, fixed(Tx=st.just(int8), Tw=weights, T=size, N=size, K=size), linear_inputs
    ),
    "linear_add": Case(
        linear.linear_add,
        fixed(Tx=st.just(int8), Tw=weights, T=size, N=wide, K=size),
        lambda rng, b: [*linear_inputs(rng, b), real(rng, b["T"], b["N"])],
    ),
    "quantize": Case(
        quantize.quantize,
        fixed(Ty=st.sampled_from([int8, Int(4), float32]), R=size, K=size),
        lambda rng, b: [real(rng, b["R"], b["K"])],
    ),
    "rms_norm": Case(
        norm.rms_norm,
        fixed(T=size, E=size),
        lambda rng, b: [real(rng, b["T"], b["E"]), real(rng, b["E"]), 1e-5],
    ),
    "norm_quantize": Case(
        norm.norm_quantize,
        fixed(Ty=st.just(int8), T=size, E=wide),
        lambda rng, b: [real(rng, b["T"], b["E"]), real(rng, b["E"]), 1e-5],
    ),
    "swiglu_quantize": Case(
        mlp.swiglu_quantize,
        fixed(Ty=st.just(int8), T=size, N=wide),
        lambda rng, b: [real(rng, b["T"], b["N"]), real(rng, b["T"], b["N"])],
    ),
    "rope": Case(
        rope.rope,
        rope_sizes(),
        lambda rng, b: [
            real(rng, b["T"], b["W"]), real(rng, b["S"], b["P"]), real(rng, b["S"], b["P"]),
            int(rng.integers(0, 9)),
        ],
    ),
    "append_cache": Case(attention.append_cache, append_sizes(), append_inputs),
    "attention": Case(attention.attention, attention_sizes(), attention_inputs),
    "embedding": Case(
        embedding.embedding,
        fixed(T=size, V=size, E=size),
        lambda rng, b: [
            rng.integers(0, b["V"], b["T"]).astype(np.int32), int(rng.integers(1, b["T"] + 1)),
            real(rng, b["V"], b["E"]),
        ],
    ),
    "greedy": Case(sampling.greedy, fixed(V=size), lambda rng, b: [real(rng, 1, b["V"])]),
}  # fmt: skip


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


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_schedules_and_llvm_keep_every_bit(name: str, data: Any) -> None:
    case = CASES[name]
    sizes = data.draw(case.sizes)
    arguments = case.inputs(np.random.default_rng(data.draw(st.integers(0, 999))), sizes)
    plain = allo.customize(case.kernel, instantiate=sizes).program
    expected = run(Interpreter(plain), arguments)
    same(expected, run(LLVMModule(plain), arguments))
    for stage in stages(sizes.get("T", 2)):
        program = scheduled(case.kernel, sizes, stage)
        same(expected, run(Interpreter(program), arguments))
        same(expected, run(LLVMModule(program), arguments))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=1, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_compiled_hls_keeps_every_bit(name: str, data: Any) -> None:
    case = CASES[name]
    sizes = data.draw(case.sizes)
    arguments = case.inputs(np.random.default_rng(data.draw(st.integers(0, 999))), sizes)
    expected = run(Interpreter(allo.customize(case.kernel, instantiate=sizes).program), arguments)
    program = scheduled(case.kernel, sizes, stages(sizes.get("T", 2))[0])
    same(expected, run(CSimModule(program), arguments))


@settings(max_examples=6, deadline=None)
@given(sizes=fixed(Tx=st.just(int8), Tw=weights, T=size, N=size, K=size), seed=st.integers(0, 999))
def test_the_cpu_schedule_keeps_every_bit_of_integer_layers(sizes: dict[str, Any], seed: int) -> None:
    arguments = linear_inputs(np.random.default_rng(seed), sizes)
    expected = run(Interpreter(allo.customize(linear.linear, instantiate=sizes).program), arguments)
    program = scheduled(linear.linear, sizes, cpu.blocked())
    same(expected, run(LLVMModule(program), arguments))
