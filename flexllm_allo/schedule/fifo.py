"""Rewriting an array into a FIFO: stores become `Put`, loads `Get`, calls pass the FIFO on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..analysis.accesses import accesses
from ..errors import Place, StreamError
from ..ir import nodes as ir
from ..ir.walk import Node, buffers, rewrite
from .gearbox import geared
from .initial import has_others, install
from .names import Path, fresh, replace_at, statement_at, sub_bodies
from .tokens import as_process, gathered, lanes_of, scattered


def insert_fifo(
    program: ir.Program,
    function: ir.Function,
    region: Path,
    array: ir.Buffer,
    fifo: ir.Buffer,
    producer: ir.Stmt,
    consumer: ir.Stmt,
    name: str,
    read: int,
) -> ir.Program:
    """Connect two statements of a region by `fifo` in place of `array`.

    The array stays, next to a FIFO of another name, while other statements still read it. The consumer
    takes tokens of `read` elements; where `fifo` has others, they go through a gearbox.
    """
    body = region_body(function, region)
    others = [s for s in body if s is not producer and s is not consumer and _reads(program, s, array.name)]
    keep = bool(others)
    if keep:
        fifo = replace(fifo, name=fresh(f"{array.name}_{_plain(name)}", set(buffers(function))))
    program, taken, gears = geared(program, function, array, producer, fifo, read)
    rewriter = Rewriter(program, {*buffers(function), fifo.name, taken.name})
    new: list[ir.Stmt] = []
    for stmt in body:
        if isinstance(stmt, ir.Alloc) and stmt.buffer.name == array.name:
            new += [stmt] if keep else []
            new += [ir.Alloc(f, span=stmt.span) for f in dict.fromkeys((fifo, taken))]
        elif stmt is producer:
            new += [*rewriter.puts((stmt,), array.name, fifo, keep, region=True), *gears]
        elif stmt is consumer:
            new += rewriter.gets((stmt,), array.name, taken, region=True)
        elif keep or not any(a.buffer == array.name for a in accesses((stmt,), program)):
            new.append(stmt)  # else an initialiser of the array that is gone
    return rewriter.program.with_function(with_region(function, region, tuple(new)))


def _alloc_path(body: tuple[ir.Stmt, ...], attr: str, name: str) -> Path | None:
    """Where the array is declared, in statements that begin under the field `attr`."""
    for i, stmt in enumerate(body):
        if isinstance(stmt, ir.Alloc) and stmt.buffer.name == name:
            return ((attr, i),)
        for field in sub_bodies(stmt):
            inner = _alloc_path(getattr(stmt, field), field, name)
            if inner is not None:
                return ((attr, i), *inner)
    return None


def enclosing(function: ir.Function, buffer: ir.Buffer) -> Path:
    """The path of the loop in whose body a buffer lives; () is the function's body.

    Raises:
        StreamError: FX302, it is declared under a condition.
    """
    owner = (_alloc_path(function.body, "body", buffer.name) or ())[:-1]
    if owner and not isinstance(statement_at(function, owner), ir.For):
        raise StreamError(
            "FX302", f'"{buffer.name}" is declared under a condition', at=buffer.span,
            hint="declare it in the function or in a loop",
        )  # fmt: skip
    return owner


def users(program: ir.Program, body: tuple[ir.Stmt, ...], name: str) -> tuple[list[int], list[int]]:
    """Positions of the statements of a region that write and that read an array."""
    return all_users(program, body).get(name, ([], []))


def all_users(program: ir.Program, body: tuple[ir.Stmt, ...]) -> dict[str, tuple[list[int], list[int]]]:
    """The `users` of every array that a region uses."""
    out: dict[str, tuple[list[int], list[int]]] = {}
    for i, stmt in enumerate(body):
        uses = [] if isinstance(stmt, ir.Alloc) else accesses((stmt,), program)
        for name, write in dict.fromkeys((a.buffer, a.write) for a in uses):
            out.setdefault(name, ([], []))[not write].append(i)
    return out


def region_body(function: ir.Function, region: Path) -> tuple[ir.Stmt, ...]:
    """The statements of a region: of the function, or of the loop at the path."""
    if not region:
        return function.body
    loop = statement_at(function, region)
    assert isinstance(loop, ir.For)
    return loop.body


def replace_body(function: ir.Function, region: Path, body: tuple[ir.Stmt, ...]) -> ir.Function:
    """The function with the statements of a region replaced."""
    if not region:
        return replace(function, body=body)
    loop = statement_at(function, region)
    assert isinstance(loop, ir.For)
    return replace_at(function, region, (replace(loop, body=body),))


def with_region(function: ir.Function, region: Path, body: tuple[ir.Stmt, ...]) -> ir.Function:
    """The same, and these statements run at the same time from now on."""
    function = replace_body(function, region, body)
    if not region:
        return replace(function, dataflow=True)
    loop = statement_at(function, region)
    assert isinstance(loop, ir.For)
    return replace_at(function, region, (replace(loop, attrs=replace(loop.attrs, dataflow=True)),))


def _reads(program: ir.Program, stmt: ir.Stmt, name: str) -> bool:
    return any(a.buffer == name and not a.write for a in accesses((stmt,), program))


def _plain(name: str) -> str:
    return name.replace(".", "_")


class Rewriter:
    """Rewrites statements of one function; `program` collects the callees it changes.

    `dims` are the dimensions of the array that choose one FIFO of an array of FIFOs; along the others
    the elements follow each other in time. A function that has other calls is `shared`, and so is what
    it calls: these stay as they are beside the changed ones.
    """

    def __init__(
        self, program: ir.Program, taken: set[str], dims: tuple[int, ...] = (), shared: bool = False
    ) -> None:
        self.program = program
        self.taken = taken
        self.dims = dims
        self.shared = shared

    def chosen(self, indices: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        """Which FIFO an element, or a part of the array, goes through."""
        return tuple(indices[d] for d in self.dims if d < len(indices))

    def fresh(self, name: str) -> str:
        made = fresh(name, self.taken)
        self.taken.add(made)
        return made

    # ---- the reading side

    def gets(
        self, body: tuple[ir.Stmt, ...], name: str, fifo: ir.Buffer, region: bool = False
    ) -> tuple[ir.Stmt, ...]:
        """The statements with every load of the array `name` replaced by what the FIFO gives.

        Of a `region` each stays one statement, a process.
        """
        made = ((stmt, tuple(self._get(stmt, name, fifo))) for stmt in body)
        return tuple(new for stmt, parts in made for new in (as_process(stmt, parts) if region else parts))

    def _get(self, stmt: ir.Stmt, name: str, fifo: ir.Buffer) -> Iterator[ir.Stmt]:
        before: list[ir.Stmt] = []

        def taken(node: Node) -> Node | None:
            if not (isinstance(node, ir.Load) and node.buffer == name):
                return None
            scalar = ir.Buffer(self.fresh(f"{name}_0"), fifo.dtype, span=node.span)
            before.append(ir.Alloc(scalar, span=node.span))
            before.append(ir.Get(scalar.name, fifo.name, self.chosen(node.indices), node.span))
            return ir.Load(scalar.name, (), fifo.dtype, node.span)

        match stmt:
            case ir.Store():
                value = rewrite(stmt.value, taken)
                indices = tuple(rewrite(i, taken) for i in stmt.indices)
                stmt = replace(stmt, value=value, indices=indices)
            case ir.Put() if not isinstance(stmt.value, ir.View):
                value = rewrite(stmt.value, taken)
                indices = tuple(rewrite(i, taken) for i in stmt.indices)
                stmt = replace(stmt, value=value, indices=indices)
            case ir.For() if fifo.token and lanes_of(stmt, name, write=False) > 1:
                yield from scattered(stmt, name, fifo, self.fresh)
                return
            case ir.For():
                lower, upper = rewrite(stmt.lower, taken), rewrite(stmt.upper, taken)
                body = self.gets(stmt.body, name, fifo, stmt.attrs.dataflow)
                stmt = replace(stmt, lower=lower, upper=upper, body=body)
            case ir.If():
                condition = rewrite(stmt.condition, taken)
                then, otherwise = (self.gets(b, name, fifo) for b in (stmt.then, stmt.otherwise))
                stmt = replace(stmt, condition=condition, then=then, otherwise=otherwise)
            case ir.Call():
                args = tuple(a if isinstance(a, ir.View) else rewrite(a, taken) for a in stmt.args)
                stmt = self._call(replace(stmt, args=args), name, fifo, write=False, keep=False)
            case _:
                pass
        yield from before
        yield stmt

    # ---- the writing side

    def puts(
        self, body: tuple[ir.Stmt, ...], name: str, fifo: ir.Buffer, keep: bool, region: bool = False
    ) -> tuple[ir.Stmt, ...]:
        """The statements with every store to the array `name` sent to the FIFO (and stored, with `keep`)."""
        made = ((stmt, tuple(self._put(stmt, name, fifo, keep))) for stmt in body)
        return tuple(new for stmt, parts in made for new in (as_process(stmt, parts) if region else parts))

    def _put(self, stmt: ir.Stmt, name: str, fifo: ir.Buffer, keep: bool) -> Iterator[ir.Stmt]:
        match stmt:
            case ir.Store() if stmt.buffer == name and keep:
                scalar = ir.Buffer(self.fresh(f"{name}_0"), fifo.dtype, span=stmt.span)
                value = ir.Load(scalar.name, (), fifo.dtype, stmt.value.span)
                yield ir.Alloc(scalar, span=stmt.span)
                yield ir.Store(scalar.name, (), stmt.value, stmt.span)
                yield replace(stmt, value=value)
                yield ir.Put(fifo.name, (), value, stmt.span)
            case ir.Store() if stmt.buffer == name:
                yield ir.Put(fifo.name, self.chosen(stmt.indices), stmt.value, stmt.span)
            case ir.For() if fifo.token and lanes_of(stmt, name, write=True) > 1:
                yield from gathered(stmt, name, fifo, keep, self.fresh)
            case ir.For():
                yield replace(stmt, body=self.puts(stmt.body, name, fifo, keep, stmt.attrs.dataflow))
            case ir.If():
                then, otherwise = (self.puts(b, name, fifo, keep) for b in (stmt.then, stmt.otherwise))
                yield replace(stmt, then=then, otherwise=otherwise)
            case ir.Call():
                yield self._call(stmt, name, fifo, write=True, keep=keep)
            case _:
                yield stmt

    # ---- calls

    def _call(self, call: ir.Call, name: str, fifo: ir.Buffer, write: bool, keep: bool) -> ir.Call:
        """The call with the FIFO for each part of the array that the callee writes (or reads)."""
        for param in self._parameters(call, name, write):
            names = [p.name for p in self.program.function(call.func).params]
            call = self._pass_fifo(call, names.index(param), fifo, write, keep)
        return call

    def _parameters(self, call: ir.Call, name: str, write: bool) -> list[str]:
        """The callee's names of the array, or of parts of it, as far as it writes (or reads) them."""
        callee = self.program.function(call.func)
        uses = accesses(callee.body, self.program)
        found: list[str] = []
        for arg, param in zip(call.args, callee.params, strict=True):
            if isinstance(arg, ir.View) and arg.buffer == name and not param.is_stream:
                directions = {a.write for a in uses if a.buffer == param.name}
                if len(directions) > 1:
                    raise StreamError(
                        "FX302", f'"{callee.name}" both reads and writes its parameter "{param.name}"',
                        at=[Place(call.span, "called here"), Place(param.span)],
                        hint="pass what is read and what is written as two parameters",
                    )  # fmt: skip
                found += [param.name] if write in directions else []
        return found

    def _pass_fifo(self, call: ir.Call, place: int, fifo: ir.Buffer, write: bool, keep: bool) -> ir.Call:
        callee, view = self.program.function(call.func), call.args[place]
        assert isinstance(view, ir.View)
        param, leading = callee.params[place], len(view.indices)
        chosen = self.chosen(view.indices)
        dims = tuple(d - leading for d in self.dims if d >= leading)
        shared = self.shared or has_others(self.program, callee.name)
        inner = Rewriter(self.program, set(buffers(callee)), dims, shared)
        new_name = inner.fresh(f"{param.name}_fifo") if keep else param.name
        channel = replace(fifo, name=new_name, shape=fifo.shape[len(chosen) :], span=param.span)
        if write:
            body = inner.puts(callee.body, param.name, channel, keep, callee.dataflow)
        else:
            body = inner.gets(callee.body, param.name, channel, callee.dataflow)
        self.program = inner.program
        arg = ir.View(fifo.name, chosen, view.span)
        params, args, results = _passed(callee, call, place, channel, arg, keep)
        made = replace(callee, params=params, body=body, results=results)
        self.program, func = install(self.program, callee, made, shared)
        return replace(call, func=func, args=args)


def _passed(
    callee: ir.Function, call: ir.Call, place: int, channel: ir.Buffer, arg: ir.View, keep: bool
) -> tuple[tuple[ir.Buffer, ...], tuple[ir.Expr | ir.View, ...], int]:
    """Parameters, arguments and number of results with the FIFO. A FIFO is never a result."""
    params, args = list(callee.params), list(call.args)
    first_result, results = len(callee.inputs), callee.results
    if not keep and place < first_result:
        params[place], args[place] = channel, arg
        return tuple(params), tuple(args), results
    if not keep:
        del params[place], args[place]
        results -= 1
    params.insert(first_result, channel)
    args.insert(first_result, arg)
    return tuple(params), tuple(args), results


__all__ = ["Rewriter", "enclosing", "insert_fifo", "region_body", "replace_body", "users", "with_region"]
