"""Random well-typed IR for property tests: functions that map columns of values to columns of values."""

from __future__ import annotations

import random

import numpy as np

from flexllm_allo.backend.containers import width
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import BOOL, INDEX, DType, Fixed, Float, Int, UFixed, UInt

FLOATS = (Float(32, 23), Float(64, 52), Float(16, 10), Float(16, 7))
ROWS = 12
ROW = ir.LoopVar("i")


class RandomIR:
    """Draws types, expressions and values from a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.inputs = [ir.Buffer(f"in{n}", self.dtype(), (ROWS,)) for n in range(5)]

    def dtype(self) -> DType:
        kind = self.r.randrange(8)
        bits = self.r.choice((1, 2, 3, 4, 7, 8, 8, 9, 16, 17, 31, 32, 32, 33, 48, 63, 64, 65, 70, 128))
        if kind < 2:
            return Int(bits)
        if kind < 4:
            return UInt(bits)
        if kind < 6:
            bits = self.r.randint(1, 70)
            return self.r.choice((Fixed, UFixed))(bits, self.r.randint(0, bits + 3))
        return self.r.choice(FLOATS)

    def constant(self, t: DType) -> ir.Const:
        if isinstance(t, Float):
            return ir.Const(self.r.choice((0.0, 1.0, -1.5, 3.25, 1e-3, 100.0)), t)
        bits = width(t)
        value = self.r.choice((0, 1, 2, 3, self.r.getrandbits(bits)))
        low = -(1 << (bits - 1)) if isinstance(t, Int | Fixed) else 0
        return ir.Const((value % (1 << bits)) + low if low else value % (1 << bits), t)

    def leaf(self, t: DType) -> ir.Expr:
        if t == INDEX:
            return self.r.choice((ROW, ir.Const(self.r.randint(-50, 50), INDEX)))
        if self.r.random() < 0.15:
            return self.constant(t)
        buffer = self.r.choice([b for b in self.inputs if b.dtype == t] or self.inputs)
        load = ir.Load(buffer.name, (ROW,), buffer.dtype)
        return load if buffer.dtype == t else ir.Cast(load, t)

    def expr(self, t: DType, depth: int) -> ir.Expr:
        if depth <= 0:
            return self.leaf(t)
        choice = self.r.randrange(10)
        if choice == 0:
            return self.leaf(t)
        if choice == 1:
            source = self.r.choice((self.dtype(), INDEX))
            return ir.Cast(self.expr(source, depth - 1), t)
        if choice == 2:
            condition = self.expr(BOOL, depth - 1)
            return ir.Select(condition, self.expr(t, depth - 1), self.expr(t, depth - 1), t)
        if isinstance(t, Float):
            return self.float_expr(t, depth)
        return self.integer_expr(t, depth)

    def float_expr(self, t: DType, depth: int) -> ir.Expr:
        a = self.expr(t, depth - 1)
        op = self.r.choice(("+", "-", "*", "/", "%", "//", "min", "max", "neg", "math", "bits"))
        if op == "neg":
            return ir.Unary("-", a, t)
        if op == "bits":
            return ir.Bitcast(self.leaf(UInt(t.bits)), t)
        if op == "math":
            name = self.r.choice("exp log log2 log10 sqrt sin cos tan tanh power abs round floor".split())
            args = (a, self.expr(t, depth - 1)) if name == "power" else (a,)
            return ir.Math(name, args, t)
        return ir.Binary(op, a, self.expr(t, depth - 1), t)

    def integer_expr(self, t: DType, depth: int) -> ir.Expr:
        if t == BOOL:
            return self.truth(depth)
        if t == INDEX:
            op = self.r.choice(("+", "-", "*", "//", "%", "min", "max"))
            left, right = self.leaf(t), self.leaf(t)
            return ir.Binary(op, left, self.nonzero(right) if op in "//%" else right, t)
        a = self.expr(t, depth - 1)
        ops = ["+", "-", "*", "%", "min", "max", "<<", ">>", "//", "/", "neg", "inv"]
        if t.is_integer:
            ops += ["&", "|", "^", "slice", "bits", "abs"]
        op = self.r.choice(ops)
        if op in ("neg", "inv"):
            return ir.Unary("-" if op == "neg" else "~", a, t)
        if op == "abs":
            return ir.Math("abs", (a,), t)
        if op in ("<<", ">>"):
            kind = self.r.choice((UInt(3), Int(8), UInt(7), Int(32), UInt(70)))
            return ir.Binary(op, a, self.expr(kind, depth - 1), t)
        if op == "slice":
            source = self.r.choice((Int(32), UInt(17), UInt(70), UInt(t.bits)))
            low = ir.Cast(self.expr(Int(8), depth - 1), INDEX)
            return ir.Cast(ir.BitSlice(self.expr(source, depth - 1), low, UInt(t.bits)), t)
        if op == "bits":
            return ir.Bitcast(self.expr(self.r.choice((Int, UInt))(t.bits), depth - 1), t)
        if op == "*":
            narrow = self.r.choice((t, type(t)(max(1, t.bits // 2), t.fracs)))
            return ir.Binary("*", self.expr(narrow, depth - 1), a, t)
        if op == "/" and t.is_fixed:
            left, right = self.r.choice((t, Int(8), UFixed(9, 4))), self.r.choice((t, UInt(7), Fixed(12, 6)))
            return ir.Binary("/", self.expr(left, depth - 1), self.nonzero(self.expr(right, depth - 1)), t)
        b = self.expr(t, depth - 1)
        return ir.Binary(op, a, self.nonzero(b) if op in ("/", "//", "%") else b, t)

    def nonzero(self, e: ir.Expr) -> ir.Expr:
        zero = ir.Binary("==", e, ir.Const(0, e.type), BOOL)
        return ir.Select(
            zero, ir.Const(1, e.type) if width(e.type) > 1 else self.minus_one(e.type), e, e.type
        )

    def minus_one(self, t: DType) -> ir.Const:
        return ir.Const(-1 if isinstance(t, Int | Fixed) else 1, t)

    def truth(self, depth: int) -> ir.Expr:
        op = self.r.choice(("==", "!=", "<", "<=", ">", ">=", "and", "or", "not"))
        if op == "not":
            return ir.Unary("not", self.expr(BOOL, depth - 1), BOOL)
        if op in ("and", "or"):
            return ir.Logic(op, self.expr(BOOL, depth - 1), self.expr(BOOL, depth - 1))
        t = self.dtype()
        return ir.Binary(op, self.expr(t, depth - 1), self.expr(t, depth - 1), BOOL)

    def program(self, outputs: int, depth: int) -> ir.Program:
        """A function of `outputs` columns, each a random expression of the input columns."""
        results: list[ir.Buffer] = []
        body: list[ir.Stmt] = []
        for n in range(outputs):
            out = ir.Buffer(f"out{n}", self.dtype(), (ROWS,))
            results.append(out)
            body.append(ir.Store(out.name, (ROW,), self.expr(out.dtype, depth)))
        loop = ir.For("i", ir.Const(0, INDEX), ir.Const(ROWS, INDEX), tuple(body), band="rows")
        params = (*self.inputs, *results)
        return ir.Program((ir.Function("columns", params, (loop,), results=outputs),), "columns")

    def values(self) -> list[object]:
        return [self.column(b.dtype) for b in self.inputs]

    def column(self, t: DType) -> object:
        if t.is_integer:
            items = [self.r.getrandbits(width(t)) for _ in range(ROWS - 4)] + [0, 1, -1, 1 << (width(t) - 1)]
            return np.array(items, object)
        special = [0.0, -0.0, float("inf"), float("nan"), 1e30, -2.5, 0.5, 65504.0]
        items = [self.r.choice(special) if self.r.random() < 0.3 else self.number() for _ in range(ROWS)]
        return np.array(items, np.float64)

    def number(self) -> float:
        return self.r.gauss(0, 1) * 10 ** self.r.randint(-6, 8)
