"""Expressions whose value is a whole array.

An operator on arrays means its scalar self at every index: the elements take the places of the
operands and the scalar rules lower the rest, so both have the same types and the same bits.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import FrontendError
from ..ir import nodes as ir
from ..ir.convert import constant_as
from ..ir.dtypes import ArrayType, DType, Float, Int, UInt
from . import slices
from .annotations import result_annotations
from .axes import whole
from .calls import lower_call, resolve_callee
from .context import Context, ElementSymbol, StreamsSymbol, ViewSymbol
from .elementwise import elementwise
from .intrinsics import INTRINSICS, arguments
from .names import NotConstant
from .operations import Operation, Request
from .source import function_source
from .tensors import Array, Tensor, Value, elements, loaded, stored

_OPERATOR_NAMES: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv",
    ast.Mod: "mod", ast.Pow: "power", ast.USub: "neg",
}  # fmt: skip


# ------------------------------------------------------------------------------- is it an array?


def is_array(ctx: Context, node: ast.expr) -> bool:
    """Whether the value of an expression is a whole array; nothing is lowered."""
    return rank_of(ctx, node) > 0


def makes_buffer(ctx: Context, node: ast.expr) -> bool:
    """Whether an expression is a call whose results are buffers: of a kernel, of a FIFO."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return _rank_of_token(ctx, node.func.value) > 0
    return is_kernel_call(ctx, node) or getattr(_callee(ctx, node), "__intrinsic__", "") == "df.gather"


def is_kernel_call(ctx: Context, node: ast.expr) -> bool:
    """Whether an expression is the call of another kernel."""
    if not isinstance(node, ast.Call) or is_numpy_call(ctx, node):
        return False
    callee = _callee(ctx, node)
    return isinstance(callee, types.FunctionType) and not hasattr(callee, "__intrinsic__")


def is_numpy_call(ctx: Context, node: ast.Call) -> bool:
    """Whether a call is one of NumPy's, which makes a constant: ``np.arange(4)``."""
    return str(getattr(_callee(ctx, node), "__module__", "")).split(".")[0] == "numpy"


def rank_of(ctx: Context, node: ast.expr) -> int:
    """The number of dimensions of an expression's value, 0 for scalars; nothing is lowered."""
    match node:
        case ast.Name():
            return _rank_of_name(ctx, node)
        case ast.Subscript():
            fixed = sum(not isinstance(i, ast.Slice) for i in slices.subscripts(node))
            return max(0, rank_of(ctx, node.value) - fixed)
        case ast.Attribute(attr="T" | "copy"):
            return rank_of(ctx, node.value)
        case ast.Call():
            return _rank_of_call(ctx, node)
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.IfExp():
            return max(rank_of(ctx, part) for part in _parts(node))
        case ast.Attribute():
            return _rank_of_constant(ctx, node)
        case _:
            return 0


def _rank_of_name(ctx: Context, node: ast.Name) -> int:
    symbol = ctx.find(node.id)
    if isinstance(symbol, ir.Buffer):
        return 0 if symbol.is_stream else len(symbol.shape)
    if isinstance(symbol, ViewSymbol):
        return len(symbol.region.shape)
    if isinstance(symbol, ElementSymbol):
        return 0
    return 0 if symbol is None and node.id not in ctx.names else _rank_of_constant(ctx, node)


def _rank_of_constant(ctx: Context, node: ast.expr) -> int:
    try:
        value = ctx.constant(node)
    except NotConstant:
        return 0
    return value.ndim if isinstance(value, np.ndarray) else 0


def _parts(node: ast.expr) -> list[ast.expr]:
    """The operands of an operator, in order of evaluation."""
    match node:
        case ast.BinOp(left, _, right):
            return [left, right]
        case ast.UnaryOp(_, operand):
            return [operand]
        case ast.Compare(left, _, comparators):
            return [left, *comparators]
        case ast.IfExp(test, body, orelse):
            return [test, body, orelse]
        case ast.Call(_, args):
            return list(args)
        case _:
            return []


def _rank_of_call(ctx: Context, node: ast.Call) -> int:
    if isinstance(node.func, ast.Attribute):
        if own := rank_of(ctx, node.func.value):
            return own  # A.copy(); elements have other methods
        if node.func.attr == "get":
            return _rank_of_token(ctx, node.func.value)
    callee = _callee(ctx, node)
    if callee is None:
        return 0
    if isinstance(callee, types.FunctionType) and not hasattr(callee, "__intrinsic__"):
        return _result_rank(callee)
    known = getattr(callee, "__intrinsic__", "")
    if known == "df.gather":
        return 1
    operation = INTRINSICS.get(known)
    if operation is not None and operation.ranked is not None:
        given = arguments(operation, node)
        return len(_items(given[operation.ranked])) if given else 1
    return max((rank_of(ctx, a) for a in [*node.args, *(k.value for k in node.keywords)]), default=0)


def _rank_of_token(ctx: Context, node: ast.expr) -> int:
    """The rank of what a FIFO carries; 0 for anything else."""
    while isinstance(node, ast.Subscript):
        node = node.value
    symbol = ctx.find(node.id) if isinstance(node, ast.Name) else None
    if isinstance(symbol, StreamsSymbol):
        return len(symbol.type.token)
    return len(symbol.token) if isinstance(symbol, ir.Buffer) and symbol.is_stream else 0


def _items(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple | ast.List) else [node]


def _callee(ctx: Context, node: ast.Call) -> Any:
    func = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    try:
        return ctx.constant(func)
    except NotConstant:
        return None


@lru_cache(maxsize=1024)
def _result_rank(fn: types.FunctionType) -> int:
    """The rank of a kernel's only result by its annotation; several results are no array."""
    try:
        wanted = result_annotations(function_source(fn).tree)
    except FrontendError:
        return 0
    if len(wanted) != 1:
        return 0
    node = wanted[0].left if isinstance(wanted[0], ast.BinOp) else wanted[0]
    if isinstance(node, ast.Subscript):
        return len(slices.subscripts(node))
    value = fn.__globals__.get(node.id) if isinstance(node, ast.Name) else None
    return len(value.shape) if isinstance(value, ArrayType) else 0


# --------------------------------------------------------------------------------------- lowering


def lower_array(ctx: Context, node: ast.expr) -> Array:
    """The value of an expression that `rank_of` found to be an array.

    Raises:
        FrontendError: FX101 not an operation on arrays, FX105 shapes do not fit, FX106 bad slice,
            FX107 bad arguments, FX109 operator not defined for the types.
    """
    region = slices.region_of(ctx, node)
    if region is not None:
        return loaded(region, node, ctx)
    match node:
        case ast.Subscript():
            return _part_of(ctx, node)
        case ast.Attribute(value, "T"):
            transposed = [(lower_array(ctx, value), value)]
            return INTRINSICS["transpose"].lower(Request(ctx, "transpose", node, transposed, {"axes": None}))
        case ast.Attribute(value, "copy"):
            return lower_array(ctx, value)
        case ast.Call():
            return _call(ctx, node)
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.IfExp():
            return _operator(ctx, node, _operator_name(node))
        case _:
            return _constant_array(ctx, node)


def element(ctx: Context, node: ast.Subscript) -> ir.Expr | None:
    """One element of an array expression, ``f(A)[2]``; None when what is subscripted is no array."""
    return _part_of(ctx, node).at(()) if rank_of(ctx, node.value) else None


def _part_of(ctx: Context, node: ast.Subscript) -> Tensor:
    """``(A + B)[0:2]``: only the elements selected are computed."""
    value = elements(ctx, lower_array(ctx, node.value), node)
    stand_in = ir.Buffer(ast.unparse(node.value), value.dtype, value.shape, span=ctx.span(node))
    part = slices.select(ctx, whole(stand_in), slices.subscripts(node))
    return Tensor(value.dtype, part.shape, lambda indices: value.at(part.at(indices)), value.cheap)


def lower_value(ctx: Context, node: ast.expr) -> Value:
    """An array, or a scalar."""
    return lower_array(ctx, node) if rank_of(ctx, node) else ctx.lower_expr(node)


def _constant_array(ctx: Context, node: ast.expr) -> Tensor:
    """A visible NumPy array: a local array with these contents."""
    array = ctx.require_constant(node, "an array")
    kinds: dict[str, Callable[[int], DType]] = {"i": Int, "u": UInt, "b": lambda _: UInt(1)}
    bits = array.dtype.itemsize * 8
    if array.dtype.kind == "f" and bits <= 64:
        dtype: DType = Float(bits, {16: 10, 32: 23, 64: 52}[bits])
    elif array.dtype.kind in kinds:
        dtype = kinds[array.dtype.kind](bits)
    else:
        raise ctx.error("FX104", f"an array of {array.dtype} cannot stand in a kernel", node)
    stem = node.id if isinstance(node, ast.Name) else "constant"
    buffer = ir.Buffer(ctx.fresh(stem), dtype, tuple(array.shape), span=ctx.span(node))
    contents = tuple(constant_as(x, dtype).value for x in array.reshape(-1).tolist())
    ctx.emit(ir.Alloc(buffer, contents, ctx.span(node)))
    return loaded(whole(buffer), node, ctx)


# -------------------------------------------------------------------------------------- operators


def _operator_name(node: ast.expr) -> str:
    op = node.op if isinstance(node, ast.BinOp | ast.UnaryOp) else None
    return _OPERATOR_NAMES.get(type(op), type(op or node).__name__.lower())


def _operator(ctx: Context, node: ast.expr, op: str, name: str | None = None) -> Array:
    """``A + B``, ``-A``, ``A < B``, ``A if c else B``, ``min(A, B)``, ``allo.exp(A)``."""
    parts = _parts(node)
    if isinstance(node, ast.IfExp) and rank_of(ctx, node.test):
        hint = "select element by element in a loop"
        raise ctx.error("FX105", "the condition of a selection must be a scalar", node.test, hint)
    values = _operands(ctx, parts)

    def element(*operands: ir.Expr) -> ir.Expr:
        return _scalar(ctx, node, parts, operands)

    return elementwise(ctx, element, list(zip(values, parts, strict=True)), node, op, name)


def _operands(ctx: Context, parts: Sequence[ast.expr]) -> list[Value]:
    """Operands in order. One that is computed on demand is stored before a call that may change it."""
    values: list[Value] = []
    for i, part in enumerate(parts):
        if isinstance(part, ast.Constant):  # keeps its place as a literal, which takes the other's type
            values.append(ctx.lower_expr(part))
            continue
        value = lower_value(ctx, part)
        if isinstance(value, Tensor) and not value.cheap and any(_calls(ctx, p) for p in parts[i + 1 :]):
            value = loaded(stored(ctx, value, part), part, ctx)
        values.append(value)
    return values


def _calls(ctx: Context, node: ast.expr) -> bool:
    """Whether lowering the expression calls a kernel."""
    return any(is_kernel_call(ctx, n) for n in ast.walk(node) if isinstance(n, ast.expr))


def _scalar(ctx: Context, node: ast.expr, parts: Sequence[ast.expr], operands: Sequence[ir.Expr]) -> ir.Expr:
    """The operator lowered as a scalar one, with an element in the place of each operand."""
    with ctx.elements(operands, node) as names:
        taken = iter(
            part if isinstance(part, ast.Constant) else ast.copy_location(ast.Name(name, ast.Load()), part)
            for part, name in zip(parts, names, strict=True)
        )
        match node:
            case ast.BinOp(_, op, _):
                scalar: ast.expr = ast.BinOp(next(taken), op, next(taken))
            case ast.UnaryOp(op, _):
                scalar = ast.UnaryOp(op, next(taken))
            case ast.Compare(_, ops, _):
                scalar = ast.Compare(next(taken), ops, list(taken))
            case ast.IfExp():
                scalar = ast.IfExp(next(taken), next(taken), next(taken))
            case ast.Call(func):
                scalar = ast.Call(func, list(taken), [])
            case _:
                raise ctx.error("FX101", f'Unsupported node "{type(node).__name__}" on arrays', node)
        return ctx.lower_expr(ast.copy_location(scalar, node))


# ------------------------------------------------------------------------------------------ calls


def _call(ctx: Context, node: ast.Call) -> Array:
    if isinstance(node.func, ast.Attribute) and node.func.attr == "copy" and not node.args:
        if rank_of(ctx, node.func.value):
            return lower_array(ctx, node.func.value)
    if makes_buffer(ctx, node):
        return _made(ctx, node)
    callee, _ = resolve_callee(ctx, node.func)
    known = getattr(callee, "__intrinsic__", None)
    if known in INTRINSICS:
        return _intrinsic(ctx, known, INTRINSICS[known], node)
    others = [k for k in node.keywords if k.arg != "name" or known is None]
    if others:
        raise ctx.error("FX107", f"{ast.unparse(node.func)} takes no argument {others[0].arg}", node)
    name = str(ctx.require_constant(node.keywords[0].value, "name")) if node.keywords else None
    return _operator(ctx, node, known or ast.unparse(node.func), name)


def _made(ctx: Context, node: ast.Call) -> Tensor:
    made = lower_call(ctx, node)
    if not isinstance(made, list) or len(made) != 1 or not made[0].shape:
        raise ctx.error("FX107", f"`{ast.unparse(node.func)}` does not return one array", node)
    return loaded(whole(made[0]), node, ctx)


def _intrinsic(ctx: Context, op: str, operation: Operation, node: ast.Call) -> Array:
    given = arguments(operation, node)
    if given is None:
        hint = f"required: {', '.join(operation.required)}"
        raise ctx.error("FX107", f"{op} takes ({', '.join(operation.parameters)}, name=)", node, hint)
    label = given.pop("name", None)
    name = None if label is None else str(ctx.require_constant(label, "name"))
    settings = dict(operation.settings)
    parts: list[ast.expr] = []
    for parameter, value in given.items():
        if parameter in settings:
            settings[parameter] = ctx.require_constant(value, f"{parameter} of {op}")
        elif not (isinstance(value, ast.Constant) and value.value is None):
            parts.append(value)
    values = list(zip(_operands(ctx, parts), parts, strict=True))
    return operation.lower(Request(ctx, op, node, values, settings, name))
