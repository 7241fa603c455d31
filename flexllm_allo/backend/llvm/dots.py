"""Nests of loops that are products of two matrices of small integers, found in the IR.

``acc[t, n] += X[t, k] * W[n, k]``, k innermost in memory, is the form of every linear layer.  LLVM
vectorises the loop over k, but keeps one sum at a time, reads X again for every row of W, and
takes bits of packed words out one by one.  `tiles` does several rows and columns at once; sums of
integers may be taken in any order, so no bit changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ...ir import nodes as ir
from ...ir.dtypes import DType, Int, UInt
from ...ir.simplify import binary, const, var
from ...ir.walk import rewrite, walk
from ...schedule.nests import loop_vars
from .expressions import same

WORTH_IT = 64
"""Terms of a sum, and rows, from which on blocks pay."""


@dataclass(frozen=True)
class Operand:
    """A matrix [lines, K] of small integers.

    Attributes:
        load: the access, with the loop variables of the nest.
        dtype: of an element.
        packed: elements in a byte: 1, or 2 of 4 bits, the first in the low ones.
        line: the loop over its lines, or "" if there is but one.
        stride: bytes between lines.
    """

    load: ir.Load
    dtype: DType
    packed: int
    line: str
    stride: int

    @property
    def largest(self) -> int:
        """The largest value."""
        return (1 << (self.dtype.bits - isinstance(self.dtype, Int))) - 1


@dataclass(frozen=True)
class Product:
    """``acc[t, n] += X[t, k] * W[n, k]`` for all n < rows, t < columns, k < depth.

    Attributes:
        acc: the store; `row_stride` and `column_stride` are the bytes between its elements.
        parallel: whether rows may be computed at the same time.
        fresh: whether acc, which nobody has cleared, is zero before.
    """

    acc: ir.Store
    row_stride: int
    column_stride: int
    w: Operand
    x: Operand
    rows: int
    columns: int
    depth: int
    parallel: bool
    variables: frozenset[str]
    fresh: bool = False

    def origin(self, indices: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        """Indices where all loops of the nest begin."""
        return tuple(_at_zero(i, self.variables) for i in indices)


def find_product(loop: ir.For, shapes: dict[str, tuple[int, ...]]) -> Product | None:
    """The product that a loop and those inside it compute, if they compute one.

    Args:
        loop: the outermost loop.
        shapes: of the buffers in sight.
    """
    loops = _nest(loop)
    if not loops or len(loops) > 3 or not isinstance(store := loops[-1].body[0], ir.Store):
        return None
    factors = _factors(store)
    if factors is None:
        return None
    extents = {each.var: _extent(each) for each in loops}
    sums = [v for v in extents if not _uses(store.indices, {v})]
    if len(sums) != 1 or len(extents) != len(loops) or None in extents.values():
        return None
    if any(isinstance(n, ir.Load) and n.buffer == store.buffer for n in walk((*factors, *store.indices))):
        return None  # an index that changes under way
    depth = sums[0]
    found = [_operand(f, depth, set(extents) - {depth}, shapes) for f in factors]
    x, w = found
    if x is None or w is None:
        return None
    sizes = {v: e or 0 for v, e in extents.items()} | {"": 1}
    if x.packed > 1 or sizes[x.line] > sizes[w.line]:
        x, w = w, x
    lines = {x.line, w.line} - {""}
    if x.packed > 1 or x.line == w.line or lines | {depth} != set(extents) or not _fits(x, w):
        return None
    strides = [_stride(store, line, shapes[store.buffer]) if line else 4 for line in (w.line, x.line)]
    if None in strides or sizes[depth] < WORTH_IT or sizes[w.line] < WORTH_IT:
        return None
    outer = next((each for each in loops if each.var == w.line), loop)
    return Product(
        store, strides[0] or 0, strides[1] or 0, w, x, sizes[w.line], sizes[x.line], sizes[depth],
        outer.attrs.parallel, frozenset(extents),
    )  # fmt: skip


def clears(fill: ir.Stmt, p: Product, shape: tuple[int, ...]) -> bool:
    """Whether a statement sets the whole accumulator to zero, every element of which the product adds to."""
    loops = _nest(fill) if isinstance(fill, ir.For) else []
    if not loops or not isinstance(store := loops[-1].body[0], ir.Store) or store.buffer != p.acc.buffer:
        return False
    if not isinstance(store.value, ir.Const) or store.value.value != 0:
        return False
    every = tuple(var(loop.var) for loop in loops)
    return (
        len(every) == len(shape) == len(p.acc.indices)
        and same(store.indices, every)
        and tuple(_extent(loop) for loop in loops) == shape
        and p.rows * p.columns == prod(shape)
    )


def _nest(loop: ir.For) -> list[ir.For]:
    """The loops of a nest around one statement, outermost first."""
    loops = [loop]
    while len(loops[-1].body) == 1 and isinstance(inner := loops[-1].body[0], ir.For):
        loops.append(inner)
    return loops if len(loops[-1].body) == 1 else []


def _extent(loop: ir.For) -> int | None:
    """Trips of a loop from 0 in steps of 1, if that is a constant."""
    lower, upper = loop.lower, loop.upper
    if not isinstance(lower, ir.Const) or not isinstance(upper, ir.Const) or lower.value != 0:
        return None
    return int(upper.value) if loop.step == 1 and upper.value > 0 else None


def _factors(store: ir.Store) -> tuple[ir.Expr, ir.Expr] | None:
    """The two factors of ``acc += a * b`` in 32 bits, where no product is cut before."""
    total = _uncast(store.value, 32)
    if not (isinstance(total, ir.Binary) and total.op == "+" and _whole(total.type, 32)):
        return None
    for old, term in ((total.left, total.right), (total.right, total.left)):
        old, term = _uncast(old, 32), _uncast(term, 32)
        if not (isinstance(old, ir.Load) and old.buffer == store.buffer and same(old.indices, store.indices)):
            continue
        if old.type not in (Int(32), UInt(32)) or not isinstance(term, ir.Binary) or term.op != "*":
            continue
        a, b = _uncast(term.left, 8), _uncast(term.right, 8)
        if all(isinstance(e.type, Int | UInt) and e.type.bits <= 8 for e in (a, b)):
            if _whole(term.type, a.type.bits + b.type.bits) and (a.type.is_integer and b.type.is_integer):
                return a, b
    return None


def _whole(dtype: DType, bits: int) -> bool:
    return isinstance(dtype, Int | UInt) and dtype.bits >= bits


def _uncast(e: ir.Expr, bits: int) -> ir.Expr:
    """Without conversions that keep the low `bits` bits, or, of narrower integers, the value."""
    while isinstance(e, ir.Cast) and isinstance(e.value.type, Int | UInt) and _whole(e.type, bits):
        if not _whole(e.value.type, bits) and not _keeps(e.value.type, e.type):
            break
        e = e.value
    return e


def _keeps(source: DType, target: DType) -> bool:
    """Whether every value of an integer type is one of another."""
    if isinstance(source, UInt):
        return target.bits >= source.bits + isinstance(target, Int)
    return isinstance(target, Int) and target.bits >= source.bits


def _operand(e: ir.Expr, depth: str, lines: set[str], shapes: dict[str, tuple[int, ...]]) -> Operand | None:
    """An element of a matrix whose rows run along `depth`."""
    dtype, packed = e.type, 1
    if isinstance(e, ir.Bitcast):
        e = e.value
    if isinstance(e, ir.BitSlice):
        lane = binary("*", binary("%", var(depth), 2), 4)
        if dtype.bits != 4 or not same(e.lo, lane) or e.value.type != UInt(8):
            return None
        e, packed = e.value, 2
    if not isinstance(e, ir.Load) or not e.indices or not isinstance(e.type, Int | UInt) or e.type.bits > 8:
        return None
    along = var(depth) if packed == 1 else binary("//", var(depth), 2)
    if not same(e.indices[-1], along) or _uses(e.indices[:-1], {depth}):
        return None
    used = [v for v in lines if _uses(e.indices, {v})]
    if len(used) > 1:
        return None
    line = used[0] if used else ""
    stride = _stride(e, line, shapes[e.buffer], 1) if line else 0
    return None if stride is None else Operand(e, dtype, packed, line, stride)


def _fits(x: Operand, w: Operand) -> bool:
    """Whether one side is signed (or small) as the instruction for dot products needs it."""
    return x.largest <= 127 or w.largest <= 127


def _uses(indices: tuple[ir.Expr, ...], names: set[str]) -> bool:
    return any(names & loop_vars(i) for i in indices)


def _stride(access: ir.Load | ir.Store, var: str, shape: tuple[int, ...], size: int = 4) -> int | None:
    """Bytes between elements of successive `var`, which must be an index as it is, and one only."""
    at = [d for d, i in enumerate(access.indices) if _uses((i,), {var})]
    if len(at) != 1 or not isinstance(access.indices[at[0]], ir.LoopVar):
        return None
    return size * prod(shape[at[0] + 1 :])


def _at_zero(e: Any, names: frozenset[str]) -> Any:
    def visit(node: Any) -> Any:
        return const(0) if isinstance(node, ir.LoopVar) and node.name in names else None

    return rewrite(e, visit)
