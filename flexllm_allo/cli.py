"""The command line. Commands parse options, call the library and write results; there is no logic here.

Results go to stdout and to the files named, progress and errors to stderr. A refusal (`FlexError`)
and a bad option end with exit code 2; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

import logging
from contextlib import closing
from enum import StrEnum
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .errors import FlexError, UsageError
from .terminal import progress, show_checks, show_error, show_rows, show_table

if TYPE_CHECKING:
    from .runtime.conversation import TextSession
    from .runtime.outputs import OutputFile
    from .runtime.session import Session


class Stage(StrEnum):
    """How the logits are computed: all tokens in one pass, or token by token."""

    prefill = "prefill"
    decode = "decode"


class _Group(TyperGroup):
    """The one place where a refusal becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FlexError as error:
            show_error(error)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    help="LLM accelerators for FPGAs from Python kernels and schedules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Hugging Face folder (config.json, *.safetensors, tokenizer.json), or one that quantize wrote.",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Quantization: a name (flexllm recipes) or a TOML file. Default: w8a8kv8, or what a quantized "
        "folder has."
    ),
]
MaxSeqLen = Annotated[
    int | None,
    typer.Option(
        min=1, help="Positions of the KV cache, prompt and answer. Default: the model's own context."
    ),
]
Temperature = Annotated[float, typer.Option(help="Of sampling; 0 takes the likeliest token.")]
TopK = Annotated[int, typer.Option(help="Sample among this many; 0 for as many as possible.")]
TopP = Annotated[float, typer.Option(help="Sample among the likeliest with this probability.")]
Seed = Annotated[int, typer.Option(help="Of sampling: the same seed, the same text.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Design that is run: a name, or a file that tune wrote. Default: one for CPUs."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to this file.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the library does.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Options of all commands."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("build/demo"),
) -> None:
    """Run the shipped checkpoint end to end: CPU, C simulation, perplexity, Vitis HLS project."""
    from .runtime.demo import run_demo

    with progress("demo") as advance:
        summary = run_demo(out, advance)
    show_table("demo", {key: str(value) for key, value in summary.items()})


@app.command()
def build(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="Folder of the project.")],
    recipe: Recipe = None,
    device: Annotated[
        str | None, typer.Option(help="Card the design is for. Default: the preset's, or u280.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Which design: a name, or a file that tune wrote.")
    ] = None,
    target: Annotated[str, typer.Option(help="vitis_hls or tapa.")] = "vitis_hls",
    mode: Annotated[
        str | None,
        typer.Option(help="Also run: csim, csynth, cosim, hw_emu, hw; of tapa csim. Default: none."),
    ] = None,
    max_seq_len: MaxSeqLen = None,
) -> None:
    """Write the hybrid top of a checkpoint as a project, and run its tools when asked."""
    from .runtime.build import build_project, report_text

    with progress("build") as advance:
        project = build_project(
            directory,
            out,
            recipe=recipe,
            device=device,
            target=target,
            mode=mode,
            max_seq_len=max_seq_len,
            preset=preset,
            on_step=advance,
        )
    if mode is not None:
        typer.echo(report_text(project), nl=False)
    typer.echo(project)


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
    result_file = _output(json_file) if json_file else None
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
    from .runtime.chat import Chat

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
    result_file = _output(out)
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
    from .runtime.perplexity import comparison, text_perplexity

    result_file = _output(json_file) if json_file else None
    content = _read(text)
    results: list[dict[str, Any]] = []
    for name in recipe or [None]:
        with closing(open_session(directory, name, max_seq_len)) as session, progress("windows") as advance:
            results.append(text_perplexity(session, content, context, stride, advance))
    show_rows("perplexity (measured)", comparison(results))
    if result_file:
        result_file.write_json(results[0] if len(results) == 1 else {"recipes": results})


@app.command()
def quantize(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="Folder of the quantized model; one that is there is replaced.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe (flexllm recipes), or a TOML file.")],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Text, or a folder of .txt files, for recipes that look at activations."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Windows of the text.")] = 64,
    length: Annotated[int, typer.Option(min=2, help="Tokens in a window.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of windows.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Quantize a checkpoint into a folder. Run it again after a crash, and it goes on where it was."""
    from .runtime.quantize import Calibration, quantize_folder

    result_file = _output(json_file) if json_file else None
    with progress("quantize") as advance:
        text = Calibration(calibration, samples, length, seed)
        result = quantize_folder(directory, out, recipe, text, advance)
    show_table(
        "quantized",
        {
            "recipe": result["recipe"],
            "weights": f"{result['weights']:,}",
            "bits per weight": f"{result['bits_per_weight']:.3f}",
            "read per token": f"{result['bytes_per_token'] / 1e6:,.2f} MB",
            "on disk": f"{result['bytes_on_disk'] / 1e6:,.2f} MB",
            "seconds": f"{result['seconds']:.1f}",
            "peak memory": f"{result['peak_memory_bytes'] / 1e6:,.0f} MB",
        },
    )
    if result_file:
        result_file.write_json(result)


@app.command()
def report(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="The page, a .html file.")],
    recipe: Recipe = None,
    text: Annotated[
        Path | None, typer.Option(help="Text that the models read, UTF-8. Default: one that ships with it.")
    ] = None,
    float_directory: Annotated[
        Path | None, typer.Option("--float", help="For a quantized folder: the model it was made of.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Text for recipes that look at activations, as for quantize.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Windows of the text.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of windows.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The same as JSON. Default: beside the page.")
    ] = None,
) -> None:
    """Show layer by layer where a recipe loses the signal, the first bad layer, and what to change."""
    from .runtime.report import report_snr

    page_file, data_file = _output(out), _output(json_file or out.with_suffix(".json"))
    if page_file.path == data_file.path:
        raise UsageError("FX703", f'--out and --json are both "{out}"', hint="name the page something.html")
    content = _read(text) if text else None
    with progress("report") as advance:
        result = report_snr(
            directory,
            recipe,
            content,
            float_directory=float_directory,
            calibration=calibration,
            samples=samples,
            seed=seed,
            advance=advance,
        )
    show_table("signal to noise", result.summary)
    if result.advice:
        typer.echo("\n" + result.advice, nl=False)
    page_file.write(result.page.encode())
    data_file.write_json(result.content)


@app.command("estimate")
def show_estimate(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR_OR_NAME", help="A checkpoint, or an architecture such as llama-3.2-1b."),
    ],
    device: Annotated[
        str | None, typer.Option(help="Card the design is for. Default: the preset's, or u280.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1024,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to make.")] = 128,
    preset: Annotated[str, typer.Option(help="Which design: a name, or a file that tune wrote.")] = "default",
    clock: Annotated[float | None, typer.Option(help="MHz. Default: the card's usual clock.")] = None,
    recipe: Recipe = None,
    max_seq_len: MaxSeqLen = None,
    nearest: Annotated[
        bool, typer.Option(help="Of a preset that does not fit: search the nearest setting that does.")
    ] = True,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Estimate a design: cycles, tokens per second, resources, bandwidth, power, and what limits it."""
    from .report.estimate import estimate_page
    from .report.terminal import estimate_text
    from .runtime.estimate import estimate_model
    from .runtime.nearest import estimate_advised

    result_file = _output(json_file) if json_file else None
    page_file = _output(html) if html else None
    with progress("estimate") as advance:
        estimated = partial(estimate_advised, on_step=advance) if nearest else estimate_model
        found = estimated(
            directory,
            device,
            prompt,
            new_tokens,
            preset=preset,
            clock_mhz=clock,
            recipe=recipe,
            max_seq_len=max_seq_len,
        )
    typer.echo(estimate_text(found), nl=False)
    if page_file:
        page_file.write(estimate_page(found).encode())
    if result_file:
        result_file.write_json(found.to_dict())


@app.command("tune")
def tune_design(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR_OR_NAME", help="A checkpoint, or an architecture such as llama-3.2-1b."),
    ],
    device: Annotated[str, typer.Option(help="Card the design is for.")] = "u280",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1024,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to make.")] = 1024,
    objective: Annotated[str, typer.Option(help="latency, throughput (of decode) or energy.")] = "latency",
    mode: Annotated[
        str, typer.Option(help="resident, shared (engines for both), or reconfigured (loaded in turn).")
    ] = "resident",
    clock: Annotated[float | None, typer.Option(help="MHz. Default: the card's usual clock.")] = None,
    recipe: Recipe = None,
    out: Annotated[Path | None, typer.Option(help="Write the preset to this TOML file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Search the parameters of the schedules for a card, and write the best design as a preset."""
    from .report.terminal import estimate_text
    from .runtime.preset import preset_to_toml
    from .runtime.tune import tune, tune_rows

    preset_file, result_file = (_output(path) if path else None for path in (out, json_file))
    with progress("stages estimated") as advance:
        found = tune(
            directory,
            device,
            prompt,
            new_tokens,
            objective=objective,
            mode=mode,
            recipe=recipe,
            clock_mhz=clock,
            name=out.stem if out else "",
            on_step=advance,
        )
    show_rows("designs that none beats in all of this (estimated)", tune_rows(found))
    typer.echo(f"{found.tried} stages estimated in {found.seconds:.1f} s\n")
    typer.echo(estimate_text(found.estimate))
    typer.echo(preset_to_toml(found.preset), nl=False)
    if preset_file:
        preset_file.write(preset_to_toml(found.preset).encode())
    if result_file:
        result_file.write_json(found.estimate.to_dict())


@app.command("systems")
def show_systems(json_file: JsonFile = None) -> None:
    """Hold the decode rates of published accelerators against what documented facts give for them."""
    from .runtime.systems import predictions, system_rows

    result_file = _output(json_file) if json_file else None
    show_rows("decode of published systems, tokens/s (predicted from bytes and bandwidth)", system_rows())
    if result_file:
        result_file.write_json({"predictions": [found.to_dict() for found in predictions()]})


@app.command("recipes")
def show_recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, or a TOML file: print all of it.")] = None,
) -> None:
    """List the recipes, or print one as the TOML that --recipe takes, to be changed."""
    from .quant.recipe_file import recipe_to_toml
    from .quant.recipes import get_recipe, recipes

    if name is None:
        show_table("recipes", {recipe.name: recipe.description for recipe in recipes.values()})
    else:
        typer.echo(recipe_to_toml(get_recipe(name)), nl=False)


@app.command()
def doctor(json_file: JsonFile = None) -> None:
    """List what is installed, and what each missing thing would enable."""
    from .runtime.doctor import diagnose

    result_file = _output(json_file) if json_file else None
    checks = diagnose()
    show_checks(checks)
    if result_file:
        result_file.write_json(
            {
                check.name: {"found": check.found, "enables": check.enables, "install": check.install}
                for check in checks
            }
        )


def main() -> None:
    """Entry point of ``flexllm``."""
    app()


def open_session(directory: Path, recipe: str | None, max_seq_len: int | None = None) -> Session:
    """Load the checkpoint; the import waits until a command needs it."""
    from .runtime.session import Session

    return Session.open(directory, recipe, max_seq_len)


def open_text(
    directory: Path, recipe: str | None, max_seq_len: int | None = None, preset: str | None = None
) -> TextSession:
    """`open_session`, the design of a preset, or a project on a card."""
    if preset is not None:
        from .runtime.reconfigured import open_design

        return open_design(directory, preset, recipe, max_seq_len)
    if not (directory / "config.json").exists():
        from .runtime.xrt_reconfigured import is_project, open_project

        if is_project(directory):
            _refuse_options(directory, {"--recipe": recipe, "--max-seq-len": max_seq_len})
            return open_project(directory)
    return open_session(directory, recipe, max_seq_len)


def _refuse_options(directory: Path, options: dict[str, object]) -> None:
    """A project has a model, a recipe and a context."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            "FX703", f'"{directory}" is a project, {given[0]} is for checkpoints', hint="leave it out"
        )


def _output(path: Path) -> OutputFile:
    from .runtime.outputs import OutputFile

    return OutputFile(path)


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            "FX703",
            f'--tokens "{text}" is not a list of token ids',
            hint="integers separated by commas: 1,2,3",
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            "FX703", f'cannot read the text "{path}": {reason}', hint="a UTF-8 text file"
        ) from error
