"""A folder that `flexllm quantize` wrote does, in every command, what the recipe does without one."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from types import SimpleNamespace

import numpy as np
import pytest
from quant_models import MIXED, TINY
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.models import load
from flexllm_allo.models.calibrate import Calibration
from flexllm_allo.quant import recipes
from flexllm_allo.runtime.build import hardware_top
from flexllm_allo.runtime.perplexity import text_perplexity
from flexllm_allo.runtime.project_plan import plan_project
from flexllm_allo.runtime.session import Session

CALIBRATION = Calibration(samples=2, length=48)
PROMPT = "The import statement"
CONTEXT = 40
DIRECT = [name for name in recipes if name != "w4a4kv4"]
"""The learned recipe takes its time; learning twice is in test_learn.py."""


def flexllm(*arguments: object):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def quantized(recipe, out):
    options = ("--samples", CALIBRATION.samples, "--length", CALIBRATION.length)
    flexllm("quantize", TINY, "--recipe", recipe, "--out", out, *options)


@pytest.mark.parametrize("name", DIRECT)
def test_a_folder_holds_the_design_of_its_recipe(name, tmp_path):
    quantized(name, tmp_path / "out")
    stored, live = load(tmp_path / "out"), load(TINY, name, calibration=CALIBRATION)
    assert stored.weights.recipe == live.weights.recipe
    assert stored.config == live.config
    assert stored.calibration == live.calibration
    assert stored.constants.keys() == live.constants.keys()
    for key, value in live.constants.items():
        assert stored.constants[key].dtype == value.dtype, key
        assert (stored.constants[key] == value).all(), key


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder under a recipe file, and a session on the float model under the same recipe."""
    folder = tmp_path_factory.mktemp("mixed")
    recipe = folder / "mixed.toml"
    recipe.write_text(MIXED)
    quantized(recipe, folder / "out")
    with closing(Session(load(TINY, str(recipe), CONTEXT, CALIBRATION))) as live:
        yield SimpleNamespace(folder=folder, out=folder / "out", live=live)


def test_generate(both):
    result = both.folder / "generated.json"
    options = ("--max-new-tokens", 12, "--max-seq-len", CONTEXT, "--json", result)
    printed = flexllm("generate", both.out, "--prompt", PROMPT, *options).stdout
    content = json.loads(result.read_text())
    assert content["tokens"] == both.live.generate(both.live.encode(PROMPT), 12).tokens
    assert printed == PROMPT + content["text"] + "\n"


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_logits(both, stage):
    tokens, file = [0, 452, 1000, 995, 7], both.folder / f"{stage}.npy"
    options = ("--stage", stage, "--max-seq-len", CONTEXT, "--out", file)
    flexllm("logits", both.out, "--tokens", ",".join(map(str, tokens)), *options)
    assert (np.load(file) == both.live.logits(tokens)).all()


def test_ppl(both):
    text, result = both.folder / "text.txt", both.folder / "ppl.json"
    text.write_text((TINY / "heldout.txt").read_text(encoding="utf-8")[:600], encoding="utf-8")
    flexllm("ppl", both.out, "--text", text, "--context", CONTEXT, "--json", result, "--max-seq-len", CONTEXT)
    found = json.loads(result.read_text())
    expected = text_perplexity(both.live, text.read_text(encoding="utf-8"), CONTEXT)
    assert found == json.loads(json.dumps(expected))
    assert found["recipe"] == "mixed"
    assert set(found["settings"]) >= {
        "context", "stride", "bos", "windows", "text_sha256", "tokens_sha256", "stage", "recipe", "dtype",
        "calibration", "bits_per_weight", "bytes_per_token",
    }  # fmt: skip
    assert found["settings"]["calibration"]["seed"] == 0


def test_build(both):
    project, options = both.folder / "project", list[str]()
    with suppress(ToolError):
        find_compiler()
        options = ["--mode", "csim"]  # fails where the C++ gives other tokens or another cache
    flexllm("build", both.out, "--out", project, "--max-seq-len", CONTEXT, *options)
    for name, content in plan_project(hardware_top(both.live.model), is_stored=True).files.items():
        expected = content.encode() if isinstance(content, str) else content
        assert (project / name).read_bytes() == expected, name


def test_a_folder_has_one_recipe(both):
    result = CliRunner().invoke(cli.app, ["generate", str(both.out), "--prompt", "x", "--recipe", "w8a8kv8"])
    assert result.exit_code == 2
    assert f"Error FX604: {both.out} is quantized with recipe 'mixed', not 'w8a8kv8'" in result.stderr
    assert "leave the recipe out, or quantize the float model anew" in result.stderr


def test_ppl_of_several_recipes(tmp_path):
    text, result = tmp_path / "text.txt", tmp_path / "ppl.json"
    text.write_text((TINY / "heldout.txt").read_text(encoding="utf-8")[:400], encoding="utf-8")
    options = ("--context", CONTEXT, "--max-seq-len", CONTEXT, "--json", result)
    printed = flexllm("ppl", TINY, "--text", text, "--recipe", "none", "--recipe", "w4a8kv8", *options).stdout
    rows = json.loads(result.read_text())["recipes"]
    assert [row["recipe"] for row in rows] == ["none", "w4a8kv8"]
    assert rows[0]["settings"]["bits_per_weight"] == 32
    assert rows[0]["settings"]["bits_per_weight"] > 4 * rows[1]["settings"]["bits_per_weight"]
    assert rows[0]["settings"]["bytes_per_token"] > 4 * rows[1]["settings"]["bytes_per_token"]
    for key in ("context", "stride", "bos", "tokens_sha256", "text_sha256"):
        assert rows[0]["settings"][key] == rows[1]["settings"][key]
    change = 100 * (rows[1]["ppl"] / rows[0]["ppl"] - 1)
    for shown in (f"{rows[0]['ppl']:.4f}", f"{rows[1]['ppl']:.4f}", "+0.00 %", f"{change:+.2f} %"):
        assert shown in printed


def test_options_of_quantize_start_where_the_library_does(monkeypatch, tmp_path):
    seen = list[Calibration]()

    def stop(_directory, _out, _recipe, text, _advance):
        seen.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr("flexllm_allo.runtime.quantize.quantize_folder", stop)
    CliRunner().invoke(cli.app, ["quantize", str(TINY), "--recipe", "none", "--out", str(tmp_path / "out")])
    assert seen == [Calibration()]
