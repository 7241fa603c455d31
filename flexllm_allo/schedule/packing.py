"""The primitive `pack`: several logical elements in one memory word."""

from __future__ import annotations

from dataclasses import replace

from ..errors import Place, ScheduleError, ScheduleValueError
from ..ir import nodes as ir
from ..ir.dtypes import DType, Index, UInt
from ..ir.layout import pack_bits, raw_bits
from ..ir.simplify import const
from ..ir.walk import Node, buffers, calls, rewrite, statements
from .buffers import Alias, Target, aliases, change_buffer, find_buffer
from .names import find_function
from .words import fill_words, split_index, write_element


def pack(
    program: ir.Program,
    func: str,
    target: Target,
    factor: int | None = None,
    word_bits: int | None = None,
    dim: int = 0,
) -> ir.Program:
    """Store `factor` elements along one dimension in one word, the first in the low bits.

    The array becomes one of ``UInt(bits * factor)`` with that dimension divided by `factor`, under
    all its names.  Packed along the rows, a word holds what `factor` parallel lanes read together.
    Reads become a slice of a word.  A loop that writes whole words, element after element, fills one in
    a variable and writes it once (its parts are named as those of `split`); other writes read, change and
    write a word.
    The kernel's indices keep their meaning, and `flexllm_allo.ir.layout.pack_array` packs the data.

    Args:
        target: the array.
        factor: elements per word.
        word_bits: width of the word instead; a multiple of the element's width.
        dim: the dimension, 1-based; 0 is the last one.

    Raises:
        ScheduleValueError: FX204, neither or both sizes given, or they do not divide.
        ScheduleError: FX205, a FIFO, a scalar, packed already, or banks on that dimension.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.pack(s.A, factor=5)
        >>> print(s)
        def vadd(A: UInt(160)[2], B: int32[10]) -> int32[10]:
            # A: pack(5 x int32 along dimension 1)
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i // 5][i % 5 * 32:i % 5 * 32 + 32].bitcast(int32) + B[i]
            return C
    """
    function, buffer = find_buffer(program, func, target)
    words, axis = _check(buffer, factor, word_bits, dim)
    if words == 1:
        return program
    found = aliases(program, function.name, buffer.name)
    for alias in found:
        _check_alias(alias, axis)
    for alias in found:
        owner, is_top = find_function(program, alias.func), alias.func == program.top
        names = {a.buffer.name for a in found if a.func == alias.func}
        program = program.with_function(_pack_in(owner, alias.buffer, words, axis, is_top, names))
    return program


def _check(buffer: ir.Buffer, factor: int | None, word_bits: int | None, dim: int) -> tuple[int, int]:
    """Elements per word, and the dimension they lie along, counted from the end."""
    at = Place(buffer.span, f'"{buffer.name}" has elements of {buffer.dtype.bits} bits')
    if (factor is None) == (word_bits is None):
        raise ScheduleValueError("FX204", "pack needs either factor or word_bits", at, "factor=8")
    for name, value in (("factor", factor), ("word_bits", word_bits)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise ScheduleValueError(
                "FX204",
                f"{name} must be an integer of at least 1, got {value!r}",
                at,
                "elements, or bits, of one word",
            )
    if buffer.words > 1:
        raise ScheduleError(
            "FX205", f'"{buffer.name}" is packed already, {buffer.words} per word', at, "pack once"
        )
    if not buffer.shape:
        raise ScheduleError("FX205", f'"{buffer.name}" is a scalar', at, "only arrays have words")
    bits = buffer.dtype.bits
    if word_bits is not None and word_bits % bits:
        hint = f"a multiple of {bits}"
        raise ScheduleValueError(
            "FX204", f"a word of {word_bits} bits does not hold whole elements", at, hint
        )
    words = factor if factor is not None else (word_bits or 0) // bits
    rank = len(buffer.shape)
    if not 0 <= dim <= rank:
        raise ScheduleValueError("FX204", f'"{buffer.name}" has no dimension {dim}', at, f"1 to {rank}")
    axis = dim - 1 - rank if dim else -1
    extent = buffer.shape[axis]
    if extent % words:
        which = f"dimension {dim}" if dim else "the last dimension"
        raise ScheduleValueError(
            "FX204", f'{words} elements per word do not divide {which} {extent} of "{buffer.name}"',
            at=at, hint="a divisor of it",
        )  # fmt: skip
    return words, axis


def _check_alias(alias: Alias, axis: int) -> None:
    buffer = alias.buffer
    reason = ""
    if buffer.is_stream:
        reason = "is a FIFO"
    elif len(buffer.shape) < -axis:
        reason = f'is passed to "{alias.func}" without the packed dimension'
    elif isinstance(buffer.dtype, Index):
        reason = "has elements of type index"
    elif any(bank.dim == len(buffer.shape) + axis + 1 for bank in buffer.banks):
        reason = "has banks on that dimension"
    if reason:
        hint = "pack first; partition then counts words" if "banks" in reason else ""
        raise ScheduleError(
            "FX205", f'"{buffer.name}" {reason} and cannot be packed', at=buffer.span, hint=hint
        )


def _pack_in(
    function: ir.Function, old: ir.Buffer, words: int, axis: int, is_top: bool, names: set[str]
) -> ir.Function:
    word = UInt(old.dtype.bits * words)
    shape = list(old.shape)
    shape[axis] //= words
    new = replace(old, dtype=word, shape=tuple(shape), words=words, word_axis=axis, logical=old.dtype)
    filled = fill_words(function, new, names)

    def visit(node: Node) -> Node | None:
        match node:
            case ir.Load() if node.buffer == old.name:
                return _read(node, new, old.dtype)
            case ir.Store() if node.buffer == old.name and node.value.type != word:
                return write_element(node, new)
            case ir.Alloc(buffer) if buffer.name == old.name and node.init is not None:
                bits = raw_bits(node.init, old.dtype)
                return replace(node, init=tuple(pack_bits(new, bits)))
            case _:
                return None

    stores = any(isinstance(n, ir.Store) and n.buffer == old.name for n in statements(function.body))
    function = change_buffer(replace(filled, body=rewrite(filled.body, visit)), new)
    if new.name in (p.name for p in function.outputs):
        # Words are read before they are written, so results start as zeros.
        return _with_zeros(function, new) if is_top else function
    return _with_initial_zeros(function, new) if stores or _passed(function, new.name) else function


def _passed(function: ir.Function, name: str) -> bool:
    return any(
        isinstance(a, ir.View) and a.buffer == name
        for n in calls(function) for a in n.args
    )  # fmt: skip


def _read(node: ir.Load, new: ir.Buffer, logical: DType) -> ir.Expr:
    index, low = split_index(node, new)
    word = ir.Load(new.name, index, new.dtype, node.span)
    plain = UInt(logical.bits)
    value = ir.BitSlice(word, low, plain, node.span)
    return value if logical == plain else ir.Bitcast(value, logical, node.span)


def _with_zeros(function: ir.Function, new: ir.Buffer) -> ir.Function:
    fill = zero_fill(function, new)
    return replace(function, body=(fill, *function.body))


def zero_fill(function: ir.Function, buffer: ir.Buffer) -> ir.Stmt:
    """A loop nest that schedules cannot name, storing zero to every element."""
    names = [f"_{d}" for d in range(len(buffer.shape))]
    indices = tuple(ir.LoopVar(n, span=buffer.span) for n in names)
    stmt: ir.Stmt = ir.Store(buffer.name, indices, ir.Const(0, buffer.dtype, buffer.span), buffer.span)
    for name, size in zip(reversed(names), reversed(buffer.shape), strict=True):
        stmt = ir.For(name, const(0), const(size), (stmt,), span=buffer.span)
    return stmt


def _with_initial_zeros(function: ir.Function, new: ir.Buffer) -> ir.Function:
    """Zeros after the local's `Alloc` unless it has contents; inputs keep what they hold."""

    def visit(node: Node) -> Node | tuple[Node, ...] | None:
        if isinstance(node, ir.Alloc) and node.buffer.name == new.name and node.init is None:
            return node, zero_fill(function, new)
        return None

    if new.name not in buffers(function) or any(p.name == new.name for p in function.params):
        return function
    return replace(function, body=rewrite(function.body, visit))
