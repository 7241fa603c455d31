"""Layers of torch.nn -> calls of the library. `MODULES` lists what is supported."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .functions import FUNCTIONS, Rule, activation, linear, reshape, same, unsupported
from .tracing import Traced, as_tuple
from .writer import Writer, nn


def write_step(writer: Writer, node: Traced) -> None:
    """Append the lines for one step of a traced model.

    Raises:
        TracingError: FX603, it is not supported; the hint lists what is.
    """
    if node.kind == "input":
        writer.parameter(node)
    elif node.kind == "constant":
        writer.weight(node.name, node.data, writer.dtype(node))
    elif node.kind == "module":
        _rule(MODULES, "module", type(node.op).__name__, node)(writer, node)
    else:
        _rule(FUNCTIONS, "function", str(node.op), node)(writer, node)


def _rule(table: dict[str, Rule], kind: str, name: str, node: Traced) -> Rule:
    if name not in table:
        raise unsupported(f"{kind} {name}", node, "supported: " + ", ".join(sorted(table)))
    return table[name]


def _linear(writer: Writer, node: Traced) -> None:
    linear(writer, node, node.args[0], node.op.weight, node.op.bias)


def _affine(writer: Writer, node: Traced, width: int, dtype: Any) -> list[str]:
    """The scale and shift of a normalization."""
    given = {"weight": (node.op.weight, np.ones), "bias": (node.op.bias, np.zeros)}
    return [
        writer.weight(f"{node.name}_{name}", fill(width, np.float32) if data is None else data, dtype)
        for name, (data, fill) in given.items()
    ]


def _layer_norm(writer: Writer, node: Traced) -> None:
    m = node.op
    if len(m.normalized_shape) != 1 or m.eps != 1e-5:
        raise unsupported("module LayerNorm", node, "over the last dimension, with eps = 1e-5")
    dtype = writer.dtype(node, "layernorm")
    source = writer.converted(node.args[0], dtype, f"{node.name}_in")
    writer.rowwise(node, nn.layer_norm, source, _affine(writer, node, m.normalized_shape[0], dtype), dtype)


def _conv2d(writer: Writer, node: Traced) -> None:
    m = node.op
    plain = m.groups == 1 and tuple(m.dilation) == (1, 1) and m.padding_mode == "zeros"
    if not plain or isinstance(m.padding, str):
        raise unsupported("module Conv2d", node, "one group, no dilation, zero padding given as numbers")
    dtype = writer.dtype(node, "conv2d")
    source = writer.converted(node.args[0], dtype, f"{node.name}_in")
    bias = np.zeros(m.out_channels, np.float32) if m.bias is None else m.bias
    w = writer.weight(f"{node.name}_weight", m.weight, dtype)
    b = writer.weight(f"{node.name}_bias", bias, dtype)
    batch, channels, *size = writer.known[source][0]
    window = [*m.kernel_size, *node.shape[2:], *m.stride, *m.padding]
    writer.call(
        node, nn.conv2d, [dtype, batch, channels, m.out_channels, *size, *window], [source, w, b], dtype
    )


def _pool(kernel: Any, writer: Writer, node: Traced) -> None:
    m = node.op
    square = [set(as_tuple(v)) for v in (m.kernel_size, m.stride, m.padding)]
    plain = getattr(m, "dilation", 1) in (1, (1, 1)) and getattr(m, "count_include_pad", True)
    if any(len(v) != 1 for v in square) or not plain or m.ceil_mode:
        hint = "square windows without dilation, floor mode, padding counted"
        raise unsupported(f"module {type(m).__name__}", node, hint)
    window, stride, padding = (v.pop() for v in square)
    x = node.args[0].name
    shape, dtype = writer.known[x]
    writer.call(node, kernel, [dtype, *shape, window, *node.shape[2:], stride, padding], [x], dtype)


def _batch_norm(writer: Writer, node: Traced) -> None:
    kernel = {2: nn.batchnorm1d_2d, 3: nn.batchnorm1d_3d, 4: nn.batchnorm2d}[len(node.shape)]
    m, dtype = node.op, writer.dtype(node, "batchnorm")
    source = writer.converted(node.args[0], dtype, f"{node.name}_in")
    gamma, beta = _affine(writer, node, m.num_features, dtype)
    mean = writer.weight(f"{node.name}_running_mean", m.running_mean, dtype)
    var = writer.weight(f"{node.name}_running_var", m.running_var, dtype)
    writer.call(node, kernel, [dtype, *node.shape], [source, gamma, beta, repr(m.eps), mean, var], dtype)


MODULES: dict[str, Rule] = {
    "Linear": _linear,
    "LayerNorm": _layer_norm,
    "Conv2d": _conv2d,
    "MaxPool2d": partial(_pool, nn.maxpool2d),
    "AvgPool2d": partial(_pool, nn.avgpool2d),
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "Dropout": same,
    "Identity": same,
    "Flatten": reshape,
    "ReLU": partial(activation, "relu"),
    "GELU": partial(activation, "gelu"),
    "Softmax": partial(activation, "softmax"),
    "LogSoftmax": partial(activation, "log_softmax"),
}
