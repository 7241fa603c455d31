"""Llama-3.2-1B at full shape as a U280 project: seconds and lines of its C++; with --pack also its weights.

python -P benchmarks/full_shape.py [--recipe NAME] [--device KEY] [--pack] [--json FILE]

All figures are measured, except the bandwidth bounds: estimates from port widths and the data sheet.
Weights are random, made tensor by tensor when they are asked for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from flexllm_allo.backend.hls.toolchain import SHIM, find_ap_headers, find_compiler
from flexllm_allo.errors import ToolError
from flexllm_allo.hardware.devices import device
from flexllm_allo.models import architecture
from flexllm_allo.models.arrays import constant_parts
from flexllm_allo.quant.formats import IntFormat
from flexllm_allo.quant.weight import QuantizedWeight
from flexllm_allo.runtime.bitstream import run_arguments
from flexllm_allo.runtime.build import build_project, hardware_top
from flexllm_allo.runtime.memory_map import memory_map
from flexllm_allo.runtime.packing import pack
from flexllm_allo.staging import StagedFolder

SECONDS, LINES, GIGABYTES = 30.0, 4000, 3.0


class RandomTensors(Mapping):
    """Tensors of an architecture under a recipe of one scale per channel."""

    def __init__(self, model) -> None:
        self.config, self.recipe = model.config, model.weights.recipe

    def __getitem__(self, name: str):
        c, kind = self.config, name.rpartition(".")[2]
        rows, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        e, i = c.hidden_size, c.intermediate_size
        shapes = {"wq": (rows, e), "wk": (kv, e), "wv": (kv, e), "wo": (e, rows), "w_head": (c.vocab_size, e)}
        shapes |= {"w_gate": (i, e), "w_up": (i, e), "w_down": (e, i)}
        random = np.random.default_rng(abs(hash(name)) % 2**32)
        if kind in shapes:
            fmt = self.recipe.weight_of(kind)
            assert isinstance(fmt, IntFormat)
            half = 1 << (fmt.bits - 1)
            codes = random.integers(-half, half, shapes[kind], np.int8)
            return QuantizedWeight(fmt, codes, np.full((len(codes), 1), 1e-3, np.float32))
        if kind == "embed":
            return random.standard_normal((c.vocab_size, e), np.float32)
        heads = c.num_attention_heads if kind in ("q_scale", "p_scale") else c.num_key_value_heads
        return np.ones(heads if kind.endswith("_scale") else e, np.float32)

    def __contains__(self, name: object) -> bool:
        return not str(name).endswith(("outliers", "low_rank", "side"))

    def __iter__(self) -> Iterator[str]:
        return iter(["embed"])

    def __len__(self) -> int:
        return 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="w4a4kv8")
    parser.add_argument("--device", default="u280")
    parser.add_argument("--pack", action="store_true", help="also pack 1.2 G random weights (2 GB of disk)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = emission(Path(folder), options.recipe, options.device)
        if options.pack:
            figures |= packing(Path(folder), options.recipe, options.device)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def emission(folder: Path, recipe: str, card: str) -> dict:
    begin = time.perf_counter()
    out = build_project(Path("llama-3.2-1b"), folder / "p", recipe=recipe, device=card, max_seq_len=2048)
    seconds = time.perf_counter() - begin
    lines = (out / "kernel.cpp").read_text().count("\n")
    manifest = json.loads((out / "manifest.json").read_text())
    return {
        "recipe": recipe,
        "project_seconds": round(seconds, 2),
        "project_within": seconds < SECONDS,
        "kernel_lines": lines,
        "lines_within": lines < LINES,
        "syntax_ok": syntax(out),
        **{f"estimated_{k}": v for k, v in manifest["bandwidth"].items()},
    }


def syntax(out: Path) -> bool | None:
    """Whether g++ accepts the kernel with the open headers; None where these are missing."""
    try:
        compiler, headers = find_compiler(), find_ap_headers()
    except ToolError:
        return None
    includes = [f"-I{path}" for path in (SHIM, headers.path, SHIM / "fallback")]
    command = [str(compiler.path), "-fsyntax-only", "-std=c++17", "-Wno-unknown-pragmas", *includes]
    return subprocess.run([*command, "kernel.cpp"], cwd=out, check=False).returncode == 0


def packing(folder: Path, recipe: str, card: str) -> dict:
    model = architecture("llama-3.2-1b", recipe, 2048)
    model = replace(model, weights=replace(model.weights, tensors=RandomTensors(model)))
    plan = memory_map(hardware_top(model), device(card), 300.0, run_arguments(model))
    begin = time.perf_counter()
    with StagedFolder(folder / "weights", "manifest.json") as staged:
        packed = pack(staged, plan, lambda name: constant_parts(model.weights, name), "random")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "pack_seconds": round(time.perf_counter() - begin, 1),
        "pack_bytes": sum(file.bytes for file in packed.files.values()),
        "peak_gb": round(peak, 2),
        "peak_within": peak < GIGABYTES,
    }


if __name__ == "__main__":
    main()
