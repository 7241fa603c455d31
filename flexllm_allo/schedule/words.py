"""Writing packed words: one element of a word, or all of them and then the word."""

from __future__ import annotations

from dataclasses import replace

from ..analysis.affine import affine
from ..ir import nodes as ir
from ..ir.dtypes import UInt
from ..ir.simplify import binary, const, simplify, value_of, var
from ..ir.walk import Node, buffers, rewrite, substitute, walk
from .names import fresh
from .nests import extent, loop_vars


def split_index(node: ir.Load | ir.Store, new: ir.Buffer) -> tuple[tuple[ir.Expr, ...], ir.Expr]:
    """The word's index and the first bit of the element in it."""
    assert new.logical is not None
    index = list(node.indices)
    element = index[new.word_axis]
    index[new.word_axis] = simplify(binary("//", element, new.words))
    lane = simplify(binary("*", binary("%", element, new.words), new.logical.bits))
    return tuple(index), lane


def write_element(node: ir.Store, new: ir.Buffer) -> ir.Store:
    """A store to an array as it is once the array is packed: the word is read, changed and written."""
    index, low = split_index(node, new)
    return _placed(new.name, index, low, node.value, new, node)


def _placed(
    name: str, index: tuple[ir.Expr, ...], low: ir.Expr, value: ir.Expr, new: ir.Buffer, node: ir.Store
) -> ir.Store:
    """``name[index]`` with the element from bit `low` on replaced."""
    assert new.logical is not None
    word, plain, span = new.dtype, UInt(new.logical.bits), node.span
    bits = value if new.logical == plain else ir.Bitcast(value, plain, span)
    mask = ir.Const((1 << plain.bits) - 1, word, span)
    hole = ir.Unary("~", ir.Binary("<<", mask, low, word, span), word, span)
    kept = ir.Binary("&", ir.Load(name, index, word, span), hole, word, span)
    placed = ir.Binary("<<", ir.Cast(bits, word, True, span), low, word, span)
    return ir.Store(name, index, ir.Binary("|", kept, placed, word, span), span)


def fill_words(function: ir.Function, new: ir.Buffer, names: set[str]) -> ir.Function:
    """The function with each loop that stores whole words filling one and storing it once.

    Args:
        new: the array as it is packed.
        names: what it is called here; a value that reads it may need an element just written.
    """
    taken = set(buffers(function))

    def visit(node: Node) -> Node | tuple[Node, ...] | None:
        if not isinstance(node, ir.For) or not _fills(node, new, names):
            return None
        word = fresh(f"{new.name}_word", taken)
        taken.add(word)
        return _filled(node, new, word)

    body = rewrite(function.body, visit)
    return function if body is function.body else replace(function, body=body)


def _fills(loop: ir.For, new: ir.Buffer, names: set[str]) -> bool:
    """Whether a loop stores the elements of whole words of an array, in order, and reads none of them."""
    count, store = extent(loop), loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(store, ir.Store) or store.buffer != new.name or count is None or loop.step != 1:
        return False
    plain = (
        not loop.hidden and loop.attrs.pipeline is None and (loop.attrs.unroll is None or count == new.words)
    )
    along = affine(store.indices[new.word_axis])
    others = [i for d, i in enumerate(store.indices) if d != len(store.indices) + new.word_axis]
    if along is None or count % new.words or count == 0 or not plain:
        return False
    if dict(along.terms).get(loop.var) != 1 or any(loop.var in loop_vars(i) for i in others):
        return False
    first = along.constant + (value_of(loop.lower) or 0)
    whole = all(factor % new.words == 0 for term, factor in along.terms if term != loop.var)
    reads = {n.buffer for n in walk(store) if isinstance(n, ir.Load)}
    return whole and first % new.words == 0 and not reads & names


def _filled(loop: ir.For, new: ir.Buffer, name: str) -> tuple[ir.Stmt, ...]:
    """A loop over words, each filled by a loop over its elements; the first is left out for one word."""
    assert new.logical is not None
    (store,) = loop.body
    assert isinstance(store, ir.Store)
    count = (extent(loop) or 0) // new.words
    outer, inner = f"{loop.var}.outer", f"{loop.var}.inner"
    begin = binary("+", binary("*", var(outer), new.words), loop.lower) if count > 1 else loop.lower
    element = {loop.var: binary("+", begin, var(inner))}
    low = binary("*", var(inner), new.logical.bits)
    part = _placed(name, (), low, simplify(substitute(store.value, element)), new, store)
    at, _ = split_index(replace(store, indices=substitute(store.indices, {loop.var: begin})), new)
    word = ir.Buffer(name, new.dtype, span=store.span)
    lanes = ir.LoopAttrs(unroll=loop.attrs.unroll)
    band = loop.band if count == 1 else None
    made: tuple[ir.Stmt, ...] = (
        ir.Alloc(word, (0,), store.span),
        ir.For(inner, const(0), const(new.words), (part,), band=band, attrs=lanes, span=loop.span),
        ir.Store(new.name, at, ir.Load(name, (), new.dtype, store.span), store.span),
    )
    if count == 1:
        return made
    return (ir.For(outer, const(0), const(count), made, band=loop.band, span=loop.span),)


__all__ = ["fill_words", "split_index", "write_element"]
