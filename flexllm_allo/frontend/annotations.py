"""What a type annotation in a kernel denotes, and template parameters deduced from arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import FrontendError
from ..ir.dtypes import DYNAMIC, RUN_TIME, ArrayType, DType, StreamType
from .context import Context
from .names import NotConstant

Annotation = ArrayType | StreamType


def annotation_expr(node: ast.expr) -> ast.expr:
    """Annotations may be quoted; the places inside a quoted one are those of the string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        inner = ast.parse(node.value.strip(), mode="eval").body
        for n in ast.walk(inner):
            ast.copy_location(n, node)
        return inner
    return node


def annotated_type(
    ctx: Context, node: ast.expr, made: Any = None, run_time_sizes: bool = False
) -> Annotation:
    """The type an annotation denotes.

    Args:
        made: what Python made of it, used when a name in it is no longer visible.
        run_time_sizes: ``float32[...]`` may stand here.

    Raises:
        FrontendError: FX103 it is no type; FX105 a dimension is not a positive integer.
    """
    expr = annotation_expr(node)
    try:
        value = ctx.constant(expr)
    except NotConstant as why:
        if not isinstance(made, DType | ArrayType | StreamType):
            text = ast.unparse(expr)
            raise ctx.error("FX103", f"cannot evaluate the type `{text}` ({why})", node) from None
        value = made
    if isinstance(value, DType):
        value = ArrayType(value, ())
    if not isinstance(value, ArrayType | StreamType):
        hint = "types look like int8, float32[4, 8], Stream[int32, 4]"
        raise ctx.error("FX103", f"`{ast.unparse(expr)}` is not a type", node, hint)
    if isinstance(value, ArrayType) and DYNAMIC in value.shape:
        if len(value.shape) > 1 or not run_time_sizes:
            hint = "give its size as one more argument, and let everything else have a known size"
            raise ctx.error("FX105", "only a parameter of rank 1 may be of run-time size", node, hint)
        return replace(value, shape=(RUN_TIME,))
    for size in value.shape:
        if isinstance(size, bool) or not _whole(size) or size < 1:
            message = f"dimensions must be positive integers, got {size!r} in `{ast.unparse(expr)}`"
            raise ctx.error("FX105", message, node)
    shape = tuple(int(s) for s in value.shape)
    if isinstance(value, StreamType):
        if not isinstance(value.dtype, DType):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ctx.error("FX103", f"`{ast.unparse(expr)}` is not a stream of a type", node)
        return StreamType(value.dtype, value.depth, shape, value.token)
    return replace(value, shape=shape)


def _whole(size: Any) -> bool:
    return hasattr(size, "__index__")


def result_annotations(node: ast.FunctionDef) -> list[ast.expr]:
    """The annotations of the results: none, one, or the elements of a tuple."""
    if node.returns is None:
        return []
    expr = annotation_expr(node.returns)
    if isinstance(expr, ast.Constant) and expr.value is None:
        return []
    return list(expr.elts) if isinstance(expr, ast.Tuple) else [expr]


def deduce(node: ast.FunctionDef, parameters: list[str], given: list[Annotation]) -> dict[str, Any]:
    """Template arguments found by laying the argument types beside the parameter annotations.

    ``X: Ty[T, K]`` called with int8[4, 64] gives Ty = int8, T = 4, K = 64.  Dimensions that are
    expressions are skipped; they are checked once everything is bound.
    """
    found: dict[str, Any] = {}

    def bind(expr: ast.expr, value: Any) -> None:
        if isinstance(expr, ast.Name) and expr.id in parameters:
            found.setdefault(expr.id, value)

    for arg, actual in zip(node.args.args, given, strict=False):
        if arg.annotation is None:
            continue
        expr = annotation_expr(arg.annotation)
        if not isinstance(expr, ast.Subscript) or not actual.shape:
            bind(expr, actual.dtype)
            continue
        bind(expr.value, actual.dtype)
        dims = expr.slice.elts if isinstance(expr.slice, ast.Tuple) else [expr.slice]
        if len(dims) == len(actual.shape):
            for dim, size in zip(dims, actual.shape, strict=True):
                bind(dim, size)
    return found


def template_parameters(node: ast.FunctionDef, names: Mapping[str, Any], declared: Any) -> list[str]:
    """The kernel's template parameters in order.

    Declared ones (PEP 695 or ``@template``) come first; undeclared `params` objects follow in the
    order of their first appearance in the signature.
    """
    order = parameter_names(declared)
    annotations = [a.annotation for a in node.args.args if a.annotation is not None]
    for annotation in [*annotations, *result_annotations(node)]:
        for n in ast.walk(annotation_expr(annotation)):
            if isinstance(n, ast.Name) and n.id not in order:
                if type(names.get(n.id)).__name__ == "Param":
                    order.append(n.id)
    return order


def parameter_names(declared: Any) -> list[str]:
    """Names of the template parameters that a kernel declares (PEP 695 or ``@template``)."""
    return [str(getattr(p, "__name__", None) or p.name) for p in declared or ()]


def check_bound(ctx: Context, name: str, value: Any, node: ast.AST) -> FrontendError | None:
    """A template argument must be a type or an integer."""
    if isinstance(value, DType) or _whole(value):
        return None
    return ctx.error("FX108", f"Cannot resolve type {name} with {value!r}", node)
