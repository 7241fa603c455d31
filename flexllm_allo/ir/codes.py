"""Element types by their short codes: ``i8``, ``ui16``, ``f32``, ``fixed(12, 4)``, ``index``."""

from __future__ import annotations

import re

from ..errors import DTypeError
from .dtypes import DType, Fixed, Float, Index, Int, UFixed, UInt

_CODE = re.compile(r"(?P<unsigned>u?)(?P<kind>i|fixed\()(?P<bits>\d+)(, ?(?P<fracs>\d+)\))?")
_FLOATS = {"f16": Float(16, 10), "bf16": Float(16, 7), "f32": Float(32, 23), "f64": Float(64, 52)}


def type_of_code(code: object) -> DType:
    """The element type whose `str` is `code` (or the `str` of it).

    Raises:
        DTypeError: FX103, there is no such code.
    """
    text = str(code)
    if text == "index":
        return Index()
    if text in _FLOATS:
        return _FLOATS[text]
    found = _CODE.fullmatch(text)
    if found is None or (found["kind"] == "i") != (found["fracs"] is None):
        raise DTypeError("FX103", f'there is no element type "{text}"', hint="for instance i8, ui16, f32")
    bits = int(found["bits"])
    if found["fracs"] is None:
        return UInt(bits) if found["unsigned"] else Int(bits)
    return UFixed(bits, int(found["fracs"])) if found["unsigned"] else Fixed(bits, int(found["fracs"]))
