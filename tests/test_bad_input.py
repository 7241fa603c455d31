"""`flexllm quantize` on input that is wrong: a message that names the place, and nothing is written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from quant_models import TINY
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.quant.names import tensor_name

SIZES = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 0,
    "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 24,
}  # fmt: skip
GROUPS = 'weight = { format = "int", bits = 4, granularity = "per_group", group = 32 }\n'
ROWS = 'weight = { format = "int", bits = 4, granularity = "per_channel" }\n'
SMOOTH = 'passes = [{ pass = "smooth" }, { pass = "rtn" }]\n' + ROWS
ROUND = 'passes = [{ pass = "rtn" }]\n'


def write_model(folder, damage=None, **sizes):
    """A random model with the tokenizer of the shipped one; `damage` changes its tensors."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 0,
        **SIZES,
        **sizes,
    }
    hidden, inner, vocabulary = (config[f"{n}_size"] for n in ("hidden", "intermediate", "vocab"))
    shapes = {"wq": (32, hidden), "wk": (8, hidden), "wv": (8, hidden), "wo": (hidden, 32)}
    shapes |= {"w_gate": (inner, hidden), "w_up": (inner, hidden), "w_down": (hidden, inner)}
    shapes |= {"attn_norm": (hidden,), "mlp_norm": (hidden,)}
    named = {tensor_name(kind, i): shape for i in range(2) for kind, shape in shapes.items()}
    named |= {tensor_name("embed"): (vocabulary, hidden), tensor_name("w_head"): (vocabulary, hidden)}
    named[tensor_name("final_norm")] = (hidden,)
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in named.items()}
    if damage:
        damage(tensors)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TINY / "tokenizer.json", folder)


def refused(tmp_path, recipe, code, *texts, calibration=None):
    if not recipe.isidentifier():
        (tmp_path / "mine.toml").write_text(recipe)
        recipe = tmp_path / "mine.toml"
    options = ["--recipe", recipe, "--out", tmp_path / "out", "--json", tmp_path / "result.json"]
    options += ["--samples", 2, "--length", 24]
    if calibration is not None:
        (tmp_path / "text.txt").write_text(calibration)
        options += ["--calibration", tmp_path / "text.txt"]
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(cli.app, ["quantize", str(tmp_path / "model"), *map(str, options)])
    assert result.exit_code == 2, result.output
    assert f"Error {code}: " in result.stderr
    for text in texts:
        assert text in result.stderr
    assert "help: " in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("recipe", ["w8a8kv8", "w4a4kv8", "none", SMOOTH])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kind", "layer"), [("w_down", 1), ("wq", 0), ("mlp_norm", 1), ("embed", None)])
def test_values_that_are_not_finite(tmp_path, recipe, value, kind, layer):
    name = tensor_name(kind, layer)

    def damage(tensors):
        tensors[name].flat[77 % tensors[name].size] = value

    write_model(tmp_path / "model", damage)
    refused(tmp_path, recipe, "FX606", name)


def test_a_tensor_without_channels(tmp_path):
    name = tensor_name("w_up", 1)

    def damage(tensors):
        tensors[name] = tensors[name][:0]

    write_model(tmp_path / "model", damage)
    refused(tmp_path, "w8a8kv8", "FX602", name, "[0, 32]")


def test_a_model_without_channels(tmp_path):
    write_model(tmp_path / "model", intermediate_size=0)
    refused(tmp_path, "w8a8kv8", "FX603", "intermediate_size is 0")


def test_channels_that_are_zero_are_no_error(tmp_path):
    def damage(tensors):
        tensors[tensor_name("w_up", 1)][3:5] = 0
        tensors[tensor_name("w_down", 1)][:, 7] = 0

    write_model(tmp_path / "model", damage)
    options = ["--samples", "2", "--length", "24", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        cli.app, ["quantize", str(tmp_path / "model"), "--recipe", "w4a4kv8", *options]
    )
    assert result.exit_code == 0, result.output


def test_a_calibration_text_that_is_too_short(tmp_path):
    write_model(tmp_path / "model")
    refused(tmp_path, "w4a4kv8", "FX607", "2 samples of 24 need 46", calibration="import sys\n" * 3)


@pytest.mark.parametrize(
    ("recipe", "texts"),
    [
        (ROUND + ROWS + "colour = 3", ["colour is unknown: known names", "mine.toml"]),
        (
            ROUND + ROWS.replace("bits", "bit"),
            ["weight.bit is unknown: did you mean", "weight.bits is missing"],
        ),
        (
            'passes = [{ pass = "rtn" }, { pass = "smooth" }]\n' + ROWS,
            ["Smooth must come before Rtn", "order is"],
        ),
        ('passes = [{ pass = "rotate" }, { pass = "rtn" }]\n' + ROWS, ["rotates without FoldNorms"]),
        ('passes = [{ pass = "fold_norms" }]\n' + ROWS, ["no pass that rounds"]),
        (ROUND + ROWS + "[layer_bits]\n2 = 3\n", ["layer_bits names layer 2, the layers are 0 to 1"]),
    ],
)
def test_recipes_that_do_not_fit(tmp_path, recipe, texts):
    write_model(tmp_path / "model")
    refused(tmp_path, recipe, "FX604", *texts)


@pytest.mark.parametrize(("passes", "kind"), [("rtn", "w_down"), ("gptq", "w_down")])
def test_a_group_that_does_not_divide(tmp_path, passes, kind):
    write_model(tmp_path / "model")
    recipe = f'passes = [{{ pass = "{passes}" }}]\n' + GROUPS
    texts = [tensor_name(kind, 0), "rows of 48 weights do not divide into groups of 32", "a group of 16 or 8"]
    refused(tmp_path, recipe, "FX606", *texts)


def test_a_transform_of_a_size_without_hadamard_matrix(tmp_path):
    write_model(tmp_path / "model", intermediate_size=46)
    texts = ["the input of down_proj (r4, intermediate_size)", "size 46", "nearest sizes are"]
    refused(tmp_path, "w4a4kv8", "FX604", *texts)
