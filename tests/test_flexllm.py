"""FlexLLM's design on our kernels: what it computes, and its published and derived cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_models import HEADS, LAYERS, D, S, has_csim, run, small_model

from flexllm_allo.errors import FlexError
from flexllm_allo.models import Model, architecture
from flexllm_allo.models.engine_model import Decode
from flexllm_allo.models.flexllm_model import Prefill
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.bitstream import Bitstream, decode_bitstream, flexllm_prefill
from flexllm_allo.runtime.designs import decode_design, prefill_design
from flexllm_allo.runtime.estimate import estimate_model

PROMPT = 1024


def built(made: Bitstream):
    """A schedule, what runs it, and what never changes between runs."""
    return made.schedule, made.schedule.build(), made.constants()


@pytest.fixture(scope="module")
def small() -> Model:
    """A model quantized by FlexLLM's recipe."""
    return small_model()


@pytest.fixture(scope="module")
def prefill(small):
    """Channels that do not divide the rows."""
    size = Prefill(token=4, attention=3, attention_word=4, mlp=4, mlp_word=4, key=4, value=2)
    return built(flexllm_prefill(small, size))


@pytest.fixture(scope="module")
def decode(small):
    size = Decode(channels=2, block=16, vector=8, key=4, value=2)
    return built(decode_bitstream(small, size))


@pytest.fixture(scope="module")
def in_turn(small):
    """Pairs of KV heads that take turns."""
    size = Decode(channels=2, block=16, vector=8, key=4, value=2, head_parallel=HEADS // 2)
    return built(decode_bitstream(small, size))


@pytest.fixture(scope="module")
def two_ports(small):
    """The parallelism of the smaller published prefill, in small: no row is left out of a word."""
    size = Prefill(token=4, attention=2, attention_word=2, mlp=4, mlp_word=4, mlp_ports=2, key=4, value=2)
    return built(flexllm_prefill(small, size))


def run_prefill(prefill, tokens):
    """Keys and values [L, heads, S, D] that a prompt leaves behind."""
    prompt = np.zeros(S, np.int32)
    prompt[: len(tokens)] = tokens
    memory = {
        "k_codes": np.zeros((LAYERS, HEADS, S // 4, D, 4), np.int8),
        "v_codes": np.zeros((LAYERS, HEADS, 2, S, 2), np.int8),
        "stream": np.zeros((S, 64), np.float32),
    }
    _, held = run(prefill, memory | {"prompt": prompt, "n_prompt": len(tokens)})
    turned = held["k_codes"].transpose(0, 1, 2, 4, 3), held["v_codes"].transpose(0, 1, 3, 2, 4)
    return tuple(codes.reshape(LAYERS, HEADS, S, D) for codes in turned)


def decode_cache(keys, values):
    """The same as decode keeps it: by head, four keys side by side, two elements of a value."""
    packs = keys.reshape(LAYERS, HEADS, S // 4, 4, D).transpose(0, 1, 2, 4, 3)
    parts = values.reshape(LAYERS, HEADS, S, 2, 2).transpose(0, 1, 3, 2, 4)
    cache = {f"k_{i}": packs[:, i].copy() for i in range(HEADS)}
    return cache | {f"v_{i}": parts[:, i].copy() for i in range(HEADS)}


@pytest.mark.parametrize("length", [1, 3, 4, 9, 21])
def test_prefill_fills_the_cache_as_the_reference_does(small, prefill, two_ports, length):
    """Also where a prompt does not fill its blocks, or its tiles of keys."""
    tokens = np.random.default_rng(length).integers(0, 48, length)
    reference = ReferenceLlama(small.weights)
    reference.prefill(tokens.tolist())
    for design in (prefill, two_ports):
        keys, values = run_prefill(design, tokens)
        np.testing.assert_array_equal(keys, reference.codes["k"])
        np.testing.assert_array_equal(values, reference.codes["v"])


def test_fifos_of_the_full_shape_cannot_stop_the_design():
    """Of both bitstreams, for lengths that fill no tile."""
    model = architecture("llama-3.2-1b", "w4a4kv8", 2048)
    prefill_design(model).check_streams(pos=0, n=41)
    decode_design(model).check_streams(beat=0, channel=0, size=2048, second=0, tiles=2, rows=128, n=41)


@pytest.mark.parametrize("length", [1, 2, 7, 13])
def test_decode_goes_on_as_the_reference_does(small, prefill, decode, length):
    """Prefill takes all tokens of a prompt but the last, with which decode begins."""
    tokens, count = np.random.default_rng(length).integers(0, 48, length).tolist(), 6
    keys, values = np.zeros((2, LAYERS, HEADS, S, D), np.int8)
    if length > 1:
        keys, values = run_prefill(prefill, tokens[:-1])
    cache = decode_cache(keys, values)
    made, token = [], tokens[-1]
    for pos in range(length - 1, length - 1 + count):
        scalars = {"token": token, "pos": pos, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
        token, held = run(decode, cache | scalars)
        cache = {name: held[name] for name in cache}
        made.append(token)
    reference = ReferenceLlama(small.weights)
    assert made == reference.generate(tokens, count, -1)
    expected = decode_cache(reference.codes["k"], reference.codes["v"])
    for name, codes in cache.items():
        np.testing.assert_array_equal(codes, expected[name])


def in_pairs(cache):
    """The same with two heads in a memory, one after the other."""
    return {
        f"{kind}_{i}": np.concatenate([cache[f"{kind}_{2 * i}"], cache[f"{kind}_{2 * i + 1}"]], axis=1)
        for kind in "kv"
        for i in range(HEADS // 2)
    }


def test_heads_that_take_turns_attend_as_those_side_by_side(decode, in_turn):
    random = np.random.default_rng(4)
    keys, values = (random.integers(-128, 128, (LAYERS, HEADS, S, D)).astype(np.int8) for _ in range(2))
    given = {"token": 5, "pos": 9, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    side = decode_cache(keys, values)
    wanted, held = run(decode, given | side)
    token, cache = run(in_turn, given | in_pairs(side))
    assert token == wanted
    for name, expected in in_pairs(held).items():
        np.testing.assert_array_equal(cache[name], expected)


def test_a_lane_needs_as_many_heads_as_the_others(small):
    with pytest.raises(FlexError, match="KV heads of which 3 can be side by side") as caught:
        Decode(channels=2, block=16, vector=8, key=4, value=2, head_parallel=3).check(small)
    assert caught.value.code == "FX703"


@pytest.mark.skipif(not has_csim(), reason="no C++ compiler or no ap_int headers")
def test_the_compiled_cpp_computes_the_same(small, prefill, in_turn):
    tokens = np.random.default_rng(9).integers(0, 48, 9)
    s, _, constants = prefill
    keys, values = run_prefill((s, s.build(target="vitis_hls", mode="csim"), constants), tokens)
    expected = run_prefill(prefill, tokens)
    np.testing.assert_array_equal(keys, expected[0])
    np.testing.assert_array_equal(values, expected[1])
    s, _, constants = in_turn
    given = {"token": 5, "pos": 9, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    given |= in_pairs(decode_cache(keys, values))
    token, cache = run((s, s.build(target="vitis_hls", mode="csim"), constants), given)
    wanted, held = run(in_turn, given)
    assert token == wanted
    for name in cache:
        np.testing.assert_array_equal(cache[name], held[name])


@pytest.fixture(scope="module")
def found():
    """The published run: a prompt of 1,024 tokens and 1,000 new ones."""
    return estimate_model(Path("llama-3.2-1b"), prompt=PROMPT, new_tokens=1000, preset="flexllm-u280")


def test_the_run_takes_what_was_measured(found):
    """Prefill at 304 MHz measured, decode at 292 MHz reported; nothing here knows these figures."""
    assert found.prefill_s == pytest.approx(1.6615, rel=0.1)
    assert found.decode_s == pytest.approx(6.94, rel=0.1)
    assert found.phases["decode"].tokens == 1000
    assert "loop k of engine (" in found.binds  # not one of the sixteen readers that work ahead of it


@pytest.mark.parametrize(
    ("stage", "function", "loop", "cycles"),
    [
        ("keys, values", "multiply", "", 47_400),
        ("queries, out", "multiply_1", "", 179_500),
        ("scores", "score_keys", "i", 163_800),
        ("softmax", "softmax", "", 100_200),
        ("values", "mix_values", "", 165_800),
        ("gate, up", "multiply_2", "", 179_500),
        ("hadamard", "hadamard_lanes", "", 176_700),
        ("down", "multiply_3", "", 188_700),
    ],
)
def test_stages_take_what_the_loops_of_the_published_code_take(found, stage, function, loop, cycles):
    """Per block of 8 tokens; a row of the estimate is one of the processes that a function is."""
    row = next(s for s in found.stages if s.phase == "prefill" and s.name == function)
    total = next((found_loop.cycles for found_loop in row.loops if found_loop.loop == loop), row.cycles)
    blocks = 16 * PROMPT / 8
    assert total / blocks == pytest.approx(cycles, rel=0.15), stage


# ---------------------------------------------------------- other parallelism, by the loops of that code


def array_cycles(rows: int, columns: int, channels: int) -> int:
    """Of a linear layer of the published prefill for a block: the inputs, then tiles with a bubble of 15."""
    return columns + -(-rows // channels) * (columns + 15)


def engine_cycles(ports: int, channels: int = 64) -> int:
    """Of all linear layers of the published decode for a token."""

    def layer(rows: int, columns: int) -> float:
        return columns / ports + -(-rows // (ports * channels)) * (columns + 15)

    layers = [(1024, 2048), (2048, 2048), (2048, 2048), (8192, 2048), (8192, 2048), (2048, 8192)]
    return round(16 * sum(layer(*shape) for shape in layers) + layer(128256, 2048))


def test_the_smaller_prefill_takes_what_its_loops_take():
    """The published configuration of 16 channels, and of 64 in the MLP."""
    model = architecture("llama-3.2-1b", "w4a4kv8", PROMPT)
    size = Prefill(attention=16, attention_word=16, mlp=32, mlp_word=32, mlp_ports=2)
    made = prefill_design(model, size).estimate("u280", clock_mhz=304, n_prompt=PROMPT)
    blocks, cycles = 16 * PROMPT / 8, {row.name: row.cycles for row in made.stages}
    expected = {
        "multiply": array_cycles(512, 2048, 16),
        "multiply_1": array_cycles(2048, 2048, 16),
        "multiply_2": array_cycles(8192, 2048, 64),
        "multiply_3": array_cycles(2048, 8192, 64),
    }
    for name, wanted in expected.items():
        assert cycles[name] / blocks == pytest.approx(wanted, rel=0.03), name
    passes = expected["multiply"] + expected["multiply_3"]  # keys and values first, then all the rest
    assert made.prefill_s == pytest.approx(blocks * passes / 304e6, rel=0.06)


@pytest.mark.parametrize("ports", [8, 16, 32])
def test_the_engine_takes_what_its_loops_take(ports):
    model = architecture("llama-3.2-1b", "w4a4kv8", 2 * PROMPT)
    made = decode_design(model, Decode(ports=ports, block=ports)).estimate("u280", clock_mhz=292, pos=PROMPT)
    (engine,) = (row.cycles for row in made.stages if row.name == "engine")
    assert engine == pytest.approx(engine_cycles(ports), rel=0.05)


@pytest.mark.parametrize("side", [8, 4])
def test_attention_takes_what_its_loops_take(side):
    """The queries of a lane in turn: tiles of 32 keys, three passes, 32 elements of the values at once."""
    model = architecture("llama-3.2-1b", "w4a4kv8", 2048)
    made = decode_design(model, Decode(head_parallel=side)).estimate("u280", clock_mhz=292, pos=PROMPT)
    loops = {(stage.name, loop.loop): loop.cycles / 16 for stage in made.stages for loop in stage.loops}
    queries, keys = 32 // side, PROMPT + 1
    assert loops["score_heads", "i"] == pytest.approx(queries * (64 + -(-keys // 32) * (64 + 15)), rel=0.15)
    assert loops["softmax_heads", "j"] == pytest.approx(queries * (3 * keys + 60), rel=0.15)
    assert loops["mix_heads", "j"] == pytest.approx(queries * (keys + 2 * (keys + 15)), rel=0.15)
