"""The command line: JSON shapes, exit codes, refusals, files that are complete or not there."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import QuantError, UsageError
from flexllm_allo.runtime.outputs import OutputFile
from flexllm_allo.runtime.perplexity import text_perplexity

VOCAB = 7
OPENED = []  # the sessions a command opened


class FakeSession:
    """Tokens are characters modulo the vocabulary; the logits of a token are its successor's one-hot."""

    def __init__(self, directory: Path, recipe: str) -> None:
        self.directory, self.recipe, self.closed = directory, recipe, False
        self.config = SimpleNamespace(bos_token_id=0, max_position_embeddings=8)
        OPENED.append(self)

    def encode(self, text: str) -> list[int]:
        return [0] + [ord(c) % VOCAB for c in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(ord("a") + t) for t in tokens)

    def generate(self, prompt_tokens, max_new_tokens, on_token=None, **sampling):
        self.sampling = sampling
        tokens = [(prompt_tokens[-1] + i) % VOCAB for i in range(max_new_tokens)]
        for token in tokens:
            on_token(token)
        return SimpleNamespace(tokens=tokens, tokens_per_second=12.5)

    def logits(self, tokens, stage):
        assert stage in ("prefill", "decode")
        return np.eye(VOCAB, dtype=np.float32)[(np.asarray(tokens) + 1) % VOCAB]

    def describe(self):
        return {"recipe": {"name": self.recipe}, "bits_per_weight": 4.0, "bytes_per_token": 9}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def flexllm(monkeypatch):
    def open_session(directory: Path, recipe: str, max_seq_len: int | None = None) -> FakeSession:
        if recipe not in (None, "none", "w8a8kv8"):
            raise QuantError("FX604", f'no recipe "{recipe}"', hint="known names: none, w8a8kv8")
        return FakeSession(directory, recipe)

    OPENED.clear()
    monkeypatch.setattr(cli.running, "open_session", open_session)
    return lambda *arguments: CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_generate_writes_the_four_keys(flexllm, tmp_path):
    out = tmp_path / "out.json"
    result = flexllm(
        "generate", "m", "--prompt", "hello", "--max-new-tokens", 3, "--recipe", "none", "--json", out
    )
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert list(content) == ["prompt_tokens", "tokens", "text", "tokens_per_second"]
    assert content["prompt_tokens"] == FakeSession.encode(None, "hello")
    assert len(content["tokens"]) == 3
    assert result.stdout == "hello" + content["text"] + "\n"
    assert result.stderr == ""  # no progress bar when stderr is not a terminal
    assert OPENED[0].recipe == "none"
    assert OPENED[0].closed
    assert OPENED[0].sampling == {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}


def test_generate_passes_on_how_to_sample(flexllm):
    result = flexllm(
        "generate", "m", "--prompt", "hello", "--temperature", 0.7, "--top-k", 40, "--top-p", 0.9, "--seed", 3
    )
    assert result.exit_code == 0, result.output
    assert OPENED[0].sampling == {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "seed": 3}


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_logits_writes_float32(flexllm, tmp_path, stage):
    out = tmp_path / "logits.npy"
    result = flexllm("logits", "m", "--tokens", "1,2,3", "--recipe", "none", "--stage", stage, "--out", out)
    assert result.exit_code == 0, result.output
    array = np.load(out)
    assert array.shape == (3, VOCAB)
    assert array.dtype == np.float32


def test_ppl_writes_settings(flexllm, tmp_path):
    text, out = tmp_path / "t.txt", tmp_path / "ppl.json"
    text.write_text("some words to score")
    result = flexllm("ppl", "m", "--text", text, "--recipe", "none", "--json", out)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert list(content) == ["ppl", "tokens", "recipe", "settings"]
    assert content["tokens"] == len("some words to score")
    assert content["settings"]["context"] == 8


@pytest.mark.parametrize("bos", [0, None])
def test_perplexity_of_uniform_logits_is_the_vocabulary(bos):
    session = FakeSession(Path(), "none")
    session.logits = lambda tokens, stage: np.zeros((len(tokens), VOCAB), np.float32)
    session.config.bos_token_id = bos
    session.encode = lambda text: [0] * (bos is not None) + [1, 2, 3, 4, 5, 6, 1, 2, 3]
    seen = []
    result = text_perplexity(session, "", on_window=lambda *window: seen.append(window))
    assert result["ppl"] == pytest.approx(VOCAB)
    assert seen[-1] == (result["settings"]["windows"],) * 2


def test_perplexity_follows_the_logits():
    session = FakeSession(Path(), "none")
    session.encode = lambda text: [0, 1, 2, 3]
    assert text_perplexity(session, "")["ppl"] == pytest.approx((math.e + VOCAB - 1) / math.e)
    session.encode = lambda text: [0]
    with pytest.raises(UsageError, match="no token"):
        text_perplexity(session, "")


def test_build_and_demo_pass_their_options(flexllm, monkeypatch, tmp_path):
    calls = []
    build, demo = ModuleType("build"), ModuleType("demo")
    build.build_project = lambda *a, **k: calls.append((a, k)) or "out"
    build.report_text = lambda project: f"the report of {project}\n"
    demo.run_demo = lambda *a: calls.append(a[:1]) or {"text": "once", "tokens": [1, 2]}
    monkeypatch.setitem(sys.modules, "flexllm_allo.runtime.build", build)
    monkeypatch.setitem(sys.modules, "flexllm_allo.runtime.demo", demo)
    options = [
        "--device",
        "u280",
        "--recipe",
        "w8a8kv8",
        "--target",
        "vitis_hls",
        "--out",
        "o",
        "--mode",
        "csim",
        "--preset",
        "mine.toml",
    ]
    result = flexllm("build", "m", *options)
    assert result.exit_code == 0
    assert result.stdout == "C simulation: PASS (csim.log)\nthe report of out\nout\n"
    arguments, keywords = calls[0]
    assert arguments == (Path("m"), Path("o"))
    keywords.pop("on_step")
    asked = {
        "recipe": "w8a8kv8",
        "device": "u280",
        "target": "vitis_hls",
        "mode": "csim",
        "max_seq_len": None,
        "preset": "mine.toml",
    }
    assert keywords == asked
    assert flexllm("demo", "--out", tmp_path).exit_code == 0
    assert calls[1] == (tmp_path,)


def test_doctor_names_everything(flexllm, tmp_path):
    out = tmp_path / "doctor.json"
    result = flexllm("doctor", "--json", out)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    names = ["Python", "LLVM", "g++", "ap_int headers", "Vitis HLS", "v++", "XRT", "torch", "transformers"]
    assert list(content) == names
    assert content["Python"]["found"] == sys.version.split()[0]
    assert content["LLVM"]["found"]
    assert all(
        entry["enables"] and bool(entry["found"]) != bool(entry["install"]) for entry in content.values()
    )


def test_doctor_finds_a_tool_on_the_path(flexllm, monkeypatch, tmp_path):
    tool = tmp_path / "v++"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    out = tmp_path / "doctor.json"
    assert flexllm("doctor", "--json", out).exit_code == 0
    content = json.loads(out.read_text())
    assert content["v++"]["found"] == str(tool)
    assert content["g++"]["found"] is None


REFUSED = [
    (["generate", "m", "--prompt", "hi", "--recipe", "w3"], "FX604"),
    (["generate", "m", "--prompt", ""], "FX701"),
    (["generate", "m", "--prompt", "hi", "--json", "absent/out.json"], "FX702"),
    (["generate", "m", "--prompt", "hi", "--json", "."], "FX702"),
    (["logits", "m", "--tokens", "1,x", "--out", "l.npy"], "FX703"),
    (["logits", "m", "--tokens", "", "--out", "l.npy"], "FX703"),
    (["ppl", "m", "--text", "absent.txt"], "FX703"),
    (["doctor", "--json", "absent/out.json"], "FX702"),
    (["generate", "m", "--prompt", "hi", "--max-new-tokens", "0"], "--max-new-tokens"),
    (["generate", "m", "--prompt", "hi", "--max-new-tokens", "many"], "--max-new-tokens"),
    (["logits", "m", "--tokens", "1", "--out", "l.npy", "--stage", "both"], "--stage"),
    (["generate", "m"], "--prompt"),
    (["genrate"], "genrate"),
]


@pytest.mark.parametrize(("arguments", "named"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_exits_2_and_leaves_nothing(flexllm, monkeypatch, tmp_path, arguments, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    result = flexllm(*arguments)
    assert result.exit_code == 2, result.output
    assert named in result.stderr
    assert result.stderr.count("FX") == named.count("FX")  # once
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_error_shows_its_hint(flexllm):
    result = flexllm("generate", "m", "--prompt", "hi", "--recipe", "w3")
    assert result.stderr == 'QuantError FX604: no recipe "w3"\n  help: known names: none, w8a8kv8\n'


def test_a_bug_keeps_its_traceback(flexllm, monkeypatch):
    monkeypatch.setattr(FakeSession, "generate", lambda *a, **k: 1 / 0)
    result = flexllm("generate", "m", "--prompt", "hi")
    assert isinstance(result.exception, ZeroDivisionError)
    assert OPENED[0].closed


def test_an_old_result_survives_a_refusal(flexllm, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("old")
    assert flexllm("generate", "m", "--prompt", "", "--json", out).exit_code == 2
    assert out.read_text() == "old"
    assert flexllm("generate", "m", "--prompt", "hi", "--json", out).exit_code == 0
    assert json.loads(out.read_text())["tokens"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    out = OutputFile(tmp_path / "out.json")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UsageError, match="No space left") as caught:
        out.write(b"x")
    assert caught.value.code == "FX702"
    assert list(tmp_path.iterdir()) == []


def test_version(flexllm):
    from flexllm_allo import __version__

    assert flexllm("--version").stdout.strip() == __version__
