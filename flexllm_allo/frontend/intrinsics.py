"""The tensor intrinsics of the language: one line each, signature and lowering."""

from __future__ import annotations

import ast
from collections.abc import Callable

from ..ir import nodes as ir
from . import linalg, normalization, rearrange
from .element_rules import ELEMENT_RULES
from .elementwise import elementwise
from .operations import Operation, Request
from .tensors import Array, Pending, Tensor, cheap


def _by_element(name: str) -> Callable[[Request], Array]:
    rule = ELEMENT_RULES[name]

    def lower(call: Request) -> Array:
        def element(*operands: ir.Expr) -> ir.Expr:
            return rule(call.ctx, operands, call.node)

        values = list(call.values)
        if name == "gelu":  # looks at its operand several times
            values = [(cheap(call.ctx, v, p) if isinstance(v, Tensor | Pending) else v, p) for v, p in values]
        return elementwise(call.ctx, element, values, call.node, name, call.name)

    return lower


def _operation(lower: Callable[[Request], Array], operands: str = "", **settings: object) -> Operation:
    return Operation(lower, tuple(operands.split()), settings)


INTRINSICS: dict[str, Operation] = {
    **{name: _operation(_by_element(name), "A B") for name in ("add", "sub", "mul", "div")},
    "relu": _operation(_by_element("relu"), "X"),
    "gelu": _operation(_by_element("gelu"), "X"),
    "copy": _operation(rearrange.copy, "X"),
    "softmax": _operation(normalization.softmax, "X"),
    "layernorm": _operation(normalization.layernorm, "X gamma beta", eps=1e-5),
    "matmul": _operation(linalg.matmul, "A B"),
    "bmm": _operation(linalg.bmm, "A B"),
    "linear": Operation(linalg.linear, ("X", "W", "bias"), {}, optional=1),
    "conv2d": _operation(linalg.conv2d, "inp filter"),
    "maxpool": _operation(linalg.maxpool, "inp filter"),
    "sumpool": _operation(linalg.sumpool, "inp filter"),
    "transpose": _operation(rearrange.transpose, "X", axes=None),
    "view": Operation(rearrange.view, ("X",), {"shape": ...}, ranked="shape"),
    "concat": _operation(rearrange.concat, "X Y", axis=0),
    "tril": _operation(rearrange.tril, "X"),
    "zeros": Operation(rearrange.constant(0), (), {"shape": ..., "dtype": "float32"}, ranked="shape"),
    "ones": Operation(rearrange.constant(1), (), {"shape": ..., "dtype": "float32"}, ranked="shape"),
}


def arguments(operation: Operation, node: ast.Call) -> dict[str, ast.expr] | None:
    """The arguments of a call by parameter, ``name`` among them; None when they do not fit."""
    given = dict(zip(operation.parameters, node.args, strict=False))
    known = {*operation.parameters, "name"}
    if len(node.args) > len(operation.parameters):
        return None
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg not in known or keyword.arg in given:
            return None
        given[keyword.arg] = keyword.value
    return given if all(p in given for p in operation.required) else None
