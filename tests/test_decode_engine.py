"""Decode on an engine of any number of ports, with all heads side by side: the tokens of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from engine_models import has_csim, run, small_model

from flexllm_allo.models import architecture
from flexllm_allo.models.engine_model import Decode
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.bitstream import decode_bitstream, engine_run
from flexllm_allo.runtime.designs import decode_design

GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}


@pytest.fixture(
    scope="module", params=[(8, 4, 2, 2, 1), (4, 2, 1, 1, 2)], ids=["8 heads, 4 ports", "4 heads, 2 ports"]
)
def design(request):
    """A model, and its decode."""
    heads, ports, group, split, key_ports = request.param
    model = small_model(heads)
    more = {"split": split, "key_ports": key_ports}
    size = Decode(ports=ports, channels=8, group=group, block=8, vector=4, key=0, value=0, **more)
    made = decode_bitstream(model, size)
    return model, made.schedule, made.constants(), size


def cache_of(reference, ports):
    """Keys and values as decode keeps them: memories by head, keys in turn in as many as they have ports."""
    codes = {name: np.asarray(reference.codes[name]) for name in "kv"}
    heads = range(codes["k"].shape[1])
    keys = {f"k_{i * ports + b}": codes["k"][:, i, b::ports].copy() for i in heads for b in range(ports)}
    return keys | {f"v_{i}": codes["v"][:, i].copy() for i in heads}


@pytest.mark.parametrize("length", [1, 2, 7, 13])
def test_decode_goes_on_as_the_reference_does(design, length):
    """The last token of a prompt is the first that decode takes."""
    model, s, constants, size = design
    built = s, s.build(), constants
    tokens, count = np.random.default_rng(length).integers(0, 48, length).tolist(), 6
    before = ReferenceLlama(model.weights)
    if length > 1:
        before.prefill(tokens[:-1])
    cache, made, token = cache_of(before, size.key_ports), [], tokens[-1]
    for pos in range(length - 1, length - 1 + count):
        token, cache = run(built, cache | GREEDY | {"token": token, "pos": pos})
        cache = {name: codes for name, codes in cache.items() if name[:2] in ("k_", "v_")}
        made.append(token)
    reference = ReferenceLlama(model.weights)
    assert made == reference.generate(tokens, count, -1)
    for name, codes in cache_of(reference, size.key_ports).items():
        np.testing.assert_array_equal(cache[name], codes)


@pytest.mark.skipif(not has_csim(), reason="no C++ compiler or no ap_int headers")
def test_the_compiled_cpp_computes_the_same(design):
    model, s, constants, size = design
    given = {**engine_run(model, size), **GREEDY, "token": 5, "pos": 9}
    wanted, held = run((s, s.build(), constants), given)
    token, found = run((s, s.build(target="vitis_hls", mode="csim"), constants), given)
    assert token == wanted
    for name, codes in held.items():
        np.testing.assert_array_equal(found[name], codes)


def test_the_full_shape_cannot_stop_for_want_of_a_deep_fifo():
    size = Decode(ports=32, group=8, split=2, block=32, vector=16, key=0, value=0)
    s = decode_design(architecture("llama-3.2-1b", "w4a4kv8", 2048), size)
    s.check_streams(beat=0, channel=0, row=0, size=1024, second=1024, tiles=2, rows=64, n=41, pos=40)
