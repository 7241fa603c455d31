"""The typing rules a program is lowered by: wide results by default, or those of C++.

``cpp-style`` (Allo's rules for processors) knows integers of 8, 16, 32 and 64 bits, index and floats,
and gives every arithmetic operator and comparison the type that both operands are converted to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import DTypeError
from . import promotion
from .dtypes import BOOL, INDEX, DType, Float, Index, Int, UInt

CPP_WIDTHS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Types of operators.

    Attributes:
        result: the type of ``left op right``.
        common: the type both operands of a comparison, min, max or a ternary are converted to.
        negative: the type of ``-x``.

    All of them raise DTypeError FX109 where the operator is not defined.
    """

    result: Callable[[str, DType, DType], DType]
    common: Callable[[DType, DType], DType]
    negative: Callable[[DType], DType]


def _cpp_common(left: DType, right: DType) -> DType:
    for t in (left, right):
        known = isinstance(t, Float | Index) or (isinstance(t, Int | UInt) and t.bits in CPP_WIDTHS)
        if not known and not left == right == BOOL:
            raise DTypeError(
                "FX109", f"the rule set cpp-style has no type {t}", hint="it knows 8, 16, 32 and 64 bits"
            )
    if isinstance(left, Float) or isinstance(right, Float) or left == right:
        return promotion.common_type(left, right)
    if isinstance(left, Index) or isinstance(right, Index):
        other = right if isinstance(left, Index) else left
        if isinstance(other, Int):
            return Int(max(other.bits, 32))
        return other if other.bits >= 32 else INDEX
    if type(left) is type(right):
        return max(left, right, key=lambda t: t.bits)
    signed, unsigned = (left, right) if isinstance(left, Int) else (right, left)
    return unsigned if unsigned.bits >= signed.bits else signed


def _cpp_result(op: str, left: DType, right: DType) -> DType:
    if op in promotion.ARITHMETIC or op in ("min", "max"):
        return _cpp_common(left, right)
    return promotion.result_type(op, left, right)


DEFAULT = RuleSet(promotion.result_type, promotion.common_type, promotion.negative_type)
CPP_STYLE = RuleSet(_cpp_result, _cpp_common, lambda t: t)

RULE_SETS = {"default": DEFAULT, "cpp-style": CPP_STYLE}
