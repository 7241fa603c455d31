"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Design = Annotated[
    Path,
    typer.Argument(metavar="DIR_OR_NAME", help="A checkpoint, or an architecture such as llama-3.2-1b."),
]
Clock = Annotated[float | None, typer.Option(min=1, max=2000, help="MHz. Default: the card's usual clock.")]
