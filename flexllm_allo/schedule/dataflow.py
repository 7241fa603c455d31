"""Primitives on dataflow: regions whose statements run at the same time, and FIFOs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import Place, ScheduleNameError, ScheduleValueError, StreamError, did_you_mean
from ..ir import nodes as ir
from ..ir.walk import walk
from .buffers import Target, find_buffer
from .depths import with_depths
from .fifo import enclosing, insert_fifo, region_body, users, with_region
from .initial import initialisers, without_initialisers
from .names import (
    LoopBand,
    LoopWrapper,
    Path,
    bands,
    find_function,
    find_loop,
    replace_at,
)
from .order import check_order
from .systolic import insert_fifos
from .tokens import Lanes, wide_fifo, widths


def dataflow(program: ir.Program, func: str, axis: str | LoopWrapper | LoopBand | None = None) -> ir.Program:
    """Run the statements of a function, or of a loop's body, at the same time.

    Results do not change: a process that needs an array another one writes waits for its end;
    through FIFOs (`to`) processes overlap.

    Args:
        axis: the name of a function (default: the top one), or a loop.

    Raises:
        ScheduleNameError: FX201.

    Example:
        >>> s = allo.customize(producer_consumer)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:
            C: int32[10]
            B: int32[10]
            for i in range(10, name="S_i_0"):
                B[i] = A[i] + 1
            for i in range(10, name="S_i_1"):
                C[i] = B[i] * 2
            return C
        >>> s.dataflow()
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:  # dataflow
            C: int32[10]
            B: int32[10]
            for i in range(10, name="S_i_0"):
                B[i] = A[i] + 1
            for i in range(10, name="S_i_1"):
                C[i] = B[i] * 2
            return C
    """
    names = {f.name for f in program.functions} | {f.origin for f in program.functions}
    if axis is None or (isinstance(axis, str) and axis in names):
        function = find_function(program, axis or func)
        return program.with_function(replace(function, dataflow=True))
    try:
        site = find_loop(program, func, axis)
    except ScheduleNameError as error:
        text = axis.name if isinstance(axis, LoopWrapper) else str(axis)
        raise ScheduleNameError(
            "FX201", f"Dataflow loop {text} not found", hint=did_you_mean(text, names) or error.hint
        ) from None
    loop = replace(site.loop, attrs=replace(site.loop.attrs, dataflow=True))
    return program.with_function(replace_at(site.function, site.path, (loop,)))


def to(
    program: ir.Program,
    func: str,
    target: Target,
    dst: str | LoopWrapper | Sequence[int] | None = None,
    axis: int | None = None,
    depth: int = -1,
    lanes: Lanes = 1,
) -> ir.Program:
    """Turn a local array into a FIFO between the statement that writes it and one that reads it.

    The function (or loop body) around becomes a dataflow region.  Writes become `put`, reads
    `get`; functions the array is passed to get a FIFO parameter.  With several readers, call it once
    per reader: the writes are duplicated, one FIFO each.

    With `lanes` the tokens of the FIFO hold several elements, one for each lane of the loops that access the
    array (`vectorize` makes them): what the lanes write together is put at once, and they read one token.
    Lanes along the last dimension so give the *cyclic* layout, where token k of a row holds the elements
    ``k * lanes`` to ``k * lanes + lanes - 1``. Writer and reader may have other numbers of lanes, as in
    ``lanes=(2, 8)``: the layout is the same for all of them, so nothing is tiled anew, and a *gearbox*
    between two FIFOs, a process that holds one token of the wider kind, collects narrow tokens or deals
    wide ones, a narrow token per cycle. The FIFO behind it holds two tokens.

    Between processing elements (`unfold`) the array becomes an array of FIFOs, one for each position
    along the unfolded dimensions: ``pe = s.unfold("PE", [0, 1]); s.to(s.A_fifo, pe, axis=1, depth=4)``.

    Args:
        target: the local array.
        dst: the band or the function that reads it, by default the only one that does; or the dimensions
            that become an array of FIFOs.
        axis: with dimensions, the one along which data move from element to element.
        depth: tokens a FIFO holds; -1 means all that go through it.
        lanes: elements of a token, or those that the writer puts and the reader gets; 0: as many as each has
            lanes.

    Raises:
        ScheduleNameError: FX201, no such band or function.
        ScheduleValueError: FX204, depth or lanes.
        StreamError: FX301, elements are not read in the order they are written, or not all exactly
            once (the first that differs is named); FX302, a parameter, several writers or readers; FX304,
            tokens and lanes do not fit.

    Example:
        >>> s = allo.customize(producer_consumer)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:
            C: int32[10]
            B: int32[10]
            for i in range(10, name="S_i_0"):
                B[i] = A[i] + 1
            for i in range(10, name="S_i_1"):
                C[i] = B[i] * 2
            return C
        >>> s.to(s.B, "S_i_1", depth=4)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:  # dataflow
            C: int32[10]
            B: Stream[int32, 4]
            for i in range(10, name="S_i_0"):
                B.put(A[i] + 1)
            for i in range(10, name="S_i_1"):
                B_0: int32
                B_0 = B.get()
                C[i] = B_0 * 2
            return C
        >>> s = allo.customize(producer_consumer)
        >>> s.vectorize("S_i_0.i", 5)
        LoopWrapper(producer_consumer:S_i_0.i.outer)
        >>> s.vectorize("S_i_1.i", 5)
        LoopWrapper(producer_consumer:S_i_1.i.outer)
        >>> s.pipeline()
        >>> s.to(s.B, "S_i_1", depth=4, lanes=5)
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:  # dataflow
            # A: partition(cyclic, dim=1, factor=5)
            # C: partition(cyclic, dim=1, factor=5)
            C: int32[10]
            B: Stream[int32[5], 4]
            for i_outer in range(2, name="S_i_0"):  # pipeline II=1
                B_token: int32[5]  # partition(complete, dim=1)
                for i_inner in range(5):  # unroll
                    B_token[i_inner] = A[i_outer * 5 + i_inner] + 1
                B.put(B_token)
            for i_outer in range(2, name="S_i_1"):  # pipeline II=1
                B_token_1: int32[5]  # partition(complete, dim=1)
                B_token_1 = B.get()
                for i_inner in range(5):  # unroll
                    C[i_outer * 5 + i_inner] = B_token_1[i_inner] * 2
            return C
    """
    function, buffer = find_buffer(program, func, target)
    if isinstance(depth, bool) or (depth < 1 and depth != -1):
        hint = "-1 means the number of elements"
        raise ScheduleValueError("FX204", f"FIFO depth must be at least 1, got {depth!r}", hint=hint)
    region = _region(function, buffer)
    if dst is not None and not isinstance(dst, str | LoopWrapper):
        if lanes != 1:
            hint = "lanes are for one FIFO between two statements"
            raise ScheduleValueError(
                "FX204", "an array of FIFOs has tokens of one element", buffer.span, hint
            )
        return insert_fifos(program, function, region, buffer, dst, axis, depth)
    program, body = without_initialisers(program, region_body(function, region), buffer)
    function = with_region(function, region, body)
    program = program.with_function(function)
    link = _link(program, function, buffer, region, dst)
    check_order(program, buffer, link.producer, link.consumer)
    written, read = widths(program, buffer, link.producer, link.consumer, lanes)
    fifo = wide_fifo(buffer, written, depth)
    return insert_fifo(program, function, region, buffer, fifo, link.producer, link.consumer, link.name, read)


def size_fifos(program: ir.Program, depths: Mapping[tuple[str, str], int]) -> ir.Program:
    """Give every FIFO the depth it needs: none deadlocks, and with `full_speed` none slows the design.

    How long processes wait is simulated, with the initiation intervals that the schedule asks for or those
    of a card. The FIFOs of all functions are set, deeper or shallower; `fifo_depths` shows them first.

    Args:
        full_speed: True, so deep that the design takes no longer than with FIFOs without limit; False,
            just so deep that it does not deadlock.
        device: a card, for intervals, depths and latencies as an estimate finds them.
        scalars: values of scalar parameters that loop bounds depend on, by name.

    Raises:
        DeadlockError: FX303, no depths help.
        EstimateError: FX921, what a process does to its FIFOs depends on data.

    Example:
        >>> s = allo.customize(producer_consumer)
        >>> s.to(s.B, "S_i_1")
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:  # dataflow
            C: int32[10]
            B: Stream[int32, 10]
            for i in range(10, name="S_i_0"):
                B.put(A[i] + 1)
            for i in range(10, name="S_i_1"):
                B_0: int32
                B_0 = B.get()
                C[i] = B_0 * 2
            return C
        >>> print(s.fifo_depths())
        function           stream  depth  no deadlock  full speed
        producer_consumer  B          10            1           1
        >>> s.size_fifos()
        >>> print(s)
        def producer_consumer(A: int32[10]) -> int32[10]:  # dataflow
            C: int32[10]
            B: Stream[int32, 1]
            for i in range(10, name="S_i_0"):
                B.put(A[i] + 1)
            for i in range(10, name="S_i_1"):
                B_0: int32
                B_0 = B.get()
                C[i] = B_0 * 2
            return C
    """
    return with_depths(program, depths)


@dataclass(frozen=True)
class _Link:
    producer: ir.Stmt
    consumer: ir.Stmt
    name: str


def _region(function: ir.Function, buffer: ir.Buffer) -> Path:
    """The path of the loop whose body holds the array's `Alloc`; () is the function's body."""
    if buffer.is_stream:
        raise StreamError("FX302", f'"{buffer.name}" is a FIFO already', at=buffer.span,
            hint="one call of to() per reader; its depth is given there",
        )  # fmt: skip
    if not buffer.shape:
        raise StreamError(
            "FX302", f'"{buffer.name}" is a scalar', at=buffer.span, hint="only arrays become FIFOs"
        )
    if any(p.name == buffer.name for p in function.params):
        raise StreamError(
            "FX302", f'"{buffer.name}" is a parameter of "{function.name}": its other end is outside',
            at=Place(buffer.span, "declared here"),
            hint="declare the parameter as Stream[T, depth], or copy it to a local array in a loop first",
        )  # fmt: skip
    return enclosing(function, buffer)


def _link(
    program: ir.Program, function: ir.Function, buffer: ir.Buffer, region: Path, dst: str | LoopWrapper | None
) -> _Link:
    body = region_body(function, region)
    writing, reading = users(program, body, buffer.name)
    writers, readers = [body[i] for i in writing], [body[i] for i in reading]
    named = readers if dst is None else _named(program, function, body, buffer, dst)
    fills = initialisers(program, body, buffer.name)
    writers = [s for s in writers if s not in fills]
    if len(writers) != 1:
        many = [Place(s.span, "written here") for s in writers] or [Place(buffer.span, "never written")]
        raise StreamError(
            "FX302",
            f'"{buffer.name}" has {len(writers)} producers; a FIFO needs one',
            at=many,
            hint="write all of it in one loop nest or one call",
        )
    (producer,) = writers
    if any(s is producer for s in readers):
        raise StreamError(
            "FX302", f'the producer of "{buffer.name}" reads it as well',
            at=Place(producer.span, "read and written here"),
            hint='accumulate locally and write each element once: buffer_at(target, axis) does it',
        )  # fmt: skip
    consumers = [s for s in named if any(s is r for r in readers)]
    if len(consumers) != 1:
        places = [Place(s.span, "reads it" if consumers else "does not read it") for s in consumers or named]
        reads = f'"{_plain(function, dst)}" reads "{buffer.name}"' if dst else f'"{buffer.name}" is read'
        raise StreamError(
            "FX302", f"{reads} in {len(consumers)} statements; a FIFO needs one",
            at=places, hint="" if consumers and dst else "give the band or function that reads it",
        )  # fmt: skip
    (consumer,) = consumers
    if next(i for i, s in enumerate(body) if s is consumer) < next(
        i for i, s in enumerate(body) if s is producer
    ):
        raise StreamError(
            "FX302", f'"{buffer.name}" is read before it is written',
            at=[Place(consumer.span, "read here"), Place(producer.span, "written here")],
            hint="a FIFO carries values forward: the producer comes first in the program",
        )  # fmt: skip
    band = consumer.band if isinstance(consumer, ir.For) else None
    called = consumer.func if isinstance(consumer, ir.Call) else ""
    return _Link(producer, consumer, band or (_plain(function, dst) if dst else called))


def _plain(function: ir.Function, dst: str | LoopWrapper) -> str:
    """A name without that of the function it is in."""
    text = dst.name if isinstance(dst, LoopWrapper) else dst
    return text.removeprefix(f"{function.name}:")


def _named(
    program: ir.Program,
    function: ir.Function,
    body: tuple[ir.Stmt, ...],
    buffer: ir.Buffer,
    dst: str | LoopWrapper,
) -> list[ir.Stmt]:
    """The statements of a region that go by a name."""
    name = _plain(function, dst)
    found = [s for s in body if name in _names(program, s, function)]
    if not found:
        known = {n for s in body for n in _names(program, s, function)}
        raise ScheduleNameError(
            "FX201", f'no band or function "{name}" in "{function.name}" could read "{buffer.name}"',
            at=buffer.span, hint=did_you_mean(name, known),
        )  # fmt: skip
    return found


def _names(program: ir.Program, stmt: ir.Stmt, function: ir.Function) -> set[str]:
    """What a statement of a region can be called: its band, the functions it calls, their kernels."""
    called = {n.func for n in walk(stmt) if isinstance(n, ir.Call)}
    names = called | {program.function(f).origin or f for f in called}
    if isinstance(stmt, ir.For):
        names |= {stmt.band} if stmt.band else set()
        for band, sites in bands(function).items():
            names |= {band} if sites[0].loop is stmt else set()
            names |= {f"{band}.{s.name}" for s in sites if s.loop is stmt or stmt in s.outer}
    return names
