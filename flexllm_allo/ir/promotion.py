"""Result types of operators (docs/numerics.md has the same rules as a table).

Everything follows from three numbers per operand: whether it is signed, its integer bits (one
more for an unsigned operand that meets a signed one) and its fraction bits.
"""

from __future__ import annotations

from ..errors import DTypeError
from .dtypes import INDEX, DType, Fixed, Float, Index, Int, UFixed, UInt

ARITHMETIC = ("+", "-", "*", "/", "//", "%")
BITWISE = ("&", "|", "^")
SHIFTS = ("<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def make(signed: bool, bits: int, fracs: int, fixed: bool) -> DType:
    """The integer or fixed-point type with these properties."""
    if fixed:
        return Fixed(bits, fracs) if signed else UFixed(bits, fracs)
    return Int(bits) if signed else UInt(bits)


def _either_signed(left: DType, right: DType) -> bool:
    return left.signed or right.signed


def _integer_bits(t: DType, signed: bool) -> int:
    return t.bits - t.fracs + int(signed and not t.signed)


def _float(left: DType, right: DType) -> DType | None:
    """The float that wins, if there is one: the wider of two, the left one on a tie."""
    floats = [t for t in (left, right) if isinstance(t, Float)]
    return max(floats, key=lambda t: t.bits, default=None)


def common_type(left: DType, right: DType) -> DType:
    """The type both operands of a comparison, `%`, min, max or a ternary are converted to."""
    if (wins := _float(left, right)) is not None:
        return wins
    if isinstance(left, Index) and isinstance(right, Index):
        return INDEX
    signed, fixed = _either_signed(left, right), left.is_fixed or right.is_fixed
    fracs = max(left.fracs, right.fracs)
    whole = max(_integer_bits(left, signed), _integer_bits(right, signed))
    return make(signed, whole + fracs, fracs, fixed)


def sum_type(op: str, left: DType, right: DType) -> DType:
    """`+` and `-`: one bit more than the common type; the difference of unsigned is signed."""
    common = common_type(left, right)
    if common.is_float or isinstance(common, Index):
        return common
    signed = common.signed or op == "-"
    return make(signed, common.bits + 1, common.fracs, common.is_fixed)


def product_type(left: DType, right: DType) -> DType:
    """`*`: widths and fractions add up."""
    if (wins := _float(left, right)) is not None:
        return wins
    if isinstance(left, Index) and isinstance(right, Index):
        return INDEX
    return make(
        _either_signed(left, right),
        left.bits + right.bits,
        left.fracs + right.fracs,
        left.is_fixed or right.is_fixed,
    )


def quotient_type(left: DType, right: DType) -> DType:
    """`/` and `//`: integers keep the width of the left operand; fixed point grows."""
    if (wins := _float(left, right)) is not None:
        return wins
    signed = _either_signed(left, right)
    if not (left.is_fixed or right.is_fixed):
        if isinstance(left, Index):
            return Int(32) if isinstance(right, Int) else INDEX
        return make(signed, left.bits, 0, fixed=False)
    pair = (type(left), type(right))
    extra = pair in {
        (Int, UFixed),
        (Fixed, UInt),
        (Fixed, Index),
        (Fixed, UFixed),
        (UFixed, Int),
    }
    if right.is_integer:
        fracs = left.fracs + right.bits
    elif left.is_integer:
        fracs = left.bits - right.fracs
    else:
        fracs = right.bits - right.fracs + left.fracs
    if fracs < 0:
        raise DTypeError("FX109", f"{left} / {right} has no fraction bits left")
    return make(signed, left.bits + right.bits + int(extra), fracs, fixed=True)


def bitwise_type(op: str, left: DType, right: DType) -> DType:
    """`& | ^`: the wider width, signed if either is."""
    if not (left.is_integer and right.is_integer):
        raise DTypeError("FX109", f"operator {op} is not defined for {left} and {right}")
    if isinstance(left, Index) and isinstance(right, Index):
        return INDEX
    return make(_either_signed(left, right), max(left.bits, right.bits), 0, fixed=False)


def power_type(left: DType, right: DType) -> DType:
    """`**`: a float; float64 when an operand asks for it."""
    if Float(64, 52) in (left, right) or (not left.is_float and left.bits > 32):
        return Float(64, 52)
    if isinstance(left, Float):
        return left if not isinstance(right, Float) or left.bits >= right.bits else right
    return Float(32, 23)


def negative_type(value: DType) -> DType:
    """Unary minus: signed types keep their width, unsigned ones grow by the sign bit."""
    if value.signed:
        return value
    return make(True, value.bits + 1, value.fracs, value.is_fixed)


def result_type(op: str, left: DType, right: DType) -> DType:
    """The type of ``left op right``; DTypeError FX109 when the operator is not defined for them."""
    if op in ("+", "-"):
        return sum_type(op, left, right)
    if op == "*":
        return product_type(left, right)
    if op in ("/", "//"):
        if op == "//" and (left.is_fixed or right.is_fixed):
            raise DTypeError("FX109", f"operator // is not defined for {left} and {right}; use /")
        return quotient_type(left, right)
    if op in ("%", "min", "max"):
        return common_type(left, right)
    if op in BITWISE:
        return bitwise_type(op, left, right)
    if op in SHIFTS:
        if left.is_float or not right.is_integer:
            raise DTypeError("FX109", f"operator {op} is not defined for {left} and {right}")
        return left
    if op == "**":
        return power_type(left, right)
    raise DTypeError("FX109", f"operator {op} is not known")
