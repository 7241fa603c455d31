"""Element types of the language: integers and fixed point of any width, floats, index, structs.

Types are immutable values; equality compares all fields.  ``int8[4, 4]`` makes an `ArrayType`,
which is what an annotation in a kernel denotes.  A type has two spellings: `name` (also `repr` and
f-strings) is the Python it is written with, ``Int(17)``; `str` is Allo's short code, ``i17``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import DTypeError

NUMPY_LIMIT = 512


@dataclass(frozen=True, repr=False)
class DType:
    """Base of the element types. `bits` is the width, `fracs` the number of fraction bits."""

    bits: int
    fracs: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int):  # pyright: ignore
            raise DTypeError("FX103", f"Bitwidth must be an integer. Got {self.bits!r}")
        if self.bits < 1:
            raise DTypeError("FX103", f"Bitwidth must be positive, got {self.bits}.")
        if not 0 <= self.fracs <= 255:
            raise DTypeError("FX103", "The maximum supported fractional bitwidth is 255 bits.")
        if self.bits > NUMPY_LIMIT and not isinstance(self, Struct):
            message = f"NumPy does not support bitwidths larger than {NUMPY_LIMIT}, got {self.bits}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def __getitem__(self, shape: Any) -> ArrayType:
        dims = shape if isinstance(shape, tuple) else (shape,)  # pyright: ignore
        return ArrayType(self, tuple(dims))  # pyright: ignore

    def __matmul__(self, marker: Any) -> ArrayType:
        return ArrayType(self, ()) @ marker

    @property
    def name(self) -> str:
        """The Python name, e.g. ``int8`` or ``Fixed(12, 4)``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def stateful(self) -> bool:
        """An element type itself is never stateful; ``T @ Stateful`` is an `ArrayType`."""
        return False

    @property
    def constexpr(self) -> bool:
        return False

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


@dataclass(frozen=True, repr=False)
class Int(DType):
    """Signed integer of `bits` bits, two's complement."""

    def __str__(self) -> str:
        return f"i{self.bits}"

    @property
    def name(self) -> str:
        return f"int{self.bits}" if self.bits in NAMED_WIDTHS else f"Int({self.bits})"


@dataclass(frozen=True, repr=False)
class UInt(DType):
    """Unsigned integer of `bits` bits; `UInt(1)` is the type of comparisons (bool)."""

    def __str__(self) -> str:
        return f"ui{self.bits}"

    @property
    def name(self) -> str:
        return f"uint{self.bits}" if self.bits in NAMED_WIDTHS else f"UInt({self.bits})"


@dataclass(frozen=True, repr=False)
class Index(DType):
    """Loop variables and sizes. Counts as UInt(32) in the type rules; 64-bit signed on the CPU."""

    bits: int = 32

    def __str__(self) -> str:
        return "index"

    @property
    def name(self) -> str:
        return "index"


@dataclass(frozen=True, repr=False)
class Fixed(DType):
    """Signed fixed point: `bits` in all, `fracs` of them after the binary point."""

    def __str__(self) -> str:
        return f"fixed({self.bits}, {self.fracs})"

    @property
    def name(self) -> str:
        return f"Fixed({self.bits}, {self.fracs})"


@dataclass(frozen=True, repr=False)
class UFixed(DType):
    """Unsigned fixed point: `bits` in all, `fracs` of them after the binary point."""

    def __str__(self) -> str:
        return f"ufixed({self.bits}, {self.fracs})"

    @property
    def name(self) -> str:
        return f"UFixed({self.bits}, {self.fracs})"


@dataclass(frozen=True, init=False, repr=False)
class Float(DType):
    """IEEE binary float: `fracs` mantissa bits. bfloat16 is `Float(16, 7)`."""

    def __init__(self, bits: int, fracs: int, name: str = "") -> None:
        # Allo's constructor takes the name as well; the two numbers determine it.
        del name
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "fracs", fracs)
        self.__post_init__()

    def __str__(self) -> str:
        return "bf16" if (self.bits, self.fracs) == (16, 7) else f"f{self.bits}"

    @property
    def name(self) -> str:
        return "bfloat16" if (self.bits, self.fracs) == (16, 7) else f"float{self.bits}"


@dataclass(frozen=True, init=False, repr=False)
class Struct(UInt):
    """Named fields, packed into one unsigned word: the first field has the lowest bits.

    ``P = Struct({"x": int32, "y": float32})``; ``P["x"]`` and ``P.x`` are field types, ``P[4]`` an array.
    """

    fields: tuple[tuple[str, DType], ...]

    def __init__(self, fields: Mapping[str, DType] | tuple[tuple[str, DType], ...]) -> None:
        items = tuple(fields.items()) if isinstance(fields, Mapping) else fields
        for key, dtype in items:
            if not isinstance(dtype, DType):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DTypeError("FX103", f"field {key} of a struct has no element type, got {dtype!r}")
        object.__setattr__(self, "fields", items)
        object.__setattr__(self, "bits", sum(t.bits for _, t in items))
        object.__setattr__(self, "fracs", 0)
        self.__post_init__()

    def field(self, name: str) -> tuple[int, DType]:
        """The lowest bit and the type of a field.

        Raises:
            DTypeError FX103: there is no such field.
        """
        low = 0
        for key, dtype in self.fields:
            if key == name:
                return low, dtype
            low += dtype.bits
        raise DTypeError("FX103", f"Field {name} not found in struct type")

    def __getitem__(self, key: Any) -> Any:
        return self.field(key)[1] if isinstance(key, str) else super().__getitem__(key)

    def __getattr__(self, name: str) -> DType:
        for key, dtype in self.__dict__.get("fields", ()):
            if key == name:
                return dtype
        raise AttributeError(name)

    def __str__(self) -> str:
        return "struct"

    @property
    def name(self) -> str:
        return f"Struct({{{', '.join(f'{k!r}: {t}' for k, t in self.fields)}}})"


NAMED_WIDTHS = frozenset([*range(1, 17), 32, 64, 128, 256, 512])
BOOL = UInt(1)
INDEX = Index()
INT32 = Int(32)
FLOAT32 = Float(32, 23)


@dataclass(frozen=True)
class ArrayType:
    """What ``int8[M, N]`` denotes: an element type and a shape of positive integers.

    An empty shape is a scalar.  `memory` carries a placement given with ``@``; `stateful` and
    `constexpr` are the markers ``T @ Stateful`` and ``ConstExpr[T]``.
    """

    dtype: DType
    shape: tuple[int, ...]
    memory: Any = None
    stateful: bool = False
    constexpr: bool = False

    def __matmul__(self, marker: Any) -> ArrayType:
        if marker is Stateful:
            return replace(self, stateful=True)
        return replace(self, memory=marker)

    def __getitem__(self, count: int) -> ArrayType:
        """``int4[M, C][P]``, a list of P arrays: what one of them is."""
        return self

    @property
    def bits(self) -> int:
        return self.dtype.bits

    @property
    def fracs(self) -> int:
        return self.dtype.fracs

    def __str__(self) -> str:
        dims = ", ".join("..." if n in (DYNAMIC, RUN_TIME) else str(n) for n in self.shape)
        return f"{self.dtype}[{dims}]" if self.shape else f"{self.dtype}"


DYNAMIC: Any = Ellipsis  # the extent in ``float32[...]``, known at run time only
RUN_TIME = 0  # what such an extent is in the IR: no array of known size has it


def fits_shape(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array of one shape can be passed for a parameter of another."""
    return given == wanted or (wanted == (RUN_TIME,) and len(given) == 1)


class Stateful:
    """``acc: int32 @ Stateful = 0``: the variable keeps its value across calls of the built module."""


class ConstExpr:
    """``n: ConstExpr[int32] = M // 2``: computed by Python when the kernel is compiled."""

    def __class_getitem__(cls, item: Any) -> ArrayType:
        if not isinstance(item, DType):
            raise DTypeError("FX103", f"ConstExpr takes an element type, got {item!r}")
        return ArrayType(item, (), constexpr=True)


@dataclass(frozen=True)
class StreamType:
    """What ``Stream[int32, 4]`` denotes: a FIFO of `depth` tokens; with a shape, an array of FIFOs.

    A token is one element, or for ``Stream[int32[2, 2], 4]`` an array of the shape `token`.
    """

    dtype: DType
    depth: int
    shape: tuple[int, ...] = ()
    token: tuple[int, ...] = ()

    def __getitem__(self, shape: Any) -> StreamType:
        dims = shape if isinstance(shape, tuple) else (shape,)  # pyright: ignore
        return replace(self, shape=tuple(dims))  # pyright: ignore

    def __str__(self) -> str:
        dims = f"[{', '.join(map(str, self.shape))}]" if self.shape else ""
        return f"Stream[{ArrayType(self.dtype, self.token)}, {self.depth}]{dims}"


class Stream:
    """``Stream[T, depth]`` in an annotation: a first-in first-out channel, 2 tokens deep by default.

    ``Stream(T, shape, depth, size)`` is the same by a call: tokens of a shape, `size` FIFOs of them.
    """

    def __new__(cls, dtype: Any, shape: Any = (), depth: Any = 2, size: int = 1) -> StreamType:
        made = cls.__class_getitem__((ArrayType(dtype, tuple(shape)) if shape else dtype, depth))
        return made if size == 1 else made[size]

    def __class_getitem__(cls, item: Any) -> StreamType:
        token, depth = item if isinstance(item, tuple) else (item, 2)  # pyright: ignore
        template = hasattr(depth, "__name__"), hasattr(token, "__name__")  # pyright: ignore
        if not template[0] and (not hasattr(depth, "__index__") or depth < 1):  # pyright: ignore
            raise DTypeError("FX103", f"the depth of a stream is a positive integer, got {depth!r}")
        if isinstance(token, ArrayType):
            return StreamType(token.dtype, depth, token=token.shape)  # pyright: ignore
        if not template[1] and not isinstance(token, DType):
            raise DTypeError("FX103", f"a stream carries elements or arrays of a type, got {token!r}")
        return StreamType(token, depth)  # pyright: ignore
