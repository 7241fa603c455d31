"""The primitive `pack_products`: several products of narrow integers from one multiplier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import Place, ScheduleError
from ..ir import nodes as ir
from ..ir.dtypes import DType, Int, UInt
from ..ir.simplify import binary, const, simplify, var
from ..ir.walk import Node, buffers, rewrite, substitute, walk
from .loops import Axis
from .names import LoopSite, find_loop, fresh, replace_at
from .nests import chain, extent, loop_vars, nest

PORTS = (27, 18)
"""Widths of the signed operands of a DSP48E2 (AMD UG579); a DSP58 takes 27 and 24."""


def pack_products(program: ir.Program, func: str, *axes: Axis) -> ir.Program:
    """Let two lanes of a loop, or two by two of two loops, share a multiplier (AMD WP486, WP521).

    The operands that differ are put side by side in one wide operand, ``(b << s) + a``, and one product
    holds all of them in fields of s bits.  A field is read as a signed number; it is one too small where
    what is below it is negative, and is corrected by the sign bit of that.  Every product is exact, so
    results stay the same, bit for bit.

    Args:
        axes: one or two unrolled loops, the innermost of their nest, with an even extent; each indexes one
            of the two operands.

    Raises:
        ScheduleError: FX205, the loops are not such; their body is not one statement with one product of
            integers that is kept whole; or the operands do not fit the ports of a DSP (27 and 18 bits).

    Example:
        >>> s = allo.customize(gemm)
        >>> s.vectorize("j")
        >>> s.pack_products("j")
        >>> print(s)
        def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
            # B: partition(complete, dim=2)
            # C: partition(complete, dim=2)
            C: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    C[_0, _1] = 0
            for i in range(6, name="S_i_j_k_0"):
                for k in range(5):
                    for j_pair in range(2):  # unroll
                        products: Int(33)
                        products = A[i, k] * ((B[k, j_pair * 2 + 1] << 16) + B[k, j_pair * 2])
                        product: int16
                        product = products[0:0 + 16].bitcast(int16)
                        C[i, j_pair * 2] += product
                        product_1: int16
                        product_1 = products[16:16 + 16].bitcast(int16) + products[15:15 + 1]
                        C[i, j_pair * 2 + 1] += product_1
            return C
    """
    sites = nest([find_loop(program, func, axis) for axis in axes])
    loops = chain(sites[0].loop, sites[-1].loop)
    names = set(buffers(sites[0].function))
    plan = _plan(sites, loops)
    body = _packed(plan, names)
    for site in reversed(sites):
        half = const((extent(site.loop) or 0) // 2)
        attrs, span = site.loop.attrs, site.loop.span
        band = site.loop.band
        body = (ir.For(_pair(site), const(0), half, body, band=band, attrs=attrs, span=span),)
    return program.with_function(replace_at(sites[0].function, sites[0].path, body))


@dataclass(frozen=True)
class _Plan:
    """The store, its product, and the operand that each loop indexes: 0 for the left one, 1 for the right."""

    sites: list[LoopSite]
    store: ir.Store
    product: ir.Binary
    operands: list[int]
    field: int


def _refuse(site: LoopSite, message: str, hint: str) -> ScheduleError:
    return ScheduleError("FX205", message, Place(site.loop.span, f'loop "{site.name}"'), hint)


def _plan(sites: list[LoopSite], loops: list[ir.For]) -> _Plan:
    last, whole = sites[-1], len(loops) == len(sites) <= 2
    for site in sites:
        if site.loop.attrs.unroll != 0 or (extent(site.loop) or 1) % 2 or not whole:
            hint = "vectorize it on an even number of lanes"
            raise _refuse(site, f'loop "{site.name}" has no pairs of lanes to share multipliers', hint)
    store = last.loop.body[0]
    products = [n for n in walk(last.loop.body) if isinstance(n, ir.Binary) and n.op == "*" and _whole(n)]
    if len(last.loop.body) != 1 or not isinstance(store, ir.Store) or len(products) != 1:
        message = f'loop "{last.name}" does not hold one statement with one whole product of integers'
        raise _refuse(last, message, "such as C[i, j] += A[i, k] * B[k, j] in narrow types")
    (product,) = products
    operands: list[int] = []
    for site in sites:
        uses = [i for i, e in enumerate((product.left, product.right)) if site.loop.var in loop_vars(e)]
        if len(uses) != 1 or uses[0] in operands:
            message = f'loop "{site.name}" indexes {len(uses)} operands of the product, or one already packed'
            raise _refuse(site, message, "a loop of which one operand depends, another for each loop")
        operands += uses
    low, high = _range(_narrow(product.left).type, _narrow(product.right).type)
    # No field holds its least number, so that the sign of fields is that of the highest of them.
    field = max((-low).bit_length(), high.bit_length()) + 1
    plan = _Plan(sites, store, product, operands, field)
    widths = sorted((t.bits for t in _types(plan)), reverse=True)
    if any(width > port for width, port in zip(widths, PORTS, strict=True)):
        message = (
            f"operands of {widths[0]} and {widths[1]} bits do not fit a multiplier of {PORTS[0]} x {PORTS[1]}"
        )
        raise _refuse(last, message, "pack along fewer loops, or narrower types")
    return plan


def _narrow(expr: ir.Expr) -> ir.Expr:
    """An operand before conversions that keep its value."""
    while isinstance(expr, ir.Cast) and _keeps(expr.value.type, expr.type):
        expr = expr.value
    return expr


def _keeps(source: DType, target: DType) -> bool:
    if not isinstance(source, Int | UInt) or not isinstance(target, Int | UInt):
        return False
    grows = target.bits > source.bits if target.signed else target.bits >= source.bits
    return source == target or (grows and (target.signed or not source.signed))


def _whole(product: ir.Binary) -> bool:
    """Whether a product of integers is as wide as its operands together."""
    left, right = _narrow(product.left).type, _narrow(product.right).type
    integers = all(isinstance(t, Int | UInt) for t in (left, right, product.type))
    return integers and product.type.bits >= left.bits + right.bits


def _range(left: DType, right: DType) -> tuple[int, int]:
    """The least and the greatest product of two types."""
    products = [a * b for a in _ends(left) for b in _ends(right)]
    return min(products), max(products)


def _ends(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    half = 1 << (dtype.bits - 1)
    return (-half, half - 1) if dtype.signed else (0, 2 * half - 1)


def _pair(site: LoopSite) -> str:
    return f"{site.loop.var}.pair"


def _shift(plan: _Plan, operand: int) -> int:
    """How far apart the two values of an operand are: the first loop's are the outer ones."""
    inner = len(plan.operands) == 1 or plan.operands[1] == operand
    return plan.field if inner else 2 * plan.field


def _types(plan: _Plan) -> list[DType]:
    """The types of both operands of the multiplier, signed."""
    types: list[DType] = []
    for i, expr in enumerate((plan.product.left, plan.product.right)):
        own = _narrow(expr).type
        bits = own.bits + (not own.signed)
        types.append(Int(_shift(plan, i) + bits + 1) if i in plan.operands else Int(bits))
    return types


def _packed(plan: _Plan, names: set[str]) -> tuple[ir.Stmt, ...]:
    """One product, its fields, and the statement once per field."""
    span, types = plan.product.span, _types(plan)
    operands = [_operand(plan, i, types[i]) for i in (0, 1)]
    wide = Int(types[0].bits + types[1].bits)
    made: list[ir.Stmt] = []

    def keep(name: str, dtype: DType, value: ir.Expr) -> ir.Load:
        buffer = ir.Buffer(fresh(name, names), dtype, span=span)
        names.add(buffer.name)
        made.extend((ir.Alloc(buffer, span=span), ir.Store(buffer.name, (), value, span)))
        return ir.Load(buffer.name, (), dtype, span)

    products = keep("products", wide, ir.Binary("*", operands[0], operands[1], wide, span))
    for number, lanes in enumerate(_lanes(plan)):
        low, dtype = number * plan.field, Int(plan.field)
        exact: ir.Expr = ir.Bitcast(ir.BitSlice(products, const(low), UInt(plan.field), span), dtype, span)
        if number:
            borrow = ir.BitSlice(products, const(low - 1), UInt(1), span)
            exact = ir.Binary("+", exact, ir.Cast(borrow, dtype, True, span), dtype, span)
        value = keep("product", plan.product.type, ir.Cast(exact, plan.product.type, True, span))
        made.append(_lane(plan, lanes, value))
    return tuple(made)


def _lanes(plan: _Plan) -> Iterator[dict[str, ir.Expr]]:
    """The loop variables of every field, the lowest first."""
    first, *rest = [[{s.loop.var: _position(s, lane)} for lane in (0, 1)] for s in plan.sites]
    for outer in first:
        for inner in rest[0] if rest else [{}]:
            yield {**outer, **inner}


def _position(site: LoopSite, lane: int) -> ir.Expr:
    """The value of a loop's variable in a lane of a pair."""
    step = binary("*", var(_pair(site)), 2 * site.loop.step)
    return binary("+", binary("+", step, lane * site.loop.step), site.loop.lower)


def _operand(plan: _Plan, number: int, dtype: DType) -> ir.Expr:
    """An operand of the multiplier: two values side by side, or one."""
    expr = _narrow((plan.product.left, plan.product.right)[number])
    span = plan.product.span
    if number not in plan.operands:
        return ir.Cast(expr, dtype, True, span) if expr.type != dtype else expr
    site = plan.sites[plan.operands.index(number)]
    low, high = (
        ir.Cast(simplify(substitute(expr, {site.loop.var: _position(site, lane)})), dtype, True, span)
        for lane in (0, 1)
    )
    shifted = ir.Binary("<<", high, const(_shift(plan, number)), dtype, span)
    return ir.Binary("+", shifted, low, dtype, span)


def _lane(plan: _Plan, lanes: dict[str, ir.Expr], value: ir.Load) -> ir.Stmt:
    """The statement of one lane, with its product from a field."""

    def visit(node: Node) -> Node | None:
        return value if node == plan.product else None

    return simplify(substitute(replace(plan.store, value=rewrite(plan.store.value, visit)), lanes))


__all__ = ["PORTS", "pack_products"]
