"""Speed on the CPU: what the compiler must know of the program, and the benchmark's models and ratios."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flexllm_allo.backend.effects import Effects
from flexllm_allo.backend.llvm.emitter import Emitter
from flexllm_allo.hybrid import HybridTop, hybrid, reachable
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import walk
from flexllm_allo.models import architecture
from flexllm_allo.quant.gguf.container import read_gguf
from flexllm_allo.runtime.session import CPU_BLOCK, half_bytes
from flexllm_allo.schedules import cpu

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "cpu_session.py"


def cpu_top(recipe: str) -> HybridTop:
    """The program that runs a model of 1 billion parameters on the CPU; shapes alone."""
    model = architecture("llama-3.2-1b", recipe, 128)
    return hybrid(model, cpu.blocked(CPU_BLOCK), cpu.blocked(1), half_bytes(model))


@pytest.mark.parametrize("recipe", ["w4a4kv8", "w8a8kv8", "none"])
def test_no_call_is_handed_an_array_twice_that_it_writes(recipe: str) -> None:
    """Such a call costs LLVM the knowledge that the callee's arrays are apart (``noalias``).

    Then neither its loops become vectors nor its products the processor's dot products: an array passed
    both as an operand and as a result once made every token four times as slow, and no bit was wrong.
    """
    program = cpu_top(recipe).program
    effects, calls = Effects(program), 0
    for stage in ("prefill", "decode"):
        reached = reachable(program, stage)
        for function in reached.functions:
            for call in (n for n in walk(function.body) if isinstance(n, ir.Call)):
                callee = program.function(call.func)
                pairs = zip(callee.params, call.args, strict=True)
                views = [(p.name, a.buffer) for p, a in pairs if isinstance(a, ir.View)]
                written = {buffer for name, buffer in views if name in effects.stored(callee)}
                given = [buffer for _, buffer in views]
                assert all(given.count(buffer) == 1 for buffer in written), (function.name, call.func, given)
                calls += bool(written)
        emitter = Emitter(program, stage)
        assert not any(emitter.is_aliased(f.name) for f in reached.functions)
    assert calls > 40


@pytest.fixture
def benchmark(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpu_session", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cpu_session", module)
    spec.loader.exec_module(module)
    return module


def test_llama_cpp_gets_the_same_shape_in_four_bits(benchmark, monkeypatch, tmp_path):
    monkeypatch.setitem(benchmark.SHAPE, "vocab_size", 512)
    benchmark.random_gguf(tmp_path / "model.gguf", layers=1)
    file = read_gguf(tmp_path / "model.gguf")
    shapes = {name: (t.kind, t.shape) for name, t in file.tensors.items()}
    assert shapes["token_embd.weight"] == ("Q6_K", (512, 2048))
    assert shapes["blk.0.attn_k.weight"] == ("Q4_0", (512, 2048))
    assert shapes["blk.0.ffn_down.weight"] == ("Q4_0", (2048, 8192))
    assert shapes["blk.0.attn_norm.weight"] == ("F32", (2048,))
    assert len(shapes) == 11
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 512
    for tensor in ("token_embd.weight", "blk.0.ffn_down.weight"):
        values = file.tensors[tensor].dequantize()
        assert np.isfinite(values).all()
        assert 0.005 < values.std() < 0.05


def test_ratios_are_to_the_fastest_peer(benchmark):
    ours = {"decode_tokens_per_s": 30.0, "prefill_s": 0.5}
    peers = [{"decode_tokens_per_s": 2.0, "prefill_s": 4.0}, {"decode_tokens_per_s": 3.0, "prefill_s": 2.0}]
    assert benchmark.ratios(ours, peers) == {"decode_ratio": 10.0, "prefill_ratio": 4.0}
    assert benchmark.ratios(ours, [None]) == {"decode_ratio": None, "prefill_ratio": None}


def test_a_token_needs_every_linear_layer_and_the_head(benchmark):
    """Four bits per weight in a layer, eight in the head."""
    attention, mlp = (2048 + 512 + 512 + 2048) * 2048, 3 * 8192 * 2048
    assert benchmark.weight_bytes(3) == 3 * (attention + mlp) / 2 + 128256 * 2048


def test_an_engine_that_ends_before_it_is_ready_is_named(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "__file__", str(SCRIPT.with_name("no_such_script.py")))
    with pytest.raises(benchmark.DidNotStart, match="did not start"):
        benchmark.Engine("llama.cpp", [])
