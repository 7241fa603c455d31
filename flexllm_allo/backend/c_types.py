"""The C++ types that parameters of a user's C++ function may have."""

from __future__ import annotations

from ..ir.dtypes import DType, Float, Int, UInt

_WIDTHS = (8, 16, 32, 64)

C_TYPES: dict[str, DType] = {
    "bool": UInt(1),
    "char": Int(8),
    "signed char": Int(8),
    "unsigned char": UInt(8),
    "short": Int(16),
    "unsigned short": UInt(16),
    "int": Int(32),
    "signed": Int(32),
    "unsigned": UInt(32),
    "unsigned int": UInt(32),
    "long": Int(64),
    "unsigned long": UInt(64),
    "long long": Int(64),
    "unsigned long long": UInt(64),
    "size_t": UInt(64),
    "float": Float(32, 23),
    "double": Float(64, 52),
    **{f"int{w}_t": Int(w) for w in _WIDTHS},
    **{f"uint{w}_t": UInt(w) for w in _WIDTHS},
}
"""Element types by C++ name: those whose containers have the layout of the C++ type."""
