"""Primitives on loops: split, reorder, fuse and annotations. Each maps a program to a program.

Arguments named `axis` accept what `names.find_loop` does; `func` is the function that plain names
are searched in.  All raise `ScheduleNameError` FX201 for unknown loops and leave the program as it was.
"""

from __future__ import annotations

from dataclasses import replace

from ..analysis.accesses import written
from ..analysis.dependence import Dependence, carried
from ..errors import Place, ScheduleError, ScheduleValueError
from ..ir import nodes as ir
from ..ir.simplify import binary, const, simplify, value_of, var
from ..ir.walk import Node, buffers, substitute, walk
from .fills import fill_banks
from .names import LoopBand, LoopSite, LoopWrapper, bands, find_function, find_loop, fresh, replace_at
from .nests import (
    band_written,
    bound_reads,
    chain,
    extent,
    largest_extent,
    loop_vars,
    names_in_nest,
    nest,
    nest_accesses,
    order_violation,
    refuse_dependence,
)

Axis = str | LoopWrapper | LoopBand
_TWO = 'name them outermost first, e.g. "i", "j"'


def _put_back(program: ir.Program, site: LoopSite, new: ir.For) -> ir.Program:
    return program.with_function(replace_at(site.function, site.path, (new,)))


def _integer(name: str, value: object, minimum: int, site: LoopSite, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        at = Place(site.loop.span, f'loop "{site.name}"')
        wanted = f"an integer of at least {minimum}"
        raise ScheduleValueError("FX204", f"{name} must be {wanted}, got {value!r}", at, hint)


def split(program: ir.Program, func: str, axis: Axis, factor: int) -> ir.Program:
    """Strip-mine a loop into ``<axis>.outer`` and ``<axis>.inner`` of `factor` iterations.

    When the factor does not divide the extent, or the extent is a run-time value, the inner loop's
    bound is a ``min``.  A pipelined loop passes its mark to the inner loop, a parallel one to the outer.

    Args:
        axis: the loop.
        factor: iterations of the inner loop, from 1 to the extent.

    Raises:
        ScheduleValueError: FX204, factor out of range.
        ScheduleError: FX205, the loop is unrolled or a dataflow region, or its body writes its own bound.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.split("i", 4)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i_outer in range(3, name="S_i_0"):
                for i_inner in range(min(4, 10 - i_outer * 4)):
                    C[i_outer * 4 + i_inner] = A[i_outer * 4 + i_inner] + B[i_outer * 4 + i_inner]
            return C
    """
    site = find_loop(program, func, axis)
    loop = site.loop
    _integer("split factor", factor, 1, site, "the number of iterations of the inner loop")
    count = extent(loop)
    if count is not None and factor > count:
        raise ScheduleValueError(
            "FX204", f'split factor {factor} exceeds the extent {count} of loop "{site.name}"',
            at=Place(loop.span, f"{count} iterations"), hint=f"a factor from 1 to {count}",
        )  # fmt: skip
    if loop.attrs.unroll is not None or loop.attrs.dataflow:
        what = "unrolled" if loop.attrs.unroll is not None else "a dataflow region"
        raise ScheduleError(
            "FX205", f'loop "{site.name}" is {what} and cannot be split any more',
            at=loop.span, hint="split first, then annotate the parts",
        )  # fmt: skip
    _require_steady_bounds(program, site)
    return _put_back(program, site, _split_loop(site, factor))


def _require_steady_bounds(program: ir.Program, site: LoopSite) -> None:
    """Refuse a loop whose body writes what its bounds read: the bounds will be read more often."""
    clash = bound_reads(site.loop.lower, site.loop.upper) & written(site.loop.body, program)
    if clash:
        raise ScheduleError(
            "FX205", f'loop "{site.name}" writes "{min(clash)}", which its own bound reads',
            at=site.loop.span, hint="copy the bound to a variable of its own before the loop",
        )  # fmt: skip


def _split_loop(site: LoopSite, factor: int) -> ir.For:
    loop, attrs = site.loop, site.loop.attrs
    taken = names_in_nest(site) - {loop.var}
    outer = fresh(f"{loop.var}.outer", taken)
    inner = fresh(f"{loop.var}.inner", taken)
    total = binary("-", loop.upper, loop.lower)
    if loop.step > 1:
        total = binary("//", binary("+", total, loop.step - 1), loop.step)
    done = binary("*", var(outer, loop.span), factor)
    count = value_of(total)
    upper: ir.Expr = const(factor)
    if count is None or count % factor:
        upper = binary("min", const(factor), binary("-", total, done))
    position = binary("*", binary("+", done, var(inner, loop.span)), loop.step)
    value = binary("+", position, loop.lower)
    body = simplify(substitute(loop.body, {loop.var: value}))
    kept = ir.LoopAttrs(reduction=attrs.reduction, reassociate=attrs.reassociate)
    inner_attrs = replace(kept, pipeline=attrs.pipeline, rewind=attrs.rewind)
    inner_loop = ir.For(inner, const(0), upper, body, attrs=inner_attrs, span=loop.span)
    blocks = binary("//", binary("+", total, factor - 1), factor)
    return ir.For(
        outer, const(0), blocks, (inner_loop,), band=loop.band,
        attrs=replace(kept, parallel=attrs.parallel), span=loop.span,
    )  # fmt: skip


def reorder(program: ir.Program, func: str, *axes: Axis) -> ir.Program:
    """Permute loops of one perfect nest; the first named becomes the outermost of them.

    Loops that are not named keep their places.  The band keeps its name.  Integer accumulations
    commute; a float accumulation must keep the order of its terms for every element, unless the
    loops are marked `reassociate`.

    Args:
        axes: two or more loops of one band.

    Raises:
        ScheduleError: FX202, a statement is between the loops; FX203, a dependence would be
            reversed (both accesses are shown); FX205, not one band, or a bound depends on a loop
            that would move inside.

    Example:
        >>> s = allo.customize(double)
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i, j] = A[i, j] * 2
            return C
        >>> s.reorder("j", "i")
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for j in range(3, name="S_i_j_0"):
                for i in range(4):
                    C[i, j] = A[i, j] * 2
            return C
    """
    if len(axes) < 2:
        raise ScheduleValueError("FX204", "reorder needs two loops or more", hint=_TWO)
    sites = [find_loop(program, func, axis) for axis in axes]
    ordered = nest(sites)
    top = ordered[0]
    loops = chain(top.loop, ordered[-1].loop)
    slots = [i for i, loop in enumerate(loops) if any(loop is s.loop for s in sites)]
    order = list(range(len(loops)))
    for slot, site in zip(slots, sites, strict=True):
        order[slot] = next(i for i, loop in enumerate(loops) if loop is site.loop)
    if order == sorted(order):
        return program
    _require_free_bounds(loops, order)
    outer = top.outer
    found = nest_accesses(top, program)
    depth = len(outer)
    whole = [*range(depth), *(depth + i for i in order)]
    common = (*outer, *loops)
    dep = order_violation(found, common, whole, depth, band_written(top, program))
    if dep is not None:
        names = ", ".join(loops[i].var for i in order)
        raise refuse_dependence(dep, common, f"the order {names}")
    return _put_back(program, top, _rebuild(loops, order))


def _require_free_bounds(loops: list[ir.For], order: list[int]) -> None:
    for place, i in enumerate(order):
        needed = loop_vars(loops[i].lower) | loop_vars(loops[i].upper)
        inside = {loops[j].var: loops[j] for j in order[place + 1 :]}
        for name in needed & inside.keys():
            raise ScheduleError(
                "FX205", f'loop "{loops[i].var}" cannot move out of loop "{name}": its bound depends on it',
                at=[Place(loops[i].span, f'bound of "{loops[i].var}"'),
                    Place(inside[name].span, f'loop "{name}"')],
                hint=f'keep "{loops[i].var}" inside "{name}"',
            )  # fmt: skip


def _rebuild(loops: list[ir.For], order: list[int]) -> ir.For:
    body = loops[-1].body
    for place, i in reversed(list(enumerate(order))):
        band = loops[i].band
        if place == 0:
            band = loops[0].band
        elif i == 0:
            band = None
        body = (replace(loops[i], body=body, band=band),)
    (new,) = body
    assert isinstance(new, ir.For)
    return new


def fuse(program: ir.Program, func: str, *axes: Axis) -> tuple[ir.Program, LoopWrapper]:
    """Coalesce adjacent loops of a perfect nest into one, named ``i_j_fused``.

    The inner loops need constant extents; the outermost may be a run-time one.

    Args:
        axes: two or more adjacent loops, outermost first.

    Returns:
        The loop that replaced them.

    Raises:
        ScheduleError: FX202 not perfectly nested; FX205 not adjacent, wrong order, an inner extent
            is not constant, or a loop is already unrolled or a dataflow region.

    Example:
        >>> s = allo.customize(double)
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i, j] = A[i, j] * 2
            return C
        >>> s.fuse("i", "j")
        LoopWrapper(double:S_i_j_0.i_j_fused)
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            C: int32[4, 3]
            for i_j_fused in range(12, name="S_i_j_0"):
                C[i_j_fused // 3, i_j_fused % 3] = A[i_j_fused // 3, i_j_fused % 3] * 2
            return C
    """
    if len(axes) < 2:
        raise ScheduleValueError("FX204", "fuse needs two loops or more", hint=_TWO)
    sites = [find_loop(program, func, axis) for axis in axes]
    ordered = nest(sites)
    loops = chain(ordered[0].loop, ordered[-1].loop)
    if [s.path for s in ordered] != [s.path for s in sites] or len(loops) != len(sites):
        names = ", ".join(f'"{s.name}"' for s in sites)
        raise ScheduleError(
            "FX205", f"fuse needs adjacent loops, outermost first; got {names}",
            at=[s.loop.span for s in sites], hint="reorder them first",
        )  # fmt: skip
    for site in sites:
        _check_fusable(site, first=site is sites[0])
    _require_steady_bounds(program, top := sites[0])
    name = fresh("_".join(loop.var for loop in loops) + "_fused", names_in_nest(top) - {p.var for p in loops})
    new = _fuse_loops(loops, name)
    program = _put_back(program, top, new)
    return program, LoopWrapper(top.function.name, top.band, name)


def _check_fusable(site: LoopSite, first: bool) -> None:
    loop = site.loop
    if loop.attrs.unroll is not None or loop.attrs.dataflow:
        raise ScheduleError(
            "FX205", f'loop "{site.name}" is unrolled or a dataflow region and cannot be fused any more',
            at=loop.span, hint="fuse first, then annotate the result",
        )  # fmt: skip
    if not first and extent(loop) is None:
        raise ScheduleError(
            "FX205", f'loop "{site.name}" has no constant extent and cannot be fused into the loop outside',
            at=Place(loop.span, "bounds depend on other loops or run-time values"),
            hint="split by a factor that divides the extent, or fuse other loops",
        )  # fmt: skip


def _fuse_loops(loops: list[ir.For], name: str) -> ir.For:
    first, last = loops[0], loops[-1]
    total = binary("-", first.upper, first.lower)
    if first.step > 1:
        total = binary("//", binary("+", total, first.step - 1), first.step)
    values: dict[str, ir.Expr] = {}
    below = 1
    for loop in reversed(loops[1:]):
        count = extent(loop)
        assert count is not None
        position = binary("%", binary("//", var(name, loop.span), below), max(count, 1))
        values[loop.var] = binary("+", binary("*", position, loop.step), loop.lower)
        below *= count
    position = binary("//", var(name, first.span), max(below, 1))
    values[first.var] = binary("+", binary("*", position, first.step), first.lower)
    body = simplify(substitute(last.body, values))
    marks = [loop.attrs for loop in loops]
    attrs = ir.LoopAttrs(
        pipeline=marks[-1].pipeline, rewind=marks[-1].rewind, parallel=all(m.parallel for m in marks),
        reduction=all(m.reduction for m in marks), reassociate=all(m.reassociate for m in marks),
    )  # fmt: skip
    upper = binary("*", total, below)
    return ir.For(name, const(0), upper, body, band=first.band, attrs=attrs, span=first.span)


def unroll(program: ir.Program, func: str, axis: Axis, factor: int = 0) -> ir.Program:
    """Mark a loop to be unrolled in hardware, `factor` copies of its body, 0 for all.

    Raises:
        ScheduleValueError: FX204, negative factor or one above the extent.
        ScheduleError: FX205, complete unrolling of a loop without a constant bound.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.unroll("i", factor=2)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):  # unroll factor=2
                C[i] = A[i] + B[i]
            return C
    """
    site = find_loop(program, func, axis)
    _integer("unroll factor", factor, 0, site, "the number of copies; 0 unrolls completely")
    limit = largest_extent(site.loop)
    if limit is not None and factor > limit:
        raise ScheduleValueError(
            "FX204", f'unroll factor {factor} exceeds the extent {limit} of loop "{site.name}"',
            at=Place(site.loop.span, f"{limit} iterations"), hint="a factor of 0 unrolls completely",
        )  # fmt: skip
    if factor == 0 and limit is None:
        raise ScheduleError(
            "FX205", f'loop "{site.name}" has a run-time bound and cannot be unrolled completely',
            at=site.loop.span, hint="give a factor, or split the loop and unroll the inner one",
        )  # fmt: skip
    return _annotate(program, site, unroll=factor)


def pipeline(
    program: ir.Program,
    func: str,
    axis: Axis | None = None,
    initiation_interval: int = 1,
    rewind: bool = False,
) -> ir.Program:
    """Start an iteration of a loop every `initiation_interval` cycles; loops inside are unrolled.

    Args:
        axis: the loop; without it, every loop that has no directive yet and holds no call and no loop but
            unrolled ones: what is left to run in turns after `unroll` and `vectorize`. Arrays in banks are
            then filled an element of every bank at a time.
        rewind: start the next run of the whole loop without a gap.

    Raises:
        ScheduleValueError: FX204, interval below 1.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.pipeline("i", initiation_interval=2)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):  # pipeline II=2
                C[i] = A[i] + B[i]
            return C
    """
    if axis is not None:
        chosen = [find_loop(program, func, axis)]
    else:
        function = find_function(program, func)
        chosen = [site for sites in bands(function).values() for site in sites if _in_turns(site)]
        program = fill_banks(program, function.name)
    for site in chosen:
        _integer("initiation_interval", initiation_interval, 1, site, "cycles from one iteration to the next")
        found = find_loop(program, func, LoopWrapper(site.function.name, site.band, site.name))
        program = _annotate(program, found, pipeline=initiation_interval, rewind=bool(rewind))
    return program


def _in_turns(site: LoopSite) -> bool:
    """Whether a loop without directives holds only what is done at once."""
    attrs, table = site.loop.attrs, buffers(site.function)
    free = attrs.pipeline is None and attrs.unroll is None and not attrs.dataflow
    return free and all(_at_once(node, table) for node in walk(site.loop.body))


def _at_once(node: Node, table: dict[str, ir.Buffer]) -> bool:
    """Whether a statement takes no turns: no call, and no loop but lanes and fills of registers."""
    if not isinstance(node, ir.For):
        return not isinstance(node, ir.While | ir.Call)
    filled = [table[n.buffer] for n in walk(node.body) if isinstance(n, ir.Store)] if node.hidden else []
    return node.attrs.unroll == 0 or (node.hidden and all(_is_registers(buffer) for buffer in filled))


def _is_registers(buffer: ir.Buffer) -> bool:
    """Whether every element has a bank of its own."""
    complete = {bank.dim for bank in buffer.banks if bank.kind == "complete"}
    return all(size == 1 or dim in complete for dim, size in enumerate(buffer.shape, 1))


def parallel(program: ir.Program, func: str, axis: Axis) -> ir.Program:
    """Mark a loop whose iterations may run at the same time.

    Raises:
        ScheduleError: FX203, an iteration needs what another one writes.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.parallel("i")
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):  # parallel
                C[i] = A[i] + B[i]
            return C
    """
    site = find_loop(program, func, axis)
    common = (*site.outer, site.loop)
    found = nest_accesses(site, program)
    for dep in carried(found, common, len(site.outer), band_written(site, program)):
        raise refuse_dependence(_unmarked(dep), common, f'running loop "{site.name}" in parallel')
    return _annotate(program, site, parallel=True)


def _unmarked(dep: Dependence) -> Dependence:
    """The dependence without its reduction marks: reassociation does not make a loop parallel."""
    return replace(dep, source=replace(dep.source, reduction=None), sink=replace(dep.sink, reduction=None))


def reassociate(program: ir.Program, func: str, axis: Axis) -> ir.Program:
    """Allow the float reduction that a loop carries to be summed in another order.

    The CPU backend may then vectorise it, and `reorder` may change the order of such loops.
    Results may differ in the last bits from those of the kernel as written.

    Raises:
        ScheduleError: FX205, the loop carries no float reduction.

    Example:
        >>> s = allo.customize(total)
        >>> print(s)
        def total(x: float32[8]) -> float32:
            result: float32
            acc: float32
            acc = 0.0
            for i in range(8, name="S_i_0"):
                acc += x[i]
            result = acc
            return result
        >>> s.reassociate("i")
        >>> print(s)
        def total(x: float32[8]) -> float32:
            result: float32
            acc: float32
            acc = 0.0
            for i in range(8, name="S_i_0"):  # reassociate
                acc += x[i]
            result = acc
            return result
    """
    site = find_loop(program, func, axis)
    common = (*site.outer, site.loop)
    found = nest_accesses(site, program)
    sums = [a for a in found if a.reduction is not None and a.reduction.load.type.is_float]
    if next(carried(sums, common, len(site.outer), band_written(site, program)), None) is None:
        exact = [a for a in found if a.reduction is not None and a.reduction.exact and a.write]
        label = "is not a float: any order gives the same bits"
        raise ScheduleError(
            "FX205", f'loop "{site.name}" carries no float reduction',
            at=[Place(site.loop.span, f'loop "{site.name}"'),
                *(Place(a.span, f'"{a.buffer}" {label}') for a in exact[:1])],
            hint="mark the loop that runs over the terms of the sum",
        )  # fmt: skip
    return _annotate(program, site, reassociate=True)


def inline(program: ir.Program, func: str, axis: str | None = None) -> ir.Program:
    """Mark a function (default: the top one) to be inlined at its calls in hardware.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.inline()
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:  # inline
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
    """
    function = find_function(program, axis or func)
    return program.with_function(replace(function, inline=True))


def _annotate(program: ir.Program, site: LoopSite, **marks: object) -> ir.Program:
    attrs = replace(site.loop.attrs, **marks)  # pyright: ignore[reportArgumentType]
    return _put_back(program, site, replace(site.loop, attrs=attrs))


__all__ = [
    "Axis", "fuse", "inline", "parallel", "pipeline", "reassociate", "reorder", "split", "unroll",
]  # fmt: skip
