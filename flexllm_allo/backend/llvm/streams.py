"""FIFOs as ring buffers, and what is known of a process that waits at one.

A FIFO is three counters (read position, write position, fill) and `depth` tokens.  A process
suspends while the FIFO it wants is empty or full (`regions` resumes it).

`state` is an array of i64: a count of moves; 1 + the owner of the deadlock; then per process the
number of the site it is blocked at (0: none) and which FIFO of an array that concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from ...errors import DeadlockError, Span
from ...ir import nodes as ir
from ..containers import container_bytes
from ..deadlock import Blocked, deadlock, fifo_name
from . import casts
from .frame import FifoSlot, Frame, alignment, element_type

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs code that several processes share, and the FIFOs behind the names in that code.

    `fifos`: parameter -> name, shape and flat number of the FIFO it stands for.
    """

    owner: str
    process: str
    fifos: dict[str, tuple[str, tuple[int, ...], int]]


class Sites:
    """What the numbers in `state` mean."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.owners: list[str] = []
        self.identities: dict[int, Identity] = {}
        self.slots = 0
        self.order: list[int] = []  # the slots of processes in the order of their statements

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

    def deadlock(self, program: ir.Program, state: NDArray[Any]) -> DeadlockError:
        """The error that a returned state stands for."""
        owner = self.owners[int(state[1]) - 1]
        pairs = cast("list[tuple[int, int]]", state[2:].reshape(-1, 2).tolist())
        others = [slot for slot in range(len(pairs)) if slot not in self.order]
        slots = [slot for slot in (*others, *self.order) if pairs[slot][0]]
        found = [self._blocked(slot, *pairs[slot]) for slot in slots]
        return deadlock(program, owner, [blocked for who, blocked in found if who == owner])

    def _blocked(self, slot: int, number: int, index: int) -> tuple[str, Blocked]:
        """The owner of the process of a slot, and where the process is blocked."""
        site = self.sites[number - 1]
        identity = self.identities.get(slot)
        if site.kind == "start":
            return site.owner, Blocked(site.process, site.kind, site.name, 0, site.span)
        if identity is None:
            name = fifo_name(_short(site.name), site.shape, index)
            return site.owner, Blocked(site.process, site.kind, name, site.depth, site.span)
        name, shape, first = identity.fifos.get(site.name, (site.name, site.shape, 0))
        name = fifo_name(_short(name), shape, first + index)
        return identity.owner, Blocked(identity.process, site.kind, name, site.depth, site.span)


def _short(name: str) -> str:
    """What people call a FIFO: schedules number the copies they make (``B.1``)."""
    return name.partition(".")[0]


def state(f: Frame) -> str:
    """The name of the state array in a frame."""
    root = f
    while root.parent is not None:
        root = root.parent
    return f.use(STATE, "ptr", root)


def state_cell(f: Frame, index: int) -> str:
    """A pointer to one number of the state."""
    return f.op(f"getelementptr inbounds i64, ptr {state(f)}, i64 {index}")


def slot_cell(f: Frame, slot: int | str) -> str:
    """A pointer to what is said of a process; shared code is given it."""
    return slot if isinstance(slot, str) else state_cell(f, 2 + 2 * slot)


def set_blocked(f: Frame, slot: int | str, site: int, index: str = "0") -> None:
    """Note where a process is blocked; site 0 is nowhere."""
    cell = slot_cell(f, slot)
    f.do(f"store i64 {site}, ptr {cell}")
    f.do(f"store i64 {index}, ptr {f.op(f'getelementptr inbounds i64, ptr {cell}, i64 1')}")


def _moved(f: Frame) -> None:
    cell = state_cell(f, 0)
    count = f.op(f"load i64, ptr {cell}")
    f.do(f"store i64 {f.op(f'add i64 {count}, 1')}, ptr {cell}")


# ------------------------------------------------------------------------------------------ FIFOs


def allocate(f: Frame, buffer: ir.Buffer) -> FifoSlot:
    """Memory for an array of FIFOs, empty."""
    assert buffer.depth is not None
    count, dtype = prod(buffer.shape), buffer.dtype
    counters = f.allocate("[3 x i64]", count, 24, 8, "counters")
    elements = count * buffer.depth * prod(buffer.token)
    items = f.allocate(element_type(dtype), elements, container_bytes(dtype), alignment(dtype), "items")
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
    """Append a token, once there is room."""
    fifo, dtype = s.scope.fifos[stmt.stream], s.scope.fifos[stmt.stream].buffer.dtype
    if isinstance(stmt.value, ir.View):
        source = s.pointer(s.scope.buffers[stmt.value.buffer], stmt.value.indices)
        cell, end = _cell(s, fifo, stmt.indices, stmt.span, writes=True)
        _copy(s.frame, cell, source, fifo.buffer)
    else:
        value = s.value(stmt.value)
        cell, end = _cell(s, fifo, stmt.indices, stmt.span, writes=True)
        casts.store(s.frame, value, cell, dtype, alignment(dtype))
    end()


def get(s: Statements, stmt: ir.Get) -> None:
    """Take a token, once there is one."""
    fifo, dtype = s.scope.fifos[stmt.stream], s.scope.fifos[stmt.stream].buffer.dtype
    cell, end = _cell(s, fifo, stmt.indices, stmt.span, writes=False)
    target = s.pointer(s.scope.buffers[stmt.target], ())
    if fifo.buffer.token:
        _copy(s.frame, target, cell, fifo.buffer)
    else:
        taken = casts.load(s.frame, cell, dtype, alignment(dtype))
        casts.store(s.frame, taken, target, dtype, alignment(dtype))
    end()


def _copy(f: Frame, target: str, source: str, buffer: ir.Buffer) -> None:
    size = prod(buffer.token) * container_bytes(buffer.dtype)
    f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {size}, i1 false)")


def _cell(
    s: Statements, fifo: FifoSlot, indices: Sequence[ir.Expr], span: Span, *, writes: bool
) -> tuple[str, Callable[[], None]]:
    """The place of the next token, once the FIFO is ready, and what ends the transfer."""
    f, depth = s.frame, fifo.buffer.depth or 1
    flat = _flat(s, fifo, indices)
    base = f.use(fifo.counters, "ptr", fifo.home)
    counters = [f.op(f"getelementptr inbounds [3 x i64], ptr {base}, i64 {flat}, i64 {i}") for i in range(3)]
    _wait(s, fifo, flat, counters[2], "write" if writes else "read", span)
    side = counters[1] if writes else counters[0]
    position = f.op(f"load i64, ptr {side}")
    items = f.use(fifo.items, "ptr", fifo.home)
    cell = f.op(f"getelementptr inbounds {ring_type(fifo.buffer)}, ptr {items}, i64 {flat}, i64 {position}")

    def end() -> None:
        following = f.op(f"add nuw nsw i64 {position}, 1")
        last = f.op(f"icmp eq i64 {following}, {depth}")
        f.do(f"store i64 {f.op(f'select i1 {last}, i64 0, i64 {following}')}, ptr {side}")
        fill = f.op(f"load i64, ptr {counters[2]}")
        f.do(f"store i64 {f.op(f'add nsw i64 {fill}, {1 if writes else -1}')}, ptr {counters[2]}")

    return cell, end


def ring_type(buffer: ir.Buffer) -> str:
    """The LLVM type of the tokens of one FIFO."""
    token = element_type(buffer.dtype)
    if buffer.token:
        token = f"[{prod(buffer.token)} x {token}]"
    return f"[{buffer.depth} x {token}]"


def _wait(s: Statements, fifo: FifoSlot, flat: str, count: str, kind: str, span: Span) -> None:
    """Go on when the FIFO is not empty (read) or not full (write)."""
    f, scope, buffer = s.frame, s.scope, fifo.buffer
    stuck = buffer.depth if kind == "write" else 0
    site = Site(scope.owner, scope.process, kind, buffer.name, buffer.depth or 0, buffer.shape, span)
    number = s.emitter.sites.site(site)
    blocked, again, woken, ready = (f.label(x) for x in ("blocked", "again", "woken", "ready"))

    def check(still: str, free: str) -> None:
        fill = f.op(f"load i64, ptr {count}")
        f.branch(f.op(f"icmp eq i64 {fill}, {stuck}"), still, free)

    check(blocked, ready)
    f.start(blocked, fall=False)
    set_blocked(f, scope.slot, number, flat)
    if f.parent is None:
        fail(s)
    else:
        suspend(f, again, "cleanup")
        f.start(again, fall=False)
        check(blocked, woken)
        f.start(woken, fall=False)
        set_blocked(f, scope.slot, 0)
        _moved(f)
        f.do(f"br label %{ready}")
    f.start(ready, fall=False)


def suspend(f: Frame, resumed: str, destroyed: str, *, final: bool = False) -> None:
    """Give control back; the block ends here."""
    how = f.op(f"call i8 @llvm.coro.suspend(token none, i1 {str(final).lower()})")
    f.do(f"switch i8 {how}, label %suspend [i8 0, label %{resumed} i8 1, label %{destroyed}]")


def fail(s: Statements) -> None:
    """End the block: nothing more can be done in this function."""
    f = s.frame
    f.do(f"store i64 {s.emitter.sites.owner(s.scope.owner)}, ptr {state_cell(f, 1)}")
    f.can_fail = True
    f.do(f"br label %{f.fail}")
