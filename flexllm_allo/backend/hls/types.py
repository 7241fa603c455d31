"""C++ types: how an element is stored, and how its value is carried inside an expression.

*Stored* values (variables, arrays, ports) have exactly the width of the type: ``int8_t``,
``ap_int<12>``, ``ap_fixed<16, 8>``.  *Carried* values, inside expressions, are native integers wide
enough for every value that can occur, because arithmetic on ``ap_int`` is some 50 times slower in C
simulation and synthesis trims native integers to the bits that are used anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import BackendError, Span
from ...ir.dtypes import DType, Fixed, Float, Index, Int, UFixed, UInt

NATIVE_WIDTHS = (8, 16, 32, 64)
FLOAT_TYPES = {
    (16, 10): "half",
    (16, 7): "flexllm::bfloat16",
    (32, 23): "float",
    (64, 52): "double",
}


@dataclass(frozen=True, slots=True)
class Range:
    """The closed interval of the values an integer expression can have."""

    lo: int
    hi: int

    def __or__(self, other: Range) -> Range:
        return Range(min(self.lo, other.lo), max(self.hi, other.hi))

    def __and__(self, other: Range) -> Range:
        """The intersection, or `self` when there is none (the program then has no defined value)."""
        lo, hi = max(self.lo, other.lo), min(self.hi, other.hi)
        return Range(lo, hi) if lo <= hi else self

    def within(self, other: Range) -> bool:
        return other.lo <= self.lo and self.hi <= other.hi

    @property
    def constant(self) -> int | None:
        return self.lo if self.lo == self.hi else None


def int_range(bits: int, signed: bool) -> Range:
    """The values of a two's complement or unsigned integer."""
    return Range(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else Range(0, (1 << bits) - 1)


INT = int_range(32, True)
INT64 = int_range(64, True)
UINT64 = int_range(64, False)


def value_bits(dtype: DType) -> tuple[int, bool]:
    """Width and signedness that values wrap to; index is 64-bit signed at run time."""
    return (64, True) if isinstance(dtype, Index) else (dtype.bits, dtype.signed)


def value_range(dtype: DType) -> Range:
    """All values (raw values for fixed point) of a type."""
    return int_range(*value_bits(dtype))


def stored_range(dtype: DType) -> Range:
    """All values a variable of the type can hold; an index variable is an ``int``."""
    return INT if isinstance(dtype, Index) else value_range(dtype)


def storage_type(dtype: DType, span: Span | None = None) -> str:
    """The C++ type of a variable, array element or port."""
    bits = dtype.bits
    match dtype:
        case Index():
            return "int"
        case UInt(bits=1):
            return "bool"
        case Int() | UInt() if bits in NATIVE_WIDTHS:
            return f"{'' if dtype.signed else 'u'}int{bits}_t"
        case Int() | UInt():
            return f"ap_{'' if dtype.signed else 'u'}int<{bits}>"
        case Fixed() | UFixed():
            return f"ap_{'' if dtype.signed else 'u'}fixed<{bits}, {bits - dtype.fracs}>"
        case Float() if (bits, dtype.fracs) in FLOAT_TYPES:
            return FLOAT_TYPES[bits, dtype.fracs]
        case _:
            raise BackendError(
                "FX403",
                f"{dtype} has no C++ type",
                span or (),
                hint="use float16, bfloat16, float32 or float64",
            )


def wraps_on_store(dtype: DType) -> bool:
    """Whether assigning an integer to a variable of this integer type keeps just its low bits."""
    return not isinstance(dtype, Index) and dtype != UInt(1)


def needs_ap(dtype: DType) -> bool:
    """Whether variables of the type are ``ap_`` types."""
    return storage_type(dtype).startswith("ap_")


def carrier(values: Range) -> str:
    """The smallest C++ type arithmetic is done in that holds all these values."""
    if values.within(INT):
        return "int"
    if values.within(INT64):
        return "int64_t"
    if values.within(UINT64):
        return "uint64_t"
    return f"ap_int<{max((~values.lo).bit_length(), values.hi.bit_length()) + 1}>"


def promoted(ctype: str) -> str:
    """The type C++ computes in when an operand has this type (the integral promotions)."""
    return "int" if ctype in {"bool", "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t"} else ctype
