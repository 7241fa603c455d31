"""How built modules are called: the conventions of Allo's programs, on every backend."""

import os
import warnings

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.errors import ArgumentError, DTypeWarning, TargetError, ToolError
from flexllm_allo.ir.types import Fixed, Int, float32, int8, int32, int128
from flexllm_allo.primitives.unify import unify
from flexllm_allo.utils import get_np_struct_type, make_anywidth_numpy_array, struct_array_to_int_array

TARGETS = ("llvm", "interpreter", "csim")


def build(schedule, target):
    if target == "csim":
        return schedule.build(target="vitis_hls", mode="csim")
    return schedule.build(target=target)


def vadd(A: int32[8], B: int32[8]) -> int32[8]:
    C: int32[8] = 0
    for i in range(8):
        C[i] = A[i] + B[i]
    return C


def accumulate(A: int32[8], B: int32[8]):
    for i in range(8):
        B[i] += A[i]


def both(A: int32[4], x: int32) -> (int32[4], int32):
    B: int32[4]
    for i in range(4):
        B[i] = A[i] * x
        A[i] = 0
    return B, x + 1


A = np.arange(8, dtype=np.int32)


@pytest.mark.parametrize("target", TARGETS)
def test_results_are_returned_or_filled_in(target):
    module = build(allo.customize(vadd), target)
    np.testing.assert_array_equal(module(A, A), 2 * A)
    C = np.zeros(8, np.int32)
    assert module(A, A, C) is None
    np.testing.assert_array_equal(C, 2 * A)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_arguments_are_updated_in_place(target, dtype):
    B = np.ones(8, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DTypeWarning)
        assert build(allo.customize(accumulate), target)(A, B) is None
    np.testing.assert_array_equal(B, A + 1)


@pytest.mark.parametrize("target", TARGETS)
def test_several_results_are_a_list_and_arguments_are_written_back(target):
    given = np.arange(4, dtype=np.int64)
    with pytest.warns(DTypeWarning, match="Input type mismatch: i64 vs i32; argument 'A' is converted"):
        result = build(allo.customize(both), target)(given, np.int64(3))
    assert isinstance(result, list)
    np.testing.assert_array_equal(result[0], [0, 3, 6, 9])
    assert result[1] == 4
    np.testing.assert_array_equal(given, np.zeros(4))


def test_an_array_of_the_right_type_brings_no_warning():
    module = allo.customize(vadd).build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(A, A)


@pytest.mark.parametrize("target", TARGETS)
def test_scalars_and_other_types(target):
    def fixed(x: Fixed(12, 4), n: int8) -> Fixed(12, 4):
        return x * n

    assert build(allo.customize(fixed), target)(1.25, 3) == 3.75

    def narrow(x: Int(5)[2]) -> Int(5)[2]:
        y: Int(5)[2]
        for i in range(2):
            y[i] = x[i] + 1
        return y

    out = build(allo.customize(narrow), target)(np.array([15, -1]))
    assert out.dtype == np.int8
    assert out.tolist() == [-16, 0]


def test_wide_integers_are_records_of_bytes():
    def add(x: int128[2]) -> int128[2]:
        y: int128[2]
        for i in range(2):
            y[i] = x[i] + 1
        return y

    given = make_anywidth_numpy_array(np.array([2**100, -5], object), 128)
    assert given.dtype == get_np_struct_type(128)
    out = allo.customize(add).build()(given)
    assert out.dtype == get_np_struct_type(128)
    assert struct_array_to_int_array(out, 128).tolist() == [2**100 + 1, -4]


def test_refusals_are_what_allo_programs_catch():
    module = allo.customize(vadd).build()
    message = "# of input arguments mismatch, got 1 but expected 2"
    with pytest.raises(AssertionError, match=message) as caught:
        module(A)
    assert isinstance(caught.value, ArgumentError)
    assert caught.value.code == "FX401"
    assert caught.value.span.file == __file__
    with pytest.raises(RuntimeError, match="argument 'A' should be int32"):
        module("text", A)
    with pytest.raises(ValueError, match=r"argument 'B' should be int32\[8\], got int32\[4\]"):
        module(A, A[:4])


def test_modules_tell_their_signature():
    schedule = allo.customize(both)
    module = schedule.build()
    assert module.in_types == [("i32", (4,)), ("i32", ())]
    assert module.out_types == [("i32", (4,)), ("i32", ())]
    assert module.top_func_name == "both"
    assert "for i in range(4" in str(module.module)
    assert "for i in range(4" in str(schedule.module)
    hls = schedule.build(target="vhls")
    assert hls.args == [("i32", (4,)), ("i32", ()), ("i32", (4,)), ("i32", ())]
    assert hls.num_output_args == 2

    def added(A: int32[4], B: int32[4], C: int32[4]):
        C[:] = A + B

    assert allo.customize(added).build(target="vhls").num_output_args == 1  # C
    assert hls.platform == "vivado_hls"


@pytest.mark.parametrize("target", ["ihls", "pynq", "catapult", "xls", "aie", "fpga"])
def test_foreign_targets_are_refused(target):
    with pytest.raises(NotImplementedError, match=f"FX402: Target {target} is not supported") as caught:
        allo.customize(vadd).build(target=target)
    assert isinstance(caught.value, TargetError)


def test_bad_modes_devices_and_memories_are_refused(tmp_path):
    schedule = allo.customize(vadd)
    with pytest.raises(AssertionError, match="Invalid mode sim"):
        schedule.build(target="vitis_hls", mode="sim")
    with pytest.raises(RuntimeError, match=r"Device u1 not supported\. Available devices: u280"):
        schedule.build(target="vitis_hls", mode="csim", project=tmp_path / "a", configs={"device": "u1"})
    mapping = {"hbm_mapping": {"A": "bank three"}}
    with pytest.raises(ValueError, match="Invalid memory specification for 'A': 'bank three'"):
        schedule.build(target="vitis_hls", mode="csim", project=tmp_path / "b", configs=mapping)


def test_a_project_places_its_arguments(tmp_path):
    configs = {
        "device": "u280",
        "frequency": 250,
        "hbm_mapping": {"A": 3, "B": "DDR[1]", "output_0": "HBM[7]"},
    }
    module = allo.customize(vadd).build(
        target="vitis_hls", mode="csim", project=tmp_path / "p", configs=configs
    )
    np.testing.assert_array_equal(module(A, A), 2 * A)
    connectivity = (tmp_path / "p" / "vadd.cfg").read_text()
    assert "[connectivity]" in connectivity
    assert [line for line in connectivity.splitlines() if line.startswith("sp=")] == [
        "sp=vadd_1.A:HBM[3]",
        "sp=vadd_1.B:DDR[1]",
        "sp=vadd_1.C:HBM[7]",
    ]
    script = (tmp_path / "p" / "run.tcl").read_text()
    assert "set_top vadd" in script
    assert "create_clock -period 4.00" in script
    for name in ("kernel.cpp", "kernel.h", "host.cpp", "Makefile", "README.md"):
        assert (tmp_path / "p" / name).is_file()


@pytest.mark.parametrize("mode", ["csyn", "hw_emu", "hw"])
def test_a_missing_tool_is_what_allo_raises(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("PATH", str(tmp_path))
    module = allo.customize(vadd).build(target="vitis_hls", mode=mode, project=tmp_path / "p")
    with pytest.raises(AssertionError, match="vitis_hls is not available") as caught:
        module(*([] if mode == "csyn" else [A, A, np.zeros(8, np.int32)]))
    assert isinstance(caught.value, ToolError)
    assert not allo.backend.hls.is_available("vitis_hls")


def test_a_call_on_the_card_goes_through_files(tmp_path, monkeypatch):
    """With stand-ins for the tools: their host program answers A for the result C."""
    stubs = {
        "vitis_hls": "touch vadd.xo",
        "v++": 'echo "$@" > linked\ntouch vadd.hw.xclbin',
        # asked for its version it is run elsewhere, where it must leave nothing
        "c++stub": "test -f host.cpp || exit 0\n"
        'printf "#!/bin/sh\\ncp data/A.bin out_C.bin\\n" > host\nchmod +x host',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in stubs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "xrt" / "include").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", "c++stub")
    monkeypatch.setenv("XILINX_XRT", str(tmp_path / "xrt"))
    monkeypatch.setenv("XDEVICE", "my_platform")
    module = allo.customize(vadd).build(target="vitis_hls", mode="hw", project=tmp_path / "p")
    C = np.zeros(8, np.int32)
    assert module(A + 5, A, C) is None
    np.testing.assert_array_equal(C, A + 5)
    assert "--platform my_platform" in (tmp_path / "p" / "linked").read_text()
    assert (tmp_path / "p" / "data" / "B.bin").read_bytes() == A.tobytes()
    assert 'read_file(options.data + "/A.bin"' in (tmp_path / "p" / "host.cpp").read_text()


def test_verify_compares_two_schedules():
    first, second = allo.customize(vadd), allo.customize(vadd)
    assert allo.verify(first, second)
    second.split("i", 4)
    assert allo.verify(first, second)
    assert not allo.verify(first, allo.customize(accumulate))

    def wrong(A: int32[8], B: int32[8]) -> int32[8]:
        C: int32[8] = 0
        for i in range(8):
            C[i] = A[i] - B[i]
        return C

    assert not allo.verify(first, allo.customize(wrong))


def test_verify_survives_indices_that_lead_out_of_bounds():
    def gather(A: float32[8], at: int32[8]) -> float32[8]:
        B: float32[8]
        for i in range(8):
            B[i] = A[at[i]]
        return B

    assert allo.verify(allo.customize(gather), allo.customize(gather))
    second = allo.customize(gather)
    second.pipeline("i")
    assert allo.verify(allo.customize(gather), second)


def test_unify_runs_the_kernel_that_is_asked_for():
    def twice(X: int32[8], Y: int32[8]):
        for i in range(8):
            Y[i] = Y[i] + X[i] * 2

    def less(X: int32[8], Y: int32[8]):
        for i in range(8):
            Y[i] = Y[i] - X[i]

    program = unify(twice, less, 3)
    module = allo.LLVMModule(program, top_func_name="twice_less_unified")
    Y = np.zeros(8, np.int32)
    module(A, Y, np.array([0, 1, 0], np.int8))
    np.testing.assert_array_equal(Y, 3 * A)
    assert "void twice_less_unified(" in allo.HLSModule(program, top_func_name=program.top).hls_code
    with pytest.raises(allo.FlexError, match="FX206: twice and vadd cannot be unified"):
        unify(twice, vadd, 3)
