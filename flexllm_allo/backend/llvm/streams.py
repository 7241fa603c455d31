"""FIFOs and dataflow regions: ring buffers, and a coroutine per process.

A FIFO is three counters (read position, write position, fill) and `depth` elements.  A process
suspends while the FIFO it wants is empty or full; the region resumes its processes in turn until
all have ended.  When a round moves nothing, a region inside a process suspends in its turn, and
any other one is deadlocked.

`state` is an array of i64: a count of moves; 1 + the owner of the deadlock; then per process the
number of the site it is blocked at (0: none) and which FIFO of an array that concerns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from ...errors import DeadlockError, Span
from ...ir import nodes as ir
from ..containers import container_bytes
from ..deadlock import Blocked, deadlock, fifo_name
from ..effects import Process, split_processes
from . import casts
from .frame import FifoSlot, Frame, Scope, alignment, element_type

if TYPE_CHECKING:
    from .statements import Statements

STATE = "%state"


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a process may be blocked; the fields are those of `Blocked`."""

    owner: str
    process: str
    kind: str
    name: str
    depth: int
    shape: tuple[int, ...]
    span: Span


class Sites:
    """What the numbers in `state` mean."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.owners: list[str] = []
        self.slots = 0

    def slot(self) -> int:
        """A place in `state` for one more process."""
        self.slots += 1
        return self.slots - 1

    def site(self, site: Site) -> int:
        """The number of a new site; 0 is none."""
        self.sites.append(site)
        return len(self.sites)

    def owner(self, name: str) -> int:
        """The number of a function that a deadlock is reported for."""
        if name not in self.owners:
            self.owners.append(name)
        return self.owners.index(name) + 1

    @property
    def state_size(self) -> int:
        return 2 + 2 * self.slots

    def deadlock(self, state: NDArray[Any]) -> DeadlockError:
        """The error that a returned state stands for."""
        owner = self.owners[int(state[1]) - 1]
        blocked: list[Blocked] = []
        pairs = cast("list[tuple[int, int]]", state[2:].reshape(-1, 2).tolist())
        for number, index in pairs:
            site = self.sites[number - 1] if number else None
            if site is not None and site.owner == owner:
                name = site.name if site.kind == "start" else fifo_name(site.name, site.shape, index)
                blocked.append(Blocked(site.process, site.kind, name, site.depth, site.span))
        return deadlock(owner, blocked)


def state(f: Frame) -> str:
    """The name of the state array in a frame."""
    root = f
    while root.parent is not None:
        root = root.parent
    return f.use(STATE, "ptr", root)


def _state_cell(f: Frame, index: int) -> str:
    return f.op(f"getelementptr inbounds i64, ptr {state(f)}, i64 {index}")


def _set_blocked(f: Frame, slot: int, site: int, index: str = "0") -> None:
    f.do(f"store i64 {site}, ptr {_state_cell(f, 2 + 2 * slot)}")
    f.do(f"store i64 {index}, ptr {_state_cell(f, 3 + 2 * slot)}")


def _moved(f: Frame) -> None:
    cell = _state_cell(f, 0)
    count = f.op(f"load i64, ptr {cell}")
    f.do(f"store i64 {f.op(f'add i64 {count}, 1')}, ptr {cell}")


# ------------------------------------------------------------------------------------------ FIFOs


def allocate(f: Frame, buffer: ir.Buffer) -> FifoSlot:
    """Memory for an array of FIFOs, empty."""
    assert buffer.depth is not None
    count, dtype = prod(buffer.shape), buffer.dtype
    counters = f.allocate("[3 x i64]", count, 24, 8, "counters")
    size = container_bytes(dtype)
    items = f.allocate(element_type(dtype), count * buffer.depth, size, alignment(dtype), "items")
    f.do(f"call void @llvm.memset.p0.i64(ptr {counters}, i8 0, i64 {24 * count}, i1 false)")
    return FifoSlot(buffer, buffer.shape, counters, items, f, "0", f)


def view(s: Statements, base: FifoSlot, indices: Sequence[ir.Expr]) -> FifoSlot:
    """The FIFOs of an array at fixed leading indices."""
    rest = base.shape[len(indices) :]
    if not indices:
        return base
    offset = _flat(s, base, indices)
    return FifoSlot(base.buffer, rest, base.counters, base.items, base.home, offset, s.frame)


def _flat(s: Statements, fifo: FifoSlot, indices: Sequence[ir.Expr]) -> str:
    f, flat = s.frame, fifo.offset
    if flat.startswith("%"):
        f.use(flat, "i64", fifo.offset_home)
    for dim, expr in enumerate(indices):
        stride = prod(fifo.shape[dim + 1 :])
        step = s.index(expr)
        step = step if stride == 1 else f.op(f"mul i64 {step}, {stride}")
        flat = step if flat == "0" else f.op(f"add i64 {flat}, {step}")
    return flat


def put(s: Statements, stmt: ir.Put) -> None:
    """Append a value, once there is room."""
    value, fifo = s.value(stmt.value), s.scope.fifos[stmt.stream]
    _transfer(s, fifo, stmt.indices, stmt.span, value, None)


def get(s: Statements, stmt: ir.Get) -> None:
    """Take a value, once there is one."""
    _transfer(s, s.scope.fifos[stmt.stream], stmt.indices, stmt.span, "", stmt.target)


def _transfer(
    s: Statements, fifo: FifoSlot, indices: Sequence[ir.Expr], span: Span, value: str, target: str | None
) -> None:
    f, depth, dtype = s.frame, fifo.buffer.depth or 1, fifo.buffer.dtype
    flat = _flat(s, fifo, indices)
    base = f.use(fifo.counters, "ptr", fifo.home)
    counters = [f.op(f"getelementptr inbounds [3 x i64], ptr {base}, i64 {flat}, i64 {i}") for i in range(3)]
    _wait(s, fifo, flat, counters[2], "write" if target is None else "read", span)
    side = counters[1] if target is None else counters[0]
    position = f.op(f"load i64, ptr {side}")
    items = f.use(fifo.items, "ptr", fifo.home)
    array = f"[{depth} x {element_type(dtype)}]"
    cell = f.op(f"getelementptr inbounds {array}, ptr {items}, i64 {flat}, i64 {position}")
    if target is None:
        casts.store(f, value, cell, dtype, alignment(dtype))
    else:
        slot = s.scope.buffers[target]
        taken = casts.load(f, cell, dtype, alignment(dtype))
        casts.store(f, taken, s.pointer(slot, ()), slot.dtype, alignment(slot.dtype))
    following = f.op(f"add nuw nsw i64 {position}, 1")
    last = f.op(f"icmp eq i64 {following}, {depth}")
    f.do(f"store i64 {f.op(f'select i1 {last}, i64 0, i64 {following}')}, ptr {side}")
    fill = f.op(f"load i64, ptr {counters[2]}")
    f.do(f"store i64 {f.op(f'add nsw i64 {fill}, {1 if target is None else -1}')}, ptr {counters[2]}")


def _wait(s: Statements, fifo: FifoSlot, flat: str, count: str, kind: str, span: Span) -> None:
    """Go on when the FIFO is not empty (read) or not full (write)."""
    f, scope, buffer = s.frame, s.scope, fifo.buffer
    stuck = buffer.depth if kind == "write" else 0
    name = buffer.name.partition(".")[0]
    site = Site(scope.owner, scope.process, kind, name, buffer.depth or 0, buffer.shape, span)
    number = s.emitter.sites.site(site)
    blocked, again, woken, ready = (f.label(x) for x in ("blocked", "again", "woken", "ready"))

    def check(still: str, free: str) -> None:
        fill = f.op(f"load i64, ptr {count}")
        f.branch(f.op(f"icmp eq i64 {fill}, {stuck}"), still, free)

    check(blocked, ready)
    f.start(blocked, fall=False)
    _set_blocked(f, scope.slot, number, flat)
    if f.parent is None:
        _fail(s)
    else:
        suspend(f, again, "cleanup")
        f.start(again, fall=False)
        check(blocked, woken)
        f.start(woken, fall=False)
        _set_blocked(f, scope.slot, 0)
        _moved(f)
        f.do(f"br label %{ready}")
    f.start(ready, fall=False)


def suspend(f: Frame, resumed: str, destroyed: str, *, final: bool = False) -> None:
    """Give control back; the block ends here."""
    how = f.op(f"call i8 @llvm.coro.suspend(token none, i1 {str(final).lower()})")
    f.do(f"switch i8 {how}, label %suspend [i8 0, label %{resumed} i8 1, label %{destroyed}]")


def _fail(s: Statements) -> None:
    """End the block: nothing more can be done in this function."""
    f = s.frame
    f.do(f"store i64 {s.emitter.sites.owner(s.scope.owner)}, ptr {_state_cell(f, 1)}")
    f.can_fail = True
    f.do(f"br label %{f.fail}")


# ---------------------------------------------------------------------------------------- regions


@dataclass(slots=True)
class _Running:
    """A process while its region runs: where its coroutine handle and its end are kept."""

    process: Process
    slot: int
    start: str
    handle: str
    ended: str


def region(s: Statements, body: tuple[ir.Stmt, ...]) -> None:
    """Run the statements as processes until all have ended."""
    f = s.frame
    s = s.with_scope(s.scope.branch())
    first, processes = split_processes(body, s.emitter.effects)
    s.block(first)
    running = [_process(s, p) for p in processes]
    for r in running:
        f.do(f"store ptr null, ptr {r.handle}")
        f.do(f"store i1 false, ptr {r.ended}")
        if r.process.after:
            names = ", ".join(processes[j].label for j in r.process.after)
            _set_blocked(f, r.slot, _start_site(s, r.process, names))
    head, done, stuck, lost = (f.label(x) for x in ("round", "done", "stuck", "lost"))
    f.start(head)
    before = f.op(f"load i64, ptr {_state_cell(f, 0)}")
    for r in running:
        _turn(f, r, running)
    ends = "true"
    for r in running:
        ends = f.op(f"and i1 {ends}, {f.op(f'load i1, ptr {r.ended}')}")
    check, still = f.label("check"), f.label("still")
    f.branch(ends, done, check)
    f.start(check, fall=False)
    failed = f.op(f"icmp ne i64 {f.op(f'load i64, ptr {_state_cell(f, 1)}')}, 0")
    f.branch(failed, lost, still)
    f.start(still, fall=False)
    after = f.op(f"load i64, ptr {_state_cell(f, 0)}")
    f.branch(f.op(f"icmp eq i64 {before}, {after}"), stuck, head)
    f.start(stuck, fall=False)
    if f.parent is None:
        f.do(f"store i64 {s.emitter.sites.owner(s.scope.owner)}, ptr {_state_cell(f, 1)}")
        f.do(f"br label %{lost}")
    else:
        gone = f.label("gone")
        suspend(f, head, gone)
        f.start(gone, fall=False)
        _destroy(f, running)
        f.do("br label %cleanup")
    f.start(lost, fall=False)
    _destroy(f, running)
    f.can_fail = True
    f.do(f"br label %{f.fail}")
    f.start(done, fall=False)


def _start_site(s: Statements, process: Process, names: str) -> int:
    scope = s.scope
    return s.emitter.sites.site(
        Site(scope.owner, process.label, "start", names, 0, (), process.statement.span)
    )


def _turn(f: Frame, r: _Running, running: list[_Running]) -> None:
    """Start or resume one process, unless it has ended or must wait for others."""
    labels = (f.label(x) for x in ("check", "begin", "resume", "ended", "next"))
    check, begin, resume, end, following = labels
    f.branch(f.op(f"load i1, ptr {r.ended}"), following, check)
    f.start(check, fall=False)
    handle = f.op(f"load ptr, ptr {r.handle}")
    fresh = f.op(f"icmp eq ptr {handle}, null")
    f.branch(fresh, begin, resume)
    f.start(begin, fall=False)
    if r.process.after:
        free, ready = "true", f.label("free")
        for j in r.process.after:
            free = f.op(f"and i1 {free}, {f.op(f'load i1, ptr {running[j].ended}')}")
        f.branch(free, ready, following)
        f.start(ready, fall=False)
        _set_blocked(f, r.slot, 0)
    f.do(f"store ptr {f.op(f'call ptr {r.start}')}, ptr {r.handle}")
    _moved(f)
    f.start(resume)
    handle = f.op(f"load ptr, ptr {r.handle}")
    f.do(f"call void @llvm.coro.resume(ptr {handle})")
    f.branch(f.op(f"call i1 @llvm.coro.done(ptr {handle})"), end, following)
    f.start(end, fall=False)
    f.do(f"call void @llvm.coro.destroy(ptr {handle})")
    f.do(f"store i1 true, ptr {r.ended}")
    _moved(f)
    f.start(following)


def _destroy(f: Frame, running: list[_Running]) -> None:
    """Release the coroutines that have started and not ended."""
    for r in running:
        check, kill, following = f.label("check"), f.label("kill"), f.label("next")
        f.branch(f.op(f"load i1, ptr {r.ended}"), following, check)
        f.start(check, fall=False)
        handle = f.op(f"load ptr, ptr {r.handle}")
        f.branch(f.op(f"icmp eq ptr {handle}, null"), following, kill)
        f.start(kill, fall=False)
        f.do(f"call void @llvm.coro.destroy(ptr {handle})")
        f.start(following)


def _process(s: Statements, process: Process) -> _Running:
    """Write the coroutine of a process."""
    f, names = s.frame, s.frame.names
    child = Frame(names, f)
    scope: Scope = s.scope.branch()
    scope.process, scope.reassociate, scope.slot = process.label, False, s.emitter.sites.slot()
    inner = type(s)(child, scope, s.emitter)
    # Suspended from the start, so that the code of the process exists once, in what resumes it.
    started = child.label("started")
    suspend(child, started, "cleanup")
    child.start(started, fall=False)
    inner.block((process.statement,))
    symbol = names("@process.")
    s.emitter.functions.append(_coroutine(child, symbol))
    args = ", ".join(f"{kind} {name}" for name, kind in child.captures.items())
    handle = f.allocate("ptr", 1, 8, 8, "handle")
    ended = f.allocate("i1", 1, 1, 1, "ended")
    return _Running(process, scope.slot, f"{symbol}({args})", handle, ended)


def _coroutine(f: Frame, symbol: str) -> str:
    final, trap = f.label("final"), f.label("trap")
    f.start(final)
    suspend(f, trap, "cleanup", final=True)
    f.start(trap, fall=False)
    f.do("unreachable")
    if f.can_fail:  # stay suspended; the region looks at the state
        f.start(f.fail, fall=False)
        suspend(f, f.fail, "cleanup")
    params = ", ".join(f"{kind} {name}" for name, kind in f.captures.items())
    return "\n".join(
        [
            f"define internal ptr {symbol}({params}) presplitcoroutine nounwind {{",
            "entry:",
            "  %id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)",
            "  %size = call i64 @llvm.coro.size.i64()",
            "  %memory = call ptr @malloc(i64 %size)",
            "  %self = call ptr @llvm.coro.begin(token %id, ptr %memory)",
            *f.entry,
            *f.code,
            "cleanup:",
            *(f"  call void @free(ptr {name})" for name in f.heap),
            "  %frame = call ptr @llvm.coro.free(token %id, ptr %self)",
            "  call void @free(ptr %frame)",
            "  br label %suspend",
            "suspend:",
            "  call void @llvm.coro.end(ptr %self, i1 false, token none)",
            "  ret ptr %self",
            "}",
        ]
    )
