"""The tensor intrinsics: against NumPy, on the interpreter and the CPU, all of them in C simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo import dsl
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.errors import FrontendError, ToolError
from flexllm_allo.frontend.element_rules import ELEMENT_RULES
from flexllm_allo.frontend.intrinsics import INTRINSICS
from flexllm_allo.ir.types import Fixed, float32, float64, int8, int32
from flexllm_allo.tensor_ops import TENSOR_OPS


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def whole(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-20, 20, shape).astype(np.int32)


def source(expression: str, args: list[Any], result: str) -> str:
    """A kernel of parameters a, b, ... that returns the expression."""
    parameters = ", ".join(
        f"{name}: {a.dtype}[{', '.join(map(str, a.shape))}]" for name, a in zip("abcd", args, strict=False)
    )
    return f"def k({parameters}) -> {result}:\n    return {expression}\n"


NAMES = {
    "allo": allo, "int8": int8, "int32": int32, "float32": float32, "float64": float64,
    "matmul": allo.matmul,
}  # fmt: skip

CASES: dict[str, tuple[str, list[Any]]] = {
    "exp": ("allo.exp(a)", [floats(3, 4)]),
    "log": ("allo.log(abs(a))", [floats(3, 4)]),
    "log2": ("allo.log2(abs(a))", [floats(5)]),
    "log10": ("allo.log10(abs(a))", [floats(5)]),
    "sqrt": ("allo.sqrt(abs(a))", [floats(5)]),
    "sin_cos": ("allo.sin(a) * allo.cos(a)", [floats(5)]),
    "tan_tanh": ("allo.tan(a) + allo.tanh(a)", [floats(5)]),
    "power": ("allo.power(abs(a), b)", [floats(5), floats(5, seed=1)]),
    "abs": ("allo.abs(a)", [whole(4, 2)]),
    "relu": ("allo.relu(a)", [floats(4, 2)]),
    "relu_int": ("allo.relu(a)", [whole(4, 2)]),
    "softmax": ("allo.softmax(a)", [floats(2, 3, 4)]),
    "softmax_row": ("allo.softmax(a)", [floats(6)]),
    "copy": ("allo.copy(a)", [floats(4, 2)]),
    "add": ("allo.add(a, b)", [whole(3, 4), whole(4, seed=1)]),
    "sub": ("allo.sub(a, b)", [floats(3, 1), floats(1, 4, seed=1)]),
    "mul": ("allo.mul(a, b)", [whole(3, 4), whole(3, 4, seed=1)]),
    "div": ("allo.div(a, b)", [floats(3, 4), floats(3, 4, seed=1)]),
    "div_int": ("allo.div(a, b * 2 + 1)", [whole(3, 4), whole(3, 4, seed=1)]),
    "matmul": ("allo.matmul(a, b)", [whole(4, 5), whole(5, 3, seed=1)]),
    "matmul_float": ("allo.matmul(a, b)", [floats(4, 5), floats(5, 3, seed=1)]),
    "matmul_batch": ("matmul(a, b)", [whole(2, 1, 4, 5), whole(3, 5, 2, seed=1)]),
    "matmul_of": ("allo.matmul(a + a, b.T) - 1", [whole(4, 5), whole(3, 5, seed=1)]),
    "bmm": ("allo.bmm(a, b)", [floats(2, 4, 5), floats(2, 5, 3, seed=1)]),
    "linear": ("allo.linear(a, b)", [floats(4, 5), floats(3, 5, seed=1)]),
    "linear_bias": ("allo.linear(a, b, c)", [floats(2, 4, 5), floats(3, 5, seed=1), floats(3, seed=2)]),
    "conv2d": ("allo.conv2d(a, b)", [whole(2, 3, 5, 6), whole(4, 3, 2, 3, seed=1)]),
    "maxpool": ("allo.maxpool(a, b)", [floats(1, 2, 5, 6), floats(2, 3, seed=1)]),
    "sumpool": ("allo.sumpool(a, b)", [whole(1, 2, 5, 6), whole(3, 2, seed=1)]),
    "transpose": ("allo.transpose(a)", [whole(2, 3, 4)]),
    "transpose_axes": ("allo.transpose(a, (1, 0, 2))", [whole(2, 3, 4)]),
    "view": ("allo.view(a, (6, 4))", [whole(2, 3, 4)]),
    "view_split": ("allo.view(a, (2, 2, 2, 3))", [whole(4, 6)]),
    "view_across": ("allo.view(a, (4, 6))", [whole(3, 8)]),
    "concat": ("allo.concat(a, b, axis=1)", [whole(2, 3), whole(2, 2, seed=1)]),
    "concat_rows": ("allo.concat(a, b)", [whole(2, 3), whole(1, 3, seed=1)]),
    "layernorm": ("allo.layernorm(a, b, c)", [floats(3, 8), floats(8, seed=1), floats(8, seed=2)]),
    "layernorm_eps": ("allo.layernorm(a, b, c, eps=0.5)", [floats(3, 8), floats(8), floats(8)]),
    "gelu": ("allo.gelu(a - 0.5)", [floats(3, 4)]),
    "tril": ("allo.tril(a)", [whole(2, 4, 4)]),
    "ones": ("a + allo.ones((2, 3), dtype=int32)", [whole(2, 3)]),
    "zeros": ("allo.zeros((2, 3)) + a", [floats(2, 3)]),
}


def expected(name: str) -> Any:
    expression, args = CASES[name]
    return eval(expression, dict(NAMES), dict(zip("abcd", args, strict=False)))


def kernel(name: str) -> str:
    expression, args = CASES[name]
    value = expected(name)
    text = source(expression, args, f"{args[0].dtype}[{', '.join(map(str, value.shape))}]")
    return text.replace("def k(", f"def {name}_kernel(")


@pytest.mark.parametrize("name", CASES)
def test_intrinsics_agree_with_numpy(name: str):
    args = CASES[name][1]
    for option in ({}, {"lower_linalg": True}, {"enable_tensor": True}):
        s = allo.customize(kernel(name), global_vars=NAMES, **option)
        values = [s.build(target=t)(*[a.copy() for a in args]) for t in ("interpreter", "llvm")]
        np.testing.assert_array_equal(values[0], values[1])
        if args[0].dtype == np.int32:
            np.testing.assert_array_equal(values[0], expected(name))
        else:
            np.testing.assert_allclose(values[0], expected(name), rtol=1e-4, atol=1e-5)
        if option == {}:
            assert list(s.get_loops().loops) == [], "opaque to schedules without lower_linalg"


def test_every_intrinsic_is_offered_and_lowered():
    assert set(TENSOR_OPS) == set(INTRINSICS)
    assert set(ELEMENT_RULES) <= set(INTRINSICS)
    for name in TENSOR_OPS:
        assert getattr(allo, name) is getattr(dsl, name)


# ---------------------------------------------------------------------------------- bands, loops


def named(A: float32[4, 5], B: float32[5, 6]) -> float32[4, 6]:
    C = allo.matmul(A, B, name="mm1")
    D = allo.exp(C)
    return D


def test_bands_and_loops_have_allos_names():
    s = allo.customize(named, lower_linalg=True)
    loops = s.get_loops()
    assert {band: list(loops[band].loops) for band in loops.loops} == {
        "mm1init_zero": ["L_0", "L_1"],
        "mm1": ["L_0", "L_1", "L_2"],
        "exp_0": ["L_0", "L_1"],
    }
    s.reorder(loops["mm1"]["L_2"], loops["mm1"]["L_1"])
    s.pipeline(loops["exp_0"]["L_1"])
    A, B = floats(4, 5), floats(5, 6, seed=1)
    plain = allo.customize(named).build()(A, B)
    np.testing.assert_array_equal(s.build()(A, B), plain)
    text = str(s.build(target="vhls"))
    assert "l_mm1_L_0" in text
    assert "#pragma HLS pipeline" in text


def numbered(X: float32[4, 5]) -> float32[4, 5]:
    A = X + 1.0
    B = allo.relu(A, name="act")
    C = allo.add(B, X)
    C += X
    return allo.softmax(C)


def test_operators_and_unnamed_operations_are_numbered():
    bands = list(allo.customize(numbered, lower_linalg=True).get_loops().loops)
    assert bands == ["add_0", "act", "add_1", "add_2", "softmax_3"]


def in_a_loop(X: float32[3, 4], W: float32[4, 4]) -> float32[3, 4]:
    Y: float32[3, 4] = 0
    for i in range(3):
        Y[i] = allo.softmax(allo.linear(X, W)[i])
    return Y


def test_operations_inside_loops():
    X, W = floats(3, 4), floats(4, 4, seed=1)
    for option in (False, True):
        s = allo.customize(in_a_loop, lower_linalg=option)
        np.testing.assert_allclose(s.build()(X, W), allo.softmax(X @ W.T), rtol=1e-5)


# ------------------------------------------------------------------------------- number formats


def narrow(A: int8[2, 64], B: int8[64, 2]) -> int8[2, 2]:
    return allo.matmul(A, B)


def fractions(A: Fixed(8, 4)[1, 3], B: Fixed(8, 4)[3, 1]) -> Fixed(8, 4)[1, 1]:
    return allo.matmul(A, B)


def mixed(A: int8[3], B: float32[3]) -> int8[3]:
    return allo.mul(A, B)


def test_results_keep_the_type_of_the_first_operand():
    A, B = np.full((2, 64), 3, np.int8), np.full((64, 2), 1, np.int8)
    for target in ("interpreter", "llvm"):
        assert allo.customize(narrow).build(target=target)(A, B).tolist() == [[-64, -64]] * 2
        fixed = allo.customize(fractions).build(target=target)
        assert fixed(np.full((1, 3), 0.3125), np.full((3, 1), 0.3125)).tolist() == [[0.1875]]
        product = allo.customize(mixed).build(target=target)
        assert product(np.array([1, 2, 3], np.int8), np.full(3, 1.5, np.float32)).tolist() == [1, 3, 4]


def scalars(x: float32, y: float32) -> float32:
    return allo.add(allo.relu(x), allo.exp(y, name="e")) + allo.gelu(x)


def test_element_intrinsics_on_scalars():
    result = allo.customize(scalars).build()(1.5, 0.25)
    assert result == pytest.approx(1.5 + np.exp(0.25) + allo.gelu(1.5), rel=1e-6)


# ------------------------------------------------------------------------------------- refusals


def inner_sizes(A: float32[2, 3], B: float32[4, 2]) -> float32[2, 2]:
    return allo.matmul(A, B)


def rank_of_bmm(A: float32[2, 3], B: float32[3, 2]) -> float32[2, 2]:
    return allo.bmm(A, B)


def large_window(A: float32[1, 1, 2, 2], B: float32[3, 3]) -> float32[1, 1, 1, 1]:
    return allo.maxpool(A, B)


def lost_elements(A: float32[2, 3]) -> float32[7]:
    return allo.view(A, (7,))


def not_axes(A: float32[2, 3]) -> float32[2, 3]:
    return allo.transpose(A, (0, 0))


def unknown_keyword(A: float32[2, 3]) -> float32[2, 3]:
    return allo.softmax(A, dim=1)


def integer_math(A: int32[3]) -> int32[3]:
    return allo.exp(A)


def integer_softmax(A: int32[3]) -> int32[3]:
    return allo.softmax(A)


def run_time_shape(A: float32[6], n: int32) -> float32[6]:
    return allo.view(A, (n, 1))


REFUSED = [
    (inner_sizes, "FX105", "Shape mismatch, got float32[2, 3] and float32[4, 2]", "allo.matmul(A, B)"),
    (rank_of_bmm, "FX105", "Shape mismatch, got float32[2, 3] and float32[3, 2]", "allo.bmm(A, B)"),
    (
        large_window,
        "FX105",
        "Shape mismatch, got float32[1, 1, 2, 2] and float32[3, 3]",
        "allo.maxpool(A, B)",
    ),
    (lost_elements, "FX105", "Shape mismatch, got (2, 3) and (7,)", "allo.view(A, (7,))"),
    (not_axes, "FX105", "Shape mismatch, got axes (0, 0) for rank 2", "allo.transpose(A, (0, 0))"),
    (unknown_keyword, "FX107", "softmax takes (X, name=)", "allo.softmax(A, dim=1)"),
    (integer_math, "FX109", "exp is defined for floats, got int32", "allo.exp(A)"),
    (integer_softmax, "FX109", "softmax is defined for floats, got int32", "allo.softmax(A)"),
    (run_time_shape, "FX113", "shape of view must be known at compile time, got `(n, 1)`", "(n, 1)"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c[0].__name__)
def test_refusals(case: tuple[Callable[..., Any], str, str, str]):
    function, code, text, marked = case
    with pytest.raises(FrontendError) as caught:
        allo.customize(function)
    error = caught.value
    assert error.code == code
    assert error.message == text
    span = error.span
    assert span is not None
    with open(span.file, encoding="utf-8") as file:
        line = file.read().splitlines()[span.line - 1]
    assert line[span.col : span.end_col] == marked


# --------------------------------------------------------------------------------- C simulation


def _installed() -> bool:
    try:
        find_compiler()
        find_ap_headers()
    except ToolError:
        return False
    return True


@pytest.mark.skipif(not _installed(), reason="no C++ compiler or no ap_int headers")
def test_all_of_them_in_one_c_simulation():
    """One program that calls a kernel per intrinsic, compiled once."""
    texts, parameters, calls, args, outputs = [], [], [], [], []
    for name in CASES:
        operands, value = CASES[name][1], expected(name)
        own = [f"{name}_{letter}" for letter, _ in zip("abcd", operands, strict=False)]
        for label, array in [*zip(own, operands, strict=True), (f"{name}_out", value)]:
            dims = ", ".join(map(str, array.shape))
            parameters.append(f"{label}: {operands[0].dtype if array is value else array.dtype}[{dims}]")
        calls.append(f"    {name}_out[:] = {name}_kernel({', '.join(own)})\n")
        outputs.append(len(args) + len(operands))
        args += [*operands, np.zeros(value.shape, operands[0].dtype)]
        texts.append(kernel(name))
    top = f"def top({', '.join(parameters)}):\n{''.join(calls)}"
    s = allo.customize("\n".join([top, *texts]), global_vars=NAMES)
    on_cpu, compiled = ([np.copy(a) for a in args] for _ in range(2))
    s.build()(*on_cpu)
    CSimModule(s.program)(*compiled)
    for name, position in zip(CASES, outputs, strict=True):
        np.testing.assert_array_equal(compiled[position], on_cpu[position], err_msg=name)


def loops_without_names(A: int32[4]) -> int32[4]:
    B: int32[4] = 0
    for _ in range(3):
        for _i in range(4):
            B[_i] += A[_i]
    return B


def test_only_implied_loops_are_hidden():
    loops = allo.customize(loops_without_names).get_loops()
    assert {band: list(loops[band].loops) for band in loops.loops} == {"S___0": ["_", "_i"]}
