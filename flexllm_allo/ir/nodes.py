"""The intermediate representation: immutable, typed, a span on every node.

The IR is *normalised*, so that every backend is a plain walk over it:

- every value is an element type (`dtypes.DType`); arrays live in named `Buffer`s only;
- a scalar variable is a buffer of shape ``()``; buffer names are unique within a function;
- results are trailing parameters (`Function.results` counts them), so a call is a statement;
- conversions are explicit `Cast`s (those the language implies are marked ``implicit``);
- the operands of `Binary` have the type of its result, with the exceptions noted there;
- FIFOs are buffers with a `depth`; reading one is the statement `Get`, writing one is `Put`;
  what goes through is a token: one element, or an array of the shape `Buffer.token`;
- `facts` is room for what analyses found out about a node (`memo.remembered`), no part of its value.

Names of loop variables may repeat in a function, never inside one nest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import UNKNOWN, Span, TargetError, did_you_mean
from .dtypes import BOOL, INDEX, DType

# --------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. `value` is the number itself: int for Int/UInt/Index, float for floats,
    and for fixed point the *raw* integer (value times 2**fracs).

    `exact` is the number as the user wrote it, for a literal that may yet take another float type.
    """

    value: int | float
    type: DType
    span: Span = UNKNOWN
    exact: int | float | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LoopVar:
    """The value of an enclosing loop's variable, of type index."""

    name: str
    type: DType = INDEX
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Load:
    """``A[i, j]``, or the value of a scalar buffer when `indices` is empty."""

    buffer: str
    indices: tuple[Expr, ...]
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Unary:
    """`op`: ``-`` ``~`` on a value of the same type, ``not`` on a bool."""

    op: str
    value: Expr
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, bit and comparison operators.

    ``+ - / // % & | ^ min max``: both operands have the type of the result.
    ``*``: raw values are multiplied and wrapped into the result type; operands may be narrower.
    ``<< >>``: the left operand has the type of the result, the right one any integer type.
    ``== != < <= > >=``: both operands have one common type, the result is bool (UInt(1)).
    """

    op: str
    left: Expr
    right: Expr
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Logic:
    """``and`` / ``or`` of two bools; the right side is evaluated only when needed."""

    op: str
    left: Expr
    right: Expr
    type: DType = BOOL
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Select:
    """``then if condition else otherwise``; all three are pure, both sides have the result's type."""

    condition: Expr
    then: Expr
    otherwise: Expr
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Cast:
    """A change of type that keeps the value where it fits (rules: docs/numerics.md)."""

    value: Expr
    type: DType
    implicit: bool = True
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Bitcast:
    """The same bits read as another type of the same width."""

    value: Expr
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class BitSlice:
    """``x[lo:lo+width]`` of an integer: UInt(width). `lo` may be a run-time value."""

    value: Expr
    lo: Expr
    type: DType
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Math:
    """A function of floats: exp log log2 log10 sqrt sin cos tan tanh power abs round floor."""

    name: str
    args: tuple[Expr, ...]
    type: DType
    span: Span = UNKNOWN


Expr = Const | LoopVar | Load | Unary | Binary | Logic | Select | Cast | Bitcast | BitSlice | Math

# ---------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Bank:
    """One ``array_partition``: `kind` is complete, block or cyclic; `dim` counts from 1."""

    kind: str
    dim: int
    factor: int = 0


@dataclass(frozen=True, slots=True)
class Buffer:
    """A named array, scalar (shape ``()``) or FIFO (`depth` set, in tokens of shape `token`).

    The extent of a parameter may be `dtypes.RUN_TIME`.

    `words` is set by ``pack``: the buffer's element type is then a word of that many logical
    elements along dimension `word_axis` (counted from the end, so that views keep it), and
    `logical` is their type.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] = ()
    depth: int | None = None
    banks: tuple[Bank, ...] = ()
    memory: object = None
    words: int = 1
    word_axis: int = -1
    logical: DType | None = None
    token: tuple[int, ...] = ()
    span: Span = UNKNOWN

    @property
    def is_stream(self) -> bool:
        return self.depth is not None


@dataclass(frozen=True, slots=True)
class View:
    """The sub-array of a buffer at fixed leading indices: ``A[i]`` passed to a call."""

    buffer: str
    indices: tuple[Expr, ...] = ()
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Alloc:
    """Bring a local buffer or FIFO into being.

    `init` are constant contents, if given: raw values, flat in row-major order. A `static` buffer
    has an `init`, takes it once, and keeps its contents from call to call of the built module.
    """

    buffer: Buffer
    init: tuple[int | float, ...] | None = None
    span: Span = UNKNOWN
    static: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """``A[i, j] = value``; the value has the element type of the buffer."""

    buffer: str
    indices: tuple[Expr, ...]
    value: Expr
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Put:
    """Append a token to the FIFO; waits while it is full. `indices` choose one of an array of FIFOs.

    `value` is an expression, or for tokens that are arrays a `View` of their shape.
    """

    stream: str
    indices: tuple[Expr, ...]
    value: Expr | View
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Get:
    """Take one token from the FIFO into the buffer `target`, of its shape; waits while it is empty."""

    target: str
    stream: str
    indices: tuple[Expr, ...]
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class LoopAttrs:
    """What schedules say of a loop. None or False: nothing. `unroll` 0 means completely.

    `reassociate` lets the CPU reorder a float reduction carried by this loop (docs/numerics.md).
    `spatial` makes every iteration hardware of its own; in a dataflow region, a process of its own.
    """

    pipeline: int | None = None
    rewind: bool = False
    unroll: int | None = None
    parallel: bool = False
    dataflow: bool = False
    reduction: bool = False
    reassociate: bool = False
    spatial: bool = False


@dataclass(frozen=True, slots=True)
class For:
    """``for var in range(lower, upper, step)``. Bounds are of type index, `step` is positive.

    `band` is the name of the loop statement this loop is the first of (None for the others and
    for `hidden` loops, which schedules cannot name).
    """

    var: str
    lower: Expr
    upper: Expr
    body: tuple[Stmt, ...]
    step: int = 1
    band: str | None = None
    attrs: LoopAttrs = field(default_factory=LoopAttrs)
    span: Span = UNKNOWN
    facts: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)

    @property
    def hidden(self) -> bool:
        """Whether it is a loop the language implies (a fill, a copy): ``_0``, ``_1``, without a name."""
        return self.var[:1] == "_" and self.var[1:2].isdigit()


@dataclass(frozen=True, slots=True)
class While:
    """``while condition:``."""

    condition: Expr
    body: tuple[Stmt, ...]
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class If:
    """``if condition: ... else: ...``."""

    condition: Expr
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()
    span: Span = UNKNOWN


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function of the program. One argument per parameter, results included.

    Array, FIFO and result parameters take a `View`, scalar parameters an `Expr` of their type.
    `label` names the process that the call is in a region (default: the function's name).
    """

    func: str
    args: tuple[Expr | View, ...]
    span: Span = UNKNOWN
    label: str = ""


Stmt = Alloc | Store | Put | Get | For | While | If | Call

# ----------------------------------------------------------------------------------- functions


@dataclass(frozen=True, slots=True)
class Extern:
    """What a function written in C++ is: `symbol` in the file `source`, which may write `writes`.

    `pointers` are the parameters declared ``T *``: arrays of any rank are passed by their first element.
    """

    symbol: str
    source: str
    include_paths: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel instance. The last `results` parameters are the results.

    Parameters of shape ``()`` without depth are passed by value, except results, which the
    function writes. `origin` is the name of the kernel and `bindings` the template arguments
    this instance was made from, both for people and for schedules to tell instances apart.
    `concurrent` marks a region written with processes (``df.region``): they share arrays as the
    user wrote it, while the statements of a function made `dataflow` by a schedule keep their order.
    A function with an `extern` has no body: it is written in C++.
    """

    name: str
    params: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    results: int = 0
    dataflow: bool = False
    concurrent: bool = False
    inline: bool = False
    origin: str = ""
    bindings: tuple[tuple[str, object], ...] = ()
    extern: Extern | None = None
    span: Span = UNKNOWN
    facts: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        return self.params[: len(self.params) - self.results]

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        return self.params[len(self.params) - self.results :]


@dataclass(frozen=True, slots=True)
class Program:
    """Functions, callees before callers, and the name of the top one."""

    functions: tuple[Function, ...]
    top: str
    facts: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)

    def function(self, name: str) -> Function:
        """The function of that name (KeyError if there is none)."""
        table = self.facts.get("functions")
        if table is None:
            table = self.facts["functions"] = {f.name: f for f in self.functions}
        return table[name]

    def with_function(self, new: Function, name: str | None = None) -> Program:
        """The program with the function `name` (default: the new one's own name) replaced."""
        old = name or new.name
        return replace(self, functions=tuple(new if f.name == old else f for f in self.functions))

    def with_top(self, name: str | None) -> Program:
        """The program with another of its functions as the top one; None changes nothing."""
        if name is None or name == self.top:
            return self
        known = [f.name for f in self.functions]
        if name not in known:
            raise TargetError("FX402", f"Function {name} not found", hint=did_you_mean(name, known))
        return replace(self, top=name)

    def __str__(self) -> str:
        from .printer import print_program  # the printer imports this module

        return print_program(self)
