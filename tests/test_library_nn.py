"""The layers of the library against NumPy, scheduled and unscheduled, on every backend."""
# ruff: noqa: E501  (a table of cases)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_ap_headers, find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import FlexError, ToolError
from flexllm_allo.ir.types import float32, float64, int8, int16, int32
from flexllm_allo.library import KERNEL2SCHEDULE, nn

F = np.float32


def data(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed + len(shape)).uniform(low, high, shape).astype(F)


# ----------------------------------------------------------------------------------- references


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * gamma + beta


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, causal=False, scaled=True
) -> np.ndarray:
    out = np.zeros_like(q)
    for columns in np.split(np.arange(q.shape[1]), heads):
        score = q[:, columns] @ k[:, columns].T
        if scaled:
            score = score / np.sqrt(len(columns))
        if causal:
            score = np.where(np.tri(len(q)) > 0, score, -np.inf)
        out[:, columns] = softmax(score) @ v[:, columns]
    return out


def windows(x: np.ndarray, kh: int, kw: int, oh: int, ow: int, sh: int, sw: int) -> np.ndarray:
    """[B, C, Oh, Ow, Kh, Kw] windows of a padded image."""
    b, c = x.shape[:2]
    out = np.empty((b, c, oh, ow, kh, kw), x.dtype)
    for i, j in np.ndindex(oh, ow):
        out[:, :, i, j] = x[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
    return out


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return np.einsum("bcijhw,ochw->boij", windows(padded, 3, 2, 3, 4, 2, 1), w) + b[:, None, None]


def pool(x: np.ndarray, how: Callable[..., Any], fill: float) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=fill)
    return how(windows(padded, 3, 3, 3, 3, 2, 2), axis=(4, 5))


def batchnorm(x: np.ndarray, gamma, beta, eps, mean, var) -> np.ndarray:
    shape = (-1, *[1] * (x.ndim - 2))
    norm = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return norm * gamma.reshape(shape) + beta.reshape(shape)


def rope(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    heads = np.split(x, 2, axis=1)
    turned = []
    for head in heads:
        low, high = np.split(head, 2, axis=1)
        turned += [low * cos - high * sin, high * cos + low * sin]
    return np.concatenate(turned, axis=1)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.log(softmax(x))


X = data(6, 8)
IMAGE = data(2, 3, 5, 5)
CHANNEL = (data(3, seed=1), data(3, seed=2), 1e-3, data(3, seed=3), data(3, seed=4, low=0.5))
QKV = tuple(data(8, 12, seed=s) for s in range(3))

CASES: list[tuple[str, Any, list[Any], tuple[Any, ...], np.ndarray]] = [
    ("linear2d", nn.linear2d, [float32] * 3 + [6, 4, 8], (X, data(4, 8), data(4)), X @ data(4, 8).T + data(4)),
    (
        "linear3d", nn.linear3d, [float32] * 3 + [2, 3, 4, 5], (data(2, 3, 4), data(5, 4), data(5)),
        data(2, 3, 4) @ data(5, 4).T + data(5),
    ),
    ("relu2d", nn.relu2d, [float32, 6, 8], (X,), np.maximum(X, 0)),
    ("relu3d", nn.relu3d, [float32, 2, 3, 4], (data(2, 3, 4),), np.maximum(data(2, 3, 4), 0)),
    ("relu4d", nn.relu4d, [float32, 2, 3, 5, 5], (IMAGE,), np.maximum(IMAGE, 0)),
    ("softmax", nn.softmax, [float32, 8], (data(8, 8),), softmax(data(8, 8))),
    ("softmax of a rectangle", nn.softmax, [float32, 6, 8], (X,), softmax(X)),
    ("softmax far below zero", nn.softmax, [float32, 6, 8], (X - F(3e30),), np.full((6, 8), 1 / 8)),
    ("log_softmax", nn.log_softmax, [float32, 6, 8], (X,), log_softmax(X)),
    ("layer_norm", nn.layer_norm, [float32, 6, 8], (X, data(8), data(8, seed=5)), layer_norm(X, data(8), data(8, seed=5))),
    (
        "layer_norm of large means", nn.layer_norm, [float32, 6, 8], (X + F(4096), data(8), data(8)),
        layer_norm(X + F(4096), data(8), data(8)),
    ),
    ("GeLU", nn.GeLU, [float32, 6, 8], (X,), gelu(X)),
    ("residual_add", nn.residual_add, [float32, 6, 8], (X, data(6, 8, seed=9)), X + data(6, 8, seed=9)),
    (
        "modulate_fused", nn.modulate_fused, [float32, 6, 8], (X, data(8), data(8, seed=3)),
        X * (1 + data(8)) + data(8, seed=3),
    ),
    (
        "attention", nn.scaled_dot_product_attention, [float32, 3, 8, 12, 2, 2], QKV, attention(*QKV, 3)),
    (
        "causal attention", nn.scaled_dot_product_attention, [float32, 3, 8, 12, 2, 2, 1], QKV,
        attention(*QKV, 3, causal=True),
    ),
    (
        "unscaled attention", nn.scaled_dot_product_attention, [float32, 3, 8, 12, 2, 2, 0, 0], QKV,
        attention(*QKV, 3, scaled=False),
    ),
    ("RoPE", nn.RoPE, [float32, 2, 6, 8], (X, data(6, 2), data(6, 2, seed=2)), rope(X, data(6, 2), data(6, 2, seed=2))),
    (
        "conv2d", nn.conv2d, [float32, 2, 3, 4, 5, 5, 3, 2, 3, 4, 2, 1, 1, 0],
        (IMAGE, data(4, 3, 3, 2), data(4)), conv2d(IMAGE, data(4, 3, 3, 2), data(4)),
    ),
    ("maxpool2d", nn.maxpool2d, [float32, 2, 3, 5, 5, 3, 3, 3, 2, 1], (IMAGE - 3,), pool(IMAGE - 3, np.max, -np.inf)),
    ("avgpool2d", nn.avgpool2d, [float32, 2, 3, 5, 5, 3, 3, 3, 2, 1], (IMAGE,), pool(IMAGE, np.mean, 0)),
    ("batchnorm2d", nn.batchnorm2d, [float32, 2, 3, 5, 5], (IMAGE, *CHANNEL), batchnorm(IMAGE, *CHANNEL)),
    ("batchnorm1d_2d", nn.batchnorm1d_2d, [float32, 6, 3], (data(6, 3), *CHANNEL), batchnorm(data(6, 3), *CHANNEL)),
    (
        "batchnorm1d_3d", nn.batchnorm1d_3d, [float32, 2, 3, 4], (data(2, 3, 4), *CHANNEL),
        batchnorm(data(2, 3, 4), *CHANNEL),
    ),
    ("repeat_batch3d", nn.repeat_batch3d, [float32, 2, 3, 4, 3], (data(2, 3, 4),), np.tile(data(2, 3, 4), (3, 1, 1))),
    (
        "concat", nn.concat, [float32, 2, 3, 1, 4], (data(2, 3, 4), data(2, 1, 4)),
        np.concatenate([data(2, 3, 4), data(2, 1, 4)], axis=1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "sizes", "args", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_layer(kernel, sizes, args, expected):
    s = allo.customize(kernel, instantiate=sizes)
    plain = s.build()(*args)
    np.testing.assert_allclose(plain, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(Interpreter(s.program)(*args), plain)
    if kernel in KERNEL2SCHEDULE:
        KERNEL2SCHEDULE[kernel](s)
        np.testing.assert_array_equal(s.build()(*args), plain)
        assert "#pragma HLS pipeline II=1" in s.build(target="vhls").hls_code


def test_decode_attention_reads_the_tokens_so_far():
    B, H, L, D = 1, 2, 5, 3  # the sequence is longer than a head is wide
    cache_k, cache_v = data(B, H, L, D), data(B, H, L, D, seed=7)
    q, new_k, new_v = (data(B, H, 1, D, seed=s) for s in (11, 12, 13))
    append = allo.customize(nn.KVCache, instantiate=[float32, B, H, L, D]).build()
    attend = allo.customize(nn.CoreAttention, instantiate=[float32, B, H, L, D])
    for n in (0, 3, 4):
        k, v = append(new_k, cache_k, n), append(new_v, cache_v, n)
        expected = cache_k.copy()
        expected[:, :, n] = new_k[:, :, 0]
        np.testing.assert_array_equal(k, expected)
        score = np.einsum("bhd,bhld->bhl", q[:, :, 0], k[:, :, : n + 1]) / np.sqrt(D)
        wanted = np.einsum("bhl,bhld->bhd", softmax(score), v[:, :, : n + 1])[:, :, None]
        got = attend.build()(q, k, v, n)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(Interpreter(attend.program)(q, k, v, n), got)


def test_integer_layers():
    X, W, b = np.arange(-8, 8, dtype=np.int8).reshape(4, 4), np.eye(4, dtype=np.int8)[::-1] * 3, np.arange(4)
    s = allo.customize(nn.linear2d, instantiate=[int8, int8, int32, 4, 4, 4])
    np.testing.assert_array_equal(s.build()(X, W.copy(), b.astype(np.int32)), X.astype(int) @ W.T + b)
    s = allo.customize(nn.relu2d, instantiate=[int16, 4, 4])
    np.testing.assert_array_equal(s.build()(X.astype(np.int16)), np.maximum(X, 0))


def test_types_are_those_of_the_arguments():
    def top(X: float64[4, 6]) -> float64[4, 6]:
        Y = nn.softmax[float64, 4, 6](X)
        Z = nn.GeLU[float64, 4, 6](Y)
        return Z

    X = data(4, 6).astype(np.float64)
    np.testing.assert_allclose(allo.customize(top).build()(X), gelu(softmax(X)), rtol=1e-5)


def block(
    X: float32[4, 8], W: float32[8, 8], b: float32[8], gamma: float32[8], beta: float32[8]
) -> float32[4, 8]:
    Q = nn.linear2d[float32, float32, float32, 4, 8, 8, "q"](X, W, b)
    A = nn.scaled_dot_product_attention[float32, 2, 4, 8, 2, 2, 1](Q, X, Q)
    R = nn.residual_add[float32, 4, 8](A, X)
    N = nn.layer_norm[float32, 4, 8](R, gamma, beta)
    G = nn.GeLU[float32, 4, 8](N)
    return G


ARGS = (data(4, 8), data(8, 8), data(8), data(8, seed=1), data(8, seed=2))


def reference(X, W, b, gamma, beta):
    q = X @ W.T + b
    return gelu(layer_norm(attention(q, X, q, 2, causal=True) + X, gamma, beta))


def test_compose_finds_the_schedules_of_library_kernels():
    s = allo.customize(block)
    before = s.build()(*ARGS)
    s.compose(nn.linear2d, id="q", instantiate=[float32, float32, float32, 4, 8, 8])
    s.compose(nn.layer_norm, instantiate=[float32, 4, 8])
    s.compose(nn.GeLU)
    assert s.get_loops("linear2d_q")["linear"]
    text = s.build(target="vhls").hls_code
    assert text.count("#pragma HLS pipeline II=1") == 3 + 3 + 1
    np.testing.assert_array_equal(s.build()(*ARGS), before)
    np.testing.assert_allclose(before, reference(*ARGS), rtol=1e-4, atol=1e-5)


def test_compiled_hls_of_a_block_of_layers():
    try:
        find_compiler(), find_ap_headers()
    except ToolError:
        pytest.skip("no C++ compiler or ap_int headers")
    s = allo.customize(block)
    np.testing.assert_allclose(CSimModule(s.program)(*ARGS), s.build()(*ARGS), rtol=1e-6, atol=1e-6)


def test_a_kernel_without_a_schedule_is_named():
    s = allo.customize(block)
    with pytest.raises(RuntimeError, match="Cannot find schedule for kernel residual_add"):
        s.compose(nn.residual_add, instantiate=[float32, 4, 8])


def test_sizes_that_do_not_fit_are_refused():
    def pooled(X: float32[1, 1, 4, 4]) -> float32[1, 1, 4, 4]:
        Y = nn.maxpool2d[float32, 1, 1, 4, 4, 2, 4, 4, 2, 0](X)
        return Y

    with pytest.raises(FlexError) as caught:
        allo.customize(pooled)
    assert caught.value.code == "FX108"
    message = "maxpool2d needs (Oh - 1) * S + K <= H + 2 * Pd, got H = 4, K = 2, Oh = 4, S = 2, Pd = 0"
    assert message in str(caught.value)
    assert "nn.maxpool2d[float32, 1, 1, 4, 4, 2, 4, 4, 2, 0](X)" in str(caught.value)


def test_a_parameter_nothing_determines_is_named():
    with pytest.raises(FlexError, match="template parameter C of log_softmax is not determined"):
        allo.customize(nn.log_softmax, instantiate=[float32, 4])
