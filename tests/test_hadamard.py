"""Hadamard matrices and transforms: constructions, the NumPy definition, the kernel under every schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.backend.llvm import LLVMModule
from flexllm_allo.errors import QuantError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.walk import walk
from flexllm_allo.kernels import hadamard as kernels
from flexllm_allo.paley import hadamard_base, hadamard_matrix
from flexllm_allo.quant.transform.hadamard import hadamard_transform
from flexllm_allo.schedules import cpu, decode, prefill

STAGES = {"prefill": prefill.spatial(4), "decode": decode.temporal(), "cpu": cpu.blocked()}
SIZES = [1, 2, 4, 16, 64, 12, 24, 48, 20, 28, 56, 36]


# ---------------------------------------------------------------------------------- matrices


def test_every_paley_matrix_below_400_is_orthogonal():
    sizes = [m for m in range(4, 400, 4) if is_paley(m)]
    # Prime fields, GF(3^3), GF(5^2), GF(7^3); those without a construction stay out.
    assert {12, 20, 24, 28, 36, 52, 60, 344} <= set(sizes)
    assert not {92, 116, 156, 172, 184, 188} & set(sizes)
    for m in sizes:
        matrix = hadamard_matrix(m)
        assert matrix.dtype == np.int8
        assert set(np.unique(matrix).tolist()) == {-1, 1}
        wide = matrix.astype(np.float64)
        np.testing.assert_array_equal(wide @ wide.T, m * np.eye(m))


def is_paley(m: int) -> bool:
    try:
        hadamard_matrix(m)
    except QuantError:
        return False
    return True


@pytest.mark.parametrize(
    ("n", "base"),
    [(1, (1, 0)), (2, (1, 1)), (8192, (1, 13)), (24, (12, 1)), (192, (12, 4)), (52, (52, 0)), (344, (344, 0)),
     (11008, (344, 5)), (14336, (28, 9)), (13824, (108, 7)), (18944, (148, 7))],
)  # fmt: skip
def test_sizes_of_real_models_split_into_a_base_and_butterflies(n, base):
    assert hadamard_base(n) == base


@pytest.mark.parametrize(("n", "near"), [(172, "168 and 176"), (3, "2 and 4"), (0, "1"), (6, "4 and 8")])
def test_a_size_without_construction_names_its_neighbours(n, near):
    with pytest.raises(QuantError) as caught:
        hadamard_transform(np.ones((2, n), np.float32))
    assert caught.value.code == "FX604"
    assert f"no Hadamard matrix of size {n} can" in str(caught.value)
    assert f"the nearest sizes are {near};" in str(caught.value)


def test_a_matrix_that_is_a_product_is_not_built_in_one_piece():
    with pytest.raises(QuantError, match="16 is not the size of a Paley matrix") as caught:
        hadamard_matrix(16)
    assert "hadamard_base(n)" in str(caught.value)


def test_matrices_are_shared_and_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        hadamard_matrix(12)[0, 0] = 0


# -------------------------------------------------------------------------------- transforms


def dense(n: int) -> np.ndarray:
    m, k = hadamard_base(n)
    sylvester = np.ones((1, 1))
    for _ in range(k):
        sylvester = np.kron([[1, 1], [1, -1]], sylvester)
    return np.kron(hadamard_matrix(m), sylvester) / np.sqrt(n)


@pytest.mark.parametrize("n", [*SIZES, 52, 192, 344, 688, 512])
def test_the_transform_is_the_dense_product(n):
    x = np.random.default_rng(n).standard_normal((2, 3, n))
    expected = x @ dense(n).T
    np.testing.assert_allclose(hadamard_transform(x), expected, rtol=0, atol=1e-13 * n)
    single = hadamard_transform(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6 * np.sqrt(n))


@pytest.mark.parametrize("n", [11008, 14336])
def test_large_transforms_keep_norms_and_angles(n):
    x = np.random.default_rng(0).standard_normal((3, n))
    y = hadamard_transform(x)
    np.testing.assert_allclose(y @ y.T, x @ x.T, rtol=0, atol=1e-10 * n)
    # Row c of the product is column c of the matrix: entries of one magnitude.
    unit = hadamard_transform(np.eye(1, n, 17))
    np.testing.assert_allclose(np.abs(unit), n**-0.5, rtol=1e-12)


def test_sums_of_integers_are_exact_before_the_scale():
    for n in (16, 64, 1024, 48):  # scales that are powers of two, and one that is not
        x = np.random.default_rng(n).integers(-128, 128, (4, n))
        expected = x @ np.rint(dense(n) * np.sqrt(n)).astype(np.int64).T
        result = hadamard_transform(x.astype(np.float32))
        np.testing.assert_array_equal(result, expected.astype(np.float32) * np.float32(n**-0.5))


def test_the_argument_is_not_changed():
    x = np.ones((2, 1), np.float32)
    y = hadamard_transform(x)
    y[:] = 7
    assert x.tolist() == [[1], [1]]


# ------------------------------------------------------------------------------------ kernel


def program(n: int, rows: int, stage: str | None = None) -> ir.Program:
    s = allo.customize(kernels.hadamard, instantiate=[rows, n])
    if stage:
        STAGES[stage].apply(s, [f.name for f in s.program.functions])
    return s.program


def same(left: Any, right: Any) -> None:
    np.testing.assert_array_equal(np.asarray(left).view(np.int32), np.asarray(right).view(np.int32))


def values(n: int, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, n)) * 10.0 ** rng.integers(-3, 3)
    return np.where(rng.random((rows, n)) < 0.1, 0.0, x).astype(np.float32)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(n=st.sampled_from(SIZES), rows=st.integers(1, 5), seed=st.integers(0, 999))
def test_the_kernel_keeps_every_bit_of_numpy_under_every_schedule(n, rows, seed):
    x = values(n, rows, seed)
    expected = hadamard_transform(x)
    for stage in (None, *STAGES):
        made = program(n, rows, stage)
        same(Interpreter(made)(x), expected)
        same(LLVMModule(made)(x), expected)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [32, 24])
def test_compiled_hls_keeps_every_bit(n, stage):
    x = values(n, 3, n)
    same(CSimModule(program(n, 3, stage))(x), hadamard_transform(x))


def test_compiled_hls_is_exact_for_integers():
    x = np.random.default_rng(5).integers(-128, 128, (2, 64)).astype(np.float32)
    expected = (x @ (dense(64) * 8).T) / 8  # every step is exact in float64 and in float32
    same(CSimModule(program(64, 2, "prefill"))(x), expected.astype(np.float32))


@pytest.mark.parametrize("n", [8192, 14336])
def test_real_widths_run_compiled(n):
    x = values(n, 2, 0)
    same(LLVMModule(program(n, 2))(x), hadamard_transform(x))


@pytest.mark.parametrize(("n", "calls"), [(2, 1), (4, 2), (8, 3), (16, 4), (32, 3), (4096, 4), (24, 1)])
def test_all_stages_share_an_engine(n, calls):
    """At most two stages before those that a loop runs in pairs."""
    for stage, rows in (("prefill", 3), ("decode", 1)):
        made = program(n, rows, stage)
        assert [f.origin for f in made.functions].count("butterfly") == 1
        found = [c for f in made.functions for c in walk(f.body) if isinstance(c, ir.Call)]
        assert [c.func for c in found].count("butterfly") == calls


def test_rows_of_prefill_overlap_and_those_of_decode_come_on_lanes():
    loops = {}
    for stage, rows in (("prefill", 3), ("decode", 1)):
        top = program(64, rows, stage)
        (row,) = [f for f in top.functions if f.origin == "hadamard"]
        loops[stage] = {n.var: n.attrs for n in walk(row.body) if isinstance(n, ir.For)}
    assert loops["prefill"]["r"].dataflow
    assert not loops["decode"]["r"].dataflow
    assert "i.inner" not in loops["prefill"]
    assert loops["decode"]["i.inner"].unroll == 0


def test_lanes_of_decode_meet_in_separate_banks():
    made = program(64, 1, "decode")
    engine = next(f for f in made.functions if f.origin == "butterfly")
    banks = {p.name: [b.factor for b in p.banks] for p in engine.params}
    assert banks == {"X": [16], "Y": [16]}


def test_a_size_without_matrix_is_refused_in_the_kernel():
    with pytest.raises(QuantError, match="no Hadamard matrix of size 172"):
        allo.customize(kernels.hadamard, instantiate=[1, 172])
