"""Element types of the language: integers and fixed point of any width, floats, index.

Types are immutable values; equality compares all fields.  ``int8[4, 4]`` makes an `ArrayType`,
which is what an annotation in a kernel denotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import DTypeError


@dataclass(frozen=True)
class DType:
    """Base of the element types. `bits` is the width, `fracs` the number of fraction bits."""

    bits: int
    fracs: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int):  # pyright: ignore
            raise DTypeError("FX103", f"Bitwidth must be an integer, got {self.bits!r}.")
        if self.bits < 1:
            raise DTypeError("FX103", f"Bitwidth must be positive, got {self.bits}.")
        if not 0 <= self.fracs <= 255:
            raise DTypeError("FX103", "The maximum supported fractional bitwidth is 255 bits.")

    def __getitem__(self, shape: Any) -> ArrayType:
        dims = shape if isinstance(shape, tuple) else (shape,)  # pyright: ignore
        return ArrayType(self, tuple(dims))  # pyright: ignore

    @property
    def name(self) -> str:
        """The Python name, e.g. ``int8`` or ``Fixed(12, 4)``."""
        return str(self)

    @property
    def signed(self) -> bool:
        return isinstance(self, Int | Fixed | Float)

    @property
    def is_integer(self) -> bool:
        """Int, UInt or index: values are whole numbers without a binary point."""
        return isinstance(self, Int | UInt | Index)

    @property
    def is_fixed(self) -> bool:
        return isinstance(self, Fixed | UFixed)

    @property
    def is_float(self) -> bool:
        return isinstance(self, Float)


@dataclass(frozen=True)
class Int(DType):
    """Signed integer of `bits` bits, two's complement."""

    def __str__(self) -> str:
        return f"int{self.bits}" if self.bits in NAMED_WIDTHS else f"Int({self.bits})"


@dataclass(frozen=True)
class UInt(DType):
    """Unsigned integer of `bits` bits; `UInt(1)` is the type of comparisons (bool)."""

    def __str__(self) -> str:
        return f"uint{self.bits}" if self.bits in NAMED_WIDTHS else f"UInt({self.bits})"


@dataclass(frozen=True)
class Index(DType):
    """Loop variables and sizes. Counts as UInt(32) in the type rules; 64-bit signed on the CPU."""

    bits: int = 32

    def __str__(self) -> str:
        return "index"


@dataclass(frozen=True)
class Fixed(DType):
    """Signed fixed point: `bits` in all, `fracs` of them after the binary point."""

    def __str__(self) -> str:
        return f"Fixed({self.bits}, {self.fracs})"


@dataclass(frozen=True)
class UFixed(DType):
    """Unsigned fixed point: `bits` in all, `fracs` of them after the binary point."""

    def __str__(self) -> str:
        return f"UFixed({self.bits}, {self.fracs})"


@dataclass(frozen=True)
class Float(DType):
    """IEEE binary float: `fracs` mantissa bits. bfloat16 is `Float(16, 7)`."""

    def __str__(self) -> str:
        return "bfloat16" if (self.bits, self.fracs) == (16, 7) else f"float{self.bits}"


NAMED_WIDTHS = frozenset([*range(1, 17), 32, 64, 128, 256, 512])
BOOL = UInt(1)
INDEX = Index()
INT32 = Int(32)
FLOAT32 = Float(32, 23)


@dataclass(frozen=True)
class ArrayType:
    """What ``int8[M, N]`` denotes: an element type and a shape of positive integers.

    An empty shape is a scalar.  `memory` carries a placement given with ``@``.
    """

    dtype: DType
    shape: tuple[int, ...]
    memory: Any = None

    def __matmul__(self, memory: Any) -> ArrayType:
        return ArrayType(self.dtype, self.shape, memory)

    def __str__(self) -> str:
        dims = ", ".join(map(str, self.shape))
        return f"{self.dtype}[{dims}]" if self.shape else str(self.dtype)


@dataclass(frozen=True)
class StreamType:
    """What ``Stream[int32, 4]`` denotes: a FIFO of `depth` elements; with a shape, an array of FIFOs."""

    dtype: DType
    depth: int
    shape: tuple[int, ...] = ()

    def __getitem__(self, shape: Any) -> StreamType:
        dims = shape if isinstance(shape, tuple) else (shape,)  # pyright: ignore
        return StreamType(self.dtype, self.depth, tuple(dims))  # pyright: ignore

    def __str__(self) -> str:
        dims = f"[{', '.join(map(str, self.shape))}]" if self.shape else ""
        return f"Stream[{self.dtype}, {self.depth}]{dims}"


class Stream:
    """``Stream[T, depth]`` in an annotation: a first-in first-out channel, 2 elements deep by default."""

    def __class_getitem__(cls, item: Any) -> StreamType:
        dtype, depth = item if isinstance(item, tuple) else (item, 2)  # pyright: ignore
        return StreamType(dtype, depth)  # pyright: ignore
