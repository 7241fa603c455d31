"""Random kernels as source text, and random schedules for them: what a user could write.

Texts are typed as they are drawn, by the language's own `result_type`, so every kernel is legal.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

import flexllm_allo as allo
from flexllm_allo.backend.containers import width
from flexllm_allo.errors import DTypeError, ScheduleError
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir import types
from flexllm_allo.ir.dtypes import FLOAT32, INDEX, INT32, DType, Fixed, Float, Int, UFixed, UInt
from flexllm_allo.ir.promotion import result_type
from flexllm_allo.schedule.schedule import Schedule

N = 6
WIDEST = 128
NAMES = {"allo": allo, "Int": Int, "UInt": UInt, "Fixed": Fixed, "UFixed": UFixed} | {
    name: getattr(types, name) for name in ("int32", "float32", "float64", "index")
}
Text = tuple[str, DType]


def type_name(t: DType) -> str:
    """The type as a kernel writes it."""
    if isinstance(t, Float):
        return f"float{t.bits}"
    return f"{type(t).__name__}({t.bits}, {t.fracs})" if t.is_fixed else f"{type(t).__name__}({t.bits})"


class RandomKernel:
    """Draws one kernel: arrays of random types, and a nest of loops that fills `out`."""

    def __init__(self, r: Random, name: str = "kernel") -> None:
        self.r = r
        self.arrays: dict[str, DType] = {f"A{n}": self.dtype() for n in range(3)}
        self.scalars: dict[str, DType] = {"s": INT32}
        self.out = self.dtype()
        params = ", ".join(f"{a}: {type_name(t)}[{N}]" for a, t in self.arrays.items())
        lines = [f"def {name}({params}, s: int32) -> {type_name(self.out)}[{N}]:"]
        lines += [f"    out: {type_name(self.out)}[{N}] = 0"]
        lines += self.nest()
        if r.random() < 0.4:
            self.scalars = {"s": INT32}
            lines += self.nest()
        self.source = "\n".join([*lines, "    return out"]) + "\n"

    def dtype(self) -> DType:
        kind = self.r.randrange(10)
        bits = self.r.choice((1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 24, 31, 32, 33, 48, 64, 65))
        if kind < 6:
            return self.r.choice((Int, UInt))(bits)
        if kind < 8:
            bits = self.r.randint(2, 40)
            return self.r.choice((Fixed, UFixed))(bits, self.r.randint(0, bits))
        return self.r.choice((FLOAT32, Float(64, 52)))

    # --------------------------------------------------------------------------- statements

    def nest(self) -> list[str]:
        """One loop, or two that cover the array together, around some statements."""
        if self.r.random() < 0.5:
            head, self.place = f"for i in range({N}):", "i"
        else:
            head, self.place = "for i, j in allo.grid(2, 3):", "i * 3 + j"
        outer = dict(self.scalars)
        lines = [f"    {head}"]
        for n in range(self.r.randint(0, 2)):
            t = self.dtype()
            lines.append(f"        v{n}: {type_name(t)} = {self.expr(2)[0]}")
            self.scalars[f"v{n}"] = t
        for _ in range(self.r.randint(1, 2)):
            lines += self.statement()
        self.scalars = outer
        return lines

    def statement(self) -> list[str]:
        kind = self.r.randrange(5)
        store = f"out[{self.place}] {self.r.choice(('=', '=', '+=', '-='))} "
        if kind == 0:
            then, otherwise = (f"            {store}{self.expr(2)[0]}" for _ in range(2))
            return [f"        if {self.condition(1)}:", then, "        else:", otherwise]
        if kind == 1:
            bound = self.r.choice(("4", "i + 1", "i, 5", "0, 6, 2"))
            body = f"            out[{self.place}] += A{self.r.randrange(3)}[k] * {self.r.randint(1, 9)}"
            return [f"        for k in range({bound}):", body]
        return [f"        {store}{self.expr(3)[0]}"]

    # -------------------------------------------------------------------------- expressions

    def condition(self, depth: int) -> str:
        op = self.r.choice(("==", "!=", "<", "<=", ">", ">="))
        text = f"{self.expr(depth)[0]} {op} {self.expr(depth)[0]}"
        if self.r.random() < 0.3:
            text = f"{text} {self.r.choice(('and', 'or'))} {self.expr(depth)[0]} > 3"
        return f"not ({text})" if self.r.random() < 0.2 else text

    def leaf(self) -> Text:
        kind = self.r.randrange(8)
        if kind == 0:
            return str(self.r.randint(0, 200)), INT32
        if kind == 1:
            return self.r.choice(("0.5", "2.0", "1.25")), FLOAT32
        if kind == 2:
            name = self.r.choice(list(self.scalars))
            return name, self.scalars[name]
        if kind == 3:
            return "i", INDEX
        name = self.r.choice(list(self.arrays))
        index = self.r.choice((self.place, f"{N - 1} - ({self.place})", str(self.r.randrange(N))))
        return f"{name}[{index}]", self.arrays[name]

    def expr(self, depth: int) -> Text:
        if depth == 0 or self.r.random() < 0.15:
            return self.leaf()
        try:
            text, t = self.operation(depth)
        except DTypeError:
            return self.leaf()
        return (text, t) if t.bits <= WIDEST else self.leaf()

    def operation(self, depth: int) -> Text:
        a, ta = self.expr(depth - 1)
        kind = self.r.randrange(9)
        if kind == 0:
            b, tb = self.expr(depth - 1)
            return f"({a} if {self.condition(depth - 1)} else {b})", result_type("min", ta, tb)
        if kind == 1 and isinstance(ta, Int | UInt):
            op = self.r.choice(
                (f"~{a}", f"({a} << {self.r.randint(0, 9)})", f"({a} >> {self.r.randint(0, 9)})")
            )
            return f"({op})", ta
        if kind == 2:
            b, tb = self.expr(depth - 1)
            word = self.r.choice(("min", "max"))
            return f"{word}({a}, {b})", result_type(word, ta, tb)
        if kind == 3 and ta.signed:
            return f"(-{a})", ta
        if kind == 4:
            return (f"int({a})", INT32) if self.r.random() < 0.5 else (f"float({a})", FLOAT32)
        return self.binary(a, ta, depth)

    def binary(self, a: str, ta: DType, depth: int) -> Text:
        b, tb = self.expr(depth - 1)
        both = ta.is_integer and tb.is_integer and INDEX not in (ta, tb)
        op = self.r.choice("+ - * + - * // % & | ^".split() if both else "+ - *".split())
        if op in ("//", "%"):  # the simulator refuses a division by zero
            b, tb = f"({b} | 1)", result_type("|", tb, INT32)
        return f"({a} {op} {b})", result_type(op, ta, tb)

    # ------------------------------------------------------------------------------- values

    def inputs(self) -> list[Any]:
        return [*(self.column(t) for t in self.arrays.values()), self.r.randint(-1000, 1000)]

    def column(self, t: DType) -> Any:
        if not t.is_integer:
            return np.array([self.r.randint(-4000, 4000) / self.r.choice((1, 3, 64)) for _ in range(N)])
        low = -(1 << (width(t) - 1)) if t.signed else 0
        span = (1 << width(t)) - 1
        edges = [low, low + span, 0]
        values = edges + [low + self.r.randint(0, span) for _ in range(N - len(edges))]
        return np.array(values, object if width(t) > 63 else np.int64)


def schedule(s: Schedule, r: Random) -> None:
    """Apply random primitives; those that are refused change nothing."""
    for _ in range(r.randint(0, 5)):
        names = [f"{band}.{loop}" for band, entry in s.get_loops() for loop in entry.loops]
        a, b, factor = r.choice(names), r.choice(names), r.randint(1, 4)
        name, args = r.choice(
            [
                ("split", (a, factor)), ("reorder", (a, b)), ("fuse", (a, b)), ("pipeline", (a, factor)),
                ("unroll", (a, factor)), ("buffer_at", (s.out, a)), ("compute_at", (a, b)),
                ("partition", (r.choice((s.out, s.A0)),)),
            ]
        )  # fmt: skip
        before = s.program
        try:
            getattr(s, name)(*args)
        except ScheduleError:
            assert s.program is before


def merged(programs: list[ir.Program]) -> ir.Program:
    """One program whose top function calls all of them, each on arrays of its own."""
    params: list[ir.Buffer] = []
    results: list[ir.Buffer] = []
    calls: list[ir.Stmt] = []
    for n, program in enumerate(programs):
        kernel = program.function(program.top)
        args: list[ir.Expr | ir.View] = []
        for b in kernel.params:
            name = f"{b.name}_{n}"
            renamed = ir.Buffer(name, b.dtype, b.shape)
            (results if b in kernel.outputs else params).append(renamed)
            args.append(ir.View(name) if b.shape else ir.Load(name, (), b.dtype))
        calls.append(ir.Call(kernel.name, tuple(args)))
    top = ir.Function("all_kernels", (*params, *results), tuple(calls), results=len(results))
    functions = [f for program in programs for f in program.functions]
    return ir.Program((*functions, top), top.name)
