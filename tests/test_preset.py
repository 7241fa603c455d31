"""Presets: TOML there and back, every field checked, the shipped ones, and the commands that take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import UsageError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import walk
from flexllm_allo.models import load
from flexllm_allo.runtime.estimate import estimate_model
from flexllm_allo.runtime.preset import get_preset, parse_preset, preset_to_toml, preset_top, presets

TINY = Path(__file__).parents[1] / "models" / "tiny"
TEXT = """\
name = "small"
description = "for a test"
device = "v80"
model = "tiny"
recipe = "w4a8kv8"
clock_mhz = 250.0
mode = "resident"
word_rows = 32
uram_depth = 1024
lutram_bits = 512
max_prompt = 0

[prefill]
schedule = "overlapped"
token_parallel = 4
lanes = 2

[decode]
schedule = "temporal"
weight_parallel = 32
"""


def test_there_and_back() -> None:
    preset = parse_preset(TEXT)
    assert parse_preset(preset_to_toml(preset)) == preset
    assert preset_to_toml(preset) == TEXT
    assert preset.prefill.parameters == {"token_parallel": 4, "lanes": 2}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('device = "v80"', 'device = "v81"', 'device is "v81": did you mean "v80"?'),
        ('device = "v80"\n', "", "device is missing"),
        ("word_rows", "word_row", 'word_row is unknown: did you mean "word_rows"?'),
        ("250.0", "-1.0", "clock_mhz is -1.0: input should be greater than 0"),
        ("250.0", "inf", "clock_mhz is inf: input should be less than or equal to 10000"),
        ("250.0", "nan", "clock_mhz is nan: input should be less than or equal to 10000"),
        ('"temporal"', '"tempral"', 'decode.schedule is "tempral": did you mean "temporal"?'),
        ("lanes = 2", "lines = 2", 'prefill.lines is unknown: did you mean "lanes"?'),
        ("lanes = 2", 'lanes = "2"', "prefill.lanes is '2': input should be a valid integer"),
        ("lanes = 2", "lanes = 0", "prefill.lanes is 0: at least 1"),
        ("token_parallel = 4", "token_parallel = 1", "prefill.token_parallel is 1: at least 2"),
        ("lanes = 2", "macs_per_dsp = 3", "prefill.macs_per_dsp is 3: it can be 1, 2 or 4"),
    ],
)
def test_what_is_wrong_is_listed(old: str, new: str, problem: str) -> None:
    assert old in TEXT
    with pytest.raises(UsageError, match="FX703: the text does not describe a preset") as caught:
        parse_preset(TEXT.replace(old, new))
    assert f"  - {problem}\n" in f"{caught.value}\n"
    assert "flexllm tune" in caught.value.hint


def test_all_problems_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_preset(TEXT.replace("lanes", "lines").replace("v80", "v81").replace("temporal", "tempral"))
    assert caught.value.message.count("\n  - ") == 3


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FX703: the text is not TOML"):
        parse_preset("name = ")
    with pytest.raises(UsageError, match='FX703: there is no preset "defalt"') as caught:
        get_preset("defalt")
    assert caught.value.hint == 'did you mean "default"?'
    damaged = tmp_path / "damaged.toml"
    damaged.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot read the preset"):
        get_preset(str(damaged))


def test_a_design_has_the_parameters_of_its_preset() -> None:
    top = preset_top(parse_preset(TEXT), load(TINY, "w4a8kv8", 32))
    assert top.prefill.token_parallel == 4
    assert {b.words for b in top.schedule.top_func.params if b.name == "w_up_codes"} == {32}
    arrays = [n.buffer for f in top.program.functions for n in walk(f.body) if isinstance(n, ir.Alloc)]
    stored = [b for b in arrays if getattr(b.memory, "resource", "") == "URAM"]
    assert stored
    assert all(not b.is_stream and b.dtype.bits >= 16 for b in stored)


@pytest.mark.parametrize("name", ["u280-best", "v80-best"])
def test_shipped_presets(name: str) -> None:
    preset = presets()[name]
    assert preset.name == name
    assert preset.device == name.partition("-")[0]
    assert preset == get_preset(name)


A100_DECODE = 88.0
"""Tokens per second of Llama-3.2-1B in BF16: what FlexLLM's factors are of (derived from its U280's 144)."""


@pytest.mark.parametrize(
    ("name", "prefill_s", "tokens_per_second"),
    [("u280-best", 0.6, 300), ("v80-best", 0.65, 6.55 * A100_DECODE)],
)
def test_shipped_presets_are_faster_than_what_is_published(name, prefill_s, tokens_per_second) -> None:
    """Both bitstreams within the caps of the card; FlexLLM's U280 takes 1.66 s and makes 144 tokens/s."""
    found = estimate_model(Path(presets()[name].model), prompt=1024, new_tokens=1024, preset=name)
    assert found.device == presets()[name].device
    assert found.fit, str(found.fit)
    assert 0 < (found.prefill_s or 9) <= prefill_s
    assert (found.tokens_per_second or 0) >= tokens_per_second


def test_commands_take_a_preset(tmp_path: Path) -> None:
    file, result = tmp_path / "small.toml", tmp_path / "estimate.json"
    file.write_text(TEXT)
    options = ["--preset", str(file), "--max-seq-len", "32"]
    lengths = ["--prompt", "8", "--new-tokens", "4"]
    ran = CliRunner().invoke(cli.app, ["estimate", str(TINY), *options, *lengths, "--json", str(result)])
    assert ran.exit_code == 0, ran.output
    found = json.loads(result.read_text())
    assert (found["device"], found["clock_mhz"]) == ("v80", 250.0)
    ran = CliRunner().invoke(cli.app, ["build", str(TINY), "--out", str(tmp_path / "project"), *options])
    assert ran.exit_code == 0, ran.output
    manifest = json.loads((tmp_path / "project" / "manifest.json").read_text())
    assert (manifest["device"], manifest["recipe"]) == ("v80", "w4a8kv8")
