"""C++ expressions as text with type, precedence and range; arithmetic on them with exact values.

Every operation computes the set of values its result can have (interval arithmetic) and chooses a
C++ type that holds them and its operands, so that casts appear only where C++ would give another
value: overflow of ``int``, or signed and unsigned operands mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .types import INT, INT64, NATIVE_WIDTHS, UINT64, Range, carrier, int_range, promoted

# Precedence of C++ operators; a cast and the prefix operators share one level.
ATOM, PREFIX, TERNARY = 16, 15, 4
PRECEDENCE = {
    "*": 14, "/": 14, "%": 14, "+": 13, "-": 13, "<<": 12, ">>": 12, "<": 11, "<=": 11, ">": 11,
    ">=": 11, "==": 10, "!=": 10, "&": 9, "^": 8, "|": 7, "&&": 6, "||": 5,
}  # fmt: skip
BIT_OPERATORS = frozenset(["<<", ">>", "&", "|", "^"])
BOOL_RANGE = Range(0, 1)


@dataclass(frozen=True, slots=True)
class Value:
    """A C++ expression. As an integer it equals the IR's value; `range` is unused for floats."""

    text: str
    ctype: str
    range: Range = BOOL_RANGE
    precedence: int = ATOM

    def at(self, precedence: int) -> str:
        """The text as an operand of an operator of that precedence."""
        return self.text if self.precedence >= precedence else f"({self.text})"

    @property
    def is_wide(self) -> bool:
        return self.ctype.startswith("ap_")


def call(name: str, args: list[Value], ctype: str, values: Range = BOOL_RANGE) -> Value:
    """A call of a helper."""
    return Value(f"{name}({', '.join(a.text for a in args)})", ctype, values)


def constant(value: int) -> Value:
    """An integer literal."""
    only = Range(value, value)
    ctype = carrier(only)
    precedence = ATOM if value >= 0 else PREFIX
    match ctype:
        case "int" if value > INT.lo:
            return Value(str(value), "int", only, precedence)
        case "int" | "int64_t":
            if value == INT64.lo:
                return Value("INT64_MIN", "int64_t", only)
            return Value(f"{value}LL", "int64_t", only, precedence)
        case "uint64_t":
            return Value(f"{value}ULL", ctype, only)
        case _:
            sign = "-" if value < 0 else ""
            return Value(f'{ctype}("{sign}{abs(value):x}", 16)', ctype, only)


def cast(value: Value, ctype: str) -> Value:
    """Force the C++ type; the numeric value changes only if it does not fit."""
    if value.ctype == ctype or (ctype == "int" and value.ctype == "int32_t"):
        return value
    if value.is_wide and not ctype.startswith("ap_"):
        method = "to_uint64" if ctype == "uint64_t" else "to_int64"
        value = Value(f"{value.at(ATOM)}.{method}()", method[3:] + "_t", value.range)
        if value.ctype == ctype:
            return value
    if value.range.constant is not None and value.range.constant >= 0 and ctype in {"int64_t", "uint64_t"}:
        if value.ctype == "int" and value.text.isdigit():
            suffix = "LL" if ctype == "int64_t" else "ULL"
            return replace(value, text=value.text + suffix, ctype=ctype)
    return Value(f"({ctype}){value.at(PREFIX)}", ctype, value.range, PREFIX)


def operand(value: Value, ctype: str) -> Value:
    """The value, cast unless C++ promotes it to `ctype` by itself."""
    return value if promoted(value.ctype) == ctype else cast(value, ctype)


def together(left: Value, right: Value, ctype: str) -> tuple[Value, Value]:
    """Both operands such that C++'s usual conversions compute in `ctype` without loss."""
    if ctype == "int" or ctype.startswith("ap_"):
        return operand(left, ctype), operand(right, ctype)
    harmless = {"int", "uint32_t", ctype}
    if ctype == "uint64_t":
        harmless |= {"int64_t"}
    left = left if promoted(left.ctype) in harmless else cast(left, ctype)
    right = right if promoted(right.ctype) in harmless else cast(right, ctype)
    if ctype not in (left.ctype, right.ctype):
        left = cast(left, ctype)
    return left, right


def infix(op: str, left: Value, right: Value, ctype: str, values: Range = BOOL_RANGE) -> Value:
    """``left op right``; the operands already have the right types."""
    level = PRECEDENCE[op]
    if op in BIT_OPERATORS:  # few know how these bind, so operands get parentheses
        text = f"{left.at(PREFIX)} {op} {right.at(PREFIX)}"
    else:
        text = f"{left.at(level)} {op} {right.at(level + 1)}"
    out = Value(text, ctype, values, level)
    if ctype.startswith("ap_"):  # ap_int operators widen their results; keep the carried width
        return Value(f"{ctype}({text})", ctype, values)
    return out


# ------------------------------------------------------------------------------------ wrapping


def wrap(value: Value, bits: int, signed: bool) -> Value:
    """Keep the low `bits` bits and read them by signedness; no text when nothing can be lost."""
    target = int_range(bits, signed)
    if value.range.within(target):
        return value
    if bits > 64:
        ctype = f"ap_{'' if signed else 'u'}int<{bits}>"
        return Value(f"{ctype}({value.text})", ctype, target)
    if value.is_wide:
        value = cast(value, "uint64_t")
    if bits in NATIVE_WIDTHS:
        ctype = f"{'' if signed else 'u'}int{bits}_t"
        if value.ctype == ctype:
            return replace(value, range=target)
        return Value(f"({ctype}){value.at(PREFIX)}", ctype, target, PREFIX)
    if signed:
        return call(f"flexllm::wrap<{bits}>", [value], "int" if bits <= 32 else "int64_t", target)
    mask = Value(
        f"0x{(1 << bits) - 1:x}{'LL' if bits > 31 else ''}" if bits > 3 else str((1 << bits) - 1), "int"
    )
    ctype = promoted(value.ctype)
    if bits > 31 and ctype != "uint64_t":
        ctype = "int64_t"
    return infix("&", value, mask, ctype, target)


# ---------------------------------------------------------------------------------- arithmetic


def _corners(fn: Callable[[int, int], int], left: Range, right: Range) -> Range:
    values = [fn(a, b) for a in (left.lo, left.hi) for b in (right.lo, right.hi)]
    return Range(min(values), max(values))


_RING: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "<<": lambda a, b: a << b,
}


def ring(op: str, left: Value, right: Value, bits: int, signed: bool) -> Value:
    """``+ - *`` and ``<<`` by an amount in range, wrapped to `bits`.

    Modulo 2**64 these are exact in ``uint64_t``, which serves when the plain result may not fit.
    """
    values = _corners(_RING[op], left.range, right.range)
    if values.constant is not None:
        return wrap(constant(values.constant), bits, signed)
    if neutral := _neutral(op, left, right):
        return wrap(neutral, bits, signed)
    ctype = carrier(values | left.range | (Range(0, 0) if op == "<<" else right.range))
    if bits <= 64 and ctype not in {"int", "int64_t"} and not (ctype == "uint64_t" and values.lo >= 0):
        ctype, values = "uint64_t", UINT64
        left = cast(left, ctype)
        right = right if op == "<<" else cast(right, ctype)
    elif op == "<<":
        left = operand(left, ctype)
    else:
        left, right = together(left, right, ctype)
    if op == "<<" and right.is_wide:
        right = cast(right, "int")
    return wrap(infix(op, left, right, ctype, values), bits, signed)


def _neutral(op: str, left: Value, right: Value) -> Value | None:
    """``x + 0``, ``x * 1`` and the like as ``x``: schedules and flat addresses make many of them."""
    if right.range.constant == (1 if op == "*" else 0):
        return left
    if op in "+*" and left.range.constant == (1 if op == "*" else 0):
        return right
    return None


def prefix(op: str, value: Value, bits: int, signed: bool) -> Value:
    """``-x`` and ``~x``, wrapped."""
    ends = (-value.range.hi, -value.range.lo) if op == "-" else (~value.range.hi, ~value.range.lo)
    values = Range(*ends)
    ctype = carrier(values | value.range)
    if bits <= 64 and ctype not in {"int", "int64_t"}:
        ctype, values = "uint64_t", UINT64
        value = cast(value, ctype)
    text = f"{op}{operand(value, ctype).at(ATOM)}"
    if ctype.startswith("ap_"):
        return wrap(Value(f"{ctype}({text})", ctype, values), bits, signed)
    return wrap(Value(text, ctype, values, PREFIX), bits, signed)


def floor_divide(left: Value, right: Value, bits: int, signed: bool) -> Value:
    """Division towards minus infinity; by zero it gives 0."""
    a, b = left.range, right.range
    if a.lo >= 0 and b.lo >= 1:
        values = Range(a.lo // b.hi, a.hi // b.lo)
        ctype = carrier(a | b)
        return wrap(infix("/", *together(left, right, ctype), ctype, values), bits, signed)
    values = a | Range(0, 0) if b.lo >= 0 else _symmetric(a)
    ctype = _division_type(left, right, values, bits)
    args = [_exactly(left, ctype), _exactly(right, ctype)]
    return wrap(call(f"flexllm::floor_div<{ctype}>", args, ctype, values & _of(ctype)), bits, signed)


def floor_modulo(left: Value, right: Value, bits: int, signed: bool) -> Value:
    """``a - b * floor(a / b)``, with the sign of b; modulo zero it gives a."""
    a, b = left.range, right.range
    if a.lo >= 0 and b.lo >= 1:
        ctype = carrier(a | b)
        values = Range(0, min(a.hi, b.hi - 1))
        return wrap(infix("%", *together(left, right, ctype), ctype, values), bits, signed)
    values = Range(min(b.lo, 0), max(b.hi, 0)) | (a if b.lo <= 0 <= b.hi else Range(0, 0))
    ctype = _division_type(left, right, values, bits)
    args = [_exactly(left, ctype), _exactly(right, ctype)]
    return wrap(call(f"flexllm::floor_mod<{ctype}>", args, ctype, values), bits, signed)


def _symmetric(values: Range) -> Range:
    largest = max(abs(values.lo), abs(values.hi))
    return Range(-largest, largest)


def _of(ctype: str) -> Range:
    """Values of a carrier type: an int64 division can overflow only to a value that wraps anyway."""
    return {"int64_t": INT64, "uint64_t": UINT64, "int": INT}.get(ctype, Range(-(1 << 4096), 1 << 4096))


def _division_type(left: Value, right: Value, values: Range, bits: int) -> str:
    operands = left.range | right.range
    ctype = carrier(operands | values)
    if bits <= 64 and ctype.startswith("ap_") and operands.within(INT64):
        return "int64_t"
    return ctype


def compare(op: str, left: Value, right: Value) -> Value:
    """A comparison in a type that holds both sides."""
    ctype = carrier(left.range | right.range)
    if ctype.startswith("ap_"):
        left, right = cast(left, ctype), cast(right, ctype)
    else:
        left, right = together(left, right, ctype)
    level = PRECEDENCE[op]
    return Value(f"{left.at(level + 1)} {op} {right.at(level + 1)}", "bool", BOOL_RANGE, level)


def extremum(op: str, left: Value, right: Value) -> Value:
    """``std::min`` and ``std::max``: `right` only if it is strictly smaller (larger)."""
    pick = min if op == "min" else max
    values = Range(pick(left.range.lo, right.range.lo), pick(left.range.hi, right.range.hi))
    ctype = carrier(left.range | right.range)
    args = [_exactly(left, ctype), _exactly(right, ctype)]
    return call(f"std::{op}<{ctype}>", args, ctype, values)


def _exactly(value: Value, ctype: str) -> Value:
    """An argument of a template with its type given: native integers convert by themselves."""
    return cast(value, ctype) if value.is_wide or ctype.startswith("ap_") else value


def bitwise(op: str, left: Value, right: Value, bits: int, signed: bool) -> Value:
    """``& | ^`` on two's complement of any width."""
    a, b = left.range, right.range
    ctype = carrier(a | b)
    both = a | b
    width = max(both.lo.bit_length() if both.lo >= 0 else (~both.lo).bit_length(), both.hi.bit_length())
    values = Range(0 if a.lo >= 0 and b.lo >= 0 else -(1 << width), (1 << width) - 1)
    if op == "&" and (a.lo >= 0 or b.lo >= 0):
        values = Range(0, min(r.hi for r in (a, b) if r.lo >= 0))
    return wrap(infix(op, *together(left, right, ctype), ctype, values), bits, signed)


def select(condition: Value, left: Value, right: Value) -> Value:
    """``c ? a : b`` on integers."""
    values = left.range | right.range
    ctype = carrier(values)
    left, right = together(left, right, ctype)
    return ternary(condition, left, right, ctype, values)


def ternary(condition: Value, left: Value, right: Value, ctype: str, values: Range = BOOL_RANGE) -> Value:
    """``c ? a : b`` on operands of one type."""
    text = f"{condition.at(TERNARY + 1)} ? {left.at(TERNARY)} : {right.at(TERNARY)}"
    return Value(text, ctype, values, TERNARY)


# -------------------------------------------------------------------------------------- shifts


def shift_left(value: Value, amount: Value, bits: int, signed: bool) -> Value:
    """``x << n``, wrapped; 0 for amounts beyond the width."""
    if amount.range.lo >= bits:
        return constant(0)
    if amount.range.lo >= 0 and amount.range.hi < bits:
        if bits <= 64 or amount.range.constant is not None:
            return ring("<<", value, amount, bits, signed)
    if bits <= 64:
        args = [cast(value, "uint64_t") if value.is_wide else value, _amount(amount)]
        return wrap(call(f"flexllm::shift_left<{bits}>", args, "uint64_t", UINT64), bits, signed)
    ctype = f"ap_int<{bits + 1}>"
    args = [cast(value, ctype), _amount(amount)]
    wide = call(f"flexllm::wide_shift_left<{bits}>", args, ctype, int_range(bits + 1, True))
    return wrap(wide, bits, signed)


def shift_right(value: Value, amount: Value) -> Value:
    """Arithmetic for negative values; amounts beyond the width give 0 or -1."""
    native = {"int": 31, "uint32_t": 31, "int64_t": 63, "uint64_t": 63}
    ctype = promoted(value.ctype)
    limit = native.get(ctype, 1 << 16)
    lo, hi = value.range.lo, value.range.hi
    if (n := amount.range.constant) is not None and n >= 0:
        values = Range(lo >> n, hi >> n)
        if values.constant is not None:
            return constant(values.constant)
        return infix(">>", value, constant(min(n, limit)), ctype, values) if n else value
    values = Range(min(lo, 0), max(hi, 0)) if lo >= 0 or hi < 0 else value.range
    if lo < 0:
        values = values | Range(-1, -1)
    if amount.range.lo >= 0 and amount.range.hi <= limit and not value.is_wide:
        return infix(">>", value, amount, ctype, values)
    if value.is_wide:
        ctype = carrier(value.range)
        args = [cast(value, ctype), _amount(amount)]
        return call(f"flexllm::shift_right<{ctype}, {1 << 16}>", args, ctype, values)
    return call(f"flexllm::shift_right<{ctype}, {limit}>", [value, _amount(amount)], ctype, values)


def _amount(amount: Value) -> Value:
    """A shift amount as a native integer that is as far out of range as the original."""
    if not amount.is_wide:
        return amount
    limit = constant(1 << 16)
    return cast(extremum("min", amount, limit), "int64_t")
