"""The text of the HLS C++: goldens for whole programs, single rules one by one."""

from __future__ import annotations

import os
from pathlib import Path

import hls_programs as programs
import numpy as np
import pytest
from hls_programs import INT8, const, load, loop, var

from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.emit import emit, emit_header, uses_ap
from flexllm_allo.backend.hls.module import HLSModule
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import BackendError, UsageError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import INT32, DType, Float, Int, UInt

GOLDENS = Path(__file__).parent / "goldens"
CASES = {
    "two_layers_vitis": (programs.two_layers, "vitis"),
    "two_layers_vhls": (programs.two_layers, "vhls"),
    "producer_consumer_vitis": (programs.producer_consumer, "vitis"),
    "softmax_vhls": (programs.softmax_row, "vhls"),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """`UPDATE_GOLDENS=1 pytest tests/test_hls_emit.py` writes them anew; read the difference."""
    make, flow = CASES[name]
    text = emit(make(), flow)  # type: ignore[arg-type]
    path = GOLDENS / f"{name}.cpp"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(text)
    assert text == path.read_text()


def test_the_programs_of_the_goldens_compute_the_same_in_c_simulation() -> None:
    random = np.random.default_rng(0)
    x, w = random.integers(-128, 128, (8, 4), np.int8), random.integers(-128, 128, (2, 16, 4), np.int8)
    y, first = CSimModule(programs.two_layers())(x, w, 0)
    np.testing.assert_array_equal(y, x.astype(int) @ w[1].T.astype(int))
    assert first == int(x[0].astype(int) @ w[0, 0].astype(int))
    floats = random.standard_normal(8).astype(np.float32)
    here, there = floats.copy(), floats.copy()
    Interpreter(programs.softmax_row())(here, 5)
    assert CSimModule(programs.softmax_row())(there, 5) is None
    assert here.tobytes() == there.tobytes()
    assert not np.array_equal(here, floats)


def body_of(*stmts: ir.Stmt, params: tuple[ir.Buffer, ...] = (), flow: str = "vhls") -> str:
    text = emit(ir.Program((ir.Function("f", params, stmts),), "f"), flow)  # type: ignore[arg-type]
    return text[text.index(") {") :]


def assigned(value: ir.Expr, dtype: DType, *params: ir.Buffer) -> str:
    text = body_of(ir.Store("out", (), value), params=(*params, ir.Buffer("out", dtype)))
    return text.split("out = ")[1].split(";")[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1f"),
        (1.0, "1.0f"),
        (-2.5, "-2.5f"),
        (1e-7, "1.0e-07f"),
        (3.4028234663852886e38, "3.4028235e+38f"),
        (float("inf"), "(float)INFINITY"),
    ],
)
def test_floats_read_back_as_themselves(value: float, text: str) -> None:
    assert assigned(const(value, Float(32, 23)), Float(32, 23)) == text


def test_casts_appear_only_where_cpp_differs() -> None:
    a, b = ir.Buffer("a", INT8), ir.Buffer("b", UInt(32))
    nine = Int(9)
    add = ir.Binary("+", ir.Cast(load("a", INT8), nine), const(1, nine), nine)
    assert assigned(add, nine, a) == "a + 1"
    mixed = ir.Binary("<", ir.Cast(load("a", INT8), Int(33)), ir.Cast(load("b", UInt(32)), Int(33)), UInt(1))
    assert assigned(mixed, UInt(1), a, b) == "(int64_t)a < b"
    narrow = ir.Binary("*", ir.Cast(add, Int(4)), const(3, Int(4)), Int(8))
    assert assigned(narrow, Int(8), a) == "flexllm::wrap<4>(a + 1) * 3"


def test_floor_division_needs_a_helper_only_for_negative_values() -> None:
    index = ir.Buffer("A", INT32, (16,))
    last = ir.Binary("//", var("i"), const(4), var("i").type)
    text = body_of(loop("i", 16, ir.Store("A", (last,), ir.Cast(var("i"), INT32))), params=(index,))
    assert "A[i / 4] = i;" in text
    signed = ir.Binary("//", load("x", INT32), const(4, INT32), INT32)
    assert assigned(signed, INT32, ir.Buffer("x", INT32)) == "flexllm::floor_div<int>(x, 4)"


def test_names_stay_legal_and_unique() -> None:
    a, clash = ir.Buffer("int", INT32, (4,)), ir.Buffer("f", INT32)
    store = ir.Store("int", (var("x.outer"),), load("f", INT32))
    text = body_of(
        loop("x.outer", 4, store, band="s"), loop("x.outer", 4, store, band="s"), params=(a, clash)
    )
    assert "l_s_x_outer: for (int x_outer = 0; x_outer < 4; x_outer++) {" in text
    assert "l_s_x_outer1: for (int x_outer = 0;" in text
    assert "int1[x_outer] = f1;" in text


def test_zero_fills_have_no_label() -> None:
    fill = ir.Store("A", (var("_0"),), const(0, INT32))
    assert "\n  for (int _0 = 0; _0 < 4; _0++) {" in body_of(
        loop("_0", 4, fill), params=(ir.Buffer("A", INT32, (4,)),)
    )


def test_comments_name_files_without_folders() -> None:
    text = emit(programs.two_layers(), "vhls")
    assert "/// linear[M=8, T=int8], linear.py:12\n" in text
    assert "kernels/" not in text


def test_header_declares_the_top_with_pointers() -> None:
    header = emit_header(programs.two_layers(), "vitis")
    assert 'extern "C" {\nvoid two_layers(\n  int8_t *X,\n  int8_t *W,\n  int32_t layer,\n' in header


def test_only_programs_that_need_ap_types_include_their_helpers() -> None:
    assert not uses_ap(programs.two_layers())
    assert uses_ap(programs.producer_consumer())
    assert '#include "flexllm_ap.h"' not in emit(programs.two_layers(), "vitis")


def test_bundles() -> None:
    text = emit(programs.two_layers(), "vitis", {"X": "shared", "Y": "shared"})
    assert "port=X offset=slave bundle=shared" in text
    assert "port=W offset=slave bundle=gmem1" in text
    with pytest.raises(BackendError, match="no argument Z"):
        emit(programs.two_layers(), "vitis", {"Z": "gmem0"})


def test_types_without_cpp_form_are_refused() -> None:
    with pytest.raises(BackendError, match="has no C\\+\\+ type"):
        body_of(params=(ir.Buffer("x", Float(8, 3)),))


def test_module() -> None:
    module = HLSModule(programs.two_layers(), "vhls")
    assert str(module) == module.hls_code == repr(module)
    assert module.top_func_name == "two_layers"
    with pytest.raises(BackendError, match="text only"):
        module()
    with pytest.raises(BackendError, match="Invalid mode"):
        HLSModule(programs.two_layers(), "vitis_hls", "csin")
    with pytest.raises(BackendError, match="is not supported"):
        HLSModule(programs.two_layers(), "verilog")
    with pytest.raises(UsageError, match="devices"):
        HLSModule(programs.two_layers(), "vitis_hls", configs={"devices": "u280"})
    x, w = np.ones((8, 4), np.int8), np.ones((2, 16, 4), np.int8)
    y, first = HLSModule(programs.two_layers(), "vitis_hls", "csim")(x, w, 0)
    assert first == 4
    assert (y == 4).all()
