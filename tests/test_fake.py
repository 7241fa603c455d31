"""Fake quantization in torch is the rounding of the integer path, with gradients."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from flexllm_allo.quant.activation import fake_quantize, quantize_static
from flexllm_allo.quant.formats import NM, FloatFormat, IntFormat, ProgressiveFormat
from flexllm_allo.quant.integer.rounding import round_weight
from flexllm_allo.quant.recipes import recipes

torch = pytest.importorskip("torch")
from flexllm_allo.quant.transform.fake import fake_activation, fake_heads, fake_weight  # noqa: E402

ACTIVATIONS = {
    *(r.activation for r in recipes.values()),
    *(IntFormat(bits, "per_token", dynamic=True, zero=zero) for bits, zero in product(
        (2, 4, 8), ("none", "integer", "float")
    )),
    IntFormat(4, "per_token", dynamic=True, full_range=True),
    FloatFormat(32),
}  # fmt: skip
HEADS = {r.kv for r in recipes.values()} | {r.query for r in recipes.values()}
WEIGHTS = {
    *(fmt for r in recipes.values() for fmt in (r.weight, r.head, *r.kinds.values())),
    IntFormat(4, "per_tensor"),
    IntFormat(4, "per_group", group=32, scale="float16", sparsity=NM()),
    ProgressiveFormat(4, 64),
}


def values(*shape):
    """Numbers of many sizes; a row of zeros, rows on one side of 0, and one whose quotients are ties."""
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    x[..., 0, :], x[..., 1, :] = 0, np.abs(x[..., 1, :]) + 2
    x[..., 2, :] = -x[..., 1, :]
    x[..., 3, :] = np.arange(shape[-1]) % 15 - 7.5
    return x


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("fmt", sorted(ACTIVATIONS, key=str), ids=str)
def test_activations_are_those_of_the_integer_path(fmt, gradient):
    x = values(6, 64)
    made = fake_activation(torch.tensor(x, requires_grad=gradient), fmt)
    np.testing.assert_array_equal(made.detach(), fake_quantize(x, fmt))
    assert made.requires_grad == gradient


@pytest.mark.parametrize("fmt", sorted(HEADS, key=str), ids=str)
def test_heads_are_those_of_the_integer_path(fmt):
    x = values(2, 3, 5, 8)
    made = fake_heads(torch.tensor(x, requires_grad=True), fmt).detach()
    if fmt is None or fmt.dynamic:
        np.testing.assert_array_equal(made, fake_quantize(x, fmt))
    else:  # static: 127 steps to the largest of a head
        scale = (np.abs(x).max((0, 2, 3)) / np.float32(127))[:, None, None]
        np.testing.assert_array_equal(made, quantize_static(x, scale) * scale)


@pytest.mark.parametrize("fmt", sorted(WEIGHTS, key=str), ids=str)
def test_weights_are_those_of_rtn(fmt):
    weight = values(6, 128)
    seen = torch.tensor(weight, requires_grad=True)
    made = fake_weight(seen, fmt)
    np.testing.assert_array_equal(
        made.detach(), weight if fmt is None else round_weight(weight, fmt).dequantize()
    )
    made.sum().backward()
    # Straight through, but for the elements that make a range.
    assert (seen.grad == 1).sum() >= seen.numel() * 3 // 4


def test_gradients_go_straight_through_and_into_the_scale():
    x = torch.tensor([[1.0, 0.3, -0.2]], requires_grad=True)
    fake_activation(x, IntFormat(4, "per_token", dynamic=True)).sum().backward()
    exact = np.array([7, 0.3 * 7, -0.2 * 7])
    residual = (np.round(exact) - exact).sum()
    np.testing.assert_allclose(x.grad, [[1 + residual / 7, 1, 1]], atol=1e-5)
