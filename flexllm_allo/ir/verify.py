"""The invariants of the IR, checked after lowering and after every primitive.

A failure is a fault of the library (or of hand-made IR), never of a user's kernel.
"""

from __future__ import annotations

from ..errors import Span, VerifyError
from . import nodes as ir
from .dtypes import BOOL, INDEX, fits_shape
from .walk import buffers

_SAME = frozenset(["+", "-", "//", "%", "&", "|", "^", "min", "max"])
_COMPARE = frozenset(["==", "!=", "<", "<=", ">", ">="])


def verify(program: ir.Program) -> ir.Program:
    """Return the program unchanged.

    Raises:
        VerifyError FX199: a name without declaration, a wrong index count, types that differ
            where they must not, a call that does not fit its callee or comes before it.
    """
    seen: dict[str, ir.Function] = {}
    for function in program.functions:
        _Checker(function, seen).run()
        seen[function.name] = function
    if program.top not in seen:
        raise VerifyError("FX199", f"there is no top function {program.top}")
    return program


class _Checker:
    def __init__(self, function: ir.Function, callees: dict[str, ir.Function]) -> None:
        self.function = function
        self.callees = callees
        self.table = buffers(function)
        self.visible = {b.name for b in function.params}

    def fail(self, message: str, span: Span) -> VerifyError:
        return VerifyError("FX199", f"in {self.function.name}: {message}", span)

    def need(self, condition: bool, message: str, span: Span) -> None:
        if not condition:
            raise self.fail(message, span)

    def run(self) -> None:
        names = [b.name for b in self.function.params]
        self.need(len(names) == len(set(names)), "parameter named twice", self.function.span)
        self.body(self.function.body, frozenset())

    def body(self, body: tuple[ir.Stmt, ...], loops: frozenset[str]) -> None:
        inside: list[str] = []
        for stmt in body:
            if isinstance(stmt, ir.Alloc):
                name = stmt.buffer.name
                self.need(name not in self.visible, f"{name} declared twice", stmt.span)
                self.visible.add(name)
                inside.append(name)
            else:
                self.stmt(stmt, loops)
        self.visible -= set(inside)

    def buffer(self, name: str, span: Span) -> ir.Buffer:
        self.need(name in self.visible, f"{name} is not in scope", span)
        return self.table[name]

    def stmt(self, stmt: ir.Stmt, loops: frozenset[str]) -> None:
        match stmt:
            case ir.Store():
                target = self.buffer(stmt.buffer, stmt.span)
                self.need(len(stmt.indices) == len(target.shape), "wrong index count", stmt.span)
                given, wanted = stmt.value.type, target.dtype
                self.need(given == wanted, f"{given} stored into {wanted}", stmt.span)
                self.need(not target.is_stream, "store into a stream", stmt.span)
                self.exprs((*stmt.indices, stmt.value), loops)
            case ir.Put():
                stream = self.buffer(stmt.stream, stmt.span)
                self.need(stream.is_stream, "put into an array", stmt.span)
                self.token(stream, stmt.value, loops, stmt.span)
                self.exprs(stmt.indices, loops)
            case ir.Get():
                stream, target = self.buffer(stmt.stream, stmt.span), self.buffer(stmt.target, stmt.span)
                fits = stream.is_stream and (target.shape, target.dtype) == (stream.token, stream.dtype)
                self.need(fits, "get does not fit", stmt.span)
                self.exprs(stmt.indices, loops)
            case ir.For():
                self.need(stmt.var not in loops, f"loop {stmt.var} inside loop {stmt.var}", stmt.span)
                self.need(stmt.step >= 1, "step must be positive", stmt.span)
                self.need(stmt.lower.type == INDEX == stmt.upper.type, "bounds must be index", stmt.span)
                self.exprs((stmt.lower, stmt.upper), loops)
                self.body(stmt.body, loops | {stmt.var})
            case ir.While():
                self.condition(stmt.condition, loops)
                self.body(stmt.body, loops)
            case ir.If():
                self.condition(stmt.condition, loops)
                self.body(stmt.then, loops)
                self.body(stmt.otherwise, loops)
            case ir.Call():
                self.call(stmt, loops)
            case ir.Alloc():
                raise AssertionError("handled in body")

    def token(self, stream: ir.Buffer, value: ir.Expr | ir.View, loops: frozenset[str], span: Span) -> None:
        if isinstance(value, ir.View):
            given = self.buffer(value.buffer, span)
            fits = (given.dtype, given.shape[len(value.indices) :]) == (stream.dtype, stream.token)
            self.exprs(value.indices, loops)
        else:
            fits = value.type == stream.dtype and not stream.token
            self.expr(value, loops)
        self.need(fits, "put does not fit", span)

    def condition(self, expr: ir.Expr, loops: frozenset[str]) -> None:
        self.need(expr.type == BOOL, f"condition of type {expr.type}", expr.span)
        self.exprs((expr,), loops)

    def call(self, stmt: ir.Call, loops: frozenset[str]) -> None:
        callee = self.callees.get(stmt.func)
        if callee is None:
            raise self.fail(f"{stmt.func} is not defined before its call", stmt.span)
        self.need(len(stmt.args) == len(callee.params), "wrong argument count", stmt.span)
        for n, (arg, param) in enumerate(zip(stmt.args, callee.params, strict=True)):
            if isinstance(arg, ir.View):
                given = self.buffer(arg.buffer, arg.span)
                rest = given.shape[len(arg.indices) :]
                fits = (given.dtype, given.is_stream) == (param.dtype, param.is_stream)
                fits = fits and fits_shape(rest, param.shape)
                self.need(fits, f"argument {param.name} of {callee.name} does not fit", arg.span)
                self.exprs(arg.indices, loops)
            else:
                scalar = not param.shape and not param.is_stream and n < len(callee.inputs)
                self.need(scalar and arg.type == param.dtype, f"argument {param.name} does not fit", arg.span)
                self.exprs((arg,), loops)

    def exprs(self, exprs: tuple[ir.Expr, ...], loops: frozenset[str]) -> None:
        for expr in exprs:
            self.expr(expr, loops)

    def expr(self, e: ir.Expr, loops: frozenset[str]) -> None:
        match e:
            case ir.Const():
                pass
            case ir.LoopVar():
                self.need(e.name in loops, f"loop variable {e.name} outside its loop", e.span)
            case ir.Load():
                source = self.buffer(e.buffer, e.span)
                self.need(len(e.indices) == len(source.shape), "wrong index count", e.span)
                self.need(e.type == source.dtype and not source.is_stream, f"load of {e.buffer}", e.span)
                self.need(all(i.type == INDEX for i in e.indices), "index of another type", e.span)
                self.exprs(e.indices, loops)
            case ir.Unary():
                self.need(e.value.type == e.type, f"{e.op} changes the type", e.span)
                self.expr(e.value, loops)
            case ir.Binary():
                same = e.left.type == e.right.type
                if e.op in _SAME or (e.op == "/" and e.type.is_float):
                    self.need(same and e.left.type == e.type, f"operands of {e.op}", e.span)
                elif e.op in _COMPARE:
                    self.need(same and e.type == BOOL, f"operands of {e.op}", e.span)
                self.exprs((e.left, e.right), loops)
            case ir.Logic():
                self.need(e.left.type == e.right.type == BOOL, "operands of " + e.op, e.span)
                self.exprs((e.left, e.right), loops)
            case ir.Select():
                fits = e.condition.type == BOOL and e.then.type == e.otherwise.type == e.type
                self.need(fits, "sides of a selection", e.span)
                self.exprs((e.condition, e.then, e.otherwise), loops)
            case ir.Cast() | ir.Bitcast():
                self.expr(e.value, loops)
            case ir.BitSlice():
                self.exprs((e.value, e.lo), loops)
            case ir.Math():
                self.exprs(e.args, loops)
