"""Matrix products of small integers as LLVM text: tiles of rows and columns, 64 products an instruction.

A product (`dots.Product`) becomes three functions. ``lay`` copies X once, in the order in which W
comes out of its bytes, padded with zeros to whole vectors. ``tile`` computes the sums of some rows and
columns: a vector of W, unpacked, meets the vectors of all columns. ``rows`` walks over panels of rows, and
is what threads share.

`DOT` needs an unsigned and a signed factor.  Signed weights of b bits become unsigned by adding
2^(b-1), which is flipping a bit; that number times the sum of a column of X is taken off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dtypes import Int
from .dots import Operand, Product

LANES = 64
"""Bytes in a vector."""

SUMS = 16
"""Sums in a tile, one vector register each."""

PANEL_BYTES, PANEL_ROWS = 1 << 14, 16

_ZERO = "zeroinitializer"

DOT = """
define internal <16 x i32> @flex.dot(<16 x i32> %a, <64 x i8> %u, <64 x i8> %s) alwaysinline nounwind {
"""
"""``a[i] + sum of u[4i + j] * s[4i + j] over j < 4``, u unsigned, s signed."""

_MASKS = [", ".join(f"i32 {4 * i + j}" for i in range(16)) for j in range(4)]

DOT_GENERIC = "\n".join(
    [
        "  %v = zext <64 x i8> %u to <64 x i32>",
        "  %t = sext <64 x i8> %s to <64 x i32>",
        "  %a0 = add <16 x i32> %a, zeroinitializer",
        "  %p = mul <64 x i32> %v, %t",
        *(
            f"  %q{j} = shufflevector <64 x i32> %p, <64 x i32> poison, <16 x i32> <{mask}>\n"
            f"  %a{j + 1} = add <16 x i32> %a{j}, %q{j}"
            for j, mask in enumerate(_MASKS)
        ),
        "  ret <16 x i32> %a4",
        "}",
    ]
)

DOT_VNNI = """  %x = bitcast <64 x i8> %u to <16 x i32>
  %y = bitcast <64 x i8> %s to <16 x i32>
  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %a, <16 x i32> %x, <16 x i32> %y)
  ret <16 x i32> %r
}
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <16 x i32>, <16 x i32>)"""

# The declaration of LLVM 22 takes vectors of bytes.
DOT_VNNI_BYTES = """  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(
    <16 x i32> %a, <64 x i8> %u, <64 x i8> %s)
  ret <16 x i32> %r
}
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)"""


@dataclass(frozen=True)
class Shape:
    """All that the code of a product depends on."""

    w: tuple[int, bool, int, int]  # bits, signed, packed, stride
    x: tuple[int, bool, int]  # bits, signed, stride
    acc: tuple[int, int]
    rows: int
    columns: int
    depth: int
    fresh: bool

    @classmethod
    def of(cls, p: Product) -> Shape:
        """The shape of a product."""
        w, x = p.w, p.x
        return cls(
            (w.dtype.bits, _signed(w), w.packed, w.stride), (x.dtype.bits, _signed(x), x.stride),
            (p.row_stride, p.column_stride), p.rows, p.columns, p.depth, p.fresh,
        )  # fmt: skip

    @property
    def swapped(self) -> bool:
        """Whether X is the unsigned factor."""
        return self.x[0] == 8 and not self.x[1]

    @property
    def block(self) -> int:
        """Elements of a row that are unpacked from one vector of W."""
        return LANES * self.w[2]

    @property
    def blocks(self) -> int:
        """Vectors of a row of W, the last one maybe in part."""
        return -(-self.depth // self.block)

    @property
    def line(self) -> int:
        """Bytes of a column of X once laid out."""
        return self.blocks * self.block

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        columns = min(4, self.columns)
        return (8 if columns == 1 else 4), columns

    @property
    def panel(self) -> int:
        """Rows that are read again for all columns: whole tiles, as many as half a first cache holds."""
        height = self.tile[0]
        return height * min(max(PANEL_BYTES // (height * self.w[3]), 1), PANEL_ROWS // height)

    @property
    def panels(self) -> int:
        """Steps of ``rows``."""
        return -(-self.rows // self.panel)


def _signed(operand: Operand) -> bool:
    return isinstance(operand.dtype, Int)


class _Body:
    """The body of one function, instruction by instruction."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def op(self, text: str) -> str:
        self._count += 1
        self.lines.append(f"  %v{self._count} = {text}")
        return f"%v{self._count}"

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def at(self, base: str, offset: str | int) -> str:
        """A pointer some bytes further."""
        if offset == 0:
            return base
        return self.op(f"getelementptr inbounds i8, ptr {base}, i64 {offset}")

    def bytes(self, pointer: str, count: int = LANES) -> str:
        """A vector of bytes, of which only the first `count` are in memory; the rest are zero."""
        value = self.op(f"load <{count} x i8>, ptr {pointer}, align 1")
        return value if count == LANES else self.pick(value, _ZERO, count, range(LANES), fill=count)

    def pick(self, a: str, b: str, size: int, lanes: Sequence[int], fill: int | None = None) -> str:
        """Lanes of two vectors of `size` bytes; those above `fill` are lane `fill`."""
        chosen = ", ".join(f"i32 {i if fill is None else min(i, fill)}" for i in lanes)
        kind = f"<{size} x i8>"
        return self.op(f"shufflevector {kind} {a}, {kind} {b}, <{len(lanes)} x i32> <{chosen}>")

    def loop(self, name: str, count: int) -> str:
        """Begin a loop of `count` > 0 trips; returns its counter."""
        before = next((x[:-1] for x in reversed(self.lines) if x.endswith(":")), "entry")
        self.do(f"br label %{name}")
        self.label(name)
        self.do(f"%{name}.i = phi i64 [ 0, %{before} ], [ %{name}.next, %{name}.end ]")
        del count
        return f"%{name}.i"

    def end(self, name: str, count: int | str) -> None:
        """End that loop."""
        self.do(f"br label %{name}.end")
        self.label(f"{name}.end")
        self.do(f"%{name}.next = add nuw nsw i64 %{name}.i, 1")
        self.do(f"%{name}.more = icmp slt i64 %{name}.next, {count}")
        self.do(f"br i1 %{name}.more, label %{name}, label %{name}.done")
        self.label(f"{name}.done")

    def function(self, head: str) -> str:
        return "\n".join([f"define internal {head} nounwind {{", "entry:", *self.lines, "  ret void", "}"])


def splat(value: int) -> str:
    """A vector of equal bytes."""
    return "<" + ", ".join([f"i8 {value}"] * LANES) + ">"


def product_functions(shape: Shape, name: str) -> list[str]:
    """The functions of a product: ``name.lay(x, to, offsets)`` and ``name.rows(environment, from, to)``.

    The environment is an array of pointers: W, X laid out, offsets, acc.
    """
    rows, columns = shape.tile
    heights = {rows, shape.rows % rows or rows} if shape.rows >= rows else {shape.rows}
    widths = {columns, shape.columns % columns or columns}
    tiles = [_tile(shape, name, r, c) for r in sorted(heights) for c in sorted(widths)]
    return [_lay(shape, name), *tiles, _rows(shape, name)]


# ------------------------------------------------------------------------------------------- lay


def _lay(shape: Shape, name: str) -> str:
    """Copy X, every second element of a block first where W has two elements in a byte; sum its columns."""
    b, (bits, signed, stride), packed = _Body(), shape.x, shape.w[2]
    column = b.loop("c", shape.columns)
    source = b.op(f"mul nuw nsw i64 {column}, {stride}")
    source = b.at("%x", source)
    target = b.at("%to", b.op(f"mul nuw nsw i64 {column}, {shape.line}"))
    whole, rest = divmod(shape.depth, shape.block)
    b.do("%sum.0 = add <16 x i32> zeroinitializer, zeroinitializer")
    total = "%sum.0"
    if whole:
        block = b.loop("b", whole)
        phi = len(b.lines)
        offset = b.op(f"mul nuw nsw i64 {block}, {shape.block}")
        total = _lay_block(b, shape, b.at(source, offset), b.at(target, offset), "%sum.b", shape.block)
        b.lines.insert(phi, f"  %sum.b = phi <16 x i32> [ %sum.0, %c ], [ {total}, %b.end ]")
        b.end("b", whole)
    if rest:
        at = whole * shape.block
        total = _lay_block(b, shape, b.at(source, at), b.at(target, at), total, rest)
    offset = 1 << (shape.w[0] - 1) if shape.w[1] and not shape.swapped else 0
    scalar = b.op(f"call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> {total})")
    scalar = b.op(f"mul i32 {scalar}, {offset}")
    b.do(
        f"store i32 {scalar}, ptr {b.op(f'getelementptr inbounds i32, ptr %offsets, i64 {column}')}, align 4"
    )
    b.end("c", shape.columns)
    del bits, signed, packed
    return b.function(f"void @{name}.lay(ptr noalias %x, ptr noalias %to, ptr noalias %offsets)")


def _lay_block(b: _Body, shape: Shape, source: str, target: str, total: str, count: int) -> str:
    bits, signed, _ = shape.x
    packed = shape.w[2]
    parts: list[str] = []
    for first in range(0, shape.block, LANES):
        here = min(LANES, count - first)
        parts.append(b.bytes(b.at(source, first), here) if here > 0 else _ZERO)
    if packed == 2:
        pair = (parts[0], parts[1], LANES)
        parts = [b.pick(*pair, range(h, 2 * LANES, 2)) for h in range(2)]
    for i, part in enumerate(parts):
        if bits < 8:
            part = _wrapped(b, part, bits, signed)
        b.do(f"store <{LANES} x i8> {part}, ptr {b.at(target, LANES * i)}, align 1")
        if shape.w[1] and not shape.swapped:
            args = f"<16 x i32> {total}, <64 x i8> {splat(1)}, <64 x i8> {part}"
            total = b.op(f"call <16 x i32> @flex.dot({args})")
    return total


def _wrapped(b: _Body, value: str, bits: int, signed: bool) -> str:
    """The low bits of bytes, sign or zero extended."""
    value = b.op(f"and <{LANES} x i8> {value}, {splat((1 << bits) - 1)}")
    if not signed:
        return value
    sign = splat(1 << (bits - 1))
    return b.op(f"sub <{LANES} x i8> {b.op(f'xor <{LANES} x i8> {value}, {sign}')}, {sign}")


# ------------------------------------------------------------------------------------------ tile


def _tile(shape: Shape, name: str, rows: int, columns: int) -> str:
    """Add the sums of some rows and columns to acc."""
    b = _Body()
    if columns == 1:
        sums = [_row(b, shape, r) for r in range(rows)]
    else:
        sums = _sums(b, shape, rows, columns)
    _finish(b, shape, rows, columns, _gathered(b, sums))
    params = ", ".join(f"ptr noalias %{p}" for p in ("w", "x", "offsets", "acc"))
    return b.function(f"void @{name}.tile.{rows}.{columns}({params})")


def _sums(b: _Body, shape: Shape, rows: int, columns: int) -> list[str]:
    """Sums of all rows and columns side by side, so that a vector is used several times."""
    whole, rest = divmod(shape.depth, shape.block)
    sums = [_ZERO] * (rows * columns)
    if whole:
        block = b.loop("b", whole)
        phi, begin = len(b.lines), [f"%s{i}" for i in range(len(sums))]
        w_at = b.op(f"mul nuw nsw i64 {block}, {LANES}")
        for r in range(rows):  # the panel after this one comes while this one is computed
            following = b.op(f"add nuw nsw i64 {w_at}, {(shape.panel + r) * shape.w[3]}")
            ahead = b.op(f"getelementptr i8, ptr %w, i64 {following}")
            b.do(f"call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 2, i32 1)")
        x_at = b.op(f"mul nuw nsw i64 {block}, {shape.block}")
        sums = _block(b, shape, (rows, columns), w_at, x_at, begin, LANES)
        b.lines[phi:phi] = [
            f"  {s} = phi <16 x i32> [ zeroinitializer, %entry ], [ {n}, %b.end ]"
            for s, n in zip(begin, sums, strict=True)
        ]
        b.end("b", whole)
    if rest:
        count = -(-rest // shape.w[2])
        sums = _block(b, shape, (rows, columns), whole * LANES, whole * shape.block, sums, count)
    return sums


def _block(
    b: _Body,
    shape: Shape,
    size: tuple[int, int],
    w_at: str | int,
    x_at: str | int,
    sums: Sequence[str],
    count: int,
) -> list[str]:
    """One vector of every row of W meets the vectors of every column of X."""
    rows, columns = size
    units = [_unpacked(b, shape, b.bytes(b.at(b.at("%w", r * shape.w[3]), w_at), count)) for r in range(rows)]
    out = list(sums)
    for c in range(columns):
        for h in range(shape.w[2]):
            x = b.bytes(b.at(b.at("%x", c * shape.line + h * LANES), x_at))
            for r in range(rows):
                out[c * rows + r] = _dot(b, shape, out[c * rows + r], units[r][h], x)
    return out


def _dot(b: _Body, shape: Shape, total: str, w: str, x: str) -> str:
    u, s = (x, w) if shape.swapped else (w, x)
    return b.op(f"call <16 x i32> @flex.dot(<16 x i32> {total}, <64 x i8> {u}, <64 x i8> {s})")


def _row(b: _Body, shape: Shape, row: int) -> str:
    """The sums of one row and one column: memory is what is waited for, so it is read in order."""
    whole, rest = divmod(shape.depth, shape.block)
    w = b.at("%w", row * shape.w[3])
    sums = [_ZERO] * shape.w[2]
    before = "entry" if not row or not whole else f"r{row - 1}.done"
    if whole:
        block = b.loop(f"r{row}", whole)
        phi, begin = len(b.lines), [f"%s{row}.{h}" for h in range(len(sums))]
        place = b.at(w, b.op(f"mul nuw nsw i64 {block}, {LANES}"))
        units = _unpacked(b, shape, b.bytes(place))
        x = b.at("%x", b.op(f"mul nuw nsw i64 {block}, {shape.block}"))
        sums = [_dot(b, shape, begin[h], unit, b.bytes(b.at(x, h * LANES))) for h, unit in enumerate(units)]
        b.lines[phi:phi] = [
            f"  {s} = phi <16 x i32> [ zeroinitializer, %{before} ], [ {n}, %r{row}.end ]"
            for s, n in zip(begin, sums, strict=True)
        ]
        b.end(f"r{row}", whole)
    if rest:
        units = _unpacked(b, shape, b.bytes(b.at(w, whole * LANES), -(-rest // shape.w[2])))
        x = b.at("%x", whole * shape.block)
        sums = [_dot(b, shape, sums[h], u, b.bytes(b.at(x, h * LANES))) for h, u in enumerate(units)]
    total = sums[0]
    for more in sums[1:]:
        total = b.op(f"add <16 x i32> {total}, {more}")
    return total


def _unpacked(b: _Body, shape: Shape, value: str) -> list[str]:
    """A vector of W as vectors of one element a byte, unsigned by an offset unless X is."""
    bits, signed, packed, _ = shape.w
    kind = f"<{LANES} x i8>"
    sign = 1 << (bits - 1)
    if signed:
        value = b.op(f"xor {kind} {value}, {splat(sign if packed == 1 else 0x88)}")
    parts = [value]
    if packed == 2:
        words = b.op(f"lshr <32 x i16> {b.op(f'bitcast {kind} {value} to <32 x i16>')}, {_words(4)}")
        parts.append(b.op(f"bitcast <32 x i16> {words} to {kind}"))
    if bits < 8:
        parts = [b.op(f"and {kind} {part}, {splat((1 << bits) - 1)}") for part in parts]
    if signed and shape.swapped:
        parts = [b.op(f"sub {kind} {part}, {splat(sign)}") for part in parts]
    return parts


def _words(value: int) -> str:
    return "<" + ", ".join([f"i16 {value}"] * 32) + ">"


def _gathered(b: _Body, sums: Sequence[str]) -> str:
    """Lane i is the total of vector i: halves of neighbours are added until one vector is left."""
    vectors, width = [*sums, *[_ZERO] * (SUMS - len(sums))], 1
    while len(vectors) > 1:
        low = [i if i // width % 2 == 0 else 16 + i - width for i in range(16)]
        high = [i + width if i // width % 2 == 0 else 16 + i for i in range(16)]
        vectors = [_sum_of(b, x, y, low, high) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
        width *= 2
    return vectors[0]


def _sum_of(b: _Body, x: str, y: str, low: list[int], high: list[int]) -> str:
    if x == y == _ZERO:
        return _ZERO
    kind, parts = "<16 x i32>", list[str]()
    for lanes in (low, high):
        chosen = ", ".join(f"i32 {i}" for i in lanes)
        parts.append(b.op(f"shufflevector {kind} {x}, {kind} {y}, {kind} <{chosen}>"))
    return b.op(f"add {kind} {parts[0]}, {parts[1]}")


def _finish(b: _Body, shape: Shape, rows: int, columns: int, totals: str) -> None:
    """Take the offsets off, and add to acc, or store where nothing is in it yet."""
    row_stride, column_stride = shape.acc
    for c in range(columns):
        place = b.at("%offsets", 4 * c)
        offset = b.op(f"load i32, ptr {place}, align 4")
        to = b.at("%acc", c * column_stride)
        if row_stride == 4:
            lanes = ", ".join(f"i32 {c * rows + r}" for r in range(rows))
            kind = f"<{rows} x i32>"
            part = b.op(f"shufflevector <16 x i32> {totals}, <16 x i32> poison, {kind} <{lanes}>")
            one = b.op(f"insertelement {kind} poison, i32 {offset}, i32 0")
            all_ = b.op(f"shufflevector {kind} {one}, {kind} poison, {kind} zeroinitializer")
            _put(b, shape, kind, b.op(f"sub {kind} {part}, {all_}"), to)
            continue
        for r in range(rows):
            value = b.op(f"extractelement <16 x i32> {totals}, i32 {c * rows + r}")
            _put(b, shape, "i32", b.op(f"sub i32 {value}, {offset}"), b.at(to, r * row_stride))


def _put(b: _Body, shape: Shape, kind: str, value: str, to: str) -> None:
    if not shape.fresh:
        old = b.op(f"load {kind}, ptr {to}, align 4")
        value = b.op(f"add {kind} {old}, {value}")
    b.do(f"store {kind} {value}, ptr {to}, align 4")


# ------------------------------------------------------------------------------------------ rows


def _rows(shape: Shape, name: str) -> str:
    """All columns of the panels from `from` to `to`.

    A panel of W stays in the first cache; its tiles side by side read the same columns of X and fill
    whole lines of acc.
    """
    b = _Body()
    for i, pointer in enumerate(("w", "x", "offsets", "acc")):
        b.do(f"%{pointer}.at = getelementptr inbounds ptr, ptr %environment, i64 {i}")
        b.do(f"%{pointer} = load ptr, ptr %{pointer}.at, align 8")
    b.do("%some = icmp slt i64 %from, %to")
    b.do("br i1 %some, label %panel, label %panel.done")
    b.label("panel")
    b.do("%p = phi i64 [ %from, %entry ], [ %p.next, %panel.end ]")
    w = b.at("%w", b.op(f"mul nuw nsw i64 %p, {shape.panel * shape.w[3]}"))
    acc = b.at("%acc", b.op(f"mul nuw nsw i64 %p, {shape.panel * shape.acc[0]}"))
    rest = shape.rows % shape.panel
    if rest and shape.panels > 1:
        b.do(f"%short = icmp eq i64 %p, {shape.panels - 1}")
        b.do("br i1 %short, label %small, label %large")
        b.label("small")
        _columns(b, shape, name, rest, w, acc, "s")
        b.do("br label %panel.end")
        b.label("large")
    _columns(b, shape, name, min(shape.panel, shape.rows), w, acc, "l")
    b.do("br label %panel.end")
    b.label("panel.end")
    b.do("%p.next = add nuw nsw i64 %p, 1")
    b.do("%p.more = icmp slt i64 %p.next, %to")
    b.do("br i1 %p.more, label %panel, label %panel.done")
    b.label("panel.done")
    return b.function(f"void @{name}.rows(ptr %environment, i64 %from, i64 %to)")


def _columns(b: _Body, shape: Shape, name: str, rows: int, w: str, acc: str, label: str) -> None:
    """All columns of a panel of `rows` rows."""
    height, width = shape.tile
    whole, rest = divmod(shape.columns, width)

    def tiles(columns: int, x: str, offsets: str, to: str) -> None:
        for first in range(0, rows, height):
            here = min(height, rows - first)
            row, cell = b.at(w, first * shape.w[3]), b.at(to, first * shape.acc[0])
            b.do(f"call void @{name}.tile.{here}.{columns}(ptr {row}, ptr {x}, ptr {offsets}, ptr {cell})")

    tile = b.loop(label, whole)
    x = b.at("%x", b.op(f"mul nuw nsw i64 {tile}, {width * shape.line}"))
    offsets = b.at("%offsets", b.op(f"mul nuw nsw i64 {tile}, {4 * width}"))
    tiles(width, x, offsets, b.at(acc, b.op(f"mul nuw nsw i64 {tile}, {width * shape.acc[1]}")))
    b.end(label, whole)
    if rest:
        x = b.at("%x", whole * width * shape.line)
        tiles(rest, x, b.at("%offsets", 4 * whole * width), b.at(acc, whole * width * shape.acc[1]))
