"""Schedules of the stages and ways to combine them: all keep every bit, and are what was asked for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from format_models import random_model, random_tokens

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.emit import emit
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError, UsageError
from flexllm_allo.hybrid import HybridTop, hybrid
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.ir.walk import walk
from flexllm_allo.models import Model
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.runtime.build import weight_words
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedule.nests import extent
from flexllm_allo.schedules import decode, prefill

DESIGNS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "spatial, temporal": (prefill.spatial(3, 4), decode.temporal(4), {}),
    "temporal, spatial": (prefill.temporal(4, 4, 2, 4, 2), decode.spatial(4, 4, 4, 2), {}),
    "wide": (prefill.spatial(2, 8, 4, 16, 2), decode.temporal(2, 16, 8, 1), {}),
    "shared": (prefill.spatial(3, 4), decode.temporal(4), dict(mode="shared")),
    "shared, temporal": (prefill.temporal(4, 4), decode.spatial(4), dict(mode="shared")),
    "overlapped": (
        prefill.overlapped(4, 8, head_parallel=2, macs_per_dsp=4, lanes=4, cycles=300),
        decode.overlapped(4, macs_per_dsp=2, lanes=2, cycles=300),
        {},
    ),
    "reconfigured": (prefill.spatial(3, 4), decode.temporal(4), dict(mode="reconfigured")),
}
FORMATS = ("w4a4kv8 static", "rotated")


def design(model: Model, name: str) -> HybridTop:
    first, second, options = DESIGNS[name]
    return hybrid(model, first, second, weight_words(model), **options)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_is_the_reference_bit_for_bit(name: str) -> None:
    model = random_model(FORMATS[list(DESIGNS).index(name) % 2])
    session, reference = Session(model, design(model, name)), ReferenceLlama(model.weights, sequential=True)
    for length in (1, 7):
        tokens = random_tokens(length, seed=length)
        expected = reference.prefill(tokens)
        for stage in ("prefill", "decode"):
            np.testing.assert_array_equal(session.logits(tokens, stage), expected)
    stops = model.config.eos_token_ids
    assert session.generate(tokens, 6).tokens == reference.generate(tokens, 6, stops)


def compiled(program: ir.Program, arguments: dict[str, Any]) -> Any:
    """The result of a top as C++, which works on `arguments` in place."""
    inputs = program.function(program.top).inputs
    memory = {b.name: laid_out(b, arguments[b.name]) for b in inputs}
    made = CSimModule(program)(*memory.values())
    for name, array in memory.items():
        if name in ("k_codes", "v_codes", "tokens"):
            arguments[name] = array
    return made


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        find_compiler()
    except ToolError:
        pytest.skip("no C++ compiler")


@pytest.mark.parametrize("name", ["temporal, spatial", "shared", "overlapped", "reconfigured"])
def test_compiled_designs_generate_the_tokens_of_the_reference(name: str) -> None:
    model = random_model("w4a4kv8 static")
    top, arguments = design(model, name), golden_arguments(model)
    length, wanted, stops = arguments["n_prompt"], arguments["max_new_tokens"], model.config.eos_token_ids
    prompt = arguments["prompt"][:length].tolist()
    expected = ReferenceLlama(model.weights, sequential=True).generate(prompt, wanted, stops)
    if name != "reconfigured":
        made = compiled(top.tops["generate"], arguments)
        assert arguments["tokens"][:made].tolist() == expected
        return
    tokens = [compiled(top.tops["prefill"], arguments)]
    while len(tokens) < len(expected):
        step = {**arguments, "token": tokens[-1], "pos": length + len(tokens) - 1}
        tokens.append(compiled(top.tops["decode"], step))
        arguments |= {n: a for n, a in step.items() if n in arguments}
    assert tokens == expected


def instances(program: ir.Program, origin: str) -> list[dict[str, Any]]:
    return [dict(f.bindings) for f in program.functions if f.origin == origin]


def test_shared_engines_are_half_of_the_resident_ones() -> None:
    """Every linear layer, and attention, works on blocks alone; but the head, which sees one token."""
    model = random_model("w4a4kv8 static")
    resident, shared = (design(model, n).top for n in ("spatial, temporal", "shared"))
    for origin in ("scores", "weigh", "self_attention"):
        assert sorted(b["T"] for b in instances(resident, origin)) == [1, 3]
        assert [b["T"] for b in instances(shared, origin)] == [3]
    ones = [b for b in instances(shared, "linear") if b["T"] == 1]
    assert [b["N"] for b in ones] == [model.config.vocab_size]
    blocks = [[b for b in instances(p, "linear") if b["T"] == 3] for p in (resident, shared)]
    assert blocks[0] == blocks[1]
    text = emit(shared)
    engines = re.findall(r"^void (?:linear|scores|weigh|mix)(?:_\w+)?\((.*?^\})", text, re.M | re.S)
    assert len(engines) >= len(blocks[1]) + len(ones) + 3
    assert len(engines) == len(set(engines))  # no body twice
    assert len(text) < 0.7 * len(emit(resident))


def test_reconfigured_tops_share_one_layout() -> None:
    model = random_model("w4a4kv8 static")
    tops = design(model, "reconfigured").tops
    assert list(tops) == ["prefill", "decode"]
    first, second = ({b.name: b for b in p.function(p.top).inputs} for p in tops.values())
    common = set(first) & set(second)
    assert {"wq_codes", "k_codes", "v_codes", "embed"} <= common
    for name in common:
        assert (first[name].words, first[name].word_axis, first[name].shape) == (
            second[name].words, second[name].word_axis, second[name].shape
        )  # fmt: skip


def test_a_wrong_mode_is_refused() -> None:
    model = random_model("w4a4kv8 static")
    with pytest.raises(UsageError, match='there is no mode "share"') as caught:
        hybrid(model, prefill.spatial(2), decode.temporal(), mode="share")  # type: ignore[arg-type]
    assert caught.value.code == "FX703"
    assert "shared" in caught.value.hint


def test_one_linear_kernel_becomes_an_array_or_trees_of_dot_products() -> None:
    """The numbers of multipliers per cycle are those asked for."""
    model = random_model("w4a4kv8 static")
    program = hybrid(model, prefill.spatial(2, 8, 1), decode.temporal(4, 16)).top
    for f in program.functions:
        if f.origin == "linear":
            loops = [n for n in walk(f.body) if isinstance(n, ir.For) and n.attrs.unroll is not None]
            unrolled = {n.var: extent(n) for n in loops}
            tokens = dict(f.bindings)["T"]
            if tokens == 2:
                assert unrolled["n.inner"] == 8
                assert unrolled["t"] == 2
                assert "k.inner" not in unrolled
            elif tokens == 1:
                assert unrolled["k.inner"] == 16
