"""Commands that run a model: generate, chat, logits, ppl."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from enum import StrEnum
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FlexError, UsageError
from ..terminal import progress, show_error, show_rows
from .app import app
from .files import output, read_text
from .options import Directory, JsonFile, MaxSeqLen, Preset, Recipe, Seed, Temperature, TopK, TopP

if TYPE_CHECKING:
    from ..runtime.conversation import TextSession
    from ..runtime.session import Session


class Stage(StrEnum):
    """How the logits are computed: all tokens in one pass, or token by token."""

    prefill = "prefill"
    decode = "decode"


@app.command()
def generate(
    directory: Directory,
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens, or at EOS.")] = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    recipe: Recipe = None,
    preset: Preset = None,
    max_seq_len: MaxSeqLen = None,
    json_file: JsonFile = None,
) -> None:
    """Continue a prompt on the CPU; with a preset, by exactly the design that `build` writes.

    DIR may be a project of `build` whose design is linked: then a card does it.
    """
    if not prompt:
        raise UsageError("FX701", "the prompt is empty", hint='give some text: --prompt "Once upon a time"')
    result_file = output(json_file) if json_file else None
    with (
        closing(open_text(directory, recipe, max_seq_len, preset)) as session,
        progress("tokens", max_new_tokens) as advance,
    ):
        prompt_tokens = session.encode(prompt)
        made = count(1)
        result = session.generate(
            prompt_tokens,
            max_new_tokens,
            lambda _token: advance(next(made), None),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        text = session.decode(result.tokens)
    typer.echo(prompt + text)
    if result_file:
        result_file.write_json(
            {
                "prompt_tokens": prompt_tokens,
                "tokens": result.tokens,
                "text": text,
                "tokens_per_second": result.tokens_per_second,
            }
        )


@app.command()
def chat(
    directory: Directory,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop an answer after this many tokens.")] = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    recipe: Recipe = None,
    preset: Preset = None,
    max_seq_len: MaxSeqLen = None,
) -> None:
    """Continue line after line from the keyboard; what was said stays in the KV cache. DIR as in generate.

    /clear forgets it, /exit ends, as the end of the input does.
    """
    from ..runtime.chat import Chat

    refused: list[FlexError] = []

    def refuse(error: FlexError) -> None:
        show_error(error)
        refused.append(error)

    lines = typer.get_text_stream("stdin", errors="replace")
    with closing(open_text(directory, recipe, max_seq_len, preset)) as session:
        chat = Chat(session, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        chat.run(lines, partial(typer.echo, nl=False), refuse)
    if refused and not lines.isatty():
        raise typer.Exit(2)


@app.command()
def logits(
    directory: Directory,
    tokens: Annotated[str, typer.Option(help="Token ids, separated by commas: 1,2,3.")],
    out: Annotated[Path, typer.Option(help="A .npy file, float32 [T, vocab].")],
    recipe: Recipe = None,
    stage: Annotated[
        Stage, typer.Option(help="One pass over all tokens, or token by token.")
    ] = Stage.prefill,
    max_seq_len: MaxSeqLen = None,
) -> None:
    """Compute the logits of every position of a token sequence."""
    result_file = output(out)
    ids = _token_ids(tokens)
    with closing(open_session(directory, recipe, max_seq_len)) as session, progress(f"logits ({stage})"):
        result_file.write_array(session.logits(ids, stage.value))


@app.command()
def ppl(
    directory: Directory,
    text: Annotated[Path, typer.Option(help="Text file, UTF-8.")],
    recipe: Annotated[
        list[str] | None, typer.Option(help="As in generate; several give a table, compared with the first.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=2, help="Positions per window. Default: 256.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens by which the window moves. Default: no overlap.")
    ] = None,
    max_seq_len: MaxSeqLen = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the perplexity on a text, through the integer path of the kernels."""
    from ..runtime.perplexity import comparison, text_perplexity

    result_file = output(json_file) if json_file else None
    content = read_text(text)
    results: list[dict[str, Any]] = []
    for name in recipe or [None]:
        with closing(open_session(directory, name, max_seq_len)) as session, progress("windows") as advance:
            results.append(text_perplexity(session, content, context, stride, advance))
    show_rows("perplexity (measured)", comparison(results))
    if result_file:
        result_file.write_json(results[0] if len(results) == 1 else {"recipes": results})


def open_session(directory: Path, recipe: str | None, max_seq_len: int | None = None) -> Session:
    """Load the checkpoint; the import waits until a command needs it."""
    from ..runtime.session import Session

    return Session.open(directory, recipe, max_seq_len)


def open_text(
    directory: Path, recipe: str | None, max_seq_len: int | None = None, preset: str | None = None
) -> TextSession:
    """`open_session`, the design of a preset, or a project on a card."""
    if not (directory / "config.json").exists():
        from ..runtime.xrt_reconfigured import is_project, open_project

        if is_project(directory):
            _refuse_options(directory, {"--recipe": recipe, "--preset": preset, "--max-seq-len": max_seq_len})
            return open_project(directory)
    if preset is not None:
        from ..runtime.reconfigured import open_design

        return open_design(directory, preset, recipe, max_seq_len)
    return open_session(directory, recipe, max_seq_len)


def _refuse_options(directory: Path, options: Mapping[str, object]) -> None:
    """A project has a design, a recipe and a context."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            "FX703", f'"{directory}" is a project, {given[0]} is for checkpoints', hint="leave it out"
        )


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            "FX703",
            f'--tokens "{text}" is not a list of token ids',
            hint="integers separated by commas: 1,2,3",
        ) from None
