"""Seconds that estimates take: a kernel, and the hybrid top of Llama-3.2-1B at full shape.

python -P benchmarks/estimate_time.py [--recipe NAME] [--device KEY] [--json FILE]

All figures are measured; what the estimates say is estimated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import flexllm_allo as allo
from flexllm_allo.kernels.norm import rms_norm
from flexllm_allo.models import architecture
from flexllm_allo.runtime.build import hardware_top

KERNEL_SECONDS, TOP_SECONDS = 0.05, 5.0
RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="w4a4kv8")
    parser.add_argument("--device", default="u280")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = kernel(options.device) | top(options.recipe, options.device)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def kernel(card: str) -> dict:
    """The median over a few runs; the first one also reads tables."""
    s = allo.customize(rms_norm, instantiate={"T": 8, "E": 2048})
    s.pipeline("e_sum")
    s.pipeline("e_out")
    s.estimate(card)
    seconds = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        found = s.estimate(card)
        seconds.append(time.perf_counter() - begin)
    median = sorted(seconds)[RUNS // 2]
    return {
        "kernel_ms": round(1e3 * median, 1),
        "kernel_within": median < KERNEL_SECONDS,
        "estimated_kernel_cycles": found.cycles,
    }


def top(recipe: str, card: str) -> dict:
    begin = time.perf_counter()
    schedule = hardware_top(architecture("llama-3.2-1b", recipe, 2048)).schedule
    made = time.perf_counter()
    found = schedule.estimate(card, n_prompt=1024, new_tokens=1024)
    seconds = time.perf_counter() - made
    return {
        "recipe": recipe,
        "schedule_seconds": round(made - begin, 2),
        "top_seconds": round(seconds, 2),
        "top_within": seconds < TOP_SECONDS,
        "estimated_prefill_s": round(found.prefill_s, 3),
        "estimated_decode_s": round(found.decode_s, 3),
    }


if __name__ == "__main__":
    main()
