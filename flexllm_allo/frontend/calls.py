"""Calls in a kernel: conversions, math, FIFO reads, other kernels."""

from __future__ import annotations

import ast
import inspect
import types
from dataclasses import replace
from typing import Any
from typing import cast as cast_any

from ..errors import FrontendError, Place
from ..ir import nodes as ir
from ..ir.convert import cast, literal
from ..ir.dtypes import BOOL, FLOAT32, INT32, ArrayType, DType, fits_shape
from .bit_methods import BIT_METHODS, lower_bit_method
from .borrowing import Borrowed, borrow, converted, give_back
from .context import Context, StreamsSymbol
from .element_rules import ELEMENT_RULES
from .names import NotConstant, evaluate, function_names
from .slices import region_of
from .source import function_source
from .streams import lower_gather, lower_get, stream_operand

_MATH = {
    "exp", "log", "log2", "log10", "sqrt", "sin", "cos", "tan", "tanh", "floor", "round", "power",
}  # fmt: skip
_BUILTINS: dict[Any, str] = {min: "min", max: "max", int: "int", float: "float", abs: "abs"}


Target = str | ir.Buffer


def lower_call(
    ctx: Context, node: ast.Call, targets: list[Target] | None = None
) -> ir.Expr | list[ir.Buffer]:
    """A scalar value, or the result buffers of a kernel call.

    Args:
        targets: for each result the buffer to write into, or the name of a new one.

    Raises:
        FrontendError: FX101 unknown function, FX107 arguments do not fit, FX108 templates.
    """
    if isinstance(node.func, ast.Attribute) and (read := _method(ctx, node)) is not None:
        return read
    callee, explicit = resolve_callee(ctx, node.func)
    if isinstance(callee, DType):
        return cast(_one_argument(ctx, node), callee, ctx.span(node), implicit=False)
    name = getattr(callee, "__intrinsic__", None) or _builtin_name(callee)
    if name == "df.gather":
        return lower_gather(ctx, node)
    if name is not None:
        return _intrinsic(ctx, name, node)
    if hasattr(callee, "ir_function"):
        return _call_extern(ctx, node, callee)
    if isinstance(callee, types.FunctionType):
        kernel = cast_any(types.FunctionType, inspect.unwrap(callee))  # decorators are ignored
        return call_kernel(ctx, node, kernel, explicit, targets)
    if _is_numeric(callee) and (number := ctx.number(node)) is not None:
        return number
    raise ctx.error("FX101", f"Unsupported function call {ast.unparse(node.func)}", node)


def _is_numeric(callee: Any) -> bool:
    """Functions that Python computes when the arguments are known: ``np.float32(2)``, ``math.log2(n)``."""
    home = getattr(callee, "__module__", None) or type(callee).__module__
    known = any(callee is f for f in (len, round, sum, pow))
    return known or str(home).partition(".")[0] in ("math", "numpy")


def _builtin_name(callee: Any) -> str | None:
    try:
        return _BUILTINS.get(callee)
    except TypeError:  # unhashable object
        return None


def resolve_callee(ctx: Context, func: ast.expr) -> tuple[Any, tuple[Any, ...]]:
    """The object called and its explicit template arguments: ``f[int8, 4](x)``."""
    explicit: tuple[Any, ...] = ()
    if isinstance(func, ast.Subscript):
        value = ctx.require_constant(func.slice, "a template argument")
        explicit = cast_tuple(value)
        func = func.value
    try:
        return ctx.constant(func), explicit
    except NotConstant:
        name = ast.unparse(func)
        hint = "a kernel may call other kernels, intrinsics of flexllm_allo, min, max, int, float, abs"
        raise ctx.error("FX102", f"Unsupported function call {name}", func, hint) from None


def cast_tuple(value: Any) -> tuple[Any, ...]:
    """``f[a]`` and ``f[a, b]`` alike."""
    return cast_any(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)


def _method(ctx: Context, node: ast.Call) -> ir.Expr | list[ir.Buffer] | None:
    """``fifo.get()`` and ``x.bitcast()``; None for attributes of modules."""
    assert isinstance(node.func, ast.Attribute)
    stream = stream_operand(ctx, node.func.value)
    if stream is None and node.func.attr in BIT_METHODS:
        return lower_bit_method(ctx, node.func.attr, ctx.lower_expr(node.func.value), node)
    if stream is None:
        return None
    if node.func.attr != "get" or node.args:
        raise ctx.error("FX101", f"a stream has no .{node.func.attr}() that gives a value", node)
    return lower_get(ctx, node, stream)


def _one_argument(ctx: Context, node: ast.Call) -> ir.Expr:
    if len(node.args) != 1 or node.keywords:
        raise ctx.error("FX107", f"{ast.unparse(node.func)} takes one argument", node)
    return ctx.lower_expr(node.args[0])


def _intrinsic(ctx: Context, name: str, node: ast.Call) -> ir.Expr:
    span = ctx.span(node)
    match name, node.args:
        case "float", [ast.Constant(str() as text)] if text.lstrip("+-") in ("inf", "nan"):
            return literal(float(text), span)
        case _:
            pass
    if name in ("int", "float"):
        t = INT32 if name == "int" else FLOAT32
        return cast(_one_argument(ctx, node), t, span, implicit=False)
    if name in ("min", "max"):
        return _extreme(ctx, name, node)
    if name == "abs":
        value = _one_argument(ctx, node)
        if value.type.is_float:
            return ir.Math("abs", (value,), value.type, span)
        zero = cast(literal(0, span), value.type)
        negated = ir.Unary("-", value, value.type, span)
        below = ir.Binary("<", value, zero, BOOL, span)
        return ir.Select(below, negated, value, value.type, span) if value.type.signed else value
    if name in _MATH:
        return _math(ctx, name, node)
    if name in ELEMENT_RULES:
        return _by_rule(ctx, name, node)
    raise ctx.error("FX101", f"{name} cannot stand in an expression", node)


def _by_rule(ctx: Context, name: str, node: ast.Call) -> ir.Expr:
    wanted = 1 if name in ("relu", "gelu") else 2
    if len(node.args) != wanted or not _named_only(node):
        raise ctx.error("FX107", f"{name} takes {wanted} argument(s)", node)
    return ELEMENT_RULES[name](ctx, [ctx.lower_expr(a) for a in node.args], node)


def _named_only(node: ast.Call) -> bool:
    """Whether the only keyword is ``name``, which names the loops of whole-array calls."""
    return all(k.arg == "name" for k in node.keywords)


def _extreme(ctx: Context, name: str, node: ast.Call) -> ir.Expr:
    if len(node.args) != 2 or node.keywords:
        raise ctx.error("FX107", "Only support two arguments for min and max", node)
    left, right = ctx.lower_expr(node.args[0]), ctx.lower_expr(node.args[1])
    left, right = ctx.match_literals(left, right)
    t = ctx.common_type(left.type, right.type, node)
    return ir.Binary(name, cast(left, t), cast(right, t), t, ctx.span(node))


def _math(ctx: Context, name: str, node: ast.Call) -> ir.Expr:
    wanted = 2 if name == "power" else 1
    if len(node.args) != wanted or not _named_only(node):
        raise ctx.error("FX107", f"{name} takes {wanted} argument(s)", node)
    args = [ctx.lower_expr(a) for a in node.args]
    t = args[0].type
    if not t.is_float:
        hint = f"convert it first: {name}(float({ast.unparse(node.args[0])}))"
        raise ctx.error("FX109", f"{name} is defined for floats, got {t}", node, hint)
    return ir.Math(name, tuple(cast(a, t) for a in args), t, ctx.span(node))


# ------------------------------------------------------------------------------- other kernels

Operand = ir.Expr | tuple[ir.View, ir.Buffer]


def call_kernel(
    ctx: Context,
    node: ast.Call,
    fn: types.FunctionType,
    explicit: tuple[Any, ...],
    targets: list[Target] | None = None,
) -> list[ir.Buffer]:
    """Emit the call and return the buffers that hold its results."""
    given = _positional(ctx, node, fn)
    operands, borrowed = _operands(ctx, given)
    shapes = [_type_of(o) for o in operands]
    callee = ctx.program.instantiate(fn, explicit, shapes, ctx.span(node))
    if len(operands) != len(callee.inputs):
        raise FrontendError(
            "FX107",
            f"{fn.__name__} takes {len(callee.inputs)} arguments, got {len(operands)}",
            [Place(ctx.span(node)), Place(callee.span, "the kernel")],
        )
    args: list[ir.Expr | ir.View] = []
    for i, (operand, param) in enumerate(zip(operands, callee.inputs, strict=True)):
        own = converted(ctx, borrowed[i], param) if i in borrowed else None
        args.append(_fit(ctx, own or operand, param, given[i], callee))
    read = {o[1].name for o in operands if isinstance(o, tuple)}
    read |= {b.region.buffer.name for b in borrowed.values() if b.region}
    results = _results(ctx, node, callee, targets, read)
    args += [ir.View(r.name, (), ctx.span(node)) for r in results]
    ctx.emit(ir.Call(callee.name, tuple(args), ctx.span(node)))
    give_back(ctx, callee, args, borrowed)
    return results


def _call_extern(ctx: Context, node: ast.Call, module: Any) -> list[ir.Buffer]:
    """Emit the call of a C++ function (`IPModule`), which has no results; one function per signature."""
    borrowed: dict[int, Borrowed] = {}
    operands = [_operand(ctx, a, i, borrowed) for i, a in enumerate(node.args)]
    made: ir.Function = module.ir_function([_type_of(o) for o in operands], ctx.span(node))
    same = (f for f in ctx.program.functions if (f.extern, f.params) == (made.extern, made.params))
    callee = next(same, None) or ctx.program.add(made, made.name)
    fitted = [_fit(ctx, o, p, a, callee) for o, p, a in zip(operands, made.params, node.args, strict=True)]
    ctx.emit(ir.Call(callee.name, tuple(fitted), ctx.span(node)))
    give_back(ctx, callee, fitted, borrowed)
    return []


def _results(
    ctx: Context,
    node: ast.Call,
    callee: ir.Function,
    targets: list[Target] | None,
    read: set[str],
) -> list[ir.Buffer]:
    """Where the results go: the target itself when it fits and is no argument too, else a new buffer."""
    outputs = callee.outputs
    if targets is not None and len(targets) != len(outputs):
        message = f"{callee.origin} returns {len(outputs)} value(s), {len(targets)} wanted"
        raise FrontendError("FX107", message, [ctx.span(node), Place(callee.span, "the kernel")])
    made: list[ir.Buffer] = []
    for out, target in zip(outputs, targets or [o.name for o in outputs], strict=True):
        if isinstance(target, ir.Buffer):
            same = (target.dtype, target.shape) == (out.dtype, out.shape)
            if same and target.shape and target.name not in read:
                made.append(target)
                continue
            target = f"{target.name}_new"
        buffer = ir.Buffer(ctx.fresh(target), out.dtype, out.shape, span=ctx.span(node))
        ctx.emit(ir.Alloc(buffer, span=ctx.span(node)))
        made.append(buffer)
    return made


def _positional(ctx: Context, node: ast.Call, fn: types.FunctionType) -> list[ast.expr]:
    """The arguments in the order of the parameters: given by position, by name, or by default."""
    header = function_source(fn).tree.args
    order = [a.arg for a in header.args]
    if len(node.args) >= len(order) and not node.keywords:
        return node.args
    named: dict[str | None, ast.expr] = {k.arg: k.value for k in node.keywords}
    for name, default in zip(reversed(order), reversed(header.defaults), strict=False):
        if name not in named and name not in order[: len(node.args)]:
            named[name] = _default(ctx, fn, default, node)
    wanted = order[len(node.args) :]
    if set(named) != set(wanted) and not node.keywords:
        return node.args  # too few: told where the kernel's place is known
    if set(named) != set(wanted):
        raise ctx.error("FX107", f"{fn.__name__} takes ({', '.join(order)})", node)
    return [*node.args, *(named[n] for n in wanted)]


def _default(ctx: Context, fn: types.FunctionType, default: ast.expr, node: ast.Call) -> ast.expr:
    try:
        value = evaluate(default, function_names(fn, {}), lambda _: False)
    except NotConstant as why:
        message = f"a default of {fn.__name__} is not known at compile time ({why})"
        raise ctx.error("FX113", message, node) from None
    return ast.copy_location(ast.Constant(value), node)


def _operands(ctx: Context, nodes: list[ast.expr]) -> tuple[list[Operand], dict[int, Borrowed]]:
    """The arguments of a call, and which of them are copies of slices."""
    borrowed: dict[int, Borrowed] = {}
    return [_operand(ctx, node, i, borrowed) for i, node in enumerate(nodes)], borrowed


def _operand(ctx: Context, node: ast.expr, position: int, borrowed: dict[int, Borrowed]) -> Operand:
    """A scalar, or a view with the shape that is left after its indices."""
    view = view_of(ctx, node)
    if view is not None:
        return view
    if isinstance(node, ast.Call) and not _is_intrinsic(ctx, node):
        value = lower_call(ctx, node)
        if isinstance(value, list):
            if len(value) != 1:
                raise ctx.error("FX107", "a call with several results cannot be an argument", node)
            buffer = value[0]
            if buffer.shape:
                return ir.View(buffer.name, (), ctx.span(node)), buffer
            return ir.Load(buffer.name, (), buffer.dtype, ctx.span(node))
        return value
    if ctx.lowering.is_array(ctx, node):
        if (slice_ := borrow(ctx, node)) is not None:
            borrowed[position] = slice_
            return ir.View(slice_.copy.name, (), ctx.span(node)), slice_.copy
        buffer = ctx.lowering.stored_array(ctx, node)
        borrowed[position] = Borrowed(None, buffer, node)
        return ir.View(buffer.name, (), ctx.span(node)), buffer
    return ctx.lower_expr(node)


def _is_intrinsic(ctx: Context, node: ast.Call) -> bool:
    """Whether a call makes an array by itself: ``A.copy()``, ``allo.matmul(A, B)``."""
    if isinstance(node.func, ast.Attribute) and ctx.lowering.is_array(ctx, node.func.value):
        return True
    try:
        return hasattr(ctx.constant(node.func), "__intrinsic__") and ctx.lowering.is_array(ctx, node)
    except NotConstant:
        return False


def view_of(ctx: Context, node: ast.expr) -> tuple[ir.View, ir.Buffer] | None:
    """The array (or FIFO) an expression names: a buffer, or ``A[i]`` with rank left over.

    None for scalars, and for slices, whose elements do not lie side by side.
    """
    region = region_of(ctx, node) if ctx.lowering.is_array(ctx, node) else None
    if region is not None:
        return region.view(ctx.span(node))
    base, items = _indexed(node)
    symbol = ctx.find(base.id) if isinstance(base, ast.Name) else None
    if isinstance(symbol, StreamsSymbol) and (channel := stream_operand(ctx, node)):
        return ir.View(channel[0].name, channel[1], ctx.span(node)), replace(channel[0], shape=())
    if not isinstance(symbol, ir.Buffer) or not symbol.is_stream:
        return None
    indices = tuple(ctx.check_index(symbol, d, i) for d, i in enumerate(items))
    rest = replace(symbol, shape=symbol.shape[len(items) :])
    return ir.View(symbol.name, indices, ctx.span(node)), rest


def _indexed(node: ast.expr) -> tuple[ast.expr, list[ast.expr]]:
    items: list[ast.expr] = []
    while isinstance(node, ast.Subscript):
        part = node.slice
        items = [*(part.elts if isinstance(part, ast.Tuple) else [part]), *items]
        node = node.value
    return node, items


def _type_of(operand: Operand) -> Any:
    if isinstance(operand, tuple):
        return ArrayType(operand[1].dtype, operand[1].shape)
    return ArrayType(operand.type, ())


def _fit(
    ctx: Context, operand: Operand, param: ir.Buffer, node: ast.expr, callee: ir.Function
) -> ir.Expr | ir.View:
    """Check one argument against its parameter; scalars are converted."""
    if isinstance(operand, tuple):
        view, rest = operand
        given, wanted = ArrayType(rest.dtype, rest.shape), ArrayType(param.dtype, param.shape)
        fits = rest.dtype == param.dtype and fits_shape(rest.shape, param.shape)
        if not fits or (rest.is_stream, rest.token) != (param.is_stream, param.token):
            code = "FX104" if fits_shape(rest.shape, param.shape) else "FX105"
            message = f"parameter {param.name} of {callee.origin} is {wanted}, got {given}"
            places = [Place(ctx.span(node)), Place(param.span, "declared here")]
            raise FrontendError(code, message, places)
        return view
    if param.shape or param.is_stream:
        message = f"parameter {param.name} of {callee.origin} is an array, got a scalar"
        raise FrontendError("FX105", message, [ctx.span(node), Place(param.span, "declared here")])
    return cast(operand, param.dtype, ctx.span(node))
