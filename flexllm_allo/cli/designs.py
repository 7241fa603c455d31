"""Commands on designs: demo, build, estimate, tune, systems, doctor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..terminal import progress, show_checks, show_rows, show_table
from .app import app
from .files import output
from .options import Clock, Design, Directory, JsonFile, MaxSeqLen, Recipe


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("build/demo"),
) -> None:
    """Run the shipped checkpoint end to end: CPU, C simulation, perplexity, Vitis HLS project."""
    from ..runtime.demo import run_demo

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
    from ..runtime.build import build_project, report_text

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
    if mode == "csim":
        typer.echo("C simulation: PASS (csim.log)")
    if mode is not None:
        typer.echo(report_text(project), nl=False)
    typer.echo(project)


@app.command("estimate")
def show_estimate(
    directory: Design,
    device: Annotated[
        str | None, typer.Option(help="Card the design is for. Default: the preset's, or u280.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1024,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to make.")] = 128,
    preset: Annotated[str, typer.Option(help="Which design: a name, or a file that tune wrote.")] = "default",
    clock: Clock = None,
    recipe: Recipe = None,
    max_seq_len: Annotated[
        int | None, typer.Option(min=1, help="Positions of the KV cache. Default: those of the run.")
    ] = None,
    nearest: Annotated[
        bool, typer.Option(help="Of a preset that does not fit: search the nearest setting that does.")
    ] = True,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Estimate a design: cycles, tokens per second, resources, bandwidth, power, and what limits it."""
    from ..report.estimate import estimate_page
    from ..report.terminal import estimate_text
    from ..runtime.estimate import estimate_model
    from ..runtime.preset import DEFAULT, presets
    from ..runtime.search.nearest import estimate_advised

    result_file = output(json_file) if json_file else None
    page_file = output(html) if html else None
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
    if preset == DEFAULT:
        typer.echo("\nthis is the default design, a small one; flexllm tune finds faster ones")
        typer.echo(f"--preset takes one by name: {', '.join(presets())}")
    if page_file:
        page_file.write(estimate_page(found).encode())
    if result_file:
        result_file.write_json(found.to_dict())


@app.command("tune")
def tune_design(
    directory: Design,
    device: Annotated[str, typer.Option(help="Card the design is for.")] = "u280",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 1024,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to make.")] = 1024,
    objective: Annotated[str, typer.Option(help="latency, throughput (of decode) or energy.")] = "latency",
    mode: Annotated[
        str, typer.Option(help="resident, shared (engines for both), or reconfigured (loaded in turn).")
    ] = "resident",
    clock: Clock = None,
    recipe: Recipe = None,
    out: Annotated[Path | None, typer.Option(help="Write the preset to this TOML file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Search the parameters of the schedules for a card, and write the best design as a preset."""
    from ..report.terminal import estimate_text
    from ..runtime.preset import preset_to_toml
    from ..runtime.search.tune import tune, tune_rows

    preset_file, result_file = (output(path) if path else None for path in (out, json_file))
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
    from ..runtime.systems import predictions, system_rows

    result_file = output(json_file) if json_file else None
    show_rows("decode of published systems, tokens/s (predicted from bytes and bandwidth)", system_rows())
    if result_file:
        result_file.write_json({"predictions": [found.to_dict() for found in predictions()]})


@app.command()
def doctor(json_file: JsonFile = None) -> None:
    """List what is installed, and what each missing thing would enable."""
    from ..runtime.doctor import diagnose

    result_file = output(json_file) if json_file else None
    checks = diagnose()
    show_checks(checks)
    if result_file:
        result_file.write_json(
            {
                check.name: {"found": check.found, "enables": check.enables, "install": check.install}
                for check in checks
            }
        )
