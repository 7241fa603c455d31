"""Intrinsics on whole arrays: what they mean, as NumPy functions.

The compiler lowers them to loops (`frontend.intrinsics`); sums run in index order there, in the type of
the first operand, so floats may differ from these functions in the last bits.  `name` is that of the
band of loops, which exists with ``customize(..., lower_linalg=True)``; it has no effect here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .marks import intrinsic

Array = Any


def _same_type(name: str, fn: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def call(A: Array, B: Array, name: str | None = None) -> Array:
        del name
        return np.asarray(fn(A, B)).astype(np.asarray(A).dtype)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``{name}(A, B)`` element by element with broadcasting, in the element type of `A`."
    return intrinsic(name)(call)


add = _same_type("add", lambda a, b: a + b)
sub = _same_type("sub", lambda a, b: a - b)
mul = _same_type("mul", lambda a, b: a * b)


def _divide(a: Array, b: Array) -> Array:
    """Integers floor, as the language's ``/`` does."""
    whole = all(np.issubdtype(np.asarray(x).dtype, np.integer) for x in (a, b))
    return a // b if whole else a / b


div = _same_type("div", _divide)


@intrinsic("relu")
def relu(X: Array, name: str | None = None) -> Array:
    """max(x, 0) element by element."""
    del name
    return np.maximum(X, 0)


@intrinsic("gelu")
def gelu(X: Array, name: str | None = None) -> Array:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): Hendrycks and Gimpel, arXiv 1606.08415."""
    del name
    return 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)))


@intrinsic("copy")
def copy(X: Array, name: str | None = None) -> Array:
    """The same elements in another array."""
    del name
    return np.copy(X)


@intrinsic("softmax")
def softmax(X: Array, name: str | None = None) -> Array:
    """exp(x - max) / sum along the last axis."""
    del name
    powers = np.exp(X - np.max(X, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


@intrinsic("layernorm")
def layernorm(X: Array, gamma: Array, beta: Array, eps: float = 1e-5, name: str | None = None) -> Array:
    """(x - mean) / sqrt(variance + eps) * gamma + beta along the last axis."""
    del name
    mean = np.mean(X, axis=-1, keepdims=True)
    variance = np.mean((X - mean) ** 2, axis=-1, keepdims=True)
    return (X - mean) / np.sqrt(variance + eps) * gamma + beta


@intrinsic("matmul")
def matmul(A: Array, B: Array, name: str | None = None) -> Array:
    """[.., M, K] x [.., K, N] -> [.., M, N] in the element type of `A`."""
    del name
    return np.matmul(A, B).astype(np.asarray(A).dtype)


@intrinsic("bmm")
def bmm(A: Array, B: Array, name: str | None = None) -> Array:
    """[B, M, K] x [B, K, N] -> [B, M, N]."""
    return matmul(A, B, name)


@intrinsic("linear")
def linear(X: Array, W: Array, bias: Array | None = None, name: str | None = None) -> Array:
    """[.., K] x [N, K] (+ [N]) -> [.., N]: X times the transpose of W, plus the bias."""
    del name
    product = np.matmul(X, np.transpose(W)).astype(np.asarray(X).dtype)
    return product if bias is None else product + bias


def _windows(image: Array, window: tuple[int, ...]) -> Array:
    return np.lib.stride_tricks.sliding_window_view(image, window[-2:], axis=(2, 3))


@intrinsic("conv2d")
def conv2d(inp: Array, filter: Array, name: str | None = None) -> Array:
    """[N, C, H, W] * [F, C, Kh, Kw] -> [N, F, H - Kh + 1, W - Kw + 1], stride 1, no padding."""
    del name
    product = np.einsum("nchwij,fcij->nfhw", _windows(inp, filter.shape), filter)
    return product.astype(inp.dtype)


@intrinsic("maxpool")
def maxpool(inp: Array, filter: Array, name: str | None = None) -> Array:
    """The largest element under a window of `filter`'s shape, at every position."""
    del name
    return _windows(inp, filter.shape).max(axis=(-2, -1))


@intrinsic("sumpool")
def sumpool(inp: Array, filter: Array, name: str | None = None) -> Array:
    """The sum under a window of `filter`'s shape, at every position."""
    del name
    return _windows(inp, filter.shape).sum(axis=(-2, -1)).astype(inp.dtype)


@intrinsic("transpose")
def transpose(X: Array, axes: tuple[int, ...] | None = None, name: str | None = None) -> Array:
    """Axes permuted by `axes`, reversed without it."""
    del name
    return np.transpose(X, axes)


@intrinsic("view")
def view(X: Array, shape: tuple[int, ...], name: str | None = None) -> Array:
    """The elements in row-major order under another shape."""
    del name
    return np.reshape(X, shape)


@intrinsic("concat")
def concat(X: Array, Y: Array, axis: int = 0, name: str | None = None) -> Array:
    """`Y` behind `X` along an axis."""
    del name
    return np.concatenate((X, Y), axis=axis)


@intrinsic("tril")
def tril(X: Array, name: str | None = None) -> Array:
    """The lower triangle of the last two axes, zero above the diagonal."""
    del name
    return np.tril(X)


@intrinsic("zeros")
def zeros(shape: tuple[int, ...], dtype: Any = np.float32, name: str | None = None) -> Array:
    """An array of zeros; `dtype` is a type of the language, of NumPy or of Python."""
    del name
    return np.zeros(shape, _numpy_type(dtype))


@intrinsic("ones")
def ones(shape: tuple[int, ...], dtype: Any = np.float32, name: str | None = None) -> Array:
    """An array of ones; `dtype` is a type of the language, of NumPy or of Python."""
    del name
    return np.ones(shape, _numpy_type(dtype))


def _numpy_type(dtype: Any) -> Any:
    """Python's int and float are 32 bits wide here; the language's types go by their names."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
    return {"int": np.int32, "float": np.float32}.get(name) or getattr(np, name, dtype)


TENSOR_OPS = (
    "add", "bmm", "concat", "conv2d", "copy", "div", "gelu", "layernorm", "linear", "matmul", "maxpool",
    "mul", "ones", "relu", "softmax", "sub", "sumpool", "transpose", "tril", "view", "zeros",
)  # fmt: skip
