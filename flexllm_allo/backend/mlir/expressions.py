"""Expressions of the IR as arith, math and memref operations, with the meaning of docs/numerics.md."""

from __future__ import annotations

from ...errors import BackendError, Span
from ...ir import nodes as ir
from ...ir.dtypes import BOOL, FLOAT32, DType, Float, Index
from ...ir.walk import walk
from ..containers import is_signed, width
from . import affine, casts
from .casts import resize
from .types import element, memref
from .writer import Writer

_INTEGER = {"+": "addi", "-": "subi", "*": "muli", "&": "andi", "|": "ori", "^": "xori"}
_FLOAT = {"+": "addf", "-": "subf", "*": "mulf", "/": "divf"}
_COMPARE = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_MATH = {"power": "powf", "abs": "absf"}


def refuse(what: str, span: Span, hint: str = "") -> BackendError:
    """The refusal of what MLIR's own dialects have no word for."""
    return BackendError("FX403", f"MLIR export cannot express {what}", span, hint)


class Array:
    """A buffer in memory: its value and type."""

    def __init__(self, name: str, dtype: DType, shape: tuple[int, ...], strided: bool = False) -> None:
        self.name, self.dtype, self.shape, self.strided = name, dtype, shape, strided

    @property
    def type(self) -> str:
        return memref(self.dtype, self.shape, self.strided)


class Expressions:
    """Writes expressions; knows what buffers and loop variables are called."""

    def __init__(self, writer: Writer) -> None:
        self.w = writer
        self.arrays: dict[str, Array] = {}
        self.scalars: dict[str, str] = {}  # parameters that are never written
        self.loops: dict[str, str] = {}
        self.dims: dict[str, str] = {}  # those of affine loops

    def value(self, e: ir.Expr) -> str:
        """The name of the value of `e`."""
        match e:
            case ir.Const():
                return self.w.constant(e.value, e.type)
            case ir.LoopVar():
                return self.loops[e.name]
            case ir.Load():
                return self._load(e)
            case ir.Unary():
                return self._unary(e)
            case ir.Binary():
                return self._binary(e, self.value(e.left), self.value(e.right))
            case ir.Logic():
                return self._logic(e)
            case ir.Select():
                return self._choose(e.condition, e.then, e.otherwise, e.type)
            case ir.Cast():
                return casts.cast(self.w, self.value(e.value), e.value.type, e.type, e.span)
            case ir.Bitcast():
                return self._bitcast(e)
            case ir.BitSlice():
                return self._bit_slice(e)
            case ir.Math():
                return self._math(e)
            case _:  # pyright: ignore[reportUnnecessaryComparison]
                raise refuse(f"'{type(e).__name__}'", e.span)

    def condition(self, e: ir.Expr) -> str:
        """An expression as an i1: whether it is not zero."""
        value = self.value(e)
        return (
            value
            if element(e.type) == "i1"
            else self._compare("!=", value, self.w.constant(0, e.type), e.type)
        )

    def index(self, e: ir.Expr) -> str:
        """An expression of any integer type as a value of type index."""
        return casts.to_index(self.w, self.value(e), e.type)

    def place(self, buffer: str, indices: tuple[ir.Expr, ...]) -> tuple[str, str]:
        """The dialect of an access, and ``%A[%i, %j] : type``."""
        array = self.arrays[buffer]
        text = affine.access(indices, self.dims)
        dialect = "memref" if text is None else "affine"
        if text is None:
            text = ", ".join(self.index(i) for i in indices)
        return dialect, f"{array.name}[{text}] : {array.type}"

    def _load(self, e: ir.Load) -> str:
        if e.buffer in self.scalars:
            return self.scalars[e.buffer]
        dialect, place = self.place(e.buffer, e.indices)
        return self.w.op(f"{dialect}.load {place}")

    def _unary(self, e: ir.Unary) -> str:
        if e.op == "not":
            return self.w.op(f"arith.xori {self.condition(e.value)}, {self.w.constant(1, BOOL)} : i1")
        value, kind = self.value(e.value), element(e.type)
        if isinstance(e.type, Float):
            return self.w.op(f"arith.negf {value} : {kind}")
        if e.op == "-":
            return self.w.op(f"arith.subi {self.w.constant(0, e.type)}, {value} : {kind}")
        return self.w.op(f"arith.xori {value}, {self.w.constant(-1, e.type)} : {kind}")

    def _compare(self, op: str, a: str, b: str, dtype: DType) -> str:
        word, kind = _COMPARE[op], element(dtype)
        if isinstance(dtype, Float):
            return self.w.op(f"arith.cmpf {'une' if op == '!=' else 'o' + word}, {a}, {b} : {kind}")
        if op not in ("==", "!="):
            word = ("s" if is_signed(dtype) else "u") + word
        return self.w.op(f"arith.cmpi {word}, {a}, {b} : {kind}")

    def _binary(self, e: ir.Binary, a: str, b: str) -> str:
        op, dtype, kind = e.op, e.type, element(e.type)
        if op in _COMPARE:
            return self._compare(op, a, b, e.left.type)
        if op in ("min", "max"):
            less = self._compare("<" if op == "min" else ">", b, a, dtype)
            return self.w.op(f"arith.select {less}, {b}, {a} : {kind}")
        if isinstance(dtype, Float):
            return self._float(op, a, b, dtype)
        if op in ("<<", ">>"):
            return self._shift(e, a, b)
        if op in ("/", "//"):
            return self._divide(e, a, b)
        if op == "%":
            return self._floor_divide(a, b, e)[1]
        bits = width(dtype)
        if kind != "index":
            a = resize(self.w, a, width(e.left.type), bits, is_signed(e.left.type))
            b = resize(self.w, b, width(e.right.type), bits, is_signed(e.right.type))
        return self.w.op(f"arith.{_INTEGER[op]} {a}, {b} : {kind}")

    def _float(self, op: str, a: str, b: str, dtype: DType) -> str:
        kind = element(dtype)
        if op in _FLOAT:  # of 16 bits, too: these round the same when computed in float32
            return self.w.op(f"arith.{_FLOAT[op]} {a}, {b} : {kind}")
        if dtype.bits == 16:
            a, b = (self.w.op(f"arith.extf {x} : {kind} to f32") for x in (a, b))
            return self.w.op(f"arith.truncf {self._float(op, a, b, FLOAT32)} : f32 to {kind}")
        if op == "//":
            return self.w.op(f"math.floor {self.w.op(f'arith.divf {a}, {b} : {kind}')} : {kind}")
        rest, zero = self.w.op(f"arith.remf {a}, {b} : {kind}"), self.w.constant(0.0, dtype)
        some = self._compare("!=", rest, zero, dtype)
        low, negative = self._compare("<", rest, zero, dtype), self._compare("<", b, zero, dtype)
        wrong = self.w.op(f"arith.andi {some}, {self.w.op(f'arith.xori {low}, {negative} : i1')} : i1")
        moved = self.w.op(f"arith.addf {rest}, {b} : {kind}")
        return self.w.op(f"arith.select {wrong}, {moved}, {rest} : {kind}")

    def _divide(self, e: ir.Binary, a: str, b: str) -> str:
        dtype, ta, tb = e.type, e.left.type, e.right.type
        if ta == tb == dtype and not dtype.fracs:
            return self._floor_divide(a, b, e)[0]
        scale = tb.fracs - ta.fracs + (dtype.fracs if e.op == "/" else 0)
        up, down = max(0, scale), max(0, -scale)
        wide = max(width(ta) + up, width(tb) + down) + 1
        a = casts.shift_left(self.w, resize(self.w, a, width(ta), wide, is_signed(ta)), up, wide)
        b = casts.shift_left(self.w, resize(self.w, b, width(tb), wide, is_signed(tb)), down, wide)
        quotient = self._guarded(a, b, f"i{wide}", signed=True)[0]
        quotient = resize(self.w, quotient, wide, dtype.bits, signed=True)
        return casts.shift_left(self.w, quotient, dtype.fracs, dtype.bits) if e.op == "//" else quotient

    def _floor_divide(self, a: str, b: str, e: ir.Binary) -> tuple[str, str]:
        """Floor quotient and the remainder that goes with it."""
        kind, signed = element(e.type), is_signed(e.type)
        if isinstance(e.right, ir.Const) and e.right.value not in (0, -1):
            return self._quotient(a, b, kind, signed)
        return self._guarded(a, b, kind, signed)

    def _guarded(self, a: str, b: str, kind: str, signed: bool) -> tuple[str, str]:
        """Division by zero gives 0 and `a`; the least value by -1 wraps."""
        zero, one = self._whole(0, kind), self._whole(1, kind)
        is_zero = self.w.op(f"arith.cmpi eq, {b}, {zero} : {kind}")
        bad, minus = is_zero, ""
        if signed and kind != "i1":
            minus = self.w.op(f"arith.cmpi eq, {b}, {self._whole(-1, kind)} : {kind}")
            bad = self.w.op(f"arith.ori {is_zero}, {minus} : i1")
        safe = self.w.op(f"arith.select {bad}, {one}, {b} : {kind}")
        quotient, rest = self._quotient(a, safe, kind, signed)
        if minus:
            negated = self.w.op(f"arith.subi {zero}, {a} : {kind}")
            quotient = self.w.op(f"arith.select {minus}, {negated}, {quotient} : {kind}")
        return (
            self.w.op(f"arith.select {is_zero}, {zero}, {quotient} : {kind}"),
            self.w.op(f"arith.select {is_zero}, {a}, {rest} : {kind}"),
        )

    def _quotient(self, a: str, b: str, kind: str, signed: bool) -> tuple[str, str]:
        quotient = self.w.op(f"arith.{'floordivsi' if signed else 'divui'} {a}, {b} : {kind}")
        product = self.w.op(f"arith.muli {quotient}, {b} : {kind}")
        return quotient, self.w.op(f"arith.subi {a}, {product} : {kind}")

    def _whole(self, value: int, kind: str) -> str:
        return self.w.constant(value, Index()) if kind == "index" else self.w.integer(value, int(kind[1:]))

    def _shift(self, e: ir.Binary, a: str, amount: str) -> str:
        """By the width or more, or by a negative amount: all bits leave."""
        bits, signed, kind = width(e.type), is_signed(e.type), element(e.type)
        word = "shli" if e.op == "<<" else ("shrsi" if signed else "shrui")
        wide = max(bits, width(e.right.type))
        amount = casts.from_index(self.w, amount, e.right.type)
        amount = resize(self.w, amount, width(e.right.type), wide, is_signed(e.right.type))
        fits = self.w.op(f"arith.cmpi ult, {amount}, {self.w.integer(bits, wide)} : i{wide}")
        last = bits - 1 if word == "shrsi" else 0
        safe = self.w.op(f"arith.select {fits}, {amount}, {self.w.integer(last, wide)} : i{wide}")
        safe = resize(self.w, safe, wide, bits, signed=False)
        if kind == "index":
            safe = self.w.op(f"arith.index_cast {safe} : i64 to index")
        shifted = self.w.op(f"arith.{word} {a}, {safe} : {kind}")
        if word == "shrsi":
            return shifted
        return self.w.op(f"arith.select {fits}, {shifted}, {self.w.constant(0, e.type)} : {kind}")

    def _logic(self, e: ir.Logic) -> str:
        if not _may_trap(e.right):
            word = "andi" if e.op == "and" else "ori"
            return self.w.op(f"arith.{word} {self.condition(e.left)}, {self.condition(e.right)} : i1")
        decided = ir.Const(0 if e.op == "and" else 1, BOOL)
        then, otherwise = (e.right, decided) if e.op == "and" else (decided, e.right)
        return self._choose(e.left, then, otherwise, BOOL)

    def _choose(self, condition: ir.Expr, then: ir.Expr, otherwise: ir.Expr, dtype: DType) -> str:
        """One of two values; a side that loads is evaluated only when it is chosen."""
        chosen, kind = self.condition(condition), element(dtype)
        side = self.condition if dtype == BOOL else self.value
        if not (_may_trap(then) or _may_trap(otherwise)):
            return self.w.op(f"arith.select {chosen}, {side(then)}, {side(otherwise)} : {kind}")
        name = self.w.fresh()
        with self.w.block(f"{name} = scf.if {chosen} -> ({kind})"):
            self.w.do(f"scf.yield {side(then)} : {kind}")
            self.w.otherwise()
            self.w.do(f"scf.yield {side(otherwise)} : {kind}")
        return name

    def _bitcast(self, e: ir.Bitcast) -> str:
        value, source, target = self.value(e.value), element(e.value.type), element(e.type)
        return value if source == target else self.w.op(f"arith.bitcast {value} : {source} to {target}")

    def _bit_slice(self, e: ir.BitSlice) -> str:
        bits = width(e.value.type)
        wide = max(bits, 64)
        value = casts.from_index(self.w, self.value(e.value), e.value.type)
        value = resize(self.w, value, bits, wide, signed=False)
        low = casts.from_index(self.w, self.index(e.lo), Index())
        fits = self.w.op(f"arith.cmpi ult, {low}, {self.w.integer(bits, 64)} : i64")
        safe = self.w.op(f"arith.select {fits}, {low}, {self.w.integer(0, 64)} : i64")
        moved = self.w.op(f"arith.shrui {value}, {resize(self.w, safe, 64, wide, signed=False)} : i{wide}")
        kept = self.w.op(f"arith.select {fits}, {moved}, {self.w.integer(0, wide)} : i{wide}")
        return resize(self.w, kept, wide, width(e.type), signed=False)

    def _math(self, e: ir.Math) -> str:
        args, kind = [self.value(a) for a in e.args], element(e.type)
        if not isinstance(e.type, Float):
            return self.w.op(f"math.absi {args[0]} : {kind}") if is_signed(e.type) else args[0]
        half = e.type.bits == 16
        if half:
            args = [self.w.op(f"arith.extf {a} : {kind} to f32") for a in args]
        computed = element(FLOAT32) if half else kind
        out = self.w.op(f"math.{_MATH.get(e.name, e.name)} {', '.join(args)} : {computed}")
        return self.w.op(f"arith.truncf {out} : f32 to {kind}") if half else out


def _may_trap(e: ir.Expr) -> bool:
    """Whether evaluating `e` needlessly could touch memory out of bounds."""
    return any(isinstance(n, ir.Load) and n.indices for n in walk(e))
