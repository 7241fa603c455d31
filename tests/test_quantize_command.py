"""`flexllm quantize` on the shipped checkpoint: what it writes, says and refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quant_models import TINY
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import QuantError
from flexllm_allo.models.calibrate import DEFAULT_TEXT, Calibration, calibration_tokens
from flexllm_allo.models.hf import load_checkpoint
from flexllm_allo.quant.calibration import calibration_samples
from flexllm_allo.quant.pipeline import quantize_tensors
from flexllm_allo.quant.recipe_file import parse_recipe, recipe_to_toml
from flexllm_allo.quant.recipes import recipes
from flexllm_allo.quant.store.folder import read_quantized
from flexllm_allo.quant.store.manifest import read_manifest
from flexllm_allo.runtime.quantize import quantize_folder

SMOOTH = """\
passes = [{ pass = "smooth" }, { pass = "rtn" }]
weight = { format = "int", bits = 4, granularity = "per_group", group = 64, scale = "float16" }
activation = { format = "int", bits = 8, granularity = "per_token", dynamic = true }
"""


def flexllm(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> tuple[Path, dict, str]:
    """The tiny model by the command: the folder, its JSON, what was printed."""
    folder = tmp_path_factory.mktemp("quantized")
    result = flexllm(
        "quantize", TINY, "--recipe", "w4a8kv8", "--out", folder / "out", "--json", folder / "result.json"
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return folder / "out", json.loads((folder / "result.json").read_text()), result.stdout


def test_the_folder_holds_what_the_pipeline_gives(quantized):
    out, _, _ = quantized
    checkpoint = load_checkpoint(TINY)
    _, recipe, found, _ = read_quantized(out)
    assert recipe == recipes["w4a8kv8"]
    expected = dict(quantize_tensors(checkpoint, recipe))
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert (found[name] == value).all()
        else:
            assert found[name].format == value.format
            assert (found[name].codes == value.codes).all()
            assert (found[name].scale == value.scale).all()
    assert (out / "tokenizer.json").read_bytes() == (TINY / "tokenizer.json").read_bytes()


def test_the_summary(quantized):
    out, result, printed = quantized
    assert list(result) == [
        "recipe", "weights", "bits_per_weight", "bytes_per_token", "bytes_on_disk", "seconds",
        "peak_memory_bytes", "layers_resumed",
    ]  # fmt: skip
    hidden, inner, kv, vocabulary = 192, 512, 64, 2048
    layer = 2 * hidden * hidden + 2 * kv * hidden + 3 * hidden * inner
    rows = 2 * hidden + 2 * kv + 2 * inner + hidden
    assert result["weights"] == 4 * layer + vocabulary * hidden
    stored = 4 * (layer / 2 + 4 * rows) + vocabulary * hidden + 4 * vocabulary
    assert result["bits_per_weight"] == 8 * stored / result["weights"]
    norms = read_quantized(out).tensors.stored_bytes("final_norm") * 9
    assert result["bytes_per_token"] == stored + norms
    assert result["bytes_on_disk"] == sum(path.stat().st_size for path in out.iterdir())
    for text in ("w4a8kv8", f"{result['weights']:,}", f"{result['bits_per_weight']:.3f}", "peak memory"):
        assert text in printed


def test_a_recipe_of_ones_own_and_a_text(tmp_path):
    (tmp_path / "mine.toml").write_text(SMOOTH)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "b.txt").write_text("def second(): pass\n" * 50)
    (texts / "a.txt").write_text("class First: ...\n" * 50)
    (texts / "c.md").write_text("not read")
    options = ("--calibration", texts, "--samples", 2, "--length", 32, "--seed", 5)
    result = flexllm(
        "quantize", TINY, "--recipe", tmp_path / "mine.toml", "--out", tmp_path / "out", *options
    )
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "out")
    assert manifest.recipe["name"] == "mine"
    text = "class First: ...\n" * 50 + "\n\n" + "def second(): pass\n" * 50
    checkpoint = load_checkpoint(TINY)
    tokens = calibration_samples(checkpoint.encode(text)[1:], 0, samples=2, length=32, seed=5)
    assert manifest.calibration == {
        "tokens_sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        "samples": 2,
        "length": 32,
        "seed": 5,
    }
    first = read_quantized(tmp_path / "out").tensors["layers.0.wq"]
    assert first.scale.shape == (192, 3)
    assert (first.scale.astype(np.float16) == first.scale).all()


def test_the_shipped_text_is_not_the_held_out_one():
    shipped, held_out = DEFAULT_TEXT.read_text(), (TINY / "heldout.txt").read_text()
    paragraphs = {" ".join(p.split()) for p in held_out.split("\n\n")}
    assert not paragraphs & {" ".join(p.split()) for p in shipped.split("\n\n")}


def refused(code: str, *arguments: object) -> str:
    result = flexllm("quantize", *arguments)
    assert result.exit_code == 2, result.output
    assert f"Error {code}: " in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b"\xff", "it is not UTF-8"),
        (b"", "calibration text has 0 tokens"),
        (b"too short", "calibration text has "),
    ],
)
def test_calibration_texts_that_cannot_be_used(tmp_path, content, says):
    (tmp_path / "mine.toml").write_text(SMOOTH)
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    options = ("--recipe", tmp_path / "mine.toml", "--out", tmp_path / "out")
    text = refused("FX607", TINY, *options, "--calibration", tmp_path / "text.txt")
    assert says in text
    assert not (tmp_path / "out").exists()


def test_a_folder_without_text(tmp_path):
    with pytest.raises(QuantError) as caught:
        calibration_tokens(load_checkpoint(TINY), Calibration(tmp_path))
    assert caught.value.code == "FX607"
    assert caught.value.message == f"{tmp_path} holds no *.txt file"


def copied(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "model", ignore=shutil.ignore_patterns("*.py", "*.txt"))
    return tmp_path / "model"


def test_a_weight_with_nan_is_named_and_nothing_is_written(tmp_path):
    folder = copied(tmp_path)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    name = "model.layers.2.mlp.up_proj.weight"
    begin, _ = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + begin + 20 : 8 + length + begin + 22] = b"\xc0\x7f"
    path.write_bytes(data)
    text = refused("FX606", folder, "--recipe", "w4a8kv8", "--out", tmp_path / "out")
    assert f"FX606: {name}: " in text
    assert "nan" in text.lower()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_group_that_does_not_divide(tmp_path):
    (tmp_path / "mine.toml").write_text(
        SMOOTH.replace("group = 64", "group = 50").replace('{ pass = "smooth" },', "")
    )
    text = refused("FX606", TINY, "--recipe", tmp_path / "mine.toml", "--out", tmp_path / "out")
    assert (
        "model.layers.0.self_attn.q_proj.weight: rows of 192 weights do not divide into groups of 50" in text
    )
    assert not (tmp_path / "out").exists()


def test_refusals(tmp_path, quantized):
    out = tmp_path / "out"
    assert "w4a8kv8" in refused("FX604", TINY, "--recipe", "w4a8kv", "--out", out)
    assert "is quantized already" in refused("FX604", quantized[0], "--recipe", "none", "--out", out)
    assert "there is no folder" in refused("FX702", TINY, "--recipe", "none", "--out", tmp_path / "a" / "b")
    refused("FX601", tmp_path / "absent", "--recipe", "none", "--out", out)
    (tmp_path / "bad.toml").write_text("wieght = 3")
    assert 'did you mean "weight"?' in refused("FX604", TINY, "--recipe", tmp_path / "bad.toml", "--out", out)
    assert not out.exists()


def test_recipes_are_listed_and_printed(tmp_path):
    listed = flexllm("recipes").stdout
    assert all(name in listed for name in recipes)
    for name in recipes:
        assert parse_recipe(flexllm("recipes", name).stdout) == recipes[name]
    (tmp_path / "mine.toml").write_text(SMOOTH)
    printed = flexllm("recipes", tmp_path / "mine.toml").stdout
    assert printed == recipe_to_toml(parse_recipe(SMOOTH, name="mine"))
    assert flexllm("recipes", "w4").exit_code == 2


def test_steps_count_up(tmp_path):
    steps = []
    quantize_folder(TINY, tmp_path / "out", "none", advance=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(6)]
