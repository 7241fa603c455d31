"""Designs that take turns, run as a chat: the tokens of the ordinary session, whatever the layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_models import small_model
from test_bitstreams import FLEXLLM, TEMPORAL, TEXT
from typer.testing import CliRunner

from flexllm_allo import cli
from flexllm_allo.errors import ModelError, UsageError
from flexllm_allo.models import Model, architecture, load
from flexllm_allo.models.calibrate import Calibration
from flexllm_allo.quant.passes import Gptq, Rtn
from flexllm_allo.quant.recipes import get_recipe
from flexllm_allo.runtime import reconfigured
from flexllm_allo.runtime.chat import Chat
from flexllm_allo.runtime.preset import get_preset, parse_preset
from flexllm_allo.runtime.reconfigured import ReconfiguredSession, open_design
from flexllm_allo.runtime.session import Session

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
def tiny() -> Model:
    """The shipped model by FlexLLM's recipe, with plain rounding, which is faster than GPTQ."""
    recipe = get_recipe("w4a4kv8")
    passes = tuple(Rtn() if isinstance(one, Gptq) else one for one in recipe.passes)
    return load(TINY, replace(recipe, passes=passes), CONTEXT, Calibration(samples=2, length=32))


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
        ReconfiguredSession(parse_preset(FLEXLLM), small_model(4))
    assert caught.value.message == "FlexLLM's kernels take models that have\n  - 8 KV heads"
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
