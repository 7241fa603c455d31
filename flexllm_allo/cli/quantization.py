"""Commands on quantization: quantize, report, recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..terminal import progress, show_table
from .app import app
from .files import output, read_text
from .options import Directory, JsonFile, Recipe


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
    from ..runtime.quantize import Calibration, quantize_folder

    result_file = output(json_file) if json_file else None
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
    from ..runtime.report import report_snr

    page_file, data_file = output(out), output(json_file or out.with_suffix(".json"))
    if page_file.path == data_file.path:
        raise UsageError("FX703", f'--out and --json are both "{out}"', hint="name the page something.html")
    content = read_text(text) if text else None
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


@app.command("recipes")
def show_recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, or a TOML file: print all of it.")] = None,
) -> None:
    """List the recipes, or print one as the TOML that --recipe takes, to be changed."""
    from ..quant.recipe_file import recipe_to_toml
    from ..quant.recipes import get_recipe, recipes

    if name is None:
        show_table("recipes", {recipe.name: recipe.description for recipe in recipes.values()})
    else:
        typer.echo(recipe_to_toml(get_recipe(name)), nl=False)
