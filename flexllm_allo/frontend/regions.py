"""Dataflow regions: ``@df.region()`` functions, their streams, and an instance of each kernel per mesh point.

A region becomes a function that declares its streams and calls the instances in order.  Every instance
is lowered by itself, with its process ids as constants; what it uses of the region around it (arrays,
scalars, streams) becomes a parameter.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, cast

from ..errors import FrontendError, Place, StreamError
from ..ir import nodes as ir
from ..ir.channels import channel_name, endpoints
from ..ir.dtypes import INDEX, ArrayType, StreamType
from ..ir.walk import walk
from .annotations import annotated_type
from .context import Channel, ConstSymbol, Context, StreamsSymbol
from .meta import lower_with
from .names import NotConstant
from .shards import Offsets, shard, shifted
from .source import Source
from .statements import lower_body

LowerFunction = Callable[[Source, Mapping[str, Any], Callable[[Context], None]], ir.Function]
"""Lower one function; the callback sees its context after the parameters are bound."""

_PLAIN = (ast.AnnAssign, ast.Expr, ast.Pass)
MAX_MESH = 3


def decorator(ctx: Context, node: ast.FunctionDef, mark: str) -> ast.expr | None:
    """The decorator of a function that is ``df.region`` or ``df.kernel``, if there is one."""
    for item in node.decorator_list:
        try:
            found = ctx.constant(item.func if isinstance(item, ast.Call) else item)
        except NotConstant:
            continue
        if getattr(found, "__intrinsic__", None) == mark:
            return item
    return None


def is_region(ctx: Context) -> bool:
    """Whether the function being lowered is a region, or a kernel that stands alone."""
    node = ctx.source.tree
    return any(decorator(ctx, node, mark) is not None for mark in ("df.region", "df.kernel"))


def lower_region(ctx: Context, params: list[ir.Buffer], lower: LowerFunction) -> ir.Function:
    """The function of a region whose parameters are bound in `ctx`.

    Raises:
        FrontendError: FX101 a statement that regions do not hold; FX103, FX104, FX105, FX107 a kernel
            and its `mapping` or `args` do not fit; FX302 a stream with several producers or consumers.
    """
    node = ctx.source.tree
    region = _Region(ctx, lower)
    _rebind_streams(ctx, params)
    alone = decorator(ctx, node, "df.kernel")
    if alone is not None and decorator(ctx, node, "df.region") is None:
        region.kernel(node, alone, [arg.arg for arg in node.args.args])
    else:
        region.statements(node.body)
    region.check_streams()
    body = (*region.allocations(), *ctx.blocks[0])
    span = ctx.source.span(node)
    return ir.Function(node.name, tuple(params), body, 0, dataflow=True, concurrent=True, span=span)


def _rebind_streams(ctx: Context, params: list[ir.Buffer]) -> None:
    """Streams that are parameters of the region are used by its kernels as its own are."""
    for param in params:
        if param.is_stream:

            def member(indices: tuple[int, ...], param: ir.Buffer = param) -> Channel:
                return param, tuple(ir.Const(i, INDEX, param.span) for i in indices)

            kind = StreamType(param.dtype, param.depth or 1, param.shape, param.token)
            ctx.scopes[0].symbols[param.name] = (StreamsSymbol(param.name, kind, member), param.span)


@dataclass
class _Use:
    """The instances that write, and those that read, one stream."""

    writers: list[Place] = field(default_factory=lambda: list[Place]())
    readers: list[Place] = field(default_factory=lambda: list[Place]())


class _Region:
    """A region being lowered."""

    def __init__(self, ctx: Context, lower: LowerFunction) -> None:
        self.ctx = ctx
        self.lower = lower
        self.declared: dict[str, ir.Buffer] = {}  # the streams in use, by name
        self.uses: dict[str, _Use] = {}
        self._names: dict[ast.FunctionDef, dict[str, ast.Name]] = {}

    def names_in(self, node: ast.FunctionDef) -> dict[str, ast.Name]:
        """The names that occur in a kernel, which all its instances ask for."""
        if node not in self._names:
            self._names[node] = {n.id: n for n in ast.walk(node) if isinstance(n, ast.Name)}
        return self._names[node]

    # ---- statements

    def statements(self, body: list[ast.stmt]) -> None:
        i = 0
        while i < len(body):
            node = body[i]
            if isinstance(node, ast.With):
                i += lower_with(self.ctx, body, i, lambda _, inner: self.statements(inner))
                continue
            self.statement(node)
            i += 1

    def statement(self, node: ast.stmt) -> None:
        ctx = self.ctx
        if isinstance(node, ast.FunctionDef):
            found = decorator(ctx, node, "df.kernel")
            if found is not None:
                self.kernel(node, found, _argument_names(ctx, node, found))
                return
            lower_body(ctx, [node])
        elif isinstance(node, ast.AnnAssign) and (kind := self._stream_type(node)) is not None:
            self._declare(node, kind)
        elif isinstance(node, ast.Assign) and self._constant(node):
            return
        elif isinstance(node, _PLAIN):
            lower_body(ctx, [node])
        else:
            hint = "computation belongs into a function decorated with @df.kernel(mapping=[...])"
            what = f'Unsupported node "{type(node).__name__}" in a region, which holds streams and kernels'
            raise ctx.error("FX101", what, node, hint)

    def _stream_type(self, node: ast.AnnAssign) -> StreamType | None:
        kind = annotated_type(self.ctx, node.annotation)
        return kind if isinstance(kind, StreamType) else None

    def _declare(self, node: ast.AnnAssign, kind: StreamType) -> None:
        ctx = self.ctx
        if not isinstance(node.target, ast.Name) or node.value is not None:
            raise ctx.error("FX103", "a stream is declared as `name: Stream[T, depth]`", node)
        stem, span = node.target.id, ctx.span(node)
        previous = ctx.where(stem)
        if previous is not None:
            raise FrontendError("FX111", f"{stem} is declared twice", [Place(span), Place(previous, "first")])
        names: dict[tuple[int, ...], str] = {}

        def member(indices: tuple[int, ...]) -> Channel:
            if indices not in names:
                names[indices] = ctx.fresh("_".join([stem, *map(str, indices)]))
            buffer = ir.Buffer(names[indices], kind.dtype, depth=kind.depth, token=kind.token, span=span)
            self.declared[buffer.name] = buffer
            return buffer, ()

        ctx.bind(stem, StreamsSymbol(stem, kind, member), node)

    def allocations(self) -> list[ir.Stmt]:
        """The declarations of the streams in use."""
        return [ir.Alloc(buffer, span=buffer.span) for buffer in self.declared.values()]

    def _constant(self, node: ast.Assign) -> bool:
        """``P = 4`` in a region is a Python assignment, made when the region is built."""
        target = node.targets[0]
        try:
            value = self.ctx.constant(node.value)
        except NotConstant:
            return False
        names = list(target.elts) if isinstance(target, ast.Tuple) else [target]
        values = list(cast("tuple[Any, ...]", value)) if isinstance(target, ast.Tuple) else [value]
        if len(names) != len(values) or not all(isinstance(n, ast.Name) for n in names):
            return False
        for name, item in zip(names, values, strict=True):
            assert isinstance(name, ast.Name)
            self.ctx.bind(name.id, ConstSymbol(item), name)
        return True

    # ---- kernels

    def kernel(self, node: ast.FunctionDef, decoration: ast.expr, args: list[str]) -> None:
        """Call an instance of a kernel for every point of its mesh."""
        ctx = self.ctx
        mesh = _mesh(ctx, node, decoration)
        outer = [self._argument(node, decoration, name) for name in args]
        if len(outer) != len(node.args.args):
            message = f"'args' length mismatch (expected {len(node.args.args)}, got {len(outer)})."
            hint = f"args names an argument of the region for each parameter of {node.name}"
            raise FrontendError(
                "FX107", message, [ctx.span(decoration), Place(ctx.span(node), "kernel")], hint
            )
        source = replace(ctx.source, tree=node)
        names: dict[str, Any] = dict(ctx.values())
        for point in product(*map(range, mesh)):
            instance = _Instance(self, node, point, mesh, outer)
            function = instance.finish(self.lower(source, names, instance.enter))
            label = "_".join([node.name, *map(str, point)])
            bindings = tuple((f"p{axis}", i) for axis, i in enumerate(point))
            function = ctx.program.add(replace(function, origin=node.name, bindings=bindings), label)
            self._note_streams(function, instance.args)
            ctx.emit(ir.Call(function.name, tuple(instance.args), ctx.span(node), function.name))

    def _argument(self, node: ast.FunctionDef, decoration: ast.expr, name: str) -> ir.Buffer | StreamsSymbol:
        ctx = self.ctx
        symbol = ctx.find(name)
        if isinstance(symbol, ir.Buffer) and not symbol.shape:
            message = f"Scalar '{name}' cannot appear in args=[...] on @df.kernel '{node.name}'"
            hint = f"use {name} in the kernel: scalars of the region are captured by name"
            raise ctx.error("FX107", f"{message}; scalars are captured automatically.", decoration, hint)
        if not isinstance(symbol, ir.Buffer | StreamsSymbol):
            message = f"'{name}' in args=[...] on @df.kernel '{node.name}' is no argument of the region"
            raise ctx.error("FX102", message, decoration)
        return symbol

    # ---- streams

    def _note_streams(self, function: ir.Function, args: list[ir.Expr | ir.View]) -> None:
        """Add an instance to the writers and readers of the streams it is given."""
        ends = endpoints(function, self.ctx.program.functions)
        for param, arg in zip(function.params, args, strict=True):
            if not param.is_stream or param.name not in ends:
                continue
            assert isinstance(arg, ir.View)
            stream = channel_name(arg)
            writes, reads = ends[param.name]
            if writes is not None and reads is not None:
                message = (
                    f"kernel '{function.name}' both reads and writes stream '{stream}'; "
                    "a kernel may only read or only write a stream"
                )
                raise StreamError("FX302", message, [Place(writes, "written"), Place(reads, "read")])
            use = self.uses.setdefault(stream, _Use())
            if writes is not None:
                use.writers.append(Place(writes, f"written by {function.name}"))
            if reads is not None:
                use.readers.append(Place(reads, f"read by {function.name}"))

    def check_streams(self) -> None:
        """One producer and one consumer for every stream."""
        for stream, use in self.uses.items():
            for places, what in ((use.writers, "producers"), (use.readers, "consumers")):
                if len(places) > 1:
                    who = ", ".join(p.label.rpartition(" ")[2] for p in places)
                    message = f"stream '{stream}' has {len(places)} {what}: {who}"
                    hint = "one kernel instance writes a stream and one reads it; use a stream for each pair"
                    raise StreamError("FX302", message, places, hint)


class _Instance:
    """One instance of a kernel: what it takes from the region around it."""

    def __init__(
        self,
        region: _Region,
        node: ast.FunctionDef,
        point: tuple[int, ...],
        mesh: tuple[int, ...],
        outer: list[ir.Buffer | StreamsSymbol],
    ) -> None:
        self.region, self.node, self.point, self.mesh, self.outer = region, node, point, mesh, outer
        self.shards: dict[str, Offsets] = {}
        self.captured: list[tuple[ir.Buffer, ir.Expr | ir.View]] = []
        self.streams: list[tuple[ir.Buffer, ir.View]] = []
        self.args: list[ir.Expr | ir.View] = []

    def enter(self, ctx: Context) -> None:
        """Bind what the kernel sees besides its own parameters."""
        ctx.pids = self.point
        for arg, outer in zip(self.node.args.args, self.outer, strict=True):
            param = ctx.find(arg.arg)
            assert isinstance(param, ir.Buffer)
            self._check(ctx, arg, param, outer)
            if isinstance(outer, StreamsSymbol):
                self._use_streams(ctx, arg.arg, outer)
            else:
                local, offsets = shard(ctx, arg, param, self.point, self.mesh)
                ctx.bind(arg.arg, local, arg)
                if any(o is not None for o in offsets):
                    self.shards[param.name] = offsets
        for name, where in self.region.names_in(self.node).items():
            if ctx.find(name) is None:
                self._capture(ctx, name, where)

    def _check(self, ctx: Context, arg: ast.arg, param: ir.Buffer, outer: ir.Buffer | StreamsSymbol) -> None:
        """The types of an argument and its parameter are the same."""
        if isinstance(outer, StreamsSymbol):
            given: Any = replace(outer.type, depth=param.depth or 0)
            at = self.region.ctx.where(outer.name)
        else:
            given, at = ArrayType(outer.dtype, outer.shape), outer.span
        wanted: Any = ArrayType(param.dtype, param.shape)
        if param.is_stream:
            wanted = StreamType(param.dtype, param.depth or 0, param.shape, param.token)
        if given != wanted:
            code = "FX105" if given.shape != wanted.shape else "FX104"
            message = f"parameter {arg.arg} of kernel '{self.node.name}' is {wanted}, the argument is {given}"
            places = [Place(ctx.span(arg)), *([Place(at, "the argument")] if at else [])]
            raise FrontendError(code, message, places)

    def _capture(self, ctx: Context, name: str, where: ast.Name) -> None:
        """Take a name of the region around: constants as they are, the rest as parameters."""
        symbol = self.region.ctx.find(name)
        span = self.region.ctx.where(name) or ctx.span(where)
        if isinstance(symbol, StreamsSymbol):
            self._use_streams(ctx, name, symbol)
        elif isinstance(symbol, ConstSymbol):
            ctx.scopes[0].symbols[name] = (symbol, span)
        elif isinstance(symbol, ir.Buffer):
            local = replace(symbol, name=ctx.fresh(name), memory=None)
            ctx.scopes[0].symbols[name] = (local, span)
            if symbol.shape:
                self.captured.append((local, ir.View(symbol.name, (), span)))
            else:
                self.captured.append((local, ir.Load(symbol.name, (), symbol.dtype, span)))

    def _use_streams(self, ctx: Context, name: str, outer: StreamsSymbol) -> None:
        """A stream, or an array of them, under a name of the kernel; used members become parameters."""
        members: dict[tuple[int, ...], ir.Buffer] = {}

        def member(indices: tuple[int, ...]) -> Channel:
            if indices not in members:
                buffer, at = outer.member(indices)
                inner = replace(buffer, name=ctx.fresh(name), shape=())
                members[indices] = inner
                self.streams.append((inner, ir.View(buffer.name, at, buffer.span)))
            return members[indices], ()

        span = self.region.ctx.where(outer.name) or ctx.span(self.node)
        ctx.scopes[0].symbols[name] = (StreamsSymbol(name, outer.type, member), span)

    def finish(self, function: ir.Function) -> ir.Function:
        """The function with all parameters: arguments, captured values, streams."""
        used = {n.buffer for n in walk(function.body) if isinstance(n, ir.Load | ir.Store | ir.View)}
        params: list[ir.Buffer] = []
        self.args = []
        for param, outer in zip(function.params, self.outer, strict=True):
            if isinstance(outer, ir.Buffer):
                params.append(replace(param, memory=None))
                self.args.append(ir.View(outer.name, (), param.span))
        for local, value in self.captured:
            if local.name in used:
                params.append(local)
                self.args.append(value)
        for inner, view in self.streams:
            params.append(inner)
            self.args.append(view)
        body = function.body
        for name, offsets in self.shards.items():
            body = shifted(body, name, offsets)
        return replace(function, params=tuple(params), body=body)


# ------------------------------------------------------------------------------------- decorators


def _keyword(decoration: ast.expr, name: str, position: int) -> ast.expr | None:
    if not isinstance(decoration, ast.Call):
        return None
    for keyword in decoration.keywords:
        if keyword.arg == name:
            return keyword.value
    return decoration.args[position] if position < len(decoration.args) else None


def _mesh(ctx: Context, node: ast.FunctionDef, decoration: ast.expr) -> tuple[int, ...]:
    """The extents of ``mapping=[P0, P1]``."""
    hint = f"for instance @df.kernel(mapping=[1]) for one instance of {node.name}"
    given = _keyword(decoration, "mapping", 0)
    if given is None:
        raise ctx.error("FX107", f"@df.kernel '{node.name}' needs mapping=[...]", decoration, hint)
    value = ctx.require_constant(given, "mapping")
    extents = list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value]
    whole = all(hasattr(n, "__index__") and not isinstance(n, bool) and n >= 1 for n in extents)
    if not whole or not 1 <= len(extents) <= MAX_MESH:
        message = f"mapping of '{node.name}' must be one to {MAX_MESH} positive integers, got {value!r}"
        raise ctx.error("FX107", message, given, hint)
    return tuple(int(n) for n in extents)


def _argument_names(ctx: Context, node: ast.FunctionDef, decoration: ast.expr) -> list[str]:
    """The names in ``args=[A, B]``."""
    given = _keyword(decoration, "args", 1)
    if given is None:
        return []
    items = given.elts if isinstance(given, ast.List | ast.Tuple) else [given]
    names = [item.id for item in items if isinstance(item, ast.Name)]
    if len(names) != len(items):
        message = f"args of '{node.name}' must be names of arguments of the region"
        raise ctx.error("FX107", message, given, "for instance args=[A, B]")
    return names


__all__ = ["LowerFunction", "is_region", "lower_region"]
