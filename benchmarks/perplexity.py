"""Perplexity of every recipe, and of the ladder of methods at W4A4, through the integer path of the kernels.

    python -P benchmarks/perplexity.py [--json benchmarks/perplexity.json] [--only NAME ...]

On the shipped checkpoint, and on the same function with outlier channels planted in it
(`quant.plant_outliers`). Calibration text, seeds and windows are fixed: a second run gives the same numbers.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexllm_allo.models import Model, load_checkpoint
from flexllm_allo.models.calibrate import calibration_tokens
from flexllm_allo.quant import Recipe, plant_outliers, quantize, recipes, weight_storage
from flexllm_allo.quant.formats import INT4_WEIGHT, IntFormat
from flexllm_allo.quant.passes import FoldNorms, Gptq, Rotate, Rtn, Smooth
from flexllm_allo.runtime.outputs import OutputFile
from flexllm_allo.runtime.perplexity import text_perplexity
from flexllm_allo.runtime.session import Session

TINY = Path(__file__).parent.parent / "models" / "tiny"
OUTLIERS = {"fraction": 0.02, "factor": 20.0, "seed": 0, "inner": 10.0}
_A4 = IntFormat(4, "per_token", dynamic=True, zero="integer")


def _w4a4(name: str, *passes: object) -> Recipe:
    return Recipe(f"w4a4-{name}", INT4_WEIGHT, _A4, None, None, "", passes)


LADDER = [
    _w4a4("rtn", Rtn()),
    _w4a4("gptq", Gptq()),
    _w4a4("smooth", Smooth(), Rtn()),
    _w4a4("hadamard-rtn", FoldNorms(), Rotate(), Rtn()),
    _w4a4("hadamard-gptq", FoldNorms(), Rotate(), Gptq()),
    _w4a4("learned-gptq", FoldNorms(), Rotate("learned", "learned"), Gptq()),
]
"""4-bit weights and activations; attention and head in float."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--only", nargs="*", help="recipes to measure; the file is then not written")
    options = parser.parse_args()
    checkpoint = load_checkpoint(TINY)
    text = (TINY / "heldout.txt").read_text(encoding="utf-8")
    samples = calibration_tokens(checkpoint)
    planted = plant_outliers(checkpoint, **OUTLIERS)
    wanted = {r.name: r for r in [*recipes.values(), *LADDER]}
    if options.only:
        wanted = {name: wanted[name] for name in ("none", *options.only)}
    results: dict[str, dict[str, dict[str, float]]] = {}
    settings: dict[str, object] = {}
    for model_name, source in (("tiny", checkpoint), ("tiny with outliers", planted)):
        rows = results[model_name] = {}
        for name, recipe in wanted.items():
            start = time.perf_counter()
            quantized = quantize(source, recipe, samples)
            storage = weight_storage(quantized)
            with closing(Session(Model(checkpoint, quantized))) as session:
                found = text_perplexity(session, text)
            settings = found["settings"]
            rows[name] = {
                "ppl": round(found["ppl"], 4),
                "bits_per_weight": round(storage.bits_per_weight, 3),
                "bytes_per_token": round(storage.bytes_per_token),
            }
            if name == "none":
                base = found["ppl"]
            rows[name]["delta_percent"] = round(100 * (found["ppl"] / base - 1), 2)
            print(
                f"{model_name}: {name} {rows[name]['ppl']} ({time.perf_counter() - start:.1f} s)", flush=True
            )
    _show(results)
    if not options.only:
        content = {"settings": {**settings, "outliers": OUTLIERS}, "results": results}
        OutputFile(options.json).write_json(content)


def _show(results: dict[str, dict[str, dict[str, float]]]) -> None:
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
