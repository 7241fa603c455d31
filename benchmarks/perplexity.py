"""Perplexity of every recipe, and of the ladder of methods at W4A4, through the integer path of the kernels.

    python -P benchmarks/perplexity.py [--json benchmarks/perplexity.json] [--only NAME ...] [--check FILE]

On the shipped checkpoint, and on the same function with outlier channels planted in it
(`quant.plant_outliers`). Calibration text, seeds and windows are fixed: a second run gives the same numbers,
which ``--check`` says, or which of them it does not.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexllm_allo.models import Checkpoint, Model, load_checkpoint
from flexllm_allo.models.calibrate import Calibration, calibration_tokens
from flexllm_allo.quant import Recipe, plant_outliers, quantize, recipes, weight_storage
from flexllm_allo.quant.calibration import Samples
from flexllm_allo.quant.formats import INT4_WEIGHT, IntFormat
from flexllm_allo.quant.model import FloatModel
from flexllm_allo.quant.passes import FoldNorms, Gptq, Rotate, Rtn, Smooth
from flexllm_allo.runtime.outputs import OutputFile
from flexllm_allo.runtime.perplexity import text_perplexity
from flexllm_allo.runtime.session import Session

TINY = Path(__file__).parent.parent / "models" / "tiny"
OUTLIERS = {"fraction": 0.02, "factor": 20.0, "seed": 0, "inner": 10.0}
SHARED = ("windows", "context", "stride", "bos", "tokens_sha256", "text_sha256", "stage", "dtype")
_A4 = IntFormat(4, "per_token", dynamic=True, zero="integer")


Row = dict[str, float]
Results = dict[str, dict[str, Row]]
"""By model and recipe."""


def _w4a4(name: str, *passes: object) -> Recipe:
    return Recipe(f"w4a4-{name}", INT4_WEIGHT, _A4, None, None, "", passes)


LADDER = [
    _w4a4("rtn", Rtn()),
    _w4a4("gptq", Gptq()),
    _w4a4("smooth", Smooth(), Rtn()),
    _w4a4("hadamard-rtn", FoldNorms(), Rotate(), Rtn()),
    _w4a4("hadamard-gptq", FoldNorms(), Rotate(), Gptq()),
    _w4a4("learned-rtn", FoldNorms(), Rotate("learned", "learned"), Rtn()),
    _w4a4("learned-gptq", FoldNorms(), Rotate("learned", "learned"), Gptq()),
]
"""4-bit weights and activations; attention and head in float."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--only", nargs="*", help="recipes to measure; the file is then not written")
    parser.add_argument("--check", type=Path, help="a file to compare with; nothing is written then")
    options = parser.parse_args()
    stored = json.loads(options.check.read_text(encoding="utf-8"))["results"] if options.check else None
    wanted = {r.name: r for r in [*recipes.values(), *LADDER]}
    if options.only:
        wanted = {name: wanted[name] for name in ("none", *options.only)}
    checkpoint, calibration = load_checkpoint(TINY), Calibration()
    samples = calibration_tokens(checkpoint, calibration)
    results: Results = {}
    settings: dict[str, object] = {}
    for name, source in (
        ("tiny", checkpoint),
        ("tiny with outliers", plant_outliers(checkpoint, **OUTLIERS)),
    ):
        results[name], settings = _measure(name, checkpoint, source, wanted, samples)
    _show(results)
    if stored is not None:
        _check(results, stored, options.check)
    elif not options.only:
        chosen = {"samples": calibration.samples, "length": samples.shape[1], "seed": calibration.seed}
        about = {**settings, "calibration": chosen, "outliers": OUTLIERS}
        OutputFile(options.json).write_json({"settings": about, "results": results})


def _measure(
    model: str, checkpoint: Checkpoint, source: FloatModel, wanted: dict[str, Recipe], samples: Samples
) -> tuple[dict[str, Row], dict[str, object]]:
    """A row per recipe, and the settings that all of them share."""
    text = (TINY / "heldout.txt").read_text(encoding="utf-8")
    rows: dict[str, Row] = {}
    settings: dict[str, object] = {}
    base = math.nan  # the float model's, which comes first
    for name, recipe in wanted.items():
        start = time.perf_counter()
        quantized = quantize(source, recipe, samples)
        storage = weight_storage(quantized)
        with closing(Session(Model(checkpoint, quantized))) as session:
            found = text_perplexity(session, text)
        settings = {key: found["settings"][key] for key in SHARED}
        rows[name] = {
            "ppl": round(found["ppl"], 4),
            "bits_per_weight": round(storage.bits_per_weight, 3),
            "bytes_per_token": round(storage.bytes_per_token),
        }
        base = found["ppl"] if name == "none" else base
        rows[name]["delta_percent"] = round(100 * (found["ppl"] / base - 1), 2)
        print(f"{model}: {name} {rows[name]['ppl']} ({time.perf_counter() - start:.1f} s)", flush=True)
    return rows, settings


def _check(results: Results, stored: Results, path: Path) -> None:
    """Say whether perplexities have the same first 4 digits as the stored ones.

    Raises:
        SystemExit: with those that have not.
    """
    found = {(model, name): row["ppl"] for model, rows in results.items() for name, row in rows.items()}
    known = {at: stored.get(at[0], {}).get(at[1], {}).get("ppl", math.nan) for at in found}
    other = [at for at in found if f"{found[at]:.4g}" != f"{known[at]:.4g}"]
    if other:
        lines = [f"{model}: {name} {found[model, name]}, not {known[model, name]}" for model, name in other]
        raise SystemExit("\n".join([f"not the same as {path}:", *lines]))
    exact = sum(found[at] == known[at] for at in found)
    print(f"{len(found)} perplexities, the same to 4 digits as {path} ({exact} in every digit)")


def _show(results: Results) -> None:
    table = Table(title="Perplexity (measured)")
    for heading in ("model", "recipe", "perplexity", "change", "bits/weight", "bytes/token"):
        table.add_column(heading, justify="left" if heading in ("model", "recipe") else "right")
    for model, rows in results.items():
        for name, row in rows.items():
            table.add_row(
                model, name, f"{row['ppl']:.3f}", f"{row['delta_percent']:+.2f} %",
                f"{row['bits_per_weight']:.2f}", f"{row['bytes_per_token']:,.0f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
