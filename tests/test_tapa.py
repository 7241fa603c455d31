"""TAPA: tasks with bounded FIFOs compute what the interpreter does, bit for bit; projects and their tools."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import hls_programs as programs
import numpy as np
import pytest
import test_cpu_streams as networks
from hadamard_stream import streamed
from kernel_cases import CASES, LAYERS, SYMMETRIC, rotated
from test_dataflow import systolic
from test_stages import design, random_model

import flexllm_allo as allo
import flexllm_allo.dataflow as df
from flexllm_allo.backend import tapa
from flexllm_allo.backend.hls import toolchain
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.emit import emit, has_sequential_processes
from flexllm_allo.backend.hls.steps import run_csim
from flexllm_allo.backend.hls.tapa_module import TapaModule
from flexllm_allo.backend.hls.tapa_project import tapa_project
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import BackendError, DeadlockError, TargetError, ToolError, UsageError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.layout import laid_out
from flexllm_allo.ir.types import Stream, int8, int32
from flexllm_allo.runtime.bitstream import golden_arguments
from flexllm_allo.schedules import prefill

try:
    toolchain.find_compiler()
    COMPILER = True
except ToolError:
    COMPILER = False
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


def same(program: ir.Program, *args: Any) -> str:
    """Run on the interpreter and as tasks; the C++ if both give the same bits."""
    outcomes: list[list[Any]] = []
    module = TapaModule(program, mode="csim")
    for engine in (Interpreter(program), module):
        mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        out = engine(*mine)
        results = out if isinstance(out, list) else [] if out is None else [out]
        outcomes.append([np.asarray(x).tobytes() for x in [*results, *mine]])
    assert outcomes[0] == outcomes[1]
    return module.hls_code


def invoked(code: str, upper: str) -> list[str]:
    """The tasks that a task starts."""
    body = code[code.index(f"void {upper}(") :]
    lines = body[: body.index("\n}")].splitlines()
    return [line.split("(")[1].split(",")[0] for line in lines if ".invoke(" in line]


# ------------------------------------------------------------------------------------ the text


def test_the_text_of_tasks() -> None:
    code = emit(programs.producer_consumer(), "tapa")
    tasks = """void top(
  tapa::mmap< ap_fixed<12, 8> > A,
  tapa::mmap< ap_fixed<16, 8> > B
) {
  tapa::streams< ap_fixed<12, 8>, 2, 4 > pipe("pipe");
  tapa::task()
    .invoke(produce, A, pipe)
    .invoke(consume, pipe, B);
}
"""
    assert code.endswith(tasks)
    assert "void produce(\n  tapa::mmap< ap_fixed<12, 8> > A,\n  tapa::ostreams<" in code
    assert "#include <tapa.h>" in code
    assert "interface m_axi" not in code
    assert 'extern "C"' not in code


def body(code: str, function: str) -> str:
    text = code[code.index(f"void {function}(") :]
    return text[text.index(") {") : text.index("\n}")]


def test_leaves_have_the_bodies_of_the_vitis_flow() -> None:
    program = programs.producer_consumer()
    for name in ("produce", "consume"):
        assert body(emit(program, "tapa"), name) == body(emit(program, "vitis"), name)


def test_a_top_that_computes_is_one_task() -> None:
    code = emit(programs.two_layers(), "tapa")
    assert invoked(code, "two_layers") == ["two_layers_leaf"]
    assert "void linear_mem_W(\n  int8_t X[8][4],\n  int8_t *W," in code  # called, not invoked


# ------------------------------------------------------------------------------- the same results


def skip_connection(A: int32[4, 6]) -> int32[4, 6]:
    B: int32[4, 6]
    C: int32[4, 6]
    D: int32[4, 6]
    for i, j in allo.grid(4, 6, name="P"):
        B[i, j] = A[i, j] + 1
    for i, j in allo.grid(4, 6, name="Q"):
        C[i, j] = B[i, j] * 3
    for i, j in allo.grid(4, 6, name="R"):
        D[i, j] = B[i, j] - C[i, j]
    return D


@needs_compiler
def test_a_skip_connection() -> None:
    s = allo.customize(skip_connection)
    s.to(s.B, "Q", depth=2)
    s.to(s.B, "R", depth=2)
    s.to(s.C, "R", depth=2)
    code = same(s.program, np.arange(24, dtype=np.int32).reshape(4, 6))
    assert invoked(code, "skip_connection") == ["skip_connection_P", "skip_connection_Q", "skip_connection_R"]


@needs_compiler
def test_a_systolic_array() -> None:
    A, B = (np.arange(9, dtype=np.int16).reshape(3, 3) - k for k in (2, 5))
    code = same(df.customize(systolic(3)).program, A, B, np.zeros((3, 3), np.int16))
    assert len(invoked(code, "top")) == 21  # 9 elements, 6 feeders, 6 drains; the corners do nothing
    assert code.count("\nvoid ") == 6  # one function per kind of task
    assert "void gemm_0_1(\n  tapa::mmap< int16_t > B,\n" in code  # what it does not use is not passed


@needs_compiler
def test_a_ring_which_no_order_of_processes_simulates() -> None:
    @df.region()
    def ring(A: int32[4], B: int32[4]):
        s: Stream[int32, 2][4]

        @df.kernel(mapping=[4], args=[A, B])
        def node(a: int32[4], b: int32[4]):
            p = df.get_pid()
            v: int32 = a[p]
            total: int32 = v
            for i in range(3):
                s[(p + 1) % 4].put(v)
                v = s[p].get()
                total += v
            b[p] = total

    A, B = np.arange(4, dtype=np.int32), np.zeros(4, np.int32)
    df.build(ring, target="tapa", mode="csim", project=None)(A, B)
    assert B.tolist() == [6] * 4


MODULES = {
    "linear_add": dict(F=LAYERS["channel"], Tx=int8, T=3, N=6, K=8, P=1),
    "swiglu_quantize": dict(A=SYMMETRIC, T=3, N=8),
    "rotate_quantize": dict(A=rotated(SYMMETRIC), R=3, K=8),
}


@needs_compiler
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_a_llama(name: str) -> None:
    """As `prefill.spatial` streams them."""
    sizes = MODULES[name]
    s = allo.customize(CASES[name].kernel, instantiate=sizes)
    prefill.spatial(3, 4).apply(s, [f.name for f in s.program.functions])
    code = same(s.program, *CASES[name].inputs(np.random.default_rng(0), sizes))
    assert len(invoked(code, name)) == 2
    # Rows of the transform overlap: processes that share arrays, which HLS starts.
    assert ("HLS dataflow" in code) == (name == "rotate_quantize")


@needs_compiler
def test_tasks_in_tasks() -> None:
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    code = same(streamed(3, 8).program, x)
    assert invoked(code, "hadamard_stages_3") == ["butterfly", "hadamard_stages_2"]


@needs_compiler
def test_processes_that_share_an_array_are_one_task() -> None:
    n = 6
    half = ir.Program(networks.chain(n, 2, 1).functions, "top")
    assert len(invoked(emit(half, "tapa"), "top")) == 3

    def shared(A: int32[n]) -> int32[n]:
        B: int32[n]
        C: int32[n]
        D: int32[n]
        for i in range(n, name="P"):
            B[i] = A[i] + 1
        for i in range(n, name="Q"):
            C[i] = B[n - 1 - i]
        for i in range(n, name="R"):
            D[i] = C[i] * 2
        return D

    s = allo.customize(shared)
    s.to(s.C, "R", depth=2)
    s.dataflow("shared")
    code = same(s.program, np.arange(n, dtype=np.int32))
    assert invoked(code, "shared") == ["shared_P", "shared_R"]
    assert "int32_t B[6];" in body(code, "shared_P")


@needs_compiler
@pytest.mark.parametrize("seed", [0, 2, 5, 9, 10])
def test_random_networks_end_as_on_the_cpu(seed: int) -> None:
    """With the declared depths: the same sums, or a deadlock in both."""
    program = networks.random_network(random.Random(seed))
    outcomes: list[Any] = []
    for engine in (Interpreter(program), CSimModule(program, flow="tapa")):
        sums = [np.full(1, n + 1, np.int32) for n in range(len(program.function("top").params))]
        try:
            engine(*sums)
            outcomes.append([int(s[0]) for s in sums])
        except DeadlockError:
            outcomes.append("deadlock")
    assert outcomes[0] == outcomes[1]


@needs_compiler
def test_a_deadlock_names_tasks_and_fifos() -> None:
    program = networks.fork_join(12, 1, 4)
    module = TapaModule(program, mode="csim")
    args = [np.arange(12, dtype=np.int32), np.zeros(12, np.int32)]
    with pytest.raises(DeadlockError) as caught:
        module(*args)
    assert caught.value.message == (
        "C simulation of 'top' stopped: deadlock, every task waits: "
        "over_i reads the empty right; over_i writes the full left"
    )
    assert caught.value.code == "FX303"
    assert caught.value.places[0].span.line == 1
    assert "greater depth" in caught.value.hint


@needs_compiler
def test_a_leaf_whose_own_processes_use_its_fifos() -> None:
    """They run one after the other in simulation, so the FIFOs have no end there."""
    n = 6

    def doubled(X: int32[n], Y: int32[n], b: int32) -> (int32[n], int32[n]):
        U: int32[n]
        V: int32[n]
        c: int32 = b * 2
        for i in range(n, name="left"):
            U[i] = X[i] + c
        for i in range(n, name="right"):
            V[i] = Y[i] - c
        return U, V

    def top(A: int32[n]) -> int32[n]:
        X: int32[n]
        Y: int32[n]
        for i in range(n, name="feed"):
            X[i] = A[i]
            Y[i] = A[i] * 2
        U, V = doubled(X, Y, A[0])
        D: int32[n]
        for i in range(n, name="join"):
            D[i] = U[i] * V[i]
        return D

    s = allo.customize(top)
    for buffer, reader in (("X", "doubled"), ("Y", "doubled"), ("U", "join"), ("V", "join")):
        s.to(getattr(s, buffer), reader, depth=2)
    s.dataflow("doubled")
    code = same(s.program, np.arange(n, dtype=np.int32))
    assert "#pragma HLS dataflow" in body(code, "doubled")
    assert has_sequential_processes(s.program)


@needs_compiler
def test_a_whole_design_is_one_leaf_below_the_top() -> None:
    """Prefill and decode of a small Llama, whose top loops over tokens; every argument ends the same."""
    model = random_model("w4a4kv8 static")
    top = design(model, "spatial, temporal").top
    given = golden_arguments(model)
    after: list[dict[str, Any]] = []
    for module in (CSimModule(top, flow="tapa"), LLVMModule(top)):
        laid = {b.name: laid_out(b, given[b.name]) for b in top.function(top.top).inputs}
        after.append({n: a.copy() if isinstance(a, np.ndarray) else a for n, a in laid.items()})
        after[-1]["made"] = module(*after[-1].values())
    for name, array in after[0].items():
        np.testing.assert_array_equal(array, after[1][name])
    assert after[0]["made"] == 5
    assert invoked(emit(top, "tapa"), "generate") == ["generate_leaf"]


# ------------------------------------------------------------------------------------- projects


@pytest.fixture
def project(tmp_path: Path) -> tuple[TapaModule, Path]:
    program = programs.two_layers()
    x, w = np.ones((8, 4), np.int8), np.ones((2, 16, 4), np.int8)
    y, first = Interpreter(program)(x, w, 1)
    configs = {"data": {"X": x, "W": w, "layer": 1}, "golden": {"Y": y, "first": first}, "frequency": 250}
    return TapaModule(program, mode="csyn", project=tmp_path / "p", configs=configs), tmp_path / "p"


def test_files_of_a_project(project: tuple[TapaModule, Path]) -> None:
    module, folder = project
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "Makefile", "README.md", "data", "flexllm_ap.h", "flexllm_numerics.h", "kernel.cpp", "kernel.h",
        "manifest.json", "shim", "tapa_host.cpp", "two_layers.cfg",
    }  # fmt: skip
    assert (folder / "shim" / "tapa.h").is_file()
    make = (folder / "Makefile").read_text()
    assert "compile --input kernel.cpp --top two_layers --part-num xcu280-fsvh2892-2L-e" in make
    assert "--clock-period 4.00" in make
    assert module.tapa_host == module.host_code == (folder / "tapa_host.cpp").read_text()
    assert "tapa::read_only_mmap<int8_t >(X_.data(), 32)" in module.host_code
    assert tapa.codegen_host("two_layers", programs.two_layers()).count("tapa::invoke(two_layers,") == 1


def test_more_ports_than_a_card_takes_are_said() -> None:
    """Every array is a port of its own."""

    def first(W: int8[4][40]) -> int8[4]:
        Y: int8[4]
        for i in range(4):
            Y[i] = W[0][i]
        return Y

    program = allo.customize(first).program
    note = "The top task has 41 memory ports, 7 more than AMD Alveo U280 takes (34)"
    assert note in tapa_project(program).files["README.md"].decode()
    assert "memory ports" not in tapa_project(programs.two_layers()).files["README.md"].decode()


@needs_compiler
def test_make_csim_passes_and_notices_one_wrong_byte(project: tuple[TapaModule, Path]) -> None:
    _, folder = project
    assert run_csim(folder) == "PASS"
    golden = folder / "data" / "golden_Y.bin"
    golden.write_bytes(b"\x7f" + golden.read_bytes()[1:])
    with pytest.raises(ToolError, match="Y: 1 of 128 elements differ, the first at 0"):
        run_csim(folder)


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)


def test_without_tapa_the_project_stays(
    project: tuple[TapaModule, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, folder = project
    real = toolchain.shutil.which
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name == "tapa" else real(name))
    with pytest.raises(ToolError) as caught:
        module()
    assert caught.value.code == "FX501"
    assert caught.value.message == (
        f"tapa is not available (looked for tapa on the PATH); the finished project is in {folder}"
    )
    assert caught.value.hint.startswith("install TAPA (rapidstream-tapa) and AMD Vitis")
    assert (folder / "kernel.cpp").is_file()


TAPA = """echo "$@" >> called
[ "$1" = g++ ] && { printf '#!/bin/sh\necho "$@" > run\ncp data/golden_Y.bin out_Y.bin\n' > host
  echo 'cp data/golden_first.bin out_first.bin' >> host; chmod +x host; exit 0; }
[ -e licence ] || { echo 'ERROR: [HLS 200-1] no licence'; exit 1; }
touch two_layers.xo
"""


def test_tapa_is_called_and_goes_on_where_it_failed(
    project: tuple[TapaModule, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, folder = project
    stub(folder.parent / "bin", "tapa", TAPA)
    stub(folder.parent / "bin", "v++", 'echo "$@" > linked\ntouch two_layers.hw.xclbin\n')
    monkeypatch.setenv("PATH", f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ToolError, match=r"step tapa: make failed: ERROR: \[HLS 200-1\] no licence") as caught:
        module()
    assert "tapa.log; the next run goes on with step tapa" in caught.value.hint
    (folder / "licence").touch()
    assert module() == folder / "two_layers.xo"
    assert (folder / "called").read_text().count("compile") == 2
    assert module() == folder / "two_layers.xo"
    assert (folder / "called").read_text().count("compile") == 2  # finished steps are not repeated
    module.mode = "hw"
    assert module() == folder / "two_layers.hw.xclbin"
    assert "--kernel_frequency 250 two_layers.xo -o two_layers.hw.xclbin" in (folder / "linked").read_text()


def test_a_design_is_run_on_arguments(
    project: tuple[TapaModule, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, folder = project
    stub(folder.parent / "bin", "tapa", TAPA)
    monkeypatch.setenv("PATH", f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (folder / "licence").touch()
    module.mode = "fast_hw_emu"
    x, w = np.ones((8, 4), np.int8), np.full((2, 16, 4), 2, np.int8)
    y, first = module(x, w, 1)
    assert y.tolist() == [[4] * 16] * 8  # what the stub left: the golden data of the project
    assert first == 4
    assert (folder / "data" / "W.bin").read_bytes() == w.tobytes()
    assert (folder / "run").read_text() == "data two_layers.xo\n"


# ------------------------------------------------------------------------------------- refusals


def test_modes_and_options_are_checked() -> None:
    program = programs.two_layers()
    with pytest.raises(BackendError, match="Invalid mode cosim"):
        TapaModule(program, mode="cosim")
    with pytest.raises(UsageError, match='unknown entry "bundles" in configs'):
        TapaModule(program, configs={"bundles": {}})
    with pytest.raises(TargetError, match="mode csyn takes no arguments"):
        TapaModule(program, mode="csyn")(1)
    with pytest.raises(TargetError, match="text only"):
        TapaModule(program)()


def test_a_part_of_an_array_of_fifos_is_refused() -> None:
    fifos, row = networks.fifo("grid", 2, 2, 3), networks.fifo("row", 2, 3)
    fill = networks.function("fill", [row], networks.put("row", networks.const(1), networks.index(0)))
    rows = [ir.Call("fill", (ir.View("grid", (networks.index(k),)),)) for k in range(2)]
    both = networks.function("both", [fifos], *rows)
    top = networks.function("top", [], ir.Alloc(fifos), networks.call("both", "grid"))
    with pytest.raises(BackendError) as caught:
        emit(networks.program(fill, both, top), "tapa")
    assert caught.value.code == "FX403"
    assert caught.value.message == "TAPA cannot pass a part of the array of FIFOs 'grid'"
    assert caught.value.places[0].span == fifos.span
