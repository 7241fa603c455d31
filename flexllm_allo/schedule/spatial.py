"""The primitive `unfold`: iterations side by side, and the function that each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ..analysis.accesses import allocated, written
from ..analysis.syntax import without_spans
from ..errors import Place, ScheduleError, ScheduleNameError, ScheduleValueError, did_you_mean
from ..ir import nodes as ir
from ..ir.dtypes import INDEX
from ..ir.simplify import value_of
from ..ir.walk import Node, buffers, rewrite, walk
from .names import LoopSite, bands, find_function, fresh, replace_at
from .nests import extent


def unfold(
    program: ir.Program, func: str, band_name: str, axes: Sequence[int]
) -> tuple[ir.Program, list[int]]:
    """Give every iteration of some loops hardware of its own: an array of processing elements.

    Results do not change.  The loops stay in the program as a grid of instances of one function, so
    an array of 16 x 16 is as short as one of 2 x 2; schedules cannot name them any more.  What the
    iterations do becomes a function, unless it is a call already.  `to` then connects the elements
    by FIFOs, and each of them runs as a process of its own.

    Args:
        band_name: the band, ``"PE"`` or ``"func:PE"``.
        axes: positions of the loops in the band, one after the other.

    Returns:
        The positions, sorted.

    Raises:
        ScheduleNameError: FX201, no such band.
        ScheduleValueError: FX204, positions that are not there or not consecutive.
        ScheduleError: FX202 statements between the loops, FX205 bounds that are not constants from 0.

    Example:
        >>> s = allo.customize(double)
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i, j] = A[i, j] * 2
            return C
        >>> s.unfold("S_i_j_0", [0])
        [0]
        >>> print(s)
        def double_S_i_j_0(A: int32[3], C: int32[3]):
            for j in range(3):
                C[j] = A[j] * 2
        <BLANKLINE>
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):  # unroll, spatial
                double_S_i_j_0(A[i], C[i])
            return C
        <BLANKLINE>
    """
    sites = _band(program, func, band_name)
    chosen = _positions(sites, axes)
    loops = _nest(sites, chosen)
    function = sites[0].function
    body = loops[-1].body
    outlined = None if len(body) == 1 and isinstance(body[0], ir.Call) else _outline(program, sites, loops)
    if outlined is not None:
        element, call = outlined
        body = (call,)
        at = next(i for i, f in enumerate(program.functions) if f.name == function.name)
        listed = (*program.functions[:at], element, *program.functions[at:])
        program = replace(program, functions=listed)
    for loop in reversed(loops):
        attrs = replace(loop.attrs, unroll=0, spatial=True, pipeline=None, rewind=False)
        body = (replace(loop, body=body, attrs=attrs),)
    return program.with_function(replace_at(function, sites[chosen[0]].path, body)), chosen


def _band(program: ir.Program, func: str, name: str) -> list[LoopSite]:
    prefix, _, band = name.rpartition(":")
    function = find_function(program, prefix or func)
    table = bands(function)
    if band not in table:
        raise ScheduleNameError(
            "FX201", f"Band {band} not found", at=function.span, hint=did_you_mean(band, table)
        )
    return table[band]


def _positions(sites: list[LoopSite], axes: Sequence[int]) -> list[int]:
    at = Place(sites[0].loop.span, f"{len(sites)} loops")
    chosen = sorted(axes)
    if not chosen or any(isinstance(a, bool) or not 0 <= a < len(sites) for a in chosen):
        hint = f"positions from 0 to {len(sites) - 1}"
        raise ScheduleValueError("FX204", f"no loops at positions {list(axes)}", at, hint)
    if chosen != list(range(chosen[0], chosen[-1] + 1)):
        hint = "reorder them next to each other first"
        raise ScheduleValueError("FX204", f"Axes must be consecutive, got {list(axes)}", at, hint)
    return chosen


def _nest(sites: list[LoopSite], chosen: list[int]) -> list[ir.For]:
    loops = [sites[i].loop for i in chosen]
    for site in (sites[i] for i in chosen):
        if value_of(site.loop.lower) != 0 or extent(site.loop) is None or site.loop.step != 1:
            message = f'loop "{site.name}" does not run from 0 to a constant and cannot be unfolded'
            raise ScheduleError("FX205", message, site.loop.span, "every element of the array is built")
    for outer, inner in pairwise(loops):
        if len(outer.body) != 1 or outer.body[0] is not inner:
            other = next((s for s in outer.body if s is not inner), outer)
            raise ScheduleError(
                "FX202", f'loops "{outer.var}" and "{inner.var}" are not perfectly nested',
                at=[Place(other.span, "this statement is between them"),
                    Place(outer.span, f'loop "{outer.var}"')],
                hint="unfold the outer loop alone, or move the statement",
            )  # fmt: skip
    return loops


# --------------------------------------------------------------------------------------- outlining


@dataclass
class _Signature:
    """The parameters of the element being made, and what its call passes for them."""

    params: list[ir.Buffer] = field(default_factory=lambda: list[ir.Buffer]())
    args: list[ir.Expr | ir.View] = field(default_factory=lambda: list[ir.Expr | ir.View]())

    def add(self, buffer: ir.Buffer, arg: ir.Expr | ir.View) -> str:
        name = fresh(buffer.name, {p.name for p in self.params})
        self.params.append(replace(buffer, name=name))
        self.args.append(arg)
        return name


def _outline(
    program: ir.Program, sites: list[LoopSite], loops: list[ir.For]
) -> tuple[ir.Function, ir.Call] | None:
    """The body of the innermost loop as a function of the arrays it uses; None if it sets a scalar."""
    function, body, span = sites[0].function, loops[-1].body, loops[0].span
    table, own = buffers(function), allocated(body)
    if any(not table[name].shape and not table[name].is_stream for name in written(body, program) - own):
        return None
    inner = {n.var for n in walk(body) if isinstance(n, ir.For)}
    prefixes = _prefixes(body, table, own, inner)
    signature, names = _Signature(), dict[tuple[str, tuple[ir.Expr, ...]], str]()
    body = _with_parts(body, table, prefixes, names, signature)
    body = _with_scalars(body, table, own, inner, signature)
    made = fresh(f"{function.name}_{sites[0].band}", {f.name for f in program.functions})
    element = ir.Function(made, tuple(signature.params), body, origin=made, span=span)
    return element, ir.Call(made, tuple(signature.args), span)


def _prefixes(
    body: tuple[ir.Stmt, ...], table: dict[str, ir.Buffer], own: set[str], inner: set[str]
) -> dict[str, int]:
    """For each array from outside: how many leading indices are fixed in the element."""
    out: dict[str, int] = {}
    for node in walk(body):
        name, indices = _place(node)
        if name is None or name in own or not (table[name].shape or table[name].is_stream):
            continue
        limit = len(table[name].shape) - (0 if table[name].is_stream else 1)
        count = 0
        for index in indices[:limit]:
            parts = list(walk(index))
            if any(isinstance(p, ir.Load) or (isinstance(p, ir.LoopVar) and p.name in inner) for p in parts):
                break
            count += 1
        out[name] = min(out.get(name, limit), count)
    return out


def _place(node: Node) -> tuple[str | None, tuple[ir.Expr, ...]]:
    match node:
        case ir.Load() | ir.Store() | ir.View():
            return node.buffer, node.indices
        case ir.Get() | ir.Put():
            return node.stream, node.indices
        case _:
            return None, ()


def _with_parts(
    body: tuple[ir.Stmt, ...],
    table: dict[str, ir.Buffer],
    prefixes: dict[str, int],
    names: dict[tuple[str, tuple[ir.Expr, ...]], str],
    signature: _Signature,
) -> tuple[ir.Stmt, ...]:
    """The statements with every part of an array under the name of its parameter."""

    def part(name: str, indices: tuple[ir.Expr, ...], span: object) -> tuple[str, tuple[ir.Expr, ...]]:
        count = prefixes[name]
        key = (name, tuple(without_spans(i) for i in indices[:count]))
        if key not in names:
            buffer = table[name]
            kept = tuple(replace(b, dim=b.dim - count) for b in buffer.banks if b.dim > count)
            names[key] = signature.add(
                replace(buffer, shape=buffer.shape[count:], banks=kept, memory=None),
                ir.View(name, indices[:count]),
            )
        return names[key], indices[count:]

    def visit(node: Node) -> Node | None:
        match node:
            case ir.Load() | ir.Store() | ir.View() if node.buffer in prefixes:
                name, rest = part(node.buffer, node.indices, node.span)
                return replace(node, buffer=name, indices=rest)
            case ir.Get() | ir.Put() if node.stream in prefixes:
                name, rest = part(node.stream, node.indices, node.span)
                return replace(node, stream=name, indices=rest)
            case _:
                return None

    return rewrite(body, visit)


def _with_scalars(
    body: tuple[ir.Stmt, ...],
    table: dict[str, ir.Buffer],
    own: set[str],
    inner: set[str],
    signature: _Signature,
) -> tuple[ir.Stmt, ...]:
    """The statements with scalars and loop variables from outside as parameters."""
    names: dict[str, str] = {}
    mine = {p.name for p in signature.params}

    def visit(node: Node) -> Node | None:
        match node:
            case ir.Load(buffer, ()) if buffer not in own and buffer not in mine:
                if buffer not in names:
                    names[buffer] = signature.add(replace(table[buffer], memory=None), replace(node))
                return replace(node, buffer=names[buffer])
            case ir.LoopVar(name) if name not in inner:
                if name not in names:
                    plain = ir.Buffer(name.replace(".", "_"), INDEX, span=node.span)
                    names[name] = signature.add(plain, ir.LoopVar(name, span=node.span))
                return ir.Load(names[name], (), INDEX, node.span)
            case _:
                return None

    return rewrite(body, visit)


__all__ = ["unfold"]
