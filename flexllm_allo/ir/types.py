"""The predefined types by name: ``from flexllm_allo.ir.types import int8, float32``."""

from __future__ import annotations

from ..engine import adopted
from .codes import type_of_code
from .dtypes import (
    INDEX,
    NAMED_WIDTHS,
    ArrayType,
    ConstExpr,
    DType,
    Fixed,
    Float,
    Index,
    Int,
    Stateful,
    Stream,
    StreamType,
    Struct,
    UFixed,
    UInt,
)
from .promotion import result_type

AlloType = DType
allo_type_from_mlir_type = type_of_code
TypeAnnotation = ArrayType
bool = UInt(1)  # Allo's name
index = INDEX
float16 = Float(16, 10)
bfloat16 = Float(16, 7)
float32 = Float(32, 23)
float64 = Float(64, 52)
for _w in sorted(NAMED_WIDTHS):
    globals()[f"int{_w}"] = Int(_w)
    globals()[f"uint{_w}"] = UInt(_w)

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "AlloType", "ArrayType", "ConstExpr", "DType", "Fixed", "Float", "Index", "Int", "Stateful", "Stream",
    "StreamType", "Struct", "TypeAnnotation", "UFixed", "UInt", "allo_type_from_mlir_type", "result_type",
    "bfloat16", "bool", "float16", "float32", "float64", "index",
    *(f"{sign}{w}" for w in sorted(NAMED_WIDTHS) for sign in ("int", "uint")),
]  # fmt: skip

globals().update(adopted("allo.ir.types", __all__))
