"""The commands on real files: what they give, and that bad input leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TINY = Path(__file__).parent.parent / "models" / "tiny"
FLEXLLM = str(Path(sys.executable).parent / "flexllm")


def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([FLEXLLM, *map(str, args)], capture_output=True, text=True, env=env, check=False)


def refused(result: subprocess.CompletedProcess[str], code: str, *texts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert f" {code}: " in result.stderr
    for text in texts:
        assert text in result.stderr
    assert "help: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(TINY / name, folder)
    return folder


def test_logits_of_both_stages_agree(tmp_path: Path) -> None:
    found = {}
    for stage in ("prefill", "decode"):
        out = tmp_path / f"{stage}.npy"
        result = run(
            "logits",
            TINY,
            "--tokens",
            "0,452,1000,995",
            "--recipe",
            "w8a8kv8",
            "--stage",
            stage,
            "--out",
            out,
        )
        assert result.returncode == 0, result.stderr
        found[stage] = np.load(out)
    assert found["prefill"].shape == (4, 2048)
    assert found["prefill"].dtype == np.float32
    np.testing.assert_array_equal(found["prefill"], found["decode"])


def test_generate_writes_its_json(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run(
        "generate",
        TINY,
        "--prompt",
        "The import statement",
        "--max-new-tokens",
        5,
        "--recipe",
        "w4a8kv8",
        "--json",
        out,
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(out.read_text())
    assert content["prompt_tokens"] == [0, 452, 1000, 995]
    assert len(content["tokens"]) == 5
    assert content["tokens_per_second"] > 0
    assert content["text"]


def test_ppl_writes_its_json(tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "ppl.json"
    text.write_text((TINY / "heldout.txt").read_text(encoding="utf-8")[:2000], encoding="utf-8")
    result = run("ppl", TINY, "--text", text, "--recipe", "w8a8kv8", "--json", out)
    assert result.returncode == 0, result.stderr
    content = json.loads(out.read_text())
    assert 1 < content["ppl"] < 200
    assert content["tokens"] > 100
    assert content["recipe"] == "w8a8kv8"


def test_build_writes_a_project_and_simulates_it(tmp_path: Path) -> None:
    out = tmp_path / "project"
    result = run(
        "build",
        TINY,
        "--device",
        "u280",
        "--recipe",
        "w4a8kv8",
        "--target",
        "vitis_hls",
        "--out",
        out,
        "--mode",
        "csim",
    )
    assert result.returncode == 0, result.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    for name in (
        "kernel.cpp",
        "kernel.h",
        f"{manifest['top']}.cfg",
        "run.tcl",
        "Makefile",
        "testbench.cpp",
        "data/wq_codes.bin",
    ):
        assert name in manifest["files"], name
    assert "PASS" in (out / "csim.log").read_text()
    assert result.stdout.splitlines()[0] == "C simulation: PASS (csim.log)"
    assert str(tmp_path) not in "".join(p.read_text() for p in out.glob("*.[chmt]*") if p.name != "csim.log")
    # what a rebuild gives is the same, byte for byte
    before = {
        p: p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and str(p.relative_to(out)) in manifest["files"]
    }
    again = tmp_path / "again"
    assert run("build", TINY, "--recipe", "w4a8kv8", "--out", again).returncode == 0
    for path, content in before.items():
        assert (again / path.relative_to(out)).read_bytes() == content
    assert (again / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()


def test_synthesis_without_vitis_says_so_and_leaves_the_project(tmp_path: Path) -> None:
    if shutil.which("vitis_hls") or shutil.which("vitis-run"):
        pytest.skip("Vitis is installed here")
    out = tmp_path / "project"
    for mode in ("csynth", "hw"):
        refused(run("build", TINY, "--out", out, "--mode", mode), "FX501", "the finished project is in")
        assert (out / "kernel.cpp").is_file()


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    refused(run("build", TINY, "--out", tmp_path), "FX702")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(run("build", TINY, "--out", blocked / "project"), "FX702")
    refused(run("generate", TINY, "--prompt", "x", "--json", tmp_path / "no" / "out.json"), "FX702")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_files(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    refused(run("generate", checkpoint, "--prompt", "x"), "FX601")


def test_a_missing_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    refused(run("generate", checkpoint, "--prompt", "x"), "FX605")


def test_a_truncated_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    out = tmp_path / "project"
    refused(run("build", checkpoint, "--out", out), "FX601", "model.safetensors")
    assert not out.exists()


def test_wrong_shapes_and_missing_tensors_are_listed_at_once(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["num_hidden_layers"] += 1
    config["intermediate_size"] = 500
    (checkpoint / "config.json").write_text(json.dumps(config))
    result = run("generate", checkpoint, "--prompt", "x")
    refused(
        result,
        "FX602",
        "model.layers.4.self_attn.q_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "500",
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "mamba"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
    ],
)
def test_models_that_are_not_supported(checkpoint: Path, change: dict[str, object], text: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    refused(run("generate", checkpoint, "--prompt", "x"), "FX603", text)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("generate", TINY, "--prompt", ""), "FX701"),
        (("generate", TINY, "--prompt", "import " * 600), "FX701"),
        (("generate", TINY, "--prompt", "x", "--recipe", "w8a8"), "FX604"),
        (("logits", TINY, "--tokens", "1,99999", "--out", "{tmp}/a.npy"), "FX703"),
        (("logits", TINY, "--tokens", "1,x", "--out", "{tmp}/a.npy"), "FX703"),
        (("build", TINY, "--out", "{tmp}/p", "--device", "u281"), "FX402"),
        (("build", TINY, "--out", "{tmp}/p", "--target", "vitis"), "FX402"),
        (("build", TINY, "--out", "{tmp}/p", "--mode", "csimm"), "FX402"),
    ],
)
def test_bad_requests(args: tuple[object, ...], code: str, tmp_path: Path) -> None:
    filled = [a.format(tmp=tmp_path) if isinstance(a, str) else a for a in args]
    refused(run(*filled), code)
    assert list(tmp_path.iterdir()) == []


def test_a_shorter_context_can_be_chosen(tmp_path: Path) -> None:
    result = run(
        "generate", TINY, "--prompt", "The import statement", "--max-new-tokens", 30, "--max-seq-len", 12
    )
    assert result.returncode == 0, result.stderr
    refused(run("generate", TINY, "--prompt", "import " * 20, "--max-seq-len", 12), "FX701", "1 to 12 tokens")
