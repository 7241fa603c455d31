"""One arithmetic: random kernels under random schedules give the same bits on every backend.

The unscheduled kernel in the interpreter is compared with the scheduled one as machine code, and with the
scheduled one as compiled HLS C++.  300 cases in `make test`, 10,000 with HYPOTHESIS_PROFILE=nightly.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import random_kernels
from hypothesis import given, note, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import ToolError
from flexllm_allo.ir.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::flexllm_allo.errors.DTypeWarning")
CASES = settings().max_examples
COMPILED, BATCH = CASES // 4, 25  # cases that also go through a C++ compiler, and how many at a time


def same_bits(a: object, b: object) -> bool:
    """Equal in every bit; any NaN equals any NaN."""
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind == "f":
        nan = np.isnan(x) & np.isnan(y)
        return bool(np.all(nan | ((x == y) & (np.signbit(x) == np.signbit(y)))))
    return x.dtype == y.dtype and x.tobytes() == y.tobytes()


def draw(r: random.Random, name: str = "kernel") -> tuple[random_kernels.RandomKernel, allo.Schedule]:
    kernel = random_kernels.RandomKernel(r, name)
    return kernel, allo.customize(kernel.source, global_vars=random_kernels.NAMES)


@settings(max_examples=CASES - COMPILED)
@given(st.randoms(use_true_random=False))
def test_machine_code_equals_the_interpreter(r: random.Random) -> None:
    kernel, s = draw(r)
    inputs = kernel.inputs()
    expected = Interpreter(s.program)(*inputs)
    random_kernels.schedule(s, r)
    note(f"{kernel.source}\n{s.trace}\n{inputs}")
    verify(s.program)
    got = LLVMModule(s.program)(*inputs)
    assert same_bits(expected, got), f"interpreter {expected}, LLVM {got}"


def _compiles() -> bool:
    try:
        find_compiler()
        find_ap_headers()
    except ToolError:
        return False
    return True


@pytest.mark.skipif(not _compiles(), reason="no C++ compiler or no ap_int headers")
@pytest.mark.parametrize("batch", range(COMPILED // BATCH))
def test_compiled_hls_equals_the_interpreter(batch: int) -> None:
    r = random.Random(batch)
    sources: list[str] = []
    programs, inputs, expected = [], [], []
    for n in range(BATCH):
        kernel, s = draw(r, f"kernel_{n}")
        arguments: list[Any] = kernel.inputs()
        expected.append(Interpreter(s.program)(*arguments))
        random_kernels.schedule(s, r)
        sources.append(f"{kernel.source}\n{s.trace}\n{arguments}")
        programs.append(s.program)
        inputs += arguments
    program = verify(random_kernels.merged(programs))
    for got in (CSimModule(program)(*inputs), LLVMModule(program)(*inputs)):
        for source, a, b in zip(sources, expected, got, strict=True):
            assert same_bits(a, b), f"{source}\ninterpreter {a}\ncompiled {b}"
