"""`flexllm chat`: text streams out, turns reuse the KV cache, refusals leave the conversation as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flexllm_allo.models
from flexllm_allo import cli
from flexllm_allo.errors import FlexError, UsageError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.models import load
from flexllm_allo.runtime.chat import Chat, TextStream
from flexllm_allo.runtime.session import Session, half_bytes
from flexllm_allo.schedules import cpu

TINY = Path(flexllm_allo.models.__file__).parent / "tiny"
LINES = ["def area(width, height):", "    return width", "print(area(2, 3))"]
BOS = 0


@pytest.fixture(scope="module")
def session() -> Session:
    model = load(TINY, "w4a8kv8", max_seq_len=96)
    return Session(model, hybrid(model, cpu.blocked(4), cpu.blocked(1), half_bytes(model)))


@pytest.fixture
def flexllm(session, monkeypatch):
    """Run `flexllm chat` on lines of text or bytes, with the session of the module."""
    opened = []
    monkeypatch.setattr(cli.running, "open_session", lambda *given: (opened.append(given), session)[1])
    monkeypatch.setattr(session, "close", lambda: opened.append("closed"))

    def run(typed, *options):
        opened.clear()
        result = CliRunner().invoke(cli.app, ["chat", "m", *map(str, options)], input=typed)
        assert opened[-1:] == ["closed"] or result.exit_code == 2
        return result

    return run


def single_shots(session: Session, lines: list[str], size: int, **sampling) -> list[str]:
    """The answers when everything said is given anew, as one prompt, each time."""
    said, answers = list[int](), list[str]()
    for i, line in enumerate(lines):
        said += session.encode("\n" + line if i else line, special_tokens=not i)
        new = session.generate(said, size, **sampling).tokens
        said += new
        answers.append(session.decode(new))
    return answers


@pytest.mark.parametrize("options", [(), ("--temperature", "1.2", "--top-k", "20", "--seed", "5")])
def test_answers_are_those_of_single_shots(session, flexllm, options):
    sampling = {"temperature": 1.2, "top_k": 20, "seed": 5} if options else {}
    result = flexllm("\n".join(LINES) + "\n", "--max-new-tokens", 8, *options)
    assert result.exit_code == 0, result.output
    expected = single_shots(session, LINES, 8, **sampling)
    assert result.stdout == "".join(answer + "\n" for answer in expected)
    assert result.stderr == ""


def test_only_what_is_new_is_run_and_a_text_begins_once(session):
    chat, before = Chat(session, 6), 0
    for line in LINES:
        result = chat.answer(line, lambda _: None)
        assert result.reused == max(0, before - 1)  # the last token of an answer is not in the cache yet
        before = len(chat.conversation.said)
    assert chat.conversation.said.count(BOS) == 1


def test_pieces_come_while_the_answer_is_made(session, monkeypatch):
    events: list[str] = []
    run = session.module.call
    monkeypatch.setattr(session.module, "call", lambda name, *a: (events.append(name), run(name, *a))[1])
    result = Chat(session, 5).answer(LINES[0], lambda _: events.append("text"))
    assert len(result.tokens) == 5
    made = [e for e in events if e in ("decode", "text")]
    assert made == ["text", "decode"] * 4 + ["text"]


def test_a_character_of_several_tokens_is_shown_once_it_is_whole():
    whole = "a\N{EURO SIGN}b".encode()
    shown: list[str] = []
    stream = TextStream(lambda tokens: bytes(tokens).decode(errors="replace"), shown.append)
    for byte in whole:
        stream.token(byte)
    assert shown == ["a", "\N{EURO SIGN}", "b"]
    stream.token(whole[1])
    assert len(shown) == 3
    stream.end()
    assert shown[3:] == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("ending", ["/exit", " /quit "])
def test_an_ending_ends(flexllm, ending):
    alone = flexllm(f"{LINES[0]}\n", "--max-new-tokens", 4)
    result = flexllm(f"{LINES[0]}\n\n   \n{ending}\n{LINES[1]}\n", "--max-new-tokens", 4)
    assert (result.exit_code, result.stdout) == (0, alone.stdout)
    assert flexllm("").stdout == ""


def test_clear_begins_a_new_text(flexllm):
    one = flexllm(f"{LINES[0]}\n", "--max-new-tokens", 4).stdout
    assert flexllm(f"{LINES[0]}\n/clear\n{LINES[0]}\n", "--max-new-tokens", 4).stdout == one * 2


def test_a_line_without_room_is_refused_and_the_chat_goes_on(session, flexllm):
    result = flexllm(f"{LINES[0]}\n{'word ' * 200}\n{LINES[1]}\n", "--max-new-tokens", 4)
    assert result.exit_code == 2
    assert "FX701" in result.stderr
    assert "1 to 96 tokens fit this model" in result.stderr
    assert result.stdout == "".join(f"{a}\n" for a in single_shots(session, LINES[:2], 4))


def test_bytes_that_are_no_text_are_taken_as_unknown_characters(flexllm):
    result = flexllm(b"caf\xe9\xff\n", "--max-new-tokens", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\n")


@pytest.mark.parametrize("option", ["--top-p", "--temperature", "--top-k"])
def test_sampling_out_of_range_is_refused_before_a_line_is_read(flexllm, option):
    result = flexllm(f"{LINES[0]}\n", option, "-1")
    assert result.exit_code == 2
    assert "FX703" in result.stderr
    assert result.stdout == ""


def test_control_c_ends_an_answer_not_the_chat(session):
    chat, shown, refused = Chat(session, 6), list[str](), list[FlexError]()

    def show(piece: str) -> None:
        if len(shown) == 2:
            shown.append("")
            raise KeyboardInterrupt
        shown.append(piece)

    chat.run([LINES[0]], show, refused.append)
    assert shown[2:] == ["", "\n"]
    said = chat.conversation.said
    answer = chat.answer(LINES[1], lambda _: None)
    turn = session.encode("\n" + LINES[1], special_tokens=False)
    assert answer.tokens == session.generate([*said, *turn], 6).tokens
    assert not refused


def test_a_conversation_that_is_full_says_so(session):
    chat = Chat(session, 500)
    result = chat.answer("word " * 20, lambda _: None)
    assert session.stop_token not in result.tokens
    said = chat.conversation.said
    assert len(said) == 97  # the last one has no place in the cache
    with pytest.raises(UsageError, match="tokens") as caught:
        chat.answer(LINES[0], lambda _: None)
    assert caught.value.code == "FX701"
    assert chat.conversation.said == said
