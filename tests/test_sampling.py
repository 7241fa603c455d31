"""Sampling on the device: the kernel against NumPy, against softmax, and through whole models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from format_models import random_model, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import ToolError, UsageError
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.kernels import sampling as kernels
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.models.sampling import Sampling, choose, uniform
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.runtime.session import Session

RANDOM = Sampling(temperature=1.5, top_k=20, top_p=0.95, seed=7)
DRAWS = 4000


@pytest.fixture(scope="module")
def sample() -> Any:
    """`sample` over 100 logits and 64 candidates, as (logits, position, Sampling) -> token."""
    module = LLVMModule(allo.customize(kernels.sample, instantiate=dict(V=100, K=64)).program)
    return lambda x, position, how: module(x[None], position, *how.arguments().values())


def random_logits(seed: int, decimals: int = 1) -> np.ndarray:
    """[100]; rounded, so that some are equal."""
    return (np.random.default_rng(seed).standard_normal(100) * 3).round(decimals).astype(np.float32)


# ------------------------------------------------------------------------------------ the numbers


def test_the_hash_is_murmurs_finalizer() -> None:
    """Its published value for 1, and one to one on a range."""
    scramble = LLVMModule(allo.customize(kernels.scramble).program)
    assert [scramble(np.uint32(x)) for x in (0, 1)] == [0, 0x514E28B7]
    assert len({scramble(np.uint32(x)) for x in range(10000)}) == 10000


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(-(2**31), 2**31 - 1), position=st.integers(0, 2**20))
def test_uniform_numbers_are_those_of_numpy(seed: int, position: int) -> None:
    module = LLVMModule(allo.customize(kernels.uniform).program)
    found = module(seed, position)
    assert found == uniform(seed, position)
    assert 0 <= found < 1
    assert found * 2**24 == int(found * 2**24)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_uniform_numbers_fill_the_unit_interval_evenly(seed: int) -> None:
    """Along positions and along seeds; and one does not tell the next."""
    for numbers in (
        np.array([uniform(seed, p) for p in range(DRAWS)]),
        np.array([uniform(s, seed % 1000) for s in range(DRAWS)]),
    ):
        counts = np.histogram(numbers, 20, (0, 1))[0]
        assert chi_square(counts, np.full(20, 1 / 20)) < 43.8  # 19 degrees of freedom, p = 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / DRAWS**0.5


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = shares * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


# ------------------------------------------------------------------------------------- the choice


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 9999),
    temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 4.0]),
    top_k=st.integers(0, 64),
    top_p=st.floats(2**-7, 1, width=32),
)
def test_the_kernel_chooses_what_numpy_chooses(
    sample: Any, seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    how, x = Sampling(temperature, top_k, top_p, seed), random_logits(seed)
    for position in range(5):
        assert sample(x, position, how) == choose(x, how, position)


def test_greedy_takes_the_first_of_the_largest(sample: Any) -> None:
    x = np.zeros(100, np.float32)
    x[[40, 17, 80]] = 2
    for how in (Sampling(), Sampling(temperature=2.0, top_k=1), Sampling(temperature=2.0, top_p=0.01)):
        assert {sample(x, position, how) for position in range(50)} == {17}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(8, 1.0), (12, 0.8), (0, 0.6)])
def test_tokens_are_as_frequent_as_softmax_says(
    sample: Any, temperature: float, top_k: int, top_p: float
) -> None:
    """Chi-square against float64 softmax over the nucleus, with what is rarest in one class."""
    x = random_logits(5, decimals=4)
    how = Sampling(temperature, top_k, top_p, seed=11)
    order = np.argsort(-x)[: top_k or 64]
    p = np.exp((x[order].astype(np.float64) - x.max()) / temperature)
    p /= p.sum()
    kept = np.concatenate(([True], np.cumsum(p)[:-1] < top_p))
    order, p = order[kept], p[kept] / p[kept].sum()
    drawn = [sample(x, position, how) for position in range(DRAWS)]
    assert set(drawn) <= set(order.tolist())
    often = p * DRAWS >= 10
    counts = np.array([drawn.count(token) for token in order])
    classes = [(counts[often], p[often])]
    if not often.all():
        classes.append((counts[~often].sum(keepdims=True), p[~often].sum(keepdims=True)))
    found, shares = (np.concatenate(parts) for parts in zip(*classes, strict=True))
    freedom = len(found) - 1
    assert freedom == 0 or chi_square(found, shares) < freedom + 4 * (2 * freedom) ** 0.5 + 6


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (dict(temperature=-1.0), "0 (greedy) or more"),
        (dict(temperature=float("nan")), "0 (greedy) or more"),
        (dict(top_k=65), "to 64"),
        (dict(top_k=-1), "to 64"),
        (dict(top_p=0.0), "above 0 and at most 1"),
        (dict(top_p=1.5), "above 0 and at most 1"),
        (dict(seed=2**32), "32 bits"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match="cannot be") as caught:
        Sampling(**wrong)
    assert caught.value.code == "FX703"
    assert text in caught.value.hint


# ------------------------------------------------------------------------------------ whole models


def test_a_session_samples_the_tokens_of_the_reference() -> None:
    model = random_model("w4a4kv4")
    prompt, session, stops = random_tokens(5), Session(model), model.config.eos_token_ids
    texts = set()
    for seed in range(4):
        how = Sampling(1.5, 20, 0.95, seed)
        expected = ReferenceLlama(model.weights, sequential=True).generate(prompt, 12, stops, how)
        options = dict(temperature=1.5, top_k=20, top_p=0.95, seed=seed)
        assert session.generate(prompt, 12, **options).tokens == expected
        texts.add(tuple(expected))
    assert len(texts) == 4
    greedy = ReferenceLlama(model.weights, sequential=True).generate(prompt, 12, stops)
    assert session.generate(prompt, 12).tokens == greedy
    with pytest.raises(UsageError, match="top_p cannot be 2"):
        session.generate(prompt, 12, top_p=2.0)


def test_compiled_cpp_samples_the_same_tokens() -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")
    model = random_model("w4a4kv4")
    top = hardware_top(model, token_parallel=3, weight_parallel=4).top
    arguments = golden_arguments(model, new_tokens=12, sampling=RANDOM)
    made = CSimModule(top)(*(laid_out(b, arguments[b.name]) for b in top.function(top.top).inputs))
    prompt = arguments["prompt"][: arguments["n_prompt"]].tolist()
    expected = ReferenceLlama(model.weights, sequential=True).generate(
        prompt, 12, model.config.eos_token_ids, RANDOM
    )
    assert arguments["tokens"][:made].tolist() == expected
    greedy = ReferenceLlama(model.weights, sequential=True).generate(prompt, 12, model.config.eos_token_ids)
    assert expected != greedy
