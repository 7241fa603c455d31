"""Small programs built from IR by hand, shared by the tests of the HLS backend."""

from __future__ import annotations

from types import SimpleNamespace

from flexllm_allo.errors import Span
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import FLOAT32, INDEX, INT32, DType, Fixed, Int, UInt

INT8 = Int(8)


def const(value: float, dtype: DType = INDEX) -> ir.Const:
    return ir.Const(value, dtype)


def var(name: str) -> ir.LoopVar:
    return ir.LoopVar(name)


def load(name: str, dtype: DType, *indices: str | ir.Expr) -> ir.Load:
    return ir.Load(name, tuple(var(i) if isinstance(i, str) else i for i in indices), dtype)


def loop(name: str, extent: int, *body: ir.Stmt, band: str | None = None, **attrs: object) -> ir.For:
    return ir.For(name, const(0), const(extent), body, band=band, attrs=ir.LoopAttrs(**attrs))  # type: ignore[arg-type]


def linear(m: int = 8, n: int = 16, k: int = 4) -> ir.Function:
    """``Y[m, n] = sum_k X[m, k] * W[n, k]`` in int8, with a pipelined and an unrolled loop."""
    wide = Int(33)
    product = ir.Binary("*", load("X", INT8, "m", "k"), load("W", INT8, "n", "k"), Int(16))
    total = ir.Binary("+", ir.Cast(load("acc", INT32), wide), ir.Cast(product, wide), wide)
    body = loop(
        "m", m,
        loop(
            "n", n,
            ir.Alloc(ir.Buffer("acc", INT32)),
            ir.Store("acc", (), const(0, INT32)),
            loop("k", k, ir.Store("acc", (), ir.Cast(total, INT32)), unroll=0, reduction=True),
            ir.Store("Y", (var("m"), var("n")), load("acc", INT32)),
            pipeline=1,
        ),
        band="gemm",
    )  # fmt: skip
    params = (
        ir.Buffer("X", INT8, (m, k), banks=(ir.Bank("complete", 2),)),
        ir.Buffer("W", INT8, (n, k)),
        ir.Buffer("Y", INT32, (m, n)),
    )
    bindings = (("M", m), ("T", INT8))
    span = Span("kernels/linear.py", 12)
    return ir.Function("linear", params, (body,), 1, origin="linear", bindings=bindings, span=span)


def two_layers() -> ir.Program:
    """A top that calls `linear` with weights in memory, once into an on-chip array."""
    layer = ir.Cast(load("layer", INT32), INDEX)
    copy = ir.Store("XB", (var("i"), var("j")), load("X", INT8, "i", "j"))
    body = (
        ir.Alloc(ir.Buffer("XB", INT8, (8, 4), banks=(ir.Bank("complete", 2),))),
        loop("i", 8, loop("j", 4, copy, pipeline=1), band="load"),
        ir.Alloc(
            ir.Buffer("YB", INT32, (8, 16), memory=SimpleNamespace(resource="URAM", storage_type="RAM_2P"))
        ),
        ir.Call("linear", (ir.View("XB"), ir.View("W", (layer,)), ir.View("YB"))),
        ir.Call("linear", (ir.View("XB"), ir.View("W", (const(1),)), ir.View("Y"))),
        ir.Store("first", (), load("YB", INT32, const(0), const(0))),
    )
    params = (
        ir.Buffer("X", INT8, (8, 4)),
        ir.Buffer("W", INT8, (2, 16, 4)),
        ir.Buffer("layer", INT32),
        ir.Buffer("Y", INT32, (8, 16)),
        ir.Buffer("first", INT32),
    )
    return ir.Program((linear(), ir.Function("two_layers", params, body, results=2)), "two_layers")


def producer_consumer() -> ir.Program:
    """Two processes, an array of FIFOs, fixed point and a split loop."""
    fixed = Fixed(12, 4)
    fifo = ir.Buffer("pipe", fixed, (2,), depth=4)
    inner = ir.Binary("+", ir.Binary("*", var("i.outer"), const(4), INDEX), var("i.inner"), INDEX)
    lane = ir.Binary("%", var("i.inner"), const(2), INDEX)
    send = ir.Put("pipe", (lane,), load("A", fixed, inner))
    produce = ir.Function(
        "produce",
        (ir.Buffer("A", fixed, (16,)), fifo),
        (loop("i.outer", 4, loop("i.inner", 4, send, pipeline=2, rewind=True), band="p"),),
    )
    doubled = ir.Cast(
        ir.Binary("+", *[ir.Cast(load("t", fixed), Fixed(13, 4))] * 2, Fixed(13, 4)), Fixed(16, 8)
    )
    consume = ir.Function(
        "consume",
        (fifo, ir.Buffer("B", Fixed(16, 8), (16,))),
        (
            loop(
                "i", 16,
                ir.Alloc(ir.Buffer("t", fixed)),
                ir.Get("t", "pipe", (ir.Binary("%", var("i"), const(2), INDEX),)),
                ir.Store("B", (var("i"),), doubled),
                band="c",
            ),
        ),
        results=1,
    )  # fmt: skip
    top = ir.Function(
        "top",
        (ir.Buffer("A", fixed, (16,)), ir.Buffer("B", Fixed(16, 8), (16,))),
        (
            ir.Alloc(fifo),
            ir.Call("produce", (ir.View("A"), ir.View("pipe"))),
            ir.Call("consume", (ir.View("pipe"), ir.View("B"))),
        ),
        results=1,
        dataflow=True,
    )
    return ir.Program((produce, consume, top), "top")


def softmax_row() -> ir.Program:
    """Floats, a constant table, a condition, a run-time bound and an in-place argument."""
    n = ir.Cast(load("n", INT32), INDEX)
    best = ir.Binary("max", load("best", FLOAT32), load("x", FLOAT32, "i"), FLOAT32)
    shifted = ir.Math(
        "exp", (ir.Binary("-", load("x", FLOAT32, "i"), load("best", FLOAT32), FLOAT32),), FLOAT32
    )
    scaled = ir.Binary(
        "*", shifted, load("scale", FLOAT32, ir.Binary("%", var("i"), const(3), INDEX)), FLOAT32
    )
    total = ir.Binary("+", load("total", FLOAT32), load("x", FLOAT32, "i"), FLOAT32)
    quotient = ir.Binary("/", load("x", FLOAT32, "i"), load("total", FLOAT32), FLOAT32)

    def upto(*body: ir.Stmt, band: str) -> ir.For:
        return ir.For("i", const(0), n, body, band=band)

    positive = ir.Binary(">", load("total", FLOAT32), const(0.0, FLOAT32), UInt(1))
    body = (
        ir.Alloc(ir.Buffer("scale", FLOAT32, (3,)), (1.0, 0.1, 1e-7)),
        ir.Alloc(ir.Buffer("best", FLOAT32)),
        ir.Store("best", (), const(float("-inf"), FLOAT32)),
        upto(ir.Store("best", (), best), band="max"),
        ir.Alloc(ir.Buffer("total", FLOAT32), (0.0,)),
        upto(ir.Store("x", (var("i"),), scaled), ir.Store("total", (), total), band="sum"),
        ir.If(positive, (upto(ir.Store("x", (var("i"),), quotient), band="div"),)),
    )
    params = (ir.Buffer("x", FLOAT32, (8,)), ir.Buffer("n", INT32))
    return ir.Program((ir.Function("softmax", params, body),), "softmax")
