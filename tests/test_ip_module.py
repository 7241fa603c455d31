"""`IPModule`: the user's C++ called from Python, from kernels, and in HLS text."""

import os
from pathlib import Path

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.ip import parse_cpp_function
from flexllm_allo.errors import BackendError, FrontendError, ScheduleError, StreamError, ToolError
from flexllm_allo.ir.types import float32, int8, int32

CODE = """
#include "scale.h"
#define N 16
/* void vadd(int wrong); */
void vadd(const int A[N], int B[N], int k) {  // B += k * A
  for (int i = 0; i < N; ++i) B[i] += FACTOR * k * A[i];
}
void rows(const float X[4][8], float *sums) {
  for (int i = 0; i < 4; ++i) {
    sums[i] = 0;
    for (int j = 0; j < 8; ++j) sums[i] += X[i][j];
  }
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "ip.cpp").write_text(CODE)
    (tmp_path / "scale.h").write_text("#define FACTOR 2\n")
    return tmp_path / "ip.cpp"


A = np.arange(16, dtype=np.int32)


def test_signatures_are_parsed() -> None:
    args = parse_cpp_function(CODE, "vadd")
    assert [(p.name, str(p.dtype), p.shape, p.is_const) for p in args] == [
        ("A", "i32", (16,), True),
        ("B", "i32", (16,), False),
        ("k", "i32", (), False),
    ]
    assert parse_cpp_function(CODE, "rows")[1].shape is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("void g(int a);", r"FX107: there is no function f in the C\+\+ source"),
        ("int f(int a) { return a; }", "FX107: f returns int, an IP returns nothing"),
        ("void f(hls::stream<int> &s) {}", r"FX103: parameter `hls::stream<int> &s` of f has no type"),
        ("void f(int a[SIZE]) {}", r"FX105: extent `SIZE` of `int a\[SIZE\]` of f is not known"),
    ],
)
def test_signatures_that_no_kernel_can_call(code, message) -> None:
    with pytest.raises(FrontendError, match=message):
        parse_cpp_function(code, "f")


def test_called_from_python_it_works_in_place(file: Path) -> None:
    before = set(file.parent.iterdir())
    vadd = allo.IPModule("vadd", file)
    B = np.ones(16, np.int32)
    assert vadd(A, B, 3) is None
    np.testing.assert_array_equal(B, 1 + 6 * A)
    assert set(file.parent.iterdir()) == before
    with pytest.raises(AssertionError, match="# of input arguments mismatch, got 1 but expected 3"):
        vadd(A)


def test_one_array_may_be_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "add.cpp"
    loop = "for (int i = 0; i < 16; i++) C[i] = A[i] + B[i];"
    file.write_text(f"void add(int A[16], int B[16], int C[16]) {{ {loop} }}")
    C = np.zeros(16, np.int32)
    allo.IPModule("add", file)(A, A, C)
    np.testing.assert_array_equal(C, 2 * A)


def test_a_changed_file_is_compiled_again(file: Path) -> None:
    vadd = allo.IPModule("vadd", file)
    B = np.zeros(16, np.int32)
    vadd(A, B, 1)
    file.write_text(CODE.replace("B[i] +=", "B[i] -="))
    os.utime(file, ns=(1, 1))
    vadd(A, B, 1)
    np.testing.assert_array_equal(B, np.zeros(16))


def test_called_in_a_kernel_on_every_backend(file: Path, tmp_path: Path) -> None:
    vadd = allo.IPModule(top="vadd", impl=str(file), link_hls=False)

    def kernel(X: int32[16]) -> int32[16]:
        Y: int32[16] = 1
        vadd(X, Y, 2)
        for i in range(16):
            Y[i] += 1
        return Y

    s = allo.customize(kernel)
    s.pipeline("i")
    assert "# C++: ip.cpp" in str(s)
    modules = [
        s.build(),
        s.build("interpreter"),
        s.build("vitis_hls", mode="csim", project=tmp_path / "prj"),
        s.build("vitis_hls", mode="csim", wrap_io=False),
    ]
    for module in modules:
        np.testing.assert_array_equal(module(A), 4 * A + 2)
    code = modules[2].hls_code
    assert '#include "ip.cpp"' in code
    assert "void vadd(" not in code
    assert (tmp_path / "prj" / "ip.cpp").read_text() == CODE
    assert (tmp_path / "prj" / "scale.h").is_file()


def test_pointers_take_the_shape_of_the_argument(file: Path) -> None:
    rows = allo.IPModule("rows", file)

    def kernel(X: float32[2, 4, 8]) -> float32[2, 4]:
        Y: float32[2, 4]
        for i in range(2):
            rows(X[i], Y[i])
        return Y

    X = np.arange(64, dtype=np.float32).reshape(2, 4, 8)
    s = allo.customize(kernel)
    modules = [s.build(), s.build("interpreter"), s.build("vitis_hls", mode="csim", wrap_io=False)]
    for module in modules:
        np.testing.assert_array_equal(module(X), X.sum(2))


def test_pointers_take_arrays_of_several_dimensions(tmp_path: Path) -> None:
    (tmp_path / "double.cpp").write_text(
        "void twice(const float *X, float *Y, int n) { for (int i = 0; i < n; ++i) Y[i] = 2 * X[i]; }\n"
    )
    twice = allo.IPModule("twice", tmp_path / "double.cpp")

    def kernel(X: float32[2, 3], Y: float32[2, 3]):
        Z: float32[2, 3]
        twice(X, Z, 6)
        twice(Z, Y, 6)

    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    s = allo.customize(kernel)
    csim = [s.build("vitis_hls", mode="csim", wrap_io=wrap) for wrap in (False, True)]
    for module in [s.build(), s.build("interpreter"), *csim]:
        Y = np.zeros_like(X)
        module(X, Y)
        np.testing.assert_array_equal(Y, 4 * X)
    Y = np.zeros_like(X)
    twice(X, Y, 6)
    np.testing.assert_array_equal(Y, 2 * X)


def test_refusals_point_at_the_call_and_at_the_module(file: Path) -> None:
    vadd = allo.IPModule("vadd", file)

    def wrong(X: int8[16], Y: int32[16]):
        vadd(X, Y, 1)

    with pytest.raises(
        FrontendError, match=r"FX104: parameter A of vadd is int32\[16\], got int8\[16\]"
    ) as e:
        allo.customize(wrong)
    assert [p.span.file for p in e.value.places] == [__file__, __file__]
    with pytest.raises(FileNotFoundError, match=r"FX401: Path does not exist: nowhere\.cpp") as missing:
        allo.IPModule("vadd", "nowhere.cpp")
    assert isinstance(missing.value, BackendError)
    assert missing.value.span.file == __file__


def test_a_file_that_does_not_compile_shows_its_first_error(tmp_path: Path) -> None:
    (tmp_path / "bad.cpp").write_text("void f(int a[4]) { a[0] = nothing; }\n")
    with pytest.raises(ToolError, match=r"FX502: f does not compile: .*nothing") as caught:
        allo.IPModule("f", tmp_path / "bad.cpp")(np.zeros(4, np.int32))
    assert caught.value.span.file == __file__


def test_schedules_know_what_the_function_may_write(file: Path) -> None:
    vadd = allo.IPModule("vadd", file)

    def kernel(X: int32[16], Z: int32[4, 16]):
        B: int32[16] = 0
        for i in range(4):
            for j in range(16):
                vadd(X, B, 1)
                Z[i, j] = B[j]

    s = allo.customize(kernel)
    with pytest.raises(ScheduleError):
        s.reorder("j", "i")

    def stream(X: int32[16], Z: int32[16]):
        B: int32[16] = 0
        vadd(X, B, 1)
        for i in range(16, name="out"):
            Z[i] = B[i]

    s = allo.customize(stream)
    with pytest.raises(StreamError):
        s.to(s.B, "out")
