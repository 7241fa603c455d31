"""How long it takes from `import` to the first result: measured, the best of several runs, in milliseconds.

python -P benchmarks/compile_time.py
"""

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int8, int32

SIZE = 256


def gemm(A: int8[SIZE, SIZE], B: int8[SIZE, SIZE]) -> int32[SIZE, SIZE]:
    C: int32[SIZE, SIZE] = 0
    for i, j, k in allo.grid(SIZE, SIZE, SIZE, name="mac"):
        C[i, j] += A[i, k] * B[k, j]
    return C


def scheduled() -> allo.Schedule:
    s = allo.customize(gemm)
    s.split("j", 16)
    s.reorder("k", "j.inner")
    s.pipeline("k")
    s.unroll("j.inner")
    return s


def best(work: Callable[[], object], runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    bare, ours = (
        best(lambda code=code: subprocess.run([sys.executable, "-P", "-c", code], check=True))
        for code in ("import numpy", "import flexllm_allo")
    )
    s = scheduled()
    module = s.build()
    rng = np.random.default_rng(0)
    A, B = (rng.integers(-128, 128, (SIZE, SIZE), dtype=np.int8) for _ in range(2))
    run = best(lambda: module(A, B))
    rows = {
        "import flexllm_allo, beyond numpy": ours - bare,
        "customize": best(lambda: allo.customize(gemm)),
        "customize and four primitives": best(scheduled),
        "build for LLVM": best(s.build),
        f"run, int8 gemm {SIZE}^3": run,
    }
    for name, milliseconds in rows.items():
        print(f"{name:36s} {milliseconds:9.2f} ms")
    print(f"{'throughput':36s} {SIZE**3 / run / 1e6:9.2f} GMAC/s")


if __name__ == "__main__":
    main()
