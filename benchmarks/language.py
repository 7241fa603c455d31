"""How fast the language is: front end, primitives, calls, memory, and gemm on the CPU; all measured.

python -P benchmarks/language.py [--json FILE]

Each figure is the best of several runs, next to its target and to what Allo needs for the same (measured
with Allo built against LLVM 22 on two cores of a server CPU).
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32, int8, int32
from flexllm_allo.library.systolic import schedule_systolic, systolic

SIZE = 512
MANY = 160  # loop nests in the large module


@dataclass(frozen=True)
class Figure:
    """One measurement: at most `target`; `original` is Allo's."""

    name: str
    value: float
    unit: str
    target: float
    original: str

    @property
    def met(self) -> bool:
        return self.value <= self.target


def best(work: Callable[[], object], runs: int = 7) -> float:
    """Seconds of the fastest run; the first one only warms up."""
    work()
    times: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def gemm(A: int8[SIZE, SIZE], B: int8[SIZE, SIZE]) -> int32[SIZE, SIZE]:
    C: int32[SIZE, SIZE] = 0
    for i, j, k in allo.grid(SIZE, SIZE, SIZE):
        C[i, j] += A[i, k] * B[k, j]
    return C


def gemm_float(A: float32[SIZE, SIZE], B: float32[SIZE, SIZE]) -> float32[SIZE, SIZE]:
    C: float32[SIZE, SIZE] = 0.0
    for i, j, k in allo.grid(SIZE, SIZE, SIZE):
        C[i, j] += A[i, k] * B[k, j]
    return C


def increment(A: int32[16]) -> int32[16]:
    B: int32[16]
    for i in range(16):
        B[i] = A[i] + 1
    return B


def large_result() -> int32[1024, 1024]:
    B: int32[1024, 1024] = 1
    return B


def front_end() -> list[Figure]:
    nests = "".join(f"    for i{n} in range(16):\n        B[i{n}] = A[i{n}] + B[i{n}]\n" for n in range(MANY))
    source = f"def many(A: int32[16], B: int32[16]):\n{nests}"

    def customize() -> allo.Schedule:
        return allo.customize(source, global_vars={"int32": int32})

    def primitives(s: allo.Schedule) -> float:
        start = time.perf_counter()
        for n in range(20):
            s.pipeline(f"i{8 * n}")
        return (time.perf_counter() - start) / 20

    per_nest = 1e3 * best(customize, 3) / MANY
    per_primitive = 1e3 * min(primitives(customize()) for _ in range(5))
    return [
        Figure("customize, per loop nest", per_nest, "ms", 2, "65"),
        Figure(f"a primitive in a module of {MANY} loops", per_primitive, "ms", 1, "9.9"),
    ]


def composition(side: int = 16) -> list[Figure]:
    """The products of a GPT-2 block (L 64, D 768, F 3072) on systolic arrays, composed of schedules."""
    L, D, F = 64, 768, 3072

    def block(X: int8[L, D], W: int8[4, D, D], U: int8[D, F], V: int8[F, D], H: int8[L, F]):
        P: int32[L, D] = 0
        R: int32[L, F] = 0
        systolic[int8, int8, int32, L, D, D, side, side, "q"](X, W[0], P)
        systolic[int8, int8, int32, L, D, D, side, side, "k"](X, W[1], P)
        systolic[int8, int8, int32, L, D, D, side, side, "v"](X, W[2], P)
        systolic[int8, int8, int32, L, D, D, side, side, "o"](X, W[3], P)
        systolic[int8, int8, int32, L, D, F, side, side, "up"](X, U, R)
        systolic[int8, int8, int32, L, F, D, side, side, "down"](H, V, P)

    def composed() -> None:
        s = allo.customize(block)
        for m, k, n, ids in [(L, D, D, "q k v o"), (L, D, F, "up"), (L, F, D, "down")]:
            inner = schedule_systolic(
                allo.customize(systolic, instantiate=[int8, int8, int32, m, k, n, side, side])
            )
            for id in ids.split():
                s.compose(inner, id=id)

    return [
        Figure(f"GPT-2 block on {side} x {side} systolic arrays, composed", best(composed, 1), "s", 5, "1709")
    ]


def calls() -> list[Figure]:
    module, a = allo.customize(increment).build(), np.arange(16, dtype=np.int32)

    def many_calls() -> None:
        for _ in range(2000):
            module(a)

    large = allo.customize(large_result).build()
    large()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(50):
        large()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [
        Figure("a call with an array of 16", 1e6 * best(many_calls) / 2000, "us", 30, "406"),
        Figure("memory after 50 results of 4 MiB", grown, "MiB", 16, "200"),
    ]


def products() -> list[Figure]:
    r = np.random.default_rng(0)
    small = [r.integers(-128, 128, (SIZE, SIZE), dtype=np.int8) for _ in range(2)]
    real = [r.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2)]

    def scheduled(kernel: Callable[..., Any]) -> Any:
        s = allo.customize(kernel)
        s.split("i", 4)
        s.split("j", 64)
        s.reorder("i.outer", "j.outer", "k", "i.inner", "j.inner")  # 4 x 64 sums stay in registers
        return s.build()

    rows = [
        (f"int8 gemm {SIZE}^3, plain", allo.customize(gemm).build(), small, 15, "84"),
        (f"int8 gemm {SIZE}^3, scheduled", scheduled(gemm), small, 6, "7.6"),
        (f"float32 gemm {SIZE}^3, plain", allo.customize(gemm_float).build(), real, 40, "328"),
        (f"float32 gemm {SIZE}^3, scheduled", scheduled(gemm_float), real, 8, "8.2"),
    ]
    return [
        Figure(name, 1e3 * best(lambda m=module, x=inputs: m(*x)), "ms", target, original)
        for name, module, inputs, target, original in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = [*front_end(), *composition(), *calls(), *products()]
    print(f"{'':56s} {'measured':>11s} {'target':>8s} {'Allo':>8s}")
    for f in figures:
        late = "" if f.met else "  missed"
        print(f"{f.name:56s} {f.value:8.2f} {f.unit:>3s} {f.target:8g} {f.original:>8s}{late}")
    if options.json:
        options.json.write_text(json.dumps([asdict(f) | {"met": f.met} for f in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
