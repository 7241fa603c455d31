"""Shorthand for IR made by hand in tests of the backends."""

from __future__ import annotations

from flexllm_allo.errors import Span
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import FLOAT32, INDEX, DType, Int

I8, I32, F32 = Int(8), Int(32), FLOAT32
i, j, k = (ir.LoopVar(v) for v in "ijk")


def at(line: int) -> Span:
    return Span("kernel.py", line, 4)


def index(value: int) -> ir.Const:
    return ir.Const(value, INDEX)


def const(value: float, dtype: DType = I32) -> ir.Const:
    return ir.Const(value, dtype)


def loop(var: str, count: int | ir.Expr, *body: ir.Stmt, **attrs: bool) -> ir.For:
    upper = index(count) if isinstance(count, int) else count
    return ir.For(var, index(0), upper, body, band=f"over_{var}", attrs=ir.LoopAttrs(**attrs))


def load(name: str, *indices: ir.Expr, dtype: DType = I32) -> ir.Load:
    return ir.Load(name, indices, dtype)


def store(name: str, *rest: ir.Expr) -> ir.Store:
    return ir.Store(name, rest[:-1], rest[-1])


def add(a: ir.Expr, b: ir.Expr, dtype: DType = I32) -> ir.Expr:
    return ir.Binary("+", a, b, dtype)


def local(name: str, dtype: DType = I32, shape: tuple[int, ...] = ()) -> ir.Alloc:
    return ir.Alloc(ir.Buffer(name, dtype, shape))


def array(name: str, *shape: int, dtype: DType = I32) -> ir.Buffer:
    return ir.Buffer(name, dtype, shape)


def fifo(name: str, depth: int = 2, *shape: int, dtype: DType = I32) -> ir.Buffer:
    return ir.Buffer(name, dtype, shape, depth=depth)


def get(target: str, stream: str, *indices: ir.Expr, line: int = 0) -> tuple[ir.Alloc, ir.Get]:
    return local(target), ir.Get(target, stream, indices, at(line))


def put(stream: str, value: ir.Expr, *indices: ir.Expr, line: int = 0) -> ir.Put:
    return ir.Put(stream, indices, value, at(line))


def call(func: str, *args: ir.Expr | str, line: int = 0) -> ir.Call:
    """Names are passed whole; expressions by value; ``ir.View`` as it is."""
    views = tuple(ir.View(a) if isinstance(a, str) else a for a in args)
    return ir.Call(func, views, at(line))


def function(
    name: str, params: list[ir.Buffer], *body: ir.Stmt, results: int = 0, dataflow: bool = False
) -> ir.Function:
    return ir.Function(name, tuple(params), body, results=results, dataflow=dataflow, span=at(1))


def program(*functions: ir.Function) -> ir.Program:
    return ir.Program(functions, functions[-1].name)
