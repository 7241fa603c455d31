"""The source text of a kernel, line by line, and what it refers to."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import dsl
from ..ir import types
from ..ir.dtypes import FLOAT32, DType
from ..library import nn as library
from .tracing import Traced, Value, as_tuple

nn: Any = library  # kernels, whose annotations are for our frontend
Shape = tuple[int, ...]


def _dtype(given: Any) -> DType:
    return getattr(types, given) if isinstance(given, str) else given


class Writer:
    """Writes ``forward`` line by line and collects what it refers to.

    Attributes:
        names: the objects the source uses by name.
        layers: (kernel, template arguments, instance id) of every library call.
        weights: the arrays that are arguments, in order.
        known: shape and type of every tensor written so far.
    """

    def __init__(self, op_dtypes: dict[str, Any], weights_as_args: bool) -> None:
        self.types = {key: tuple(_dtype(t) for t in as_tuple(given)) for key, given in op_dtypes.items()}
        self.as_args = weights_as_args
        self.names: dict[str, Any] = {"dsl": dsl, "nn": nn}
        self.layers: list[tuple[Callable[..., Any], list[Any], str]] = []
        self.weights: list[NDArray[Any]] = []
        self.lines: list[str] = []
        self.params: list[str] = []
        self.weight_params: list[str] = []
        self.known: dict[str, tuple[Shape, DType]] = {}

    def forward(self, nodes: list[Traced], step: Callable[[Writer, Traced], None]) -> str:
        """The source of the traced model; `step` writes one of its steps."""
        results: list[str] = []
        for node in nodes:
            if node.kind == "output":
                results = [self.result(v) for v in as_tuple(node.args[0])]
            else:
                step(self, node)
        annotations = ", ".join(self.array(*self.known[r]) for r in results)
        arrow = f"({annotations})" if len(results) > 1 else annotations
        head = f"def forward({', '.join([*self.params, *self.weight_params])}) -> {arrow}:"
        return "\n    ".join([head, *self.lines, f"return {', '.join(results)}"]) + "\n"

    def parameter(self, node: Traced) -> None:
        """An input of the model."""
        dtype = self.dtype(node, "inputs")
        self.params.append(f"{node.name}: {self.array(node.shape, dtype)}")
        self.known[node.name] = (node.shape, dtype)

    def result(self, value: Value) -> str:
        """The name of a result, in the type that ``op_dtypes["outputs"]`` asks for."""
        dtype = self.types["outputs"][-1] if "outputs" in self.types else self.known[value.name][1]
        return self.converted(value, dtype, f"{value.name}_out")

    # ---- types and names

    def array(self, shape: Shape, dtype: DType) -> str:
        dims = ", ".join(map(str, shape))
        return f"{self.type_name(dtype)}[{dims}]" if shape else self.type_name(dtype)

    def type_name(self, dtype: DType) -> str:
        name = f"t_{dtype}".replace("(", "_").replace(", ", "_").replace(")", "")
        self.names[name] = dtype
        return name

    def dtype(self, node: Traced, *keys: str) -> DType:
        """The type of a step's result: by its name, then its operator, then the default."""
        for key in (node.target, node.name, *keys, "default"):
            if key in self.types:
                return self.types[key][-1]
        return FLOAT32

    def weight_type(self, node: Traced, x: DType, out: DType, op: str) -> tuple[DType, DType]:
        """The types of a layer's input and weights."""
        for key in (node.target, node.name, op):
            if len(self.types.get(key, ())) == 3:
                return self.types[key][0], self.types[key][1]
        return self.types.get(f"{op}_input", (x,))[-1], self.types.get(f"{op}_weight", (out,))[-1]

    # ---- lines

    def bind(self, name: str, text: str, shape: Shape, dtype: DType) -> str:
        """``name = text``."""
        self.lines.append(f"{name} = {text}")
        self.known[name] = (shape, dtype)
        return name

    def declare(self, name: str, text: str, shape: Shape, dtype: DType) -> str:
        """``name: type = text``, converting."""
        self.lines.append(f"{name}: {self.array(shape, dtype)} = {text}")
        self.known[name] = (shape, dtype)
        return name

    def converted(self, value: Value, dtype: DType, name: str) -> str:
        """The tensor as elements of a type."""
        shape, given = self.known[value.name]
        return value.name if given == dtype else self.declare(name, value.name, shape, dtype)

    def viewed(self, name: str, shape: Shape, new: str) -> str:
        """The tensor in another shape, under a new name if it is another one."""
        old, dtype = self.known[name]
        return name if old == shape else self.bind(new, f"dsl.view({name}, {shape})", shape, dtype)

    def weight(self, name: str, data: Any, dtype: DType) -> str:
        """A constant array, or an argument that holds it."""
        if name in self.known:
            return name
        values = np.ascontiguousarray(data.detach().numpy() if hasattr(data, "detach") else data)
        if not self.as_args:
            self.names[f"g_{name}"] = values
            return self.declare(name, f"g_{name}", values.shape, dtype)
        self.weight_params.append(f"{name}: {self.array(values.shape, dtype)}")
        self.weights.append(values)
        self.known[name] = (values.shape, dtype)
        return name

    def call(
        self,
        node: Traced,
        kernel: Callable[..., Any],
        sizes: list[Any],
        args: list[str],
        out: DType,
        name: str = "",
        shape: Shape = (),
    ) -> None:
        """A call of a library kernel in an instance of its own; the result has the step's name by default."""
        given = ", ".join(self.type_name(s) if isinstance(s, DType) else str(s) for s in sizes)
        text = f'nn.{kernel.__name__}[{given}, "{node.name}"]({", ".join(args)})'
        self.bind(name or node.name, text, shape or node.shape, out)
        self.layers.append((kernel, sizes, node.name))

    def rowwise(
        self, node: Traced, kernel: Callable[..., Any], x: str, more: list[str], dtype: DType
    ) -> None:
        """A kernel of rows on a tensor of any rank."""
        shape = self.known[x][0]
        rows = (prod(shape[:-1]), shape[-1])
        flat = self.viewed(x, rows, f"{node.name}_rows")
        name = node.name if rows == shape else f"{node.name}_made"
        self.call(node, kernel, [dtype, *rows], [flat, *more], dtype, name, rows)
        self.viewed(name, shape, node.name)
