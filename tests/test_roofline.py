"""Rooflines: the ceilings that the reference states, from shapes, formats and the device database."""

import re

import pytest

from flexllm_allo.errors import EstimateError
from flexllm_allo.estimate.roofline import (
    Roofline,
    WeightFormat,
    bandwidth_ceiling,
    decode_lanes,
    kv_bytes,
    prefill_ridge,
    roofline,
)
from flexllm_allo.hardware.devices import device
from flexllm_allo.hardware.gpus import gpu
from flexllm_allo.models.presets import PRESETS
from flexllm_allo.models.spec import LlamaConfig


def matrix_weights(hidden, mlp, layers, heads, kv_heads, head_dim, vocabulary):
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    return layers * (attention + 3 * hidden * mlp) + vocabulary * hidden


CONFIG = LlamaConfig.from_dict(PRESETS["llama-3.2-1b"], "llama-3.2-1b")
LLAMA_1B = matrix_weights(
    CONFIG.hidden_size,
    CONFIG.intermediate_size,
    CONFIG.num_hidden_layers,
    CONFIG.num_attention_heads,
    CONFIG.num_key_value_heads,
    CONFIG.head_dim,
    CONFIG.vocab_size,
)
LLAMA_7B = matrix_weights(4096, 11008, 32, 32, 32, 128, 32000)
U280 = 460.0


def test_bytes_of_a_token():
    assert WeightFormat(16).token_bytes(LLAMA_1B).weights / 1e9 == pytest.approx(2.47, abs=0.005)
    assert WeightFormat(4).token_bytes(LLAMA_1B).weights / 1e9 == pytest.approx(0.618, abs=0.0005)


@pytest.mark.parametrize(("key", "rate"), [("a100", 825), ("h200", 1942)])
def test_gpu_ceilings(key, rate):
    found = gpu(key).roofline_tokens_per_second(WeightFormat(16).token_bytes(LLAMA_1B).weights)
    assert round(found) == rate


@pytest.mark.parametrize(
    ("weights", "format", "rate"),
    [
        (LLAMA_1B, WeightFormat(4), 744),
        (LLAMA_7B, WeightFormat(2, kept=0.5, index_bits=2), 278),
        (LLAMA_7B, WeightFormat(2, kept=0.5, index_bits=1.5), 318),  # three bits for the pair of four
    ],
)
def test_ceilings_of_the_u280(weights, format, rate):
    bandwidth = device("u280").memory.gb_per_s
    assert bandwidth == U280
    assert round(bandwidth_ceiling(format.token_bytes(weights).weights, bandwidth)) == rate


@pytest.mark.parametrize(
    ("token_bytes", "gb_per_s", "efficiency", "rate"),
    [
        (3.43e9, U280, 0.426, 57.1),  # FlightLLM
        (WeightFormat(2, kept=0.5, index_bits=2).token_bytes(LLAMA_7B).weights, U280, 0.589, 164),  # AccLLM
        (3.43e9, 19.2, 0.85, 4.76),  # llama-fpga on the KV260
        (3.43e9, 19.2, 1.0, 5.6),
    ],
)
def test_published_rates_at_their_efficiency(token_bytes, gb_per_s, efficiency, rate):
    assert bandwidth_ceiling(token_bytes, gb_per_s, efficiency) == pytest.approx(rate, rel=0.003)


@pytest.mark.parametrize(("key", "bits", "tops"), [("u280", 8, 9.96), ("u280", 4, 19.9), ("v80", 8, 19.5)])
def test_peak_rates_at_300_mhz(key, bits, tops):
    assert roofline(device(key), 300, bits, bits).ops_per_s / 1e12 == pytest.approx(tops, rel=0.003)


@pytest.mark.parametrize(("bytes_per_weight", "lanes"), [(0.604, 102), (0.5625, 110)])
def test_lanes_that_a_kv260_feeds(bytes_per_weight, lanes):
    assert decode_lanes(15.4, bytes_per_weight, 250) == lanes


def test_scales_keys_and_values_count():
    kv = kv_bytes(CONFIG.num_hidden_layers, CONFIG.num_key_value_heads, CONFIG.head_dim, 8)
    assert kv == 16 * 1024
    token = WeightFormat(4, group=128).token_bytes(LLAMA_1B, kv)
    assert token.scales == pytest.approx(token.weights / 32)  # 16 bits for 128 times 4
    assert token.at(1024) - token.at(0) == pytest.approx(16 * 1024 * 1024)


def test_the_two_roofs_meet_at_the_ridge():
    roofs = roofline(device("u280"), 300, 4, 4, efficiency=0.5)
    assert roofs.ridge == pytest.approx(19.93e12 / 230e9, rel=0.001)
    assert roofs.attainable(roofs.ridge) == pytest.approx(roofs.ops_per_s)
    assert roofs.attainable(roofs.ridge / 2) == pytest.approx(roofs.ops_per_s / 2)
    assert roofs.attainable(roofs.ridge * 2) == roofs.ops_per_s
    assert (roofs.binds(4), roofs.binds(1000)) == ("memory", "multipliers")  # W4 decode: 4 operations a byte


def test_as_many_tokens_as_the_ridge_make_a_prefill_compute_bound():
    multipliers = 1024
    tokens = prefill_ridge(multipliers, 0.5, 230, 300)
    roofs = Roofline(2 * multipliers * 300e6, 230e9)
    assert 2 * tokens / 0.5 == pytest.approx(roofs.ridge)


@pytest.mark.parametrize(
    ("key", "bits", "message"),
    [
        ("zcu104", 8, "FX911: resources or bandwidth of the AMD Zynq UltraScale+ ZCU104 are not known"),
        ("u280", 32, "FX911: no packing for 32 x 32 bits in a DSP48E2"),
    ],
)
def test_what_is_not_known_is_said(key, bits, message):
    with pytest.raises(EstimateError, match=re.escape(message)):
        roofline(device(key), 300, bits, bits)
