"""Text of one LLVM function under construction, and what its names stand for."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from ...ir import nodes as ir
from ...ir.dtypes import DType, Float
from ..containers import container_bytes, is_bfloat16, width
from ..scalars import constant

STACK_LIMIT = 1 << 16  # bytes of local arrays on the stack of one function; more go to the heap


def register_bits(bits: int) -> int:
    """The width that integers of `bits` bits are computed in: 1, or the next of 8, 16, 32, 64, 128 ...

    LLVM has a type for every width, but C seldom asks for those in between, and what is seldom asked
    is little tried.  LLVM 20 and 22 make 0 of this, on x86-64 and AArch64, whenever SelectionDAG
    optimises (code generation above level 0); of i63 too, on x86-64 also of i15, but not of i32:

        %z = zext i8 %a to i31              ; %a loaded, 1 for example
        %s = add nuw nsw i31 %z, -128       ; -127
        %t = shl nsw i31 %s, 1              ; -254
        %m = and i31 %t, -4                 ; -256
        %r = zext i31 %m to i32             ; 2147483392

    Nothing wraps here, so the flags are right; with any of them removed the result is, too.  They
    are not ours: LLVM's passes add them, and from level 2 on, where they do not know the machine's
    data layout, they also narrow wider sums to such widths.
    """
    return bits if bits == 1 else max(8, 1 << (bits - 1).bit_length())


def register_type(dtype: DType) -> str:
    """The LLVM type of a value; float16 and bfloat16 are computed as float.

    Bits of an integer register above the type's width are the sign or zero extension.
    """
    if isinstance(dtype, Float):
        return "double" if dtype.bits == 64 else "float"
    return f"i{register_bits(width(dtype))}"


def memory_type(dtype: DType) -> str:
    """The LLVM type that one element is loaded and stored as."""
    if isinstance(dtype, Float) and not is_bfloat16(dtype):
        return {16: "half", 32: "float", 64: "double"}[dtype.bits]
    return f"i{8 * container_bytes(dtype)}"


def element_type(dtype: DType) -> str:
    """The LLVM type of one element of an array, of exactly the container's size."""
    size = container_bytes(dtype)
    return memory_type(dtype) if size <= 8 else f"[{size} x i8]"


def alignment(dtype: DType) -> int:
    """Alignment of one element in bytes."""
    size = container_bytes(dtype)
    return size if size <= 8 else 1


def literal(value: float, dtype: DType) -> str:
    """A constant of a register type."""
    number = constant(value, dtype)
    if isinstance(dtype, Float):
        return "0x" + struct.pack(">d", float(np.float64(number))).hex().upper()
    return str(int(number))


@dataclass(slots=True)
class Slot:
    """A buffer, or the sub-array of one: where its first element is, in which frame's names."""

    dtype: DType
    shape: tuple[int, ...]
    pointer: str
    home: Frame


@dataclass(slots=True)
class FifoSlot:
    """An array of FIFOs (or one): counters and elements, and the flat number of the first."""

    buffer: ir.Buffer
    shape: tuple[int, ...]
    counters: str
    items: str
    home: Frame
    offset: str
    offset_home: Frame


@dataclass(slots=True)
class Scope:
    """What the names of the IR stand for at one place of a `function`.

    `owner` is the function that a deadlock is reported for; `reassociate` tells whether an
    enclosing loop lets float sums be reordered.
    """

    function: str
    owner: str
    process: str
    buffers: dict[str, Slot] = field(default_factory=lambda: dict[str, Slot]())
    fifos: dict[str, FifoSlot] = field(default_factory=lambda: dict[str, FifoSlot]())
    loops: dict[str, tuple[str, Frame]] = field(default_factory=lambda: dict[str, tuple[str, Frame]]())
    reassociate: bool = False
    written: frozenset[str] = frozenset()
    slot: int | str = 0

    def branch(self) -> Scope:
        """The same names, to be added to without touching these."""
        return replace(self, buffers=dict(self.buffers), fifos=dict(self.fifos), loops=dict(self.loops))


class Names:
    """Fresh names, unique in a module, so that a coroutine can take over those of its creator.

    `dividers` are the widths for which the module needs a division function (`prelude.divider`).
    """

    def __init__(self) -> None:
        self._count = 0
        self.dividers: set[int] = set()

    def __call__(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


class Frame:
    """An LLVM function being written, instruction by instruction.

    A frame with a `parent` is a coroutine; names of the parent it uses become its parameters.
    """

    def __init__(self, names: Names, parent: Frame | None = None, owns_arrays: bool = False) -> None:
        self.names = names
        self.parent = parent
        self.owns_arrays = owns_arrays
        self.entry: list[str] = []
        self.code: list[str] = []
        self.heap: list[str] = []
        self.captures: dict[str, str] = {}
        self.stack = 0
        self.block = "entry"
        self.fail = names("fail")
        self.can_fail = False

    def op(self, text: str) -> str:
        """Append an instruction and return the name of its result."""
        name = self.names("%t")
        self.code.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self.code.append(f"  {text}")

    def label(self, prefix: str) -> str:
        """A fresh block name."""
        return self.names(prefix)

    def start(self, label: str, *, fall: bool = True) -> None:
        """Begin a block, entered from the end of the current one as well if `fall`."""
        if fall:
            self.do(f"br label %{label}")
        self.code.append(f"{label}:")
        self.block = label

    def branch(self, condition: str, then: str, otherwise: str) -> None:
        """End the block with a choice."""
        self.do(f"br i1 {condition}, label %{then}, label %{otherwise}")

    def use(self, name: str, llvm_type: str, home: Frame) -> str:
        """A name of this frame or, by capture, of a frame around it; globals are everyone's."""
        if name.startswith("@"):
            return name
        frame: Frame | None = self
        while frame is not home:
            assert frame is not None, f"{name} is not visible here"
            frame.captures[name] = llvm_type
            frame = frame.parent
        return name

    def allocate(self, llvm_type: str, count: int, size: int, align: int, hint: str) -> str:
        """Memory that lives as long as the frame: on the stack while there is room.

        Arrays of a coroutine belong to the function around it.  LLVM decides by paths between a
        store and a load whether a local outlives a suspension, and overlooks the path that leads
        around a loop: an array filled in such a loop would be lost.  Code that several processes
        share (`owns_arrays`) takes its arrays from the heap instead.
        """
        if self.parent is not None and count > 1 and not self.owns_arrays:
            return self.use(self.parent.allocate(llvm_type, count, size, align, hint), "ptr", self.parent)
        name = self.names(f"%{hint}.")
        total = count * size
        if self.stack + total <= STACK_LIMIT and not (self.owns_arrays and count > 1):
            self.stack += total
            if count == 1:
                self.entry.append(f"  {name} = alloca {llvm_type}, align {align}")
            else:
                self.entry.append(f"  {name} = alloca [{count} x {llvm_type}], align {max(align, 64)}")
        else:
            self.entry.append(f"  {name} = call ptr @malloc(i64 {total})")
            self.heap.append(name)
        return name

    def local(self, buffer: ir.Buffer) -> Slot:
        """Memory for a local buffer."""
        dtype = buffer.dtype
        hint = "".join(c if c.isalnum() or c in "._" else "_" for c in buffer.name)
        count = prod(buffer.shape)
        pointer = self.allocate(element_type(dtype), count, container_bytes(dtype), alignment(dtype), hint)
        return Slot(dtype, buffer.shape, pointer, self)

    def choose(self, condition: str, then: Callable[[], str], otherwise: Callable[[], str], kind: str) -> str:
        """``condition ? then : otherwise``, evaluating only the side needed."""
        yes, no, join = self.label("yes"), self.label("no"), self.label("join")
        self.branch(condition, yes, no)
        self.start(yes, fall=False)
        a = then()
        self.do(f"br label %{join}")
        a_end = self.block
        self.start(no, fall=False)
        b = otherwise()
        b_end = self.block
        self.start(join)
        return self.op(f"phi {kind} [ {a}, %{a_end} ], [ {b}, %{b_end} ]")
