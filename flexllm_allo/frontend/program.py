"""Kernels -> a program: one function per kernel instance, callees first."""

from __future__ import annotations

import ast
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..dsl import Traits
from ..errors import UNKNOWN, FrontendError, Place, Span, did_you_mean
from ..ir import nodes as ir
from ..ir.convert import cast
from ..ir.dtypes import ArrayType, DType, StreamType
from . import expressions
from .annotations import (
    annotated_type,
    deduce,
    parameter_names,
    result_annotations,
    template_parameters,
)
from .array_expressions import element, is_array, lower_array, makes_buffer
from .array_lists import lists_of, with_members
from .array_statements import stored_array
from .arrays import copy_array
from .axes import whole
from .bundles import expand_bundles, visible_names
from .calls import lower_call, view_of
from .context import Context
from .names import Names, function_names
from .options import DEFAULT, Options
from .regions import is_region, lower_region
from .source import Source, function_source, local_kernel, string_source
from .statements import lower_body
from .templates import check_conditions, defaults
from .tensors import assign, loaded, type_of

Explicit = Sequence[Any] | Mapping[str, Any]
"""Template arguments: in order (strings are instance ids), or by name."""


class _Expressions:
    """`context.Lowering` over the functions of `expressions`."""

    lower_expr = staticmethod(expressions.lower_expr)
    lower_index = staticmethod(expressions.lower_index)
    check_index = staticmethod(expressions.check_index)
    match_literals = staticmethod(expressions.match_literals)
    binary = staticmethod(expressions.binary)
    is_array = staticmethod(is_array)
    stored_array = staticmethod(stored_array)
    element = staticmethod(element)


_INSTANCES_DEEP = 16  # instances of one kernel inside each other; Python's own stack allows few more


class ProgramBuilder:
    """Lowers kernels on demand; implements `context.Instances`."""

    def __init__(self, callers: Mapping[str, Any], options: Options = DEFAULT) -> None:
        self.callers = callers
        self.options = options
        self.functions: list[ir.Function] = []
        self._made: dict[tuple[Any, ...], ir.Function] = {}
        self._names: set[str] = set()
        self._open: list[tuple[Any, ...]] = []
        self._home: Names | None = None  # the globals of the top kernel

    def instantiate(
        self,
        fn: Callable[..., Any],
        explicit: Explicit,
        args: Sequence[Any],
        at: Span,
    ) -> ir.Function:
        """The function for a kernel with these template arguments, lowered once.

        Args:
            explicit: template arguments as written in ``f[...]``; a string is an instance id.
            args: `ArrayType`s of the call's arguments, from which the rest is deduced.

        Raises:
            FrontendError: FX107 recursion; FX108 a parameter is bound twice or not at all.
        """
        fn = inspect.unwrap(fn)  # decorators are ignored
        source = function_source(fn)
        if self._home is None:
            self._home = getattr(inspect.unwrap(fn), "__globals__", None)
        names = function_names(fn, self.callers, self._home)
        declared = source.parameters or getattr(fn, "__type_params__", ())
        return self._instance(fn, source, names, declared, explicit, args, at)

    def from_string(self, text: str, names: Names, explicit: Explicit) -> ir.Function:
        """The first function of a source string; the others are visible to it by name."""
        found, around = string_source(text)
        visible = dict(names)
        exec(compile(around, found[0].file, "exec"), visible)
        kernels = [local_kernel(source, visible) for source in found]
        visible.update({kernel.__name__: kernel for kernel in kernels})
        return self.instantiate(kernels[0], explicit, [], UNKNOWN)

    def _instance(
        self,
        fn: Callable[..., Any],
        source: Source,
        names: Names,
        declared: Any,
        explicit: Explicit,
        args: Sequence[Any],
        at: Span,
    ) -> ir.Function:
        source, names = _with_bundles(fn, source, names, declared, explicit)
        parameters = template_parameters(source.tree, names, declared)
        ids: list[str] = []
        if isinstance(explicit, Mapping):
            given = dict(explicit)
        else:
            ids = [e for e in explicit if isinstance(e, str)]
            given = self._in_order(source, parameters, [e for e in explicit if e not in ids], at)
        bindings = self._bind(fn, source, names, parameters, given, args, at)
        key = (fn, tuple(bindings.items()), tuple(ids))
        if key in self._made:
            return self._made[key]
        self._check_recursion(key, source, at)
        self._open.append(key)
        function = _lower_function(self, source, {**names, **bindings})
        self._open.pop()
        known = [*bindings.items(), *(("id", i) for i in ids)]
        function = replace(function, origin=source.tree.name, bindings=tuple(known))
        function = self.add(function, "_".join([source.tree.name, *ids]))
        self._made[key] = function
        return function

    def _check_recursion(self, key: tuple[Any, ...], source: Source, at: Span) -> None:
        """A kernel may call itself with other parameters, which is another function, if that ends."""
        depth = sum(open_[0] is key[0] for open_ in self._open)
        if key not in self._open and depth < _INSTANCES_DEEP:
            return
        places = [Place(at), Place(source.span(source.tree), "the kernel")]
        if key in self._open:
            message, hint = "calls itself", "hardware has no call stack: write it as a loop"
        else:
            message = f"calls itself with other parameters, {depth} deep"
            hint = "end it with allo.meta_if on a parameter, or write it as a loop"
        raise FrontendError("FX107", f"{source.tree.name} {message}", places, hint)

    def add(self, function: ir.Function, stem: str) -> ir.Function:
        """Put a function into the program under a name not used yet: the stem, else numbered."""
        function = replace(function, name=self._unique(stem))
        self.functions.append(function)
        return function

    def _unique(self, stem: str) -> str:
        name, n = stem, 0
        while name in self._names:
            n += 1
            name = f"{stem}_{n}"
        self._names.add(name)
        return name

    def _in_order(self, source: Source, parameters: list[str], given: list[Any], at: Span) -> dict[str, Any]:
        if len(given) > len(parameters):
            places = [Place(at), Place(source.span(source.tree), "the kernel")]
            message = f"Type parameters mismatch, got {len(given)} and {len(parameters)}"
            raise FrontendError("FX108", message, places)
        return dict(zip(parameters, given, strict=False))

    def _bind(
        self,
        fn: Callable[..., Any],
        source: Source,
        names: Names,
        parameters: list[str],
        given: dict[str, Any],
        args: Sequence[Any],
        at: Span,
    ) -> dict[str, Any]:
        places = [Place(at), Place(source.span(source.tree), "the kernel")]
        unknown = [name for name in given if name not in parameters]
        if unknown:
            message = f"{source.tree.name} has no template parameter {unknown[0]}"
            raise FrontendError("FX108", message, places, did_you_mean(unknown[0], parameters))
        bindings = dict(given)
        for name, value in deduce(source.tree, parameters, list(args)).items():
            bindings.setdefault(name, value)
        bindings.update(defaults(fn, bindings))
        missing = [p for p in parameters if p not in bindings]
        if missing:
            hint = f"name them at the call: {source.tree.name}[{', '.join(parameters)}](...)"
            message = (
                f"Type parameters mismatch, got {len(given)} and {len(parameters)}: "
                f"template parameter {', '.join(missing)} of {source.tree.name} is not determined"
            )
            raise FrontendError("FX108", message, places, hint)
        bounds = {p.name: p for p in source.parameters}
        for name, value in bindings.items():
            usable = isinstance(value, DType | Traits | float) or hasattr(value, "__index__")
            if not usable or (name in bounds and not bounds[name].accepts(value, {**names, **bindings})):
                raise FrontendError("FX108", f"Cannot resolve type {name} with {value!r}", places)
        check_conditions(fn, bindings, places)
        return {p: bindings[p] for p in parameters}


def _with_bundles(
    fn: Callable[..., Any], source: Source, names: Names, declared: Any, explicit: Explicit
) -> tuple[Source, Names]:
    """The source with one parameter per array of a bundle, and the names its parameters' types use."""
    if not isinstance(explicit, Mapping):
        values = (e for e in explicit if not isinstance(e, str))
        explicit = dict(zip(parameter_names(declared), values, strict=False))
    tree, known = expand_bundles(source.tree, ChainMap({**explicit}, {**visible_names(fn)}, names))
    return (source, names) if tree is source.tree else (replace(source, tree=tree), {**known, **names})


def _lower_function(
    program: ProgramBuilder,
    source: Source,
    names: Mapping[str, Any],
    enter: Callable[[Context], None] | None = None,
) -> ir.Function:
    """Lower a kernel; `enter` sees the context once the parameters are bound (instances of a region)."""
    ctx = Context(source, names, program, _Expressions())
    node = source.tree
    params = _parameters(ctx, node)
    if enter is not None:
        enter(ctx)
    elif is_region(ctx):
        return lower_region(ctx, params, partial(_lower_function, program))
    ctx.finish = partial(_results, ctx, node)
    lower_body(ctx, with_members(ctx, node.body))
    outputs = ctx.outputs if ctx.outputs is not None else _results(ctx, node, None)
    statements = tuple(ctx.blocks[0])
    return ir.Function(node.name, (*params, *outputs), statements, len(outputs), span=source.span(node))


def _parameters(ctx: Context, node: ast.FunctionDef) -> list[ir.Buffer]:
    extra = node.args.vararg or node.args.kwarg
    if extra or node.args.kwonlyargs:
        hint = "give every argument a name and a type of its own"
        raise ctx.error("FX101", "kernels take plain positional arguments", extra or node, hint)
    params: list[ir.Buffer] = []
    ctx.lists = lists_of(arg.arg for arg in node.args.args)
    for arg in node.args.args:
        if arg.annotation is None:
            hint = f"for instance `{arg.arg}: float32[16]`"
            raise ctx.error("FX103", f"parameter {arg.arg} has no type", arg, hint)
        t = annotated_type(ctx, arg.annotation, ctx.source.annotations.get(arg.arg), run_time_sizes=True)
        if isinstance(t, ArrayType) and (t.stateful or t.constexpr):
            what = "Stateful" if t.stateful else "ConstExpr"
            hint = "declare it in the body of the kernel"
            raise ctx.error("FX103", f"Function parameter '{arg.arg}' cannot be {what}.", arg, hint)
        depth, token = (t.depth, t.token) if isinstance(t, StreamType) else (None, ())
        memory = t.memory if isinstance(t, ArrayType) else None
        span = ctx.span(arg)
        name = ctx.fresh(_plain(arg.arg))
        buffer = ir.Buffer(name, t.dtype, t.shape, depth, memory=memory, token=token, span=span)
        ctx.bind(arg.arg, buffer, arg)
        params.append(buffer)
    return params


def _plain(path: str) -> str:
    """The name of a parameter: wq_codes of a bundle's ``w.wq.codes``, W_0 of a list's ``W.0``."""
    inner = path.partition(".")[2]
    return (path if inner.isdigit() or not inner else inner).replace(".", "_")


# -------------------------------------------------------------------------------------- results


def _results(ctx: Context, node: ast.FunctionDef, returned: ast.Return | None) -> list[ir.Buffer]:
    """Turn the returned values into trailing parameters."""
    known: Any = ctx.source.annotations.get("return")
    declared = result_annotations(node)
    several = isinstance(known, tuple)
    wanted = [annotated_type(ctx, a, known[i] if several else known) for i, a in enumerate(declared)]
    values: list[ast.expr] = []
    nothing = returned is None or returned.value is None or ast.unparse(returned.value) == "None"
    if returned is not None and returned.value is not None and not nothing:
        values = list(returned.value.elts) if isinstance(returned.value, ast.Tuple) else [returned.value]
    if len(values) != len(wanted):
        at: ast.AST = returned or node
        if not wanted:
            raise ctx.error("FX112", "Return value should have a dtype in function signature", at)
        if not values:
            raise ctx.error("FX112", "Missing return statement", at)
        message = f"{len(values)} values are returned, the signature has {len(wanted)}"
        raise ctx.error("FX112", message, at)
    outputs: list[ir.Buffer] = []
    for value, t in zip(values, wanted, strict=True):
        outputs.append(_result(ctx, value, t, {o.name for o in outputs}))
    return outputs


def _result(ctx: Context, value: ast.expr, t: Any, used: set[str]) -> ir.Buffer:
    if isinstance(t, StreamType):
        raise ctx.error("FX112", "a stream cannot be returned; pass it as an argument", value)
    if not t.shape:
        scalar = ctx.lower_expr(value)
        buffer = ir.Buffer(ctx.fresh("result"), t.dtype, (), span=ctx.span(value))
        ctx.emit(ir.Store(buffer.name, (), cast(scalar, t.dtype), ctx.span(value)))
        return buffer
    if not is_array(ctx, value):
        ctx.lower_expr(value)  # an unknown name or function says more than the signature
        raise ctx.error("FX112", f"`{ast.unparse(value)}` is not the array the signature names", value)
    source = _named_array(ctx, value)
    array = loaded(whole(source[1]), value, ctx) if source else lower_array(ctx, value)
    given = type_of(array)
    if given.shape != t.shape:
        message = f"Shape mismatch: the result is declared as {t}, `{ast.unparse(value)}` is {given}"
        raise ctx.error("FX105", message, value, "declare the result with the shape of the value")
    local = _plain_local(ctx, source[0]) if source and source[1].dtype == t.dtype else None
    if local is not None and local.name not in used:
        _drop_alloc(ctx, local.name)
        return local
    buffer = ir.Buffer(ctx.fresh("result"), t.dtype, t.shape, span=ctx.span(value))
    if source is not None:
        copy_array(ctx, buffer, (), *source, value)
    else:
        assign(ctx, whole(buffer), array, value)
    return buffer


def _named_array(ctx: Context, value: ast.expr) -> tuple[ir.View, ir.Buffer] | None:
    """The array a returned name, view or kernel call denotes; None for other expressions."""
    view = view_of(ctx, value)
    if view is None and makes_buffer(ctx, value):
        assert isinstance(value, ast.Call)
        made = lower_call(ctx, value)
        if isinstance(made, list) and len(made) == 1 and made[0].shape:
            return ir.View(made[0].name, (), ctx.span(value)), made[0]
    return view


def _plain_local(ctx: Context, view: ir.View) -> ir.Buffer | None:
    """The local array a view names as a whole, when it can simply become the result."""
    for stmt in ctx.blocks[0]:
        if isinstance(stmt, ir.Alloc) and stmt.buffer.name == view.buffer:
            return stmt.buffer if stmt.init is None and not view.indices else None
    return None


def _drop_alloc(ctx: Context, name: str) -> None:
    ctx.blocks[0] = [s for s in ctx.blocks[0] if not (isinstance(s, ir.Alloc) and s.buffer.name == name)]


__all__ = ["ProgramBuilder"]
