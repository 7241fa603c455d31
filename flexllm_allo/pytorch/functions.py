"""Functions of tensors -> lines of the kernel. `FUNCTIONS` lists what is supported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from .tracing import Traced, TracingError, Value, as_tuple
from .writer import Writer, nn

Rule = Callable[[Writer, Traced], None]
_ROWWISE = {"relu": nn.relu2d, "gelu": nn.GeLU, "softmax": nn.softmax, "log_softmax": nn.log_softmax}


def unsupported(what: str, node: Traced, hint: str) -> TracingError:
    """The refusal of one step of a model."""
    return TracingError("FX603", f'Unsupported {what} ("{node.target or node.name}")', hint=hint)


def _operand(node: Traced) -> Value:
    return node.args[0] if node.args else next(iter(node.kwargs.values()))


def _argument(node: Traced, position: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[position] if len(node.args) > position else default)


def same(writer: Writer, node: Traced) -> None:
    """The identity, as dropout is in inference."""
    x = _operand(node)
    writer.bind(node.name, x.name, *writer.known[x.name])


def reshape(writer: Writer, node: Traced) -> None:
    """Another shape for the same elements in order."""
    x = _operand(node)
    writer.bind(node.name, f"dsl.view({x.name}, {node.shape})", node.shape, writer.known[x.name][1])


def _tril(writer: Writer, node: Traced) -> None:
    if _argument(node, 1, "diagonal", 0):
        raise unsupported("tril", node, "diagonal 0")
    x = _operand(node)
    writer.bind(node.name, f"dsl.tril({x.name})", node.shape, writer.known[x.name][1])


def _binary(op: str, writer: Writer, node: Traced) -> None:
    left, right = node.args[:2]
    dtypes = [writer.known[v.name][1] for v in (left, right) if isinstance(v, Value)]
    out = writer.dtype(node, str(node.op)) if str(node.op) in writer.types else dtypes[0]
    a, b = (v.name if isinstance(v, Value) else repr(v) for v in (left, right))
    writer.declare(node.name, f"{a} {op} {b}", node.shape, out)


def activation(name: str, writer: Writer, node: Traced) -> None:
    """relu, gelu (tanh form), softmax and log_softmax over the last dimension."""
    x = _operand(node)
    shape, dtype = writer.known[x.name]
    dtype = writer.dtype(node, name) if name in writer.types else dtype
    source = writer.converted(x, dtype, f"{node.name}_in")
    dim = _argument(node, 1, "dim", getattr(node.op, "dim", -1))
    if "softmax" in name and dim not in (-1, len(shape) - 1):
        raise unsupported(f"{name} over dimension {dim}", node, "only over the last dimension")
    if name == "relu" and len(shape) in (3, 4):
        writer.call(node, nn.relu3d if len(shape) == 3 else nn.relu4d, [dtype, *shape], [source], dtype)
    else:
        writer.rowwise(node, _ROWWISE[name], source, [], dtype)


def _permuted(writer: Writer, node: Traced, axes: list[int]) -> None:
    x = _operand(node)
    text = f"dsl.transpose({x.name}, {tuple(axes)})"
    writer.bind(node.name, text, node.shape, writer.known[x.name][1])


def _transpose(writer: Writer, node: Traced) -> None:
    axes = list(range(len(node.shape)))
    a, b = int(_argument(node, 1, "dim0", 0)), int(_argument(node, 2, "dim1", 1))
    axes[a], axes[b] = axes[b], axes[a]
    _permuted(writer, node, axes)


def _permute(writer: Writer, node: Traced) -> None:
    given = as_tuple(node.args[1]) if len(node.args) == 2 else node.args[1:]
    _permuted(writer, node, [int(g) % len(node.shape) for g in given])


def _matmul(writer: Writer, node: Traced) -> None:
    a, b = node.args[:2]
    out = writer.dtype(node, "matmul")
    left, right = writer.converted(a, out, f"{node.name}_a"), writer.converted(b, out, f"{node.name}_b")
    writer.bind(node.name, f"dsl.matmul({left}, {right})", node.shape, out)


def _cat(writer: Writer, node: Traced) -> None:
    parts = [p.name for p in node.args[0]]
    axis = int(_argument(node, 1, "dim", 0)) % len(node.shape)
    joined, dtype = parts[0], writer.known[parts[0]][1]
    shape = list(writer.known[joined][0])
    for n, part in enumerate(parts[1:], 2):
        shape[axis] += writer.known[part][0][axis]
        name = node.name if n == len(parts) else f"{node.name}_{n}"
        joined = writer.bind(name, f"dsl.concat({joined}, {part}, axis={axis})", tuple(shape), dtype)


def _getitem(writer: Writer, node: Traced) -> None:
    x = _operand(node)
    shape, dtype = writer.known[x.name]
    items: list[str] = []
    for index, extent in zip(as_tuple(node.args[1]), shape, strict=False):
        if isinstance(index, slice):
            start, stop, step = index.indices(extent)
            items.append(f"{start}:{stop}:{step}")
        elif isinstance(index, int):
            items.append(str(index % extent))
        else:
            raise unsupported(f"index {index}", node, "numbers and slices")
    writer.bind(node.name, f"{x.name}[{', '.join(items)}]", node.shape, dtype)


def linear(writer: Writer, node: Traced, x: Value, weight: Any, bias: Any) -> None:
    """X W^T + b over the last dimension; weight and bias are parameters or tensors of the model."""
    out = writer.dtype(node, "linear")
    ty_x, ty_w = writer.weight_type(node, writer.known[x.name][1], out, "linear")
    source = writer.converted(x, ty_x, f"{node.name}_in")
    w = weight.name if isinstance(weight, Value) else writer.weight(f"{node.name}_weight", weight, ty_w)
    n, k = writer.known[w][0]
    if isinstance(bias, Value):
        b = bias.name
    else:
        b = writer.weight(f"{node.name}_bias", np.zeros(n, np.float32) if bias is None else bias, out)
    shape = writer.known[source][0]
    if len(shape) == 3:
        writer.call(node, nn.linear3d, [ty_x, ty_w, out, *shape, n], [source, w, b], out)
        return
    rows = prod(shape[:-1])
    flat = writer.viewed(source, (rows, k), f"{node.name}_rows")
    name = node.name if len(shape) == 2 else f"{node.name}_made"
    writer.call(node, nn.linear2d, [ty_x, ty_w, out, rows, n, k], [flat, w, b], out, name, (rows, n))
    writer.viewed(name, node.shape, node.name)


def _linear(writer: Writer, node: Traced) -> None:
    linear(writer, node, node.args[0], node.args[1], _argument(node, 2, "bias", None))


FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(("dropout", "contiguous", "clone", "detach"), same),
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze", "unsqueeze"), reshape),
    **{name: partial(activation, name) for name in _ROWWISE},
    **{
        name: partial(_binary, op)
        for name, op in {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "div": "/"}.items()
    },
    "transpose": _transpose,
    "permute": _permute,
    "matmul": _matmul,
    "bmm": _matmul,
    "cat": _cat,
    "concat": _cat,
    "tril": _tril,
    "linear": _linear,
    "getitem": _getitem,
}
