"""Bundles: several arrays as one argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo import Bundle, Traits, params, template
from flexllm_allo.errors import FrontendError
from flexllm_allo.ir.types import int8, int32

N, L, K, T, F = params("N, L, K, T, F")


class Pair(Bundle):
    a: int32[N]
    b: int8


def one(x: int32[N], p: Pair) -> int32[N]:
    y: int32[N]
    for i in range(N):
        y[i] = x[i] + p.a[i] * p.b
    return y


class Rows(Bundle):
    a: int32[N]
    c: int32[N]


def add_row(x: int32[N], row: Rows) -> int32[N]:
    y: int32[N]
    for i in range(N):
        y[i] = x[i] + row.a[i] - row.c[i]
    return y


def add_rows(x: int32[N], rows: Rows[L]) -> int32[N]:
    y: int32[N] = 0
    for i in range(N):
        y[i] = x[i]
    for l in range(L):
        y = add_row(y, rows[l])
    return y


def test_a_bundle_is_one_parameter_per_array():
    s = allo.customize(one, instantiate=[3])
    assert [(b.name, b.shape) for b in s.top_func.inputs] == [("x", (3,)), ("a", (3,)), ("b", ())]
    x, a = np.arange(3, dtype=np.int32), np.array([1, 2, 3], np.int32)
    np.testing.assert_array_equal(s.build()(x, a, 5), x + 5 * a)


def test_a_stack_passes_one_of_its_bundles_on():
    s = allo.customize(add_rows, instantiate={"N": 3, "L": 2})
    assert "add_row(y, a[l], c[l]" in str(s)
    x = np.arange(3, dtype=np.int32)
    a, c = np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((2, 3), np.int32)
    np.testing.assert_array_equal(s.build()(x, a, c), x + a.sum(0) - 2)


def test_an_array_that_the_bundle_lacks_is_named_at_its_place():
    def wrong(p: Pair) -> int32:
        return p.z[0]

    with pytest.raises(FrontendError, match=r"p\.z") as caught:
        allo.customize(wrong, instantiate=[3])
    assert caught.value.code == "FX102"
    assert "p.a" in caught.value.hint


@dataclass(frozen=True)
class Format(Traits):
    """How a matrix is stored, and the kernel that multiplies it."""

    dtype: Any
    multiply: Any
    Matrix: type[Bundle]
    columns: int = 1

    def width(self, size: int) -> int:
        return size * self.columns


class Plain(Bundle, of="N, K"):
    codes: Self.dtype[N, K]
    row: int32[Self.width(N)]


class Nothing(Bundle, of="N, K"):
    pass


def dot(x: int32[K], w: T[N, K], row: int32[N]) -> int32[N]:
    y: int32[N]
    for n in range(N):
        y[n] = row[n]
        for k in range(K):
            y[n] += w[n, k] * x[k]
    return y


def copy(x: int32[K]) -> int32[K]:
    y: int32[K]
    for k in range(K):
        y[k] = x[k]
    return y


class Block(Bundle):
    bias: int32[N]
    w: F.Matrix[N, N]


@template(F)
def block(x: int32[N], b: Block) -> int32[N]:
    y: int32[N]
    z = F.multiply(x, b.w)
    for n in range(N):
        y[n] = z[n] + b.bias[n]
    return y


@template(F)
def blocks(x: int32[N], all: Block[L]) -> int32[N]:
    y: int32[N] = 0
    for n in range(N):
        y[n] = x[n]
    for l in range(L):
        y = block[F](y, all[l])
    return y


def test_a_template_argument_chooses_bundle_and_kernel():
    int8s = Format(int8, dot, Plain)
    s = allo.customize(blocks, instantiate={"F": int8s, "N": 3, "L": 2})
    assert [(b.name, b.shape) for b in s.top_func.inputs] == [
        ("x", (3,)), ("bias", (2, 3)), ("w_codes", (2, 3, 3)), ("w_row", (2, 3)),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    x, bias, row = (rng.integers(-9, 9, n).astype(np.int32) for n in (3, (2, 3), (2, 3)))
    w = rng.integers(-9, 9, (2, 3, 3)).astype(np.int8)
    expected = x
    for l in range(2):
        expected = w[l] @ expected + row[l] + bias[l]
    np.testing.assert_array_equal(s.build()(x, bias, w, row), expected)


def test_a_bundle_may_be_empty():
    s = allo.customize(blocks, instantiate={"F": Format(int8, copy, Nothing), "N": 3, "L": 2})
    assert [b.name for b in s.top_func.inputs] == ["x", "bias"]
    np.testing.assert_array_equal(
        s.build()(np.zeros(3, np.int32), np.ones((2, 3), np.int32)), np.full(3, 2, np.int32)
    )


def test_a_record_is_written_the_same_in_every_process():
    from flexllm_allo.kernels import quantize
    from flexllm_allo.kernels.quantize import Activation

    inner = Activation(int8, quantize.quantize)
    text = str(Activation(int8, quantize.quantize_outliers, quantize.OutlierSite, outliers=3, inner=inner))
    assert text == (
        "Activation(dtype=int8, quantize=quantize_outliers, Site=OutlierSite, outliers=3, "
        "inner=Activation(dtype=int8, quantize=quantize))"
    )


# ---------------------------------------------------------------------------------- lists of arrays

P = params("P")[0]


def total(x: T[N]) -> T:
    y: T = 0
    for i in range(N):
        y += x[i]
    return y


@template(P, N)
def weighted(W: int32[N][P], b: int32[N]) -> int32:
    r: int32 = 0
    with allo.meta_for(P) as p:
        for i in range(N):
            r += W[p][i] * b[i]
        r += total(W[p])
    W[P - 1][0] = 7
    return r


class Ports(Bundle):
    w: int32[N][P]
    start: int32


@template(P, N)
def from_ports(ports: Ports) -> int32:
    r: int32 = ports.start
    with allo.meta_for(P) as p:
        r += total(ports.w[p])
    r += weighted[P, N](ports.w, ports.w[0])
    return r


@template(P, N, L)
def from_stacks(ports: Ports[L]) -> int32:
    r: int32 = 0
    for l in range(L):
        r += from_ports[P, N](ports[l])
    return r


def test_a_list_is_one_parameter_per_array():
    s = allo.customize(weighted, instantiate=[3, 4])
    assert [(b.name, b.shape) for b in s.top_func.inputs] == [
        *((f"W_{p}", (4,)) for p in range(3)),
        ("b", (4,)),
    ]
    arrays, b = [np.arange(4, dtype=np.int32) + p for p in range(3)], np.array([1, 2, 3, 4], np.int32)
    expected = sum(int(a @ b + a.sum()) for a in arrays)
    assert s.build()(*arrays, b) == expected
    assert arrays[2][0] == 7


def test_a_list_in_a_bundle_is_passed_on_whole_or_by_array():
    s = allo.customize(from_stacks, instantiate=[2, 3, 2])
    names = ["w_0", "w_1", "start"]
    assert [(b.name, b.shape) for b in s.top_func.inputs] == list(
        zip(names, [(2, 3), (2, 3), (2,)], strict=True)
    )
    w, start = [np.arange(6, dtype=np.int32).reshape(2, 3) + p for p in range(2)], np.array([5, 6], np.int32)
    expected = sum(
        int(start[l] + sum(a[l].sum() for a in w) + sum(a[l] @ w[0][l] + a[l].sum() for a in w))
        for l in range(2)
    )
    assert s.build()(*w, start) == expected


def test_which_array_of_a_list_is_known_when_the_kernel_is_compiled():
    def runtime(W: int32[4][2]) -> int32:
        r: int32 = 0
        for i in range(2):
            r += W[i][0]
        return r

    with pytest.raises(FrontendError, match="W is a list: which array of it is not known") as caught:
        allo.customize(runtime)
    assert caught.value.code == "FX113"
    assert "meta_for" in caught.value.hint
    span = caught.value.places[0].span
    assert (span.col, span.end_col) == (17, 18)


def test_an_array_that_a_list_lacks():
    def beyond(W: int32[4][2]) -> int32:
        return W[2][0]

    with pytest.raises(FrontendError, match="the list W has no array 2") as caught:
        allo.customize(beyond)
    assert caught.value.code == "FX106"
