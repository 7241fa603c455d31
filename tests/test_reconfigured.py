"""Designs that take turns, run as a chat: the tokens of the ordinary session, whatever the layouts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_models import has_csim, small_model
from test_bitstreams import FLEXLLM, TEMPORAL, TEXT
from typer.testing import CliRunner
from xrt_cards import standin

from flexllm_allo import cli
from flexllm_allo.errors import BackendError, ModelError, ToolError, UsageError
from flexllm_allo.models import Model, architecture, load
from flexllm_allo.models.calibrate import Calibration
from flexllm_allo.quant.passes import Gptq, Rtn
from flexllm_allo.quant.recipes import get_recipe
from flexllm_allo.runtime import build, project_plan, reconfigured
from flexllm_allo.runtime.chat import Chat
from flexllm_allo.runtime.preset import get_preset, parse_preset
from flexllm_allo.runtime.quantize import quantize_folder
from flexllm_allo.runtime.reconfigured import ReconfiguredSession, open_design
from flexllm_allo.runtime.session import Session
from flexllm_allo.runtime.xrt_reconfigured import XrtReconfiguredSession, open_project

TINY = Path(__file__).parents[1] / "models" / "tiny"
SHORT, CONTEXT = 9, 39
"""Tokens of the longest prompt and of the context: no multiples of what softmax, packs or ports take."""
LIMIT = f"max_prompt = {SHORT}\n\n[prefill]"
ENGINE = (
    TEXT.replace("channels = 4", "channels = 8")
    .replace("vector = 4", "vector = 8\nkey_ports = 2")
    .replace("[prefill]", LIMIT)
)
HOW = [{"top_k": 5}, {"temperature": 1.5, "top_k": 5, "top_p": 0.9, "seed": 7}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The shipped model by FlexLLM's recipe, with plain rounding, which is faster than GPTQ."""
    recipe, out = get_recipe("w4a4kv8"), tmp_path_factory.mktemp("tiny") / "q"
    passes = tuple(Rtn() if isinstance(one, Gptq) else one for one in recipe.passes)
    quantize_folder(TINY, out, replace(recipe, passes=passes), Calibration(samples=2, length=32))
    return out


@pytest.fixture(scope="module")
def tiny(folder) -> Model:
    return load(folder, max_seq_len=CONTEXT)


@pytest.fixture(scope="module")
def session(tiny) -> ReconfiguredSession:
    """The shipped model on an engine."""
    return ReconfiguredSession(parse_preset(ENGINE), tiny)


@pytest.fixture(scope="module")
def ordinary(tiny) -> Session:
    return Session(tiny)


def same(session, ordinary, runs, vocabulary):
    """Prompts and lengths of answers; the prompts are none where a rounding falls to the other side, as the
    engine adds the squares of a norm in another order."""
    for length, size in runs:
        prompt = np.random.default_rng(length).integers(2, vocabulary, length).tolist()
        for how in HOW:
            seen: list[int] = []
            found = session.generate(prompt, size, seen.append, **how)
            assert found.tokens == seen == ordinary.generate(prompt, size, **how).tokens


def test_the_shipped_model_says_the_same(session, ordinary):
    """After prompts that fill a block, or not; until the end of the context."""
    same(session, ordinary, [(1, 4), (4, 4), (7, 4), (SHORT, CONTEXT)], 2048)
    assert session.encode("def f():") == ordinary.encode("def f():")
    assert session.decode([42, 43]) == ordinary.decode([42, 43])


def test_flexllm_says_the_same():
    """Its prefill makes no token, and its two stages keep the cache in different ways."""
    model = small_model().shortened(23)
    flexllm = ReconfiguredSession(parse_preset(FLEXLLM.replace("[prefill]", LIMIT)), model)
    same(flexllm, Session(model), [(1, 4), (7, 4), (8, 30)], 48)


def test_turns_go_on_in_decode_beyond_the_longest_prompt(session, ordinary, monkeypatch):
    """Only the first turn needs the prefill design; two conversations do not disturb each other."""
    runs: list[str] = []
    run = reconfigured.Loaded.__call__
    monkeypatch.setattr(
        reconfigured.Loaded, "__call__", lambda d, *a, **k: (runs.append(d.made.name), run(d, *a, **k))[1]
    )
    one, two, said = session.conversation(), session.conversation(), list[int]()
    for turn in ([5, 9, 13], [7], [40, 41]):
        found = one.send(turn, 3)
        assert found.tokens == ordinary.generate([*said, *turn], 3).tokens
        assert found.reused == max(0, len(said) - 1)
        said = one.said
        if len(turn) == 3:
            two.send([30, 31], 2)
    assert runs.count("prefill") == 2
    assert len(said) > SHORT


def test_a_chat_is_the_same(session, ordinary):
    chats = Chat(session, 4), Chat(ordinary, 4)
    for line in ("def area(width):", "    return width"):
        assert len({tuple(chat.answer(line, lambda _: None).tokens) for chat in chats}) == 1


def test_a_prompt_that_the_prefill_does_not_hold_is_refused(session):
    conversation = session.conversation()
    conversation.send([3, 4], 2)
    said = conversation.said
    with pytest.raises(UsageError) as caught:
        conversation.generate([5] * (SHORT + 1), 2)
    assert caught.value.code == "FX701"
    assert caught.value.message == "the prompt has 10 tokens, the prefill of this design holds 9"
    assert caught.value.hint == "a shorter prompt, or a design with a larger max_prompt"
    with pytest.raises(UsageError, match="FX701: the prompt has 40 tokens"):
        conversation.send([5] * 36, 2)
    assert conversation.said == said
    with pytest.raises(UsageError, match="FX703: there is no token 2048"):
        session.generate([2048], 2)


def test_both_designs_sample_among_the_candidates_of_the_engine(session, ordinary):
    """The first token, too, is one of the five likeliest."""
    for seed in range(3):
        how = {"temperature": 3.0, "seed": seed}
        assert (
            session.generate([3, 4], 5, **how).tokens == ordinary.generate([3, 4], 5, top_k=5, **how).tokens
        )
    with pytest.raises(UsageError, match="FX703: top_k cannot be 6") as caught:
        session.generate([3], 2, temperature=1.0, top_k=6)
    assert caught.value.hint == "top_k: 0 (as many as possible) to 5 with this design"


def test_what_does_not_take_turns_or_is_not_computed_is_refused(tiny):
    resident = parse_preset(TEMPORAL.replace('"reconfigured"', '"resident"'))
    with pytest.raises(UsageError, match="FX703: the stages of small do not take turns"):
        ReconfiguredSession(resident, tiny)
    with pytest.raises(ModelError, match="FX602"):
        ReconfiguredSession(parse_preset(TEXT), architecture("llama-3.2-1b", "w4a4kv8", 16))
    with pytest.raises(UsageError, match="FX703") as caught:
        ReconfiguredSession(parse_preset(f"{FLEXLLM}\nhead_parallel = 3\n"), small_model(4))
    assert (
        caught.value.message
        == "FlexLLM's kernels take models that have\n  - KV heads of which 3 can be side by side"
    )
    assert "flexllm tune" in caught.value.hint
    with pytest.raises(UsageError, match="a hidden size that is a multiple of 256"):
        ReconfiguredSession(get_preset("v80-best"), tiny)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_commands_take_a_preset(session, monkeypatch, command):
    opened: list[tuple] = []
    monkeypatch.setattr(reconfigured, "open_design", lambda *given: (opened.append(given), session)[1])
    monkeypatch.setattr(session, "close", lambda: opened.append(("closed",)))
    options = ["--prompt", "A"] if command == "generate" else []
    ran = CliRunner().invoke(
        cli.app, [command, "m", "--preset", "p.toml", "--max-new-tokens", "3", *options], input="A\n"
    )
    assert ran.exit_code == 0, ran.output
    assert opened == [(Path("m"), "p.toml", None, None), ("closed",)]
    answer = session.decode(session.generate(session.encode("A"), 3).tokens)
    assert ran.stdout == ("A" if options else "") + answer + "\n"


def test_a_preset_chooses_the_session(tiny, tmp_path, monkeypatch):
    """By its mode; its recipe is that of a checkpoint which is not quantized."""
    loaded: list[tuple] = []
    monkeypatch.setattr(reconfigured, "load", lambda *given: (loaded.append(given), tiny)[1])
    monkeypatch.setattr(reconfigured, "ReconfiguredSession", lambda preset, model: (preset.name, model))
    file = tmp_path / "p.toml"
    file.write_text(TEXT)
    assert open_design(TINY, str(file), max_seq_len=64) == ("small", tiny)
    assert loaded == [(TINY, "w4a4kv8", 64)]
    file.write_text(TEMPORAL.replace('"reconfigured"', '"resident"'))
    resident = open_design(TINY, str(file))
    assert isinstance(resident, Session)
    assert (resident.top.mode, resident.top.prefill.token_parallel) == ("resident", 4)


# -------------------------------------------------------------------------------------- on a card


@pytest.fixture(scope="module")
def projects(session, folder, tmp_path_factory) -> Path:
    """What `build` writes for the design of the session, without test data, and files in place of xclbins."""
    out = tmp_path_factory.mktemp("card")
    preset = out / "p.toml"
    preset.write_text(ENGINE)
    made = {name: design.made for name, design in designs(session).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "preset_bitstream", lambda preset, model, name: made[name])
        patch.setattr(project_plan, "GOLDEN_BYTES", 0)
        build.build_project(folder, out / "p", preset=str(preset), max_seq_len=CONTEXT)
    for name in made:
        (out / "p" / name / f"{name}.hw.xclbin").write_bytes(b"")
    return out / "p"


def designs(session):
    return {"prefill": session.prefill_design, "decode": session.decode_design}


@pytest.fixture
def card(session, monkeypatch):
    """The card of the stand-in for pyxrt."""
    module, card = standin({name: design.module for name, design in designs(session).items()})
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    return card


def test_the_card_says_what_the_cpu_says(projects, session, card):
    on_card = XrtReconfiguredSession(projects)
    assert on_card.encode("def f():") == session.encode("def f():")
    for how in HOW:
        seen: list[int] = []
        found = on_card.generate([5, 9, 13, 200, 31], 6, seen.append, **how)
        assert found.tokens == seen == session.generate([5, 9, 13, 200, 31], 6, **how).tokens
    assert card.loaded == ["prefill", "decode"] * 2
    on_card.close()


def test_conversations_on_a_card_take_turns_without_a_prefill(projects, session, card):
    """The cache that another conversation needs the card for is kept by the host."""
    on_card = XrtReconfiguredSession(projects)
    talks = [(on_card.conversation(), session.conversation()) for _ in range(2)]
    for turn in ([5, 9, 13], [7], [40, 41, 42, 43]):
        for one, other in talks:
            assert one.send(turn, 2).tokens == other.send(turn, 2).tokens
            assert one.said == other.said
    assert card.loaded == ["prefill", "decode"] * 2
    with pytest.raises(
        UsageError, match="FX701: the prompt has 10 tokens, the prefill of this design holds 9"
    ):
        on_card.generate([5] * 10, 2)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_commands_take_a_project(projects, session, card, command):
    options = ["--prompt", "A"] if command == "generate" else []
    given = [command, str(projects), "--max-new-tokens", "3", *options]
    ran = CliRunner().invoke(cli.app, given, input="A\n")
    assert ran.exit_code == 0, ran.output
    assert card.loaded == ["prefill", "decode"]
    answer = session.decode(session.generate(session.encode("A"), 3).tokens)
    assert ran.stdout == ("A" if options else "") + answer + "\n"
    for option, value in (("--max-seq-len", "5"), ("--preset", "u280-best")):
        ran = CliRunner().invoke(cli.app, [*given, option, value])
        assert ran.exit_code == 2
        assert f"is a project, {option} is for checkpoints" in " ".join(ran.stderr.split())


def test_plain_kernels_keep_their_layout_on_a_card(tiny, ordinary, folder, tmp_path, monkeypatch):
    preset = tmp_path / "p.toml"
    preset.write_text(TEMPORAL)
    session = ReconfiguredSession(parse_preset(TEMPORAL), tiny)
    made = {name: design.made for name, design in designs(session).items()}
    monkeypatch.setattr(build, "preset_bitstream", lambda preset, model, name: made[name])
    monkeypatch.setattr(project_plan, "GOLDEN_BYTES", 0)
    out = build.build_project(folder, tmp_path / "p", preset=str(preset), max_seq_len=CONTEXT)
    module, _ = standin({name: design.module for name, design in designs(session).items()})
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    linked = {name: tmp_path / f"{name}.xclbin" for name in made}
    for path in linked.values():
        path.write_bytes(b"")
    on_card, how = XrtReconfiguredSession(out, linked), {"temperature": 1.5, "top_k": 20, "seed": 7}
    wanted = ordinary.generate([5, 9, 13, 200, 31], 5, **how).tokens
    assert on_card.generate([5, 9, 13, 200, 31], 5, **how).tokens == wanted
    assert session.generate([5, 9, 13, 200, 31], 5, **how).tokens == wanted


def test_what_a_card_lacks_is_said(projects, card, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"FX703: there is no project .*prefill") as caught:
        XrtReconfiguredSession(tmp_path)
    assert 'mode is "reconfigured"' in caught.value.hint
    with pytest.raises(UsageError, match=r"FX703: .*decode is the decode of two designs that") as caught:
        open_project(projects / "decode")
    assert caught.value.hint == "name the folder above, which has both"
    with pytest.raises(ToolError, match=r"FX501: there is no .*other\.xclbin"):
        XrtReconfiguredSession(projects, {"decode": tmp_path / "other.xclbin"})
    other = tmp_path / "p"
    shutil.copytree(projects, other)
    manifest = json.loads((other / "decode" / "manifest.json").read_text())
    (other / "decode" / "manifest.json").write_text(json.dumps(manifest | {"recipe": "w4a8kv8"}))
    with pytest.raises(UsageError, match=r"FX703: the designs in .* have the recipes w4a4kv8 and w4a8kv8"):
        XrtReconfiguredSession(other)
    (other / "decode" / "manifest.json").write_text(json.dumps(manifest | {"model": "0" * 64}))
    with pytest.raises(UsageError, match=r"FX703: the designs in .* have the weights of two") as caught:
        XrtReconfiguredSession(other)
    assert caught.value.hint == "a build was cut short between them: run it again"
    (other / "decode" / "manifest.json").write_text(json.dumps(manifest | {"target": "tapa"}))
    with pytest.raises(UsageError, match=r"FX703: .*decode is a project of TAPA"):
        XrtReconfiguredSession(other)
    weights = next((other / "prefill" / "weights").iterdir())
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(UsageError, match=rf"FX703: {weights} lacks weights") as caught:
        XrtReconfiguredSession(other)
    assert caught.value.hint == "copy the project again, or build it anew"
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(ToolError, match="pyxrt, is not installed"):
        XrtReconfiguredSession(projects)
    assert card.loaded == []


# ------------------------------------------------------------------------------------------- TAPA


@pytest.mark.skipif(not has_csim(), reason="no C++ compiler or no ap_int headers")
def test_the_tasks_of_tapa_compute_the_shipped_model(folder, session, tmp_path, monkeypatch):
    """Of both designs, on the data of the project and weights out of the files of channels."""
    made = {name: design.made for name, design in designs(session).items()}
    modules = {design.made.top: design.module for design in designs(session).values()}
    monkeypatch.setattr(build, "preset_bitstream", lambda preset, model, name: made[name])
    monkeypatch.setattr(project_plan, "LLVMModule", lambda top: modules[top])
    preset = tmp_path / "p.toml"
    preset.write_text(ENGINE)
    order = {"preset": str(preset), "target": "tapa", "mode": "csim"}
    out = build.build_project(folder, tmp_path / "p", max_seq_len=CONTEXT, **order)
    for name in made:
        assert (out / name / "csim.log").read_text().endswith("PASS\n")
        manifest = json.loads((out / name / "manifest.json").read_text())
        assert (manifest["top"], manifest["target"]) == (name, "tapa")
        assert any(file.startswith("weights/") for file in manifest["files"])
        assert not (out / name / "data" / "embed.bin").exists()


@pytest.mark.parametrize("mode", ["csynth", "hw"])
def test_modes_that_make_in_a_project_of_tapa_has(tmp_path, mode):
    with pytest.raises(BackendError) as caught:
        build.build_project(TINY, tmp_path / "p", target="tapa", mode=mode)
    assert caught.value.code == "FX402"
    assert caught.value.message == f'no mode "{mode}" of target "tapa"'
    assert caught.value.hint.startswith("csim, or none; make in the project runs the tools")
    assert not (tmp_path / "p").exists()
    with pytest.raises(BackendError, match='FX402: no target "tappa"') as caught:
        build.build_project(TINY, tmp_path / "p", target="tappa")
    assert caught.value.hint == 'did you mean "tapa"?'


# ------------------------------------------------------------------------------------------ build


def test_folders_of_other_designs_are_refused_before_the_work(tmp_path, monkeypatch):
    """A pair of projects does not go into the folder of one, nor into a folder of something else."""
    monkeypatch.setattr(build, "quantized_copy", None)  # the work
    preset, out = tmp_path / "p.toml", tmp_path / "one"
    preset.write_text(ENGINE)
    out.mkdir()
    (out / "manifest.json").write_text('{"generator": "flexllm-allo"}')
    with pytest.raises(UsageError, match=r'FX702: ".*one" is a project, whose design is on') as caught:
        build.build_project(TINY, out, preset=str(preset))
    assert caught.value.hint == "name a new folder, or one that an earlier build of such a design wrote"
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    (tmp_path / "two" / "prefill").mkdir(parents=True)
    (tmp_path / "two" / "prefill" / "thesis.txt").write_text("")
    with pytest.raises(UsageError, match=r'FX702: .*prefill": it holds files that are not a project'):
        build.build_project(TINY, tmp_path / "two", preset=str(preset))


def test_both_projects_have_one_model_and_the_clocks_of_their_stages(folder, session, tmp_path, monkeypatch):
    """An unquantized checkpoint is quantized once."""
    made = {name: design.made for name, design in designs(session).items()}
    quantized: list[Path] = []
    monkeypatch.setattr(build, "preset_bitstream", lambda preset, model, name: made[name])
    monkeypatch.setattr(project_plan, "GOLDEN_BYTES", 0)

    def copy(source: Path, out: Path, recipe: str) -> Path:
        quantized.append(source)
        return shutil.copytree(folder, out)

    monkeypatch.setattr(build, "quantized_copy", copy)
    preset, done = tmp_path / "p.toml", list[tuple[int, int | None]]()
    clocks = {"spatial": 304.0, "engine": 292.0}
    text = ENGINE
    for schedule, mhz in clocks.items():
        text = text.replace(f'schedule = "{schedule}"', f'schedule = "{schedule}"\nclock_mhz = {mhz}')
    preset.write_text(text)
    out = build.build_project(
        TINY, tmp_path / "p", preset=str(preset), max_seq_len=CONTEXT, on_step=lambda *step: done.append(step)
    )
    assert quantized == [TINY]
    assert done == [(n, 5) for n in range(1, 6)]
    manifests = [json.loads((out / name / "manifest.json").read_text()) for name in made]
    assert [m["frequency_mhz"] for m in manifests] == [304.0, 292.0]
    assert [m["max_seq_len"] for m in manifests] == [SHORT, CONTEXT]
    assert len({m["model"] for m in manifests}) == 1
    assert sorted(p.name for p in out.iterdir()) == ["decode", "prefill"]
    for name in made:
        assert (out / name / "model" / "tokenizer.json").is_file()
        assert not list((out / name / "model").glob("*.safetensors"))
