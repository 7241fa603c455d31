"""Turns that keep their KV cache, and batches: the tokens are those of fresh runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import flexllm_allo.models
from flexllm_allo.errors import UsageError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.models import load
from flexllm_allo.runtime.session import Session, half_bytes
from flexllm_allo.schedules import cpu

TINY = Path(flexllm_allo.models.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def session() -> Session:
    model = load(TINY, "w4a8kv8", max_seq_len=96)
    return Session(model, hybrid(model, cpu.blocked(4), cpu.blocked(1), half_bytes(model)))


@pytest.mark.parametrize(("recipe", "packed"), [("w4a8kv8", True), ("w8a8kv8", False), ("w4a16", False)])
def test_four_bit_weights_with_a_scale_per_row_lie_two_in_a_byte(recipe, packed):
    session = Session(load(TINY, recipe, max_seq_len=16))
    words = {p.name: p.words for p in session.top.program.function(session.top.program.top).inputs}
    assert words["wq_codes"] == (2 if packed else 1)
    assert words["w_head_codes"] == 1


def calls(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that are called from now on."""
    names: list[str] = []
    run = session.module.call
    monkeypatch.setattr(session.module, "call", lambda name, *a: (names.append(name), run(name, *a))[1])
    return names


def test_turns_equal_fresh_runs_and_reuse_the_cache(session, monkeypatch):
    conversation, said = session.conversation(), []
    for turn in ([5, 9, 13, 200, 31], [7], [40, 41, 42, 43, 44, 45, 46]):
        said += turn
        streamed: list[int] = []
        names = calls(session, monkeypatch)
        result = conversation.send(turn, 6, streamed.append)
        monkeypatch.undo()
        fresh = session.generate(said, 6)
        assert streamed == result.tokens == fresh.tokens
        first = len(said) == 5
        assert ("prefill" in names) == first
        assert result.reused == (0 if first else len(said) - len(turn) - 1)
        assert names.count(session.instance("forward", 4)) == (0 if first else -(-(len(turn) + 1) // 4))
        said += result.tokens
        assert conversation.said == said


def test_a_changed_beginning_is_run_again(session):
    conversation = session.conversation()
    conversation.generate([3, 4, 5, 6, 7, 8], 3)
    for prompt, reused in (([3, 4, 5, 99, 7, 8], 3), ([50, 4, 5], 0), ([50, 4, 5], 2), ([50], 0)):
        result = conversation.generate(prompt, 5)
        assert result.reused == reused
        assert result.tokens == session.generate(prompt, 5).tokens


def test_conversations_do_not_disturb_each_other(session):
    one, two = session.conversation(), session.conversation()
    one.send([11, 12, 13], 4)
    two.send([90, 91], 4)
    expected = session.generate([*one.said, 14], 4).tokens
    assert one.send([14], 4).tokens == expected


def test_a_turn_beyond_the_context_is_refused_and_the_conversation_goes_on(session):
    conversation = session.conversation()
    conversation.send([1, 2, 3], 4)
    said = conversation.said
    with pytest.raises(UsageError, match="tokens") as caught:
        conversation.send([4] * 96, 4)
    assert caught.value.code == "FX701"
    assert conversation.said == said
    assert conversation.send([5], 3).tokens == session.generate([*said, 5], 3).tokens


def test_a_batch_answers_every_prompt_in_its_place(session):
    common = [20, 21, 22, 23, 24, 25]
    prompts = [[*common, 7], [3], [*common, 9, 8], [3]]
    seen: list[tuple[int, int]] = []
    results = session.generate_batch(prompts, 5, lambda number, token: seen.append((number, token)))
    for number, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        assert result.tokens == session.generate(prompt, 5).tokens
        assert [token for n, token in seen if n == number] == result.tokens
    assert sorted(r.reused for r in results) == [0, 0, 0, 6]
    with pytest.raises(UsageError, match="no token"):
        session.generate_batch([[3], [999_999]], 5, lambda *_: pytest.fail("nothing may be run"))


HOW = {"temperature": 1.5, "top_k": 40, "top_p": 0.95, "seed": 7}


def test_sampled_turns_equal_fresh_runs_with_the_same_seed(session):
    conversation, said, greedy = session.conversation(), [], session.conversation()
    for turn in ([5, 9, 13, 200, 31], [7], [40, 41, 42, 43, 44, 45, 46]):
        said += turn
        result = conversation.send(turn, 8, **HOW)
        assert result.tokens == session.generate(said, 8, **HOW).tokens
        assert result.tokens != greedy.generate(said, 8).tokens
        said += result.tokens


def test_a_batch_samples_every_prompt_as_alone(session):
    prompts = [[20, 21, 22, 7], [3], [20, 21, 22, 9, 8]]
    results = session.generate_batch(prompts, 6, **HOW)
    assert [r.tokens for r in results] == [session.generate(p, 6, **HOW).tokens for p in prompts]
    with pytest.raises(UsageError, match="top_p") as caught:
        session.generate_batch([[3]], 5, lambda *_: pytest.fail("nothing may be run"), top_p=0.0)
    assert caught.value.code == "FX703"
