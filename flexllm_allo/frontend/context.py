"""The state while one function is lowered: scopes, the block being filled, fresh names, places."""

from __future__ import annotations

import ast
from collections import ChainMap
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from ..errors import DTypeError, FrontendError, Place, Span, did_you_mean
from ..ir import nodes as ir
from ..ir.convert import literal
from ..ir.dtypes import DType, StreamType, Struct
from ..ir.rule_sets import RULE_SETS
from .axes import Region
from .names import NotConstant, evaluate, is_kernel
from .options import Options
from .source import Source


@dataclass(frozen=True)
class LoopSymbol:
    """A name bound to the variable of an enclosing loop."""

    var: str


@dataclass(frozen=True)
class ConstSymbol:
    """A name bound to a value known at compile time (ConstExpr, meta_for, process ids)."""

    value: Any


@dataclass(frozen=True)
class ElementSymbol:
    """A name for the current element of an array while an operator on whole arrays is lowered."""

    value: ir.Expr


@dataclass(frozen=True)
class ViewSymbol:
    """A name for part of an array: what is stored to it is stored to the array."""

    region: Region


Channel = tuple[ir.Buffer, tuple[ir.Expr, ...]]
"""One FIFO: a buffer, and which one of it where it is an array of FIFOs."""


@dataclass(frozen=True)
class StreamsSymbol:
    """A FIFO or an array of FIFOs of a region: `member` gives the one at constant indices."""

    name: str
    type: StreamType
    member: Callable[[tuple[int, ...]], Channel]


Symbol = ir.Buffer | LoopSymbol | ConstSymbol | StreamsSymbol | ElementSymbol | ViewSymbol


@dataclass
class Scope:
    """The names of one block, with the places they were bound at."""

    symbols: dict[str, tuple[Symbol, Span]] = field(default_factory=lambda: {})


class Instances(Protocol):
    """What a function being lowered needs of the program: its options and other kernel instances."""

    @property
    def options(self) -> Options: ...

    def instantiate(
        self, fn: Callable[..., Any], explicit: tuple[Any, ...], args: list[Any], at: Span
    ) -> ir.Function: ...

    def add(self, function: ir.Function, stem: str) -> ir.Function: ...

    @property
    def functions(self) -> list[ir.Function]: ...


class Lowering(Protocol):
    """The expression rules, handed in so that `calls` and `expressions` need not import each other."""

    def lower_expr(self, ctx: Context, node: ast.expr) -> ir.Expr: ...
    def lower_index(self, ctx: Context, node: ast.expr) -> ir.Expr: ...
    def check_index(self, ctx: Context, buffer: ir.Buffer, dim: int, node: ast.expr) -> ir.Expr: ...
    def match_literals(self, left: ir.Expr, right: ir.Expr) -> tuple[ir.Expr, ir.Expr]: ...
    def binary(self, ctx: Context, op: str, left: ir.Expr, right: ir.Expr, node: ast.AST) -> ir.Expr: ...
    def is_array(self, ctx: Context, node: ast.expr) -> bool: ...
    def stored_array(self, ctx: Context, node: ast.expr) -> ir.Buffer: ...
    def element(self, ctx: Context, node: ast.Subscript) -> ir.Expr | None: ...


class Context:
    """Everything `expressions` and `statements` share while they lower one function."""

    def __init__(
        self, source: Source, names: Mapping[str, Any], program: Instances, lowering: Lowering
    ) -> None:
        self.source = source
        self.lowering = lowering
        self.names = names
        self.program = program
        self.rules = RULE_SETS[program.options.typing_rule_set]
        self.scopes: list[Scope] = [Scope()]
        self.blocks: list[list[ir.Stmt]] = [[]]
        self.taken: set[str] = set()
        self.lists: frozenset[str] = frozenset()  # of arrays, among the parameters (`array_lists`)
        self.pids: tuple[int, ...] | None = None  # of a dataflow kernel's instance
        self.tensor_operations = 0  # unnamed ones: numbers their bands
        self.outputs: list[ir.Buffer] | None = None  # set by the return statement
        self.finish: Callable[[ast.Return], list[ir.Buffer]] | None = None
        self.loop_statements = 0  # completed ones: numbers unnamed bands as Allo does

    # ---- places and errors

    def span(self, node: ast.AST) -> Span:
        return self.source.span(node)

    def error(self, code: str, message: str, node: ast.AST, hint: str = "") -> FrontendError:
        return FrontendError(code, message, self.span(node), hint)

    # ---- expressions

    def lower_expr(self, node: ast.expr) -> ir.Expr:
        return self.lowering.lower_expr(self, node)

    def lower_index(self, node: ast.expr) -> ir.Expr:
        return self.lowering.lower_index(self, node)

    def check_index(self, buffer: ir.Buffer, dim: int, node: ast.expr) -> ir.Expr:
        return self.lowering.check_index(self, buffer, dim, node)

    def match_literals(self, left: ir.Expr, right: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
        return self.lowering.match_literals(left, right)

    # ---- types of operators

    def result_type(self, op: str, left: DType, right: DType, node: ast.AST) -> DType:
        """The type of ``left op right``; FrontendError FX109 where the operator is not defined."""
        return self._typed(node, op, (left, right), lambda: self.rules.result(op, left, right))

    def common_type(self, left: DType, right: DType, node: ast.AST) -> DType:
        """The type both operands of a comparison, min, max or a ternary are converted to."""
        return self._typed(node, "here", (left, right), lambda: self.rules.common(left, right))

    def negative_type(self, value: DType, node: ast.AST) -> DType:
        """The type of ``-x``."""
        return self._typed(node, "-", (value,), lambda: self.rules.negative(value))

    def _typed(self, node: ast.AST, op: str, types: tuple[DType, ...], rule: Callable[[], DType]) -> DType:
        for t in types:
            if isinstance(t, Struct):
                raise self.error("FX109", f"operator {op} is not defined for {t}; use its fields", node)
        try:
            return rule()
        except DTypeError as error:
            raise self.error("FX109", error.message, node, error.hint) from None

    # ---- blocks

    def emit(self, stmt: ir.Stmt) -> None:
        self.blocks[-1].append(stmt)

    @contextmanager
    def block(self) -> Generator[list[ir.Stmt]]:
        """A nested block with a scope of its own; yields the list its statements go to."""
        body: list[ir.Stmt] = []
        self.blocks.append(body)
        try:
            with self.scope():
                yield body
        finally:
            self.blocks.pop()

    @contextmanager
    def scope(self) -> Generator[None]:
        """Names of their own for statements that stay in the current block."""
        self.scopes.append(Scope())
        try:
            yield
        finally:
            self.scopes.pop()

    @contextmanager
    def elements(self, values: Sequence[ir.Expr], node: ast.AST) -> Generator[list[str]]:
        """Names that stand for the values, which no kernel can have chosen itself."""
        names = [f"<{i}>" for i in range(len(values))]
        self.scopes.append(Scope())
        for name, value in zip(names, values, strict=True):
            self.bind(name, ElementSymbol(value), node)
        try:
            yield names
        finally:
            self.scopes.pop()

    # ---- names

    def fresh(self, stem: str) -> str:
        """A buffer name not used in this function yet: the stem itself, else numbered."""
        name, n = stem, 0
        while name in self.taken:
            n += 1
            name = f"{stem}_{n}"
        self.taken.add(name)
        return name

    def find(self, name: str) -> Symbol | None:
        for scope in reversed(self.scopes):
            if name in scope.symbols:
                return scope.symbols[name][0]
        return None

    def where(self, name: str) -> Span | None:
        for scope in reversed(self.scopes):
            if name in scope.symbols:
                return scope.symbols[name][1]
        return None

    def bind(self, name: str, symbol: Symbol, node: ast.AST) -> None:
        self.scopes[-1].symbols[name] = (symbol, self.span(node))

    def unknown_name(self, node: ast.Name) -> FrontendError:
        if node.id in self.lists:
            hint = "index it with a number or with the variable of a meta_for"
            return self.error("FX113", f"{node.id} is a list: which array of it is not known", node, hint)
        visible = [n for scope in self.scopes for n in scope.symbols]
        constants = [n for n, value in self.names.items() if isinstance(value, int | float)]
        near = get_close_matches(node.id, constants)
        hint = did_you_mean(node.id, [*visible, *near]) if visible or near else ""
        return self.error("FX102", f"Variable {node.id} not defined in current scope.", node, hint)

    def declare(
        self, name: str, dtype: DType, shape: tuple[int, ...], node: ast.AST, **more: Any
    ) -> ir.Buffer:
        """Allocate a local buffer and bind the Python name to it."""
        previous = self.where(name)
        if previous is not None and isinstance(self.find(name), LoopSymbol):
            places = [Place(self.span(node)), Place(previous, "the loop")]
            raise FrontendError("FX111", f"{name} is the variable of an enclosing loop", places)
        buffer = ir.Buffer(self.fresh(name), dtype, shape, span=self.span(node), **more)
        self.bind(name, buffer, node)
        return buffer

    def temporary(self, stem: str, dtype: DType, node: ast.AST) -> ir.Buffer:
        """A scalar without a Python name."""
        buffer = ir.Buffer(self.fresh(stem), dtype, (), span=self.span(node))
        self.emit(ir.Alloc(buffer, span=self.span(node)))
        return buffer

    # ---- compile-time values

    def constant(self, node: ast.expr) -> Any:
        """The compile-time value of an expression.

        Raises:
            NotConstant: it is not one.
        """
        return evaluate(node, self.values(), self._is_runtime)

    def number(self, node: ast.expr) -> ir.Const | None:
        """The literal an expression is at compile time, or None when it is no number then.

        A call of a kernel is none: its types and state have a meaning that Python's call lacks.
        """
        try:
            if any(self._calls_kernel(n) for n in ast.walk(node) if isinstance(n, ast.Call)):
                return None
            value = self.constant(node)
        except NotConstant:
            return None
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        return literal(value, self.span(node)) if isinstance(value, int | float) else None

    def _calls_kernel(self, node: ast.Call) -> bool:
        func = node.func.value if isinstance(node.func, ast.Subscript) else node.func
        return is_kernel(self.constant(func))

    def values(self) -> Mapping[str, Any]:
        """What is known by name at compile time; later scopes hide earlier ones."""
        known = {
            name: symbol.value
            for scope in self.scopes
            for name, (symbol, _) in scope.symbols.items()
            if isinstance(symbol, ConstSymbol)
        }
        return ChainMap(known, self.names) if known else self.names  # pyright: ignore[reportArgumentType]

    def _is_runtime(self, name: str) -> bool:
        return isinstance(self.find(name), Symbol) and not isinstance(self.find(name), ConstSymbol)

    def require_constant(self, node: ast.expr, what: str) -> Any:
        try:
            return self.constant(node)
        except NotConstant:
            text = ast.unparse(node)
            raise self.error("FX113", f"{what} must be known at compile time, got `{text}`", node) from None
