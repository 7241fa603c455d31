"""Designs whose stages take turns on the card: a project for each, compiled and compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine_models import has_csim, small_model

from flexllm_allo.backend.hls import steps
from flexllm_allo.backend.hls.project import MANIFEST, write_project
from flexllm_allo.errors import UsageError
from flexllm_allo.models import architecture
from flexllm_allo.runtime.preset import parse_preset, preset_bitstreams
from flexllm_allo.runtime.project_plan import plan_project

TEXT = """
name = "small"
device = "u280"
model = "a small model"
recipe = "w4a4kv8"
clock_mhz = 300.0
mode = "reconfigured"
word_rows = 8

[prefill]
schedule = "spatial"
token_parallel = 4
weight_parallel = 8

[decode]
schedule = "engine"
ports = 4
channels = 4
group = 2
block = 8
vector = 4
key = 0
value = 0
"""
FLEXLLM = """
name = "flexllm, small"
device = "u280"
model = "a small model"
recipe = "w4a4kv8"
clock_mhz = 300.0
mode = "reconfigured"

[prefill]
schedule = "flexllm"
clock_mhz = 304.0
token = 4
attention = 3
attention_word = 4
mlp = 4
mlp_word = 4
key = 4
value = 2

[decode]
schedule = "engine"
ports = 4
channels = 2
block = 16
vector = 8
key = 4
value = 2
"""
TEMPORAL = TEXT[: TEXT.index("[decode]")] + '[decode]\nschedule = "temporal"\nweight_parallel = 8\n'


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.skipif(not has_csim(), reason="no C++ compiler or no ap_int headers")
@pytest.mark.parametrize("text", [TEXT, FLEXLLM, TEMPORAL], ids=["engine", "flexllm", "temporal"])
def test_every_stage_is_a_project_whose_test_bench_passes(model, tmp_path, text):
    made = preset_bitstreams(parse_preset(text), model)
    assert list(made) == ["prefill", "decode"]
    for name, bitstream in made.items():
        project = write_project(plan_project(bitstream), tmp_path / name)
        manifest = json.loads((project / MANIFEST).read_text())
        assert manifest["top"] == name
        assert steps.run_csim(project) == "PASS"


def test_the_engine_reads_every_weight_through_all_its_ports(model):
    """Ports of equal size, which together hold each code of the model once, and padding."""
    made = preset_bitstreams(parse_preset(TEXT), model)["decode"]
    constants = made.constants()
    ports = [constants[f"port_{i}"] for i in range(4)]
    assert len({port.shape for port in ports}) == 1
    plain = model.constants
    kept = sum(np.bincount(port.ravel() + 8, minlength=16) for port in ports)
    codes = [a for name, a in plain.items() if name.endswith("_codes")]
    given = sum(np.bincount(a.ravel() + 8, minlength=16) for a in codes)
    nonzero = np.arange(16) != 8
    np.testing.assert_array_equal(kept[nonzero], given[nonzero])


def test_an_engine_is_a_bitstream_of_its_own():
    with pytest.raises(UsageError) as caught:
        parse_preset(TEXT.replace('"reconfigured"', '"resident"'))
    assert caught.value.code == "FX703"
    assert 'mode is "resident": decode.schedule "engine" needs "reconfigured"' in caught.value.message


def test_a_model_that_the_engine_does_not_compute_is_refused():
    """Every difference is named."""
    wanted = parse_preset(TEXT)
    with pytest.raises(UsageError) as caught:
        preset_bitstreams(wanted, architecture("llama-3.2-1b", "w4a8kv8", 64))
    assert caught.value.code == "FX703"
    assert caught.value.message.startswith("FlexLLM's kernels take models that have\n")
    assert "inputs with a minimum (asymmetric, dynamic)" in caught.value.message
    assert "rotary" not in caught.value.message
    assert "an MLP" not in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("group = 2", "group = 3", "group is 3: it divides ports, 4"),
        ("block = 8", "block = 8\nsplit = 3", "split is 3: 1, or 2 with even ports and channels"),
        ("attention = 3", "attention = 5", "attention_word is 4: at least attention, 5"),
        ("block = 16", "block = 16\nkey_ports = 2", "key_ports is 2: 1 with packs of keys"),
    ],
)  # fmt: skip
def test_sizes_that_no_engine_has_are_refused(old, new, rule):
    text = TEXT if old in TEXT else FLEXLLM
    wanted = parse_preset(text.replace(old, new))
    with pytest.raises(UsageError) as caught:
        preset_bitstreams(wanted, architecture("llama-3.2-1b", "w4a4kv8", 64))
    assert (caught.value.code, caught.value.message) == ("FX703", rule)


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("block = 8", "block = 7", "a hidden size that is a multiple of 7"),
        ("vector = 4", "vector = 3", "a hidden size that is a multiple of 12"),
        ("block = 8", "block = 64", "a vocabulary whose size is a multiple of 64"),
        ("value = 2\n\n[decode]", "value = 3\n\n[decode]", "heads whose size is a multiple of 3"),
    ],
)
def test_sizes_that_do_not_divide_those_of_the_model_are_refused(model, old, new, size):
    """They would leave the rest of a vector out."""
    text = TEXT if old in TEXT else FLEXLLM
    with pytest.raises(UsageError) as caught:
        preset_bitstreams(parse_preset(text.replace(old, new)), model)
    assert caught.value.code == "FX703"
    assert f"\n  - {size}" in caught.value.message
    assert caught.value.hint == "other parameters of the stage in the preset; flexllm tune finds some"
