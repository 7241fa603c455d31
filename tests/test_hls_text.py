"""The text that programs and scripts look for in HLS C++, literally as Allo writes it."""

import re

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.hls.wrap_io import wrap_io
from flexllm_allo.ir.types import Fixed, Int, Stateful, Stream, UInt, float32, int8, int32

M, N, K = 8, 16, 32


def gemm(A: int8[M, K], B: int8[K, N]) -> int32[M, N]:
    C: int32[M, N] = 0
    for i, j in allo.grid(M, N):
        for k in allo.reduction(K):
            C[i, j] += A[i, k] * B[k, j]
    return C


def scaled(x: float32[10], n: int32, u: UInt(5), q: Fixed(12, 4)) -> (float32[10], int32):
    y: float32[10] @ allo.Memory(resource="URAM", storage_type="RAM_2P")
    acc: int32 = 0
    for i in range(10, name="scale"):
        if i > n:
            y[i] = x[i] + 1.0
        else:
            y[i] = x[i]
        acc += u
    return y, acc


def chain(A: int32[10]) -> int32[10]:
    B: int32[10]
    C: int32[10]
    for i in range(10, name="P"):
        B[i] = A[i] + 1
    for i in range(10, name="Q"):
        C[i] = B[i] * 2
    return C


def text(schedule, **options):
    return schedule.build(target=options.pop("target", "vhls"), **options).hls_code


def test_includes_signature_and_labels():
    code = text(allo.customize(gemm))
    names = re.findall(r"#include <(.*)>", code)
    assert names == [
        "algorithm", "ap_axi_sdata.h", "ap_fixed.h", "ap_int.h", "hls_math.h", "hls_stream.h", "hls_vector.h",
        "math.h", "stdint.h",
    ]  # fmt: skip
    assert "using namespace std;" in code
    assert "/// This is top function.\nvoid gemm(\n  int8_t A[8][32],\n  int8_t B[32][16],\n" in code
    assert "  int32_t C[8][16]\n) {\n" in code
    assert "  l_S_i_j_0_i: for (int i = 0; i < 8; i++) {\n    l_j: for (int j = 0; j < 16; j++) {\n" in code
    assert "      l_S_k_0_k: for (int k = 0; k < 32; k++) {\n" in code
    assert "#pragma" not in code
    assert str(allo.customize(gemm).build(target="vhls")) == code


def test_directives_of_loops_and_arrays():
    s = allo.customize(gemm)
    s.reorder("k", "j")
    s.buffer_at(s.C, axis="i")
    s.pipeline("j", initiation_interval=2, rewind=True)
    s.split("i", 4)
    s.unroll("i.inner")
    s.unroll("k", factor=4)
    s.partition(s.A, dim=1)
    s.partition(s.B, partition_type=allo.Partition.Cyclic, dim=2, factor=4)
    s.partition(s.C, partition_type=allo.Partition.Block, dim=1, factor=2)
    code = text(s)
    for line in (
        "  #pragma HLS array_partition variable=A complete dim=1\n\n",
        "  #pragma HLS array_partition variable=B cyclic dim=2 factor=4\n\n",
        "  #pragma HLS array_partition variable=C block dim=1 factor=2\n\n",
        "  l_S_i_j_0_i_outer: for (int i_outer = 0; i_outer < 2; i_outer++) {\n"
        "    l_i_inner: for (int i_inner = 0; i_inner < 4; i_inner++) {\n    #pragma HLS unroll\n",
        "#pragma HLS pipeline II=2 rewind\n",
        "#pragma HLS unroll factor=4\n",
        "l_j_init: for (int j_init",
        "l_j_back: for (int j_back",
    ):
        assert line in code
    assert code.count("#pragma HLS pipeline II=1\n") == 2


def test_scalars_branches_and_storage():
    code = text(allo.customize(scaled))
    for line in (
        "  int32_t n,\n",
        "  ap_uint<5> u,\n",
        "  ap_fixed<12, 8> q,\n",
        "  int32_t *result\n",
        "  #pragma HLS bind_storage variable=y type=ram_2p impl=uram\n\n",
        "l_scale_i: for (int i = 0; i < 10; i++) {\n",
        "    } else {\n",
    ):
        assert line in code


def test_streams_and_dataflow():
    s = allo.customize(chain)
    s.to(s.B, "Q", depth=4)
    code = text(s)
    assert "  #pragma HLS dataflow\n" in code
    assert "  hls::stream< int32_t > B" in code
    assert "  #pragma HLS stream variable=B depth=4\n" in code
    assert "B.write(" in code
    assert "B.read();" in code
    assert "l_P_i: for" in code


def test_functions_come_before_their_callers():
    def inner(A: int32[10], pipe: Stream[int32, 4]):
        for i in range(10):
            pipe.put(A[i])

    def outer(A: int32[10]) -> int32[10]:
        pipe: Stream[int32, 4]
        B: int32[10]
        inner(A, pipe)
        for i in range(10):
            B[i] = pipe.get()
        return B

    s = allo.customize(outer)
    s.dataflow("outer")
    s.inline("inner")
    code = text(s)
    assert (
        "void inner(\n  int32_t A[10],\n  hls::stream< int32_t >& pipe\n) {\n  #pragma HLS inline\n" in code
    )
    assert code.index("void inner(") < code.index("/// This is top function.") < code.index("void outer(")


def test_stateful_and_constant_arrays():
    def count(x: int32) -> int32:
        total: int32 @ Stateful = 0
        table: Int(5)[4] = [1, 2, 3, -4]
        total += x + table[1]
        return total

    code = text(allo.customize(count))
    assert re.search(r"static int32_t \w*total\w* = ", code)
    assert "const ap_int<5> table[4] = {" in code


def test_on_chip_copies_of_a_vitis_kernel(tmp_path):
    s = allo.customize(gemm)
    s.partition(s.A, dim=2)
    module = s.build(target="vitis_hls", mode="csim", project=tmp_path / "gemm.prj")
    code = module.hls_code
    for line in (
        'extern "C" {',
        "void load_buf0(\n  int8_t *A,\n  int8_t buf0[8][32]\n) {\n",
        "load_buf0_l_0: for (int load_buf0_l_0 = 0; load_buf0_l_0 < 8; load_buf0_l_0++) {\n",
        "load_buf0_l_1: for (int load_buf0_l_1 = 0; load_buf0_l_1 < 32; load_buf0_l_1++) {\n"
        "    #pragma HLS pipeline II=1 rewind\n",
        "  #pragma HLS interface m_axi port=A offset=slave bundle=gmem0\n",
        "  #pragma HLS interface m_axi port=C offset=slave bundle=gmem2\n",
        "  #pragma HLS array_partition variable=buf0 complete dim=2\n",
        "  load_buf0(A, buf0);\n  load_buf1(B, buf1);\n",
        "  store_res2(res2, C);\n}\n",
    ):
        assert line in code
    assert "store_res0" not in code
    assert (tmp_path / "gemm.prj" / "kernel.cpp").read_text() == code
    A = np.random.default_rng(0).integers(-128, 128, (M, K)).astype(np.int8)
    B = np.random.default_rng(1).integers(-128, 128, (K, N)).astype(np.int8)
    C = np.zeros((M, N), np.int32)
    module(A, B, C)
    np.testing.assert_array_equal(C, A.astype(np.int32) @ B)


def test_without_copies_memory_is_indexed_directly():
    code = text(allo.customize(gemm), target="vitis_hls", wrap_io=False)
    assert "load_buf0" not in code
    assert "A[i * 32 + k]" in code


@pytest.mark.parametrize("target", ["llvm", "interpreter"])
def test_copies_do_not_change_the_results(target):
    def partly(A: int32[4], B: int32[4]) -> int32[4]:
        C: int32[4]
        for i in range(4):
            C[i] = A[i]
        B[1] = 7
        return C

    s = allo.customize(partly)
    s._state.program = wrap_io(s.program)
    A, B = np.arange(4, dtype=np.int32), np.arange(4, dtype=np.int32)
    np.testing.assert_array_equal(s.build(target)(A, B), np.arange(4))
    np.testing.assert_array_equal(B, [0, 7, 2, 3])


def test_arguments_that_are_overwritten_are_not_loaded():
    def fill(A: int32[4, 2], B: int32[4, 2]):
        for i, j in allo.grid(4, 2):
            B[i, j] = A[i, j]

    code = text(allo.customize(fill), target="vitis_hls")
    assert "load_buf0(A, buf0);" in code
    assert "load_buf1" not in code
    assert "store_res1(buf1, B);" in code
