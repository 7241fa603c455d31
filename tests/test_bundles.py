"""Bundles: several arrays as one argument."""

from __future__ import annotations

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo import Bundle, params
from flexllm_allo.errors import FrontendError
from flexllm_allo.ir.types import int8, int32

N, L = params("N, L")


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
