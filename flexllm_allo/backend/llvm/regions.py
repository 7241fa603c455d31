"""Dataflow regions: a coroutine per process, resumed in turn until all have ended.

When a round moves nothing, a region inside a process suspends in its turn, and any other one is
deadlocked.  Processes that call the same function with FIFOs of the same depths share its code.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from ...ir import nodes as ir
from ...ir.walk import walk
from ..effects import Process, split_processes
from . import casts
from .frame import FifoSlot, Frame, Scope, Slot, alignment, register_type
from .streams import (
    Identity,
    Site,
    ring_type,
    set_blocked,
    slot_cell,
    state,
    state_cell,
    suspend,
)

if TYPE_CHECKING:
    from .emitter import Emitter
    from .statements import Statements


def region(s: Statements, body: tuple[ir.Stmt, ...], concurrent: bool = False) -> None:
    """Run the statements as processes until all have ended."""
    f = s.frame
    s = s.with_scope(s.scope.branch())
    first, processes = split_processes(body, s.emitter.effects, concurrent)
    s.block(first)
    slots = [s.emitter.sites.slot() for _ in processes]
    count = max(1, len(processes))
    handles = f.allocate("ptr", count, 8, 8, "handles")
    waits = f.allocate("i64", count, 8, 8, "waits")
    for i, (process, slot) in enumerate(zip(processes, slots, strict=True)):
        s.emitter.sites.order.append(slot)
        start = _process(s, process, slot)
        cell = f.op(f"getelementptr inbounds ptr, ptr {handles}, i64 {i}")
        f.do(f"store ptr {f.op(f'call ptr {start}')}, ptr {cell}")
        cell = f.op(f"getelementptr inbounds i64, ptr {waits}, i64 {i}")
        f.do(f"store i64 {len(process.after)}, ptr {cell}")
        if process.after:
            names = ", ".join(processes[j].label for j in process.after)
            set_blocked(f, slot, _start_site(s, process, names))
    _run(s, processes, slots, handles, waits)


def _run(s: Statements, processes: tuple[Process, ...], slots: list[int], handles: str, waits: str) -> None:
    """Rounds of turns until all processes have ended or none moves."""
    f, count = s.frame, len(processes)
    links = _links(s.emitter, processes)
    head, check, still = (f.label(x) for x in ("round", "check", "still"))
    done, stuck, lost = (f.label(x) for x in ("done", "stuck", "lost"))
    f.start(head)
    before = f.op(f"load i64, ptr {state_cell(f, 0)}")
    cells = slot_cell(f, slots[0] if slots else 0)
    places = f"ptr {handles}, ptr {waits}, ptr {links}, ptr {cells}, ptr {state(f)}"
    ended = f.op(f"call i1 @flex.round(i64 {count}, {places})")
    f.branch(ended, done, check)
    f.start(check, fall=False)
    failed = f.op(f"icmp ne i64 {f.op(f'load i64, ptr {state_cell(f, 1)}')}, 0")
    f.branch(failed, lost, still)
    f.start(still, fall=False)
    after = f.op(f"load i64, ptr {state_cell(f, 0)}")
    f.branch(f.op(f"icmp eq i64 {before}, {after}"), stuck, head)
    f.start(stuck, fall=False)
    if f.parent is None:
        f.do(f"store i64 {s.emitter.sites.owner(s.scope.owner)}, ptr {state_cell(f, 1)}")
        f.do(f"br label %{lost}")
    else:
        gone = f.label("gone")
        suspend(f, head, gone)
        f.start(gone, fall=False)
        f.do(f"call void @flex.destroy(i64 {count}, ptr {handles})")
        f.do("br label %cleanup")
    f.start(lost, fall=False)
    f.do(f"call void @flex.destroy(i64 {count}, ptr {handles})")
    f.can_fail = True
    f.do(f"br label %{f.fail}")
    f.start(done, fall=False)


def _links(emitter: Emitter, processes: tuple[Process, ...]) -> str:
    """A table of which processes wait for which: offsets by process, then those that wait for it."""
    waiting = [[j for j, p in enumerate(processes) if i in p.after] for i in range(len(processes))]
    offsets = [len(processes) + 1 + n for n in accumulate((len(w) for w in waiting), initial=0)]
    numbers = [*offsets, *(j for w in waiting for j in w)]
    name = emitter.names("@links")
    text = ", ".join(f"i64 {n}" for n in numbers)
    emitter.globals.append(f"{name} = private unnamed_addr constant [{len(numbers)} x i64] [{text}]")
    return name


def _start_site(s: Statements, process: Process, names: str) -> int:
    site = Site(s.scope.owner, process.label, "start", names, 0, (), process.statement.span)
    return s.emitter.sites.site(site)


# -------------------------------------------------------------------------------------- processes


def _process(s: Statements, process: Process, slot: int) -> str:
    """Write the coroutine of a process, if there is none yet, and return how to call it."""
    if isinstance(process.statement, ir.Call) and (fifos := _fixed_fifos(s, process.statement)) is not None:
        return _shared(s, process, process.statement, fifos, slot)
    f, names = s.frame, s.frame.names
    child = Frame(names, f)
    scope = s.scope.branch()
    scope.process, scope.reassociate, scope.slot = process.label, False, slot
    inner = type(s)(child, scope, s.emitter)
    _begin(child)
    inner.block((process.statement,))
    symbol = names("@process.")
    s.emitter.functions.append(_coroutine(child, symbol, []))
    args = ", ".join(f"{kind} {name}" for name, kind in child.captures.items())
    return f"{symbol}({args})"


def _begin(child: Frame) -> None:
    """Suspended from the start, so that the code of a process exists once, in what resumes it."""
    started = child.label("started")
    suspend(child, started, "cleanup")
    child.start(started, fall=False)


_Fixed = dict[str, tuple[FifoSlot, int]]


def _fixed_fifos(s: Statements, call: ir.Call) -> _Fixed | None:
    """The FIFO and its flat number for each FIFO parameter, where code for the callee can be shared.

    It cannot when a number is known at run time only, or when the callee has regions of its own,
    whose processes would need places in the state for every caller.
    """
    callee = s.emitter.program.function(call.func)
    found: _Fixed = {}
    for param, arg in zip(callee.params, call.args, strict=True):
        if not param.is_stream:
            continue
        assert isinstance(arg, ir.View)
        fifo, flat = s.scope.fifos[arg.buffer], 0
        for dim, index in enumerate(arg.indices):
            if not isinstance(index, ir.Const):
                return None
            flat += int(index.value) * prod(fifo.shape[dim + 1 :])
        if fifo.offset != "0":
            return None
        found[param.name] = fifo, flat
    return found if found and not _has_region(s.emitter.program, callee) else None


def _has_region(program: ir.Program, function: ir.Function) -> bool:
    if function.dataflow:
        return True
    for node in walk(function.body):
        if isinstance(node, ir.For) and node.attrs.dataflow:
            return True
        if isinstance(node, ir.Call):
            callee = program.function(node.func)
            if any(p.is_stream for p in callee.params) and _has_region(program, callee):
                return True
    return False


def _shared(s: Statements, process: Process, call: ir.Call, fifos: _Fixed, slot: int) -> str:
    """A process whose code depends on the callee and the depths of its FIFOs only."""
    f, emitter = s.frame, s.emitter
    callee = emitter.program.function(call.func)
    names = {p: (fifo.buffer.name, fifo.buffer.shape, flat) for p, (fifo, flat) in fifos.items()}
    emitter.sites.identities[slot] = Identity(s.scope.owner, process.label, names)
    key = (callee.name, *(fifo.buffer.depth for fifo, _ in fifos.values()))
    if key not in emitter.processes:
        emitter.processes[key] = _shared_coroutine(s, callee, fifos)
    args: list[str] = []
    for param, arg in zip(callee.params, call.args, strict=True):
        if param.name in fifos:
            fifo, flat = fifos[param.name]
            base = f.use(fifo.counters, "ptr", fifo.home)
            items = f.use(fifo.items, "ptr", fifo.home)
            args.append(f"ptr {f.op(f'getelementptr inbounds [3 x i64], ptr {base}, i64 {flat}')}")
            ring = ring_type(fifo.buffer)
            args.append(f"ptr {f.op(f'getelementptr inbounds {ring}, ptr {items}, i64 {flat}')}")
        elif isinstance(arg, ir.View):
            args.append(f"ptr {s.pointer(s.scope.buffers[arg.buffer], arg.indices)}")
        else:
            args.append(f"{register_type(param.dtype)} {s.value(arg)}")
    args += [f"ptr {slot_cell(f, slot)}", f"ptr {state(f)}"]
    return f"{emitter.processes[key]}({', '.join(args)})"


def _shared_coroutine(s: Statements, callee: ir.Function, fifos: _Fixed) -> str:
    names = s.frame.names
    child = Frame(names, s.frame, owns_arrays=True)
    cell = names("%cell")
    scope = Scope(callee.name, "", "", written=s.written(callee), slot=cell)
    params: list[str] = []
    scalars: list[tuple[ir.Buffer, str]] = []
    for param in callee.params:
        name = names("%a")
        if param.name in fifos:
            items = names("%a")
            buffer = replace(param, depth=fifos[param.name][0].buffer.depth)
            scope.fifos[param.name] = FifoSlot(buffer, param.shape, name, items, child, "0", child)
            params += [f"ptr {name}", f"ptr {items}"]
        elif param.shape or param in callee.outputs:
            scope.buffers[param.name] = Slot(param.dtype, param.shape, name, child)
            params.append(f"ptr {name}")
        else:
            scalars.append((param, name))
            params.append(f"{register_type(param.dtype)} {name}")
    params += [f"ptr {cell}", f"ptr {state(child)}"]
    child.captures.clear()  # the state is a parameter like the others
    _begin(child)
    for param, name in scalars:
        slot = child.local(param)
        casts.store(child, name, slot.pointer, param.dtype, alignment(param.dtype))
        scope.buffers[param.name] = slot
    inner = type(s)(child, scope, s.emitter)
    inner.block(callee.body)
    symbol = names("@process.")
    s.emitter.functions.append(_coroutine(child, symbol, params))
    return symbol


def _coroutine(f: Frame, symbol: str, params: list[str]) -> str:
    """The text of a coroutine. Its memory is aligned as arrays are, for it takes those of inlined callees."""
    final, trap = f.label("final"), f.label("trap")
    f.start(final)
    suspend(f, trap, "cleanup", final=True)
    f.start(trap, fall=False)
    f.do("unreachable")
    if f.can_fail:  # stay suspended; the region looks at the state
        f.start(f.fail, fall=False)
        suspend(f, f.fail, "cleanup")
    listed = params or [f"{kind} {name}" for name, kind in f.captures.items()]
    return "\n".join(
        [
            f"define internal ptr {symbol}({', '.join(listed)}) presplitcoroutine noinline nounwind {{",
            "entry:",
            "  %id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)",
            "  %size = call i64 @llvm.coro.size.i64()",
            "  %more = add i64 %size, 63",
            "  %lines = and i64 %more, -64",
            "  %memory = call ptr @aligned_alloc(i64 64, i64 %lines)",
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


__all__ = ["region"]
