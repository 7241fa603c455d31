"""Threads that share the iterations of parallel loops.

``flex.parallel(body, environment, lower, upper, grain)`` runs ``body(environment, from, to)`` over pieces of
``lower .. upper``, on the calling thread and on workers that take the next piece when they are done
with one.  A loop inside a parallel loop, and a second caller at the same time, run alone.

Workers are Python threads inside a call that gives the interpreter's lock back.  They watch for work
while calls of the module come one after the other, then sleep in Python until the next one.

The number of threads is the number of processors this process may use, at most `MOST`, or
``FLEXLLM_THREADS``.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import llvmlite.binding as llvm  # pyright: ignore[reportMissingTypeStubs]

from ...errors import UsageError

MOST = 16
SYMBOL = "flex.parallel"
_PATIENCE = 20_000
"""How often a worker looks for work before it sleeps: some ten milliseconds."""

_IDLE_SPINS, _JOIN_SPINS = 4000, 1000
"""How often a worker without work, and a caller whose workers are not done, look before they yield."""

# A pool is an array of i64, each of these on a cache line of its own:
# open (a job may be entered), next (iteration), busy (workers inside the job), lock (a job is under way),
# then what the job is: body, environment, upper, grain.
# A worker that says it is busy and then finds the job open is waited for before the job's fields change.
_TEXT = """
@pool = global [40 x i64] zeroinitializer, align 64
declare i32 @sched_yield()
{declaration}

; Waiting is spinning at first, then giving the processor to whoever else wants it.
define internal i64 @rest(i64 %tries, i64 %spins) alwaysinline nounwind {
entry:
  {pause}
  %next = add i64 %tries, 1
  %early = icmp slt i64 %next, %spins
  br i1 %early, label %end, label %yield
yield:
  %ignored = call i32 @sched_yield()
  br label %end
end:
  ret i64 %next
}

define internal void @pieces(ptr %pool) nounwind {
entry:
  %next.at = getelementptr i64, ptr %pool, i64 8
  %body.at = getelementptr i64, ptr %pool, i64 32
  %env.at = getelementptr i64, ptr %pool, i64 33
  %upper.at = getelementptr i64, ptr %pool, i64 34
  %grain.at = getelementptr i64, ptr %pool, i64 35
  %body = load ptr, ptr %body.at
  %env = load ptr, ptr %env.at
  %upper = load i64, ptr %upper.at
  %grain = load i64, ptr %grain.at
  br label %take
take:
  %from = atomicrmw add ptr %next.at, i64 %grain seq_cst
  %some = icmp slt i64 %from, %upper
  br i1 %some, label %run, label %done
run:
  %far = add i64 %from, %grain
  %over = icmp sgt i64 %far, %upper
  %to = select i1 %over, i64 %upper, i64 %far
  call void %body(ptr %env, i64 %from, i64 %to)
  br label %take
done:
  ret void
}

define void @work(i64 %patience) nounwind {
entry:
  %pool = getelementptr i64, ptr @pool, i64 0
  %next.at = getelementptr i64, ptr %pool, i64 8
  %busy.at = getelementptr i64, ptr %pool, i64 16
  %upper.at = getelementptr i64, ptr %pool, i64 34
  br label %look
look:
  %idle = phi i64 [ 0, %entry ], [ 0, %leave ], [ %idle.next, %rest ]
  %open = load atomic i64, ptr %pool acquire, align 8
  %is.open = icmp ne i64 %open, 0
  br i1 %is.open, label %peek, label %wait
peek:
  %next = load atomic i64, ptr %next.at monotonic, align 8
  %upper = load atomic i64, ptr %upper.at monotonic, align 8
  %left = icmp slt i64 %next, %upper
  br i1 %left, label %enter, label %wait
enter:
  %before = atomicrmw add ptr %busy.at, i64 1 seq_cst
  %still = load atomic i64, ptr %pool seq_cst, align 8
  %in = icmp ne i64 %still, 0
  br i1 %in, label %job, label %leave
job:
  call void @pieces(ptr %pool)
  br label %leave
leave:
  %after = atomicrmw sub ptr %busy.at, i64 1 seq_cst
  br label %look
wait:
  %tired = icmp sge i64 %idle, %patience
  br i1 %tired, label %end, label %rest
rest:
  %idle.next = call i64 @rest(i64 %idle, i64 {idle_spins})
  br label %look
end:
  ret void
}

define void @parallel(ptr %body, ptr %env, i64 %lower, i64 %upper, i64 %grain) nounwind {
entry:
  %pool = getelementptr i64, ptr @pool, i64 0
  %busy.at = getelementptr i64, ptr %pool, i64 16
  %lock.at = getelementptr i64, ptr %pool, i64 24
  %old = cmpxchg ptr %lock.at, i64 0, i64 1 seq_cst seq_cst
  %mine = extractvalue { i64, i1 } %old, 1
  br i1 %mine, label %share, label %alone
alone:
  call void %body(ptr %env, i64 %lower, i64 %upper)
  ret void
share:
  %next.at = getelementptr i64, ptr %pool, i64 8
  %body.at = getelementptr i64, ptr %pool, i64 32
  %env.at = getelementptr i64, ptr %pool, i64 33
  %upper.at = getelementptr i64, ptr %pool, i64 34
  %grain.at = getelementptr i64, ptr %pool, i64 35
  store ptr %body, ptr %body.at
  store ptr %env, ptr %env.at
  store atomic i64 %upper, ptr %upper.at monotonic, align 8
  store i64 %grain, ptr %grain.at
  store atomic i64 %lower, ptr %next.at monotonic, align 8
  store atomic i64 1, ptr %pool seq_cst, align 8
  call void @pieces(ptr %pool)
  store atomic i64 0, ptr %pool seq_cst, align 8
  br label %join
join:
  %held = phi i64 [ 0, %share ], [ %held.next, %hold ]
  %busy = load atomic i64, ptr %busy.at seq_cst, align 8
  %none = icmp eq i64 %busy, 0
  br i1 %none, label %finish, label %hold
hold:
  %held.next = call i64 @rest(i64 %held, i64 {join_spins})
  br label %join
finish:
  store atomic i64 0, ptr %lock.at seq_cst, align 8
  ret void
}
"""


def thread_count() -> int:
    """Threads that work on a parallel loop, the caller's included.

    Raises:
        UsageError: FX703, ``FLEXLLM_THREADS`` is no positive number.
    """
    wanted = os.environ.get("FLEXLLM_THREADS", "")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise UsageError("FX703", f"FLEXLLM_THREADS is {wanted!r}", hint="a number of threads, 1 or more")
        return int(wanted)
    able = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(len(able), MOST)


class Pool:
    """The workers of this process. They are started at the first `wake`."""

    def __init__(self) -> None:
        text = _TEXT
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        text = text.replace("{declaration}", "declare void @llvm.x86.sse2.pause()" if x86 else "")
        text = text.replace("{pause}", "call void @llvm.x86.sse2.pause()" if x86 else "")
        text = text.replace("{idle_spins}", str(_IDLE_SPINS)).replace("{join_spins}", str(_JOIN_SPINS))
        binding = cast(Any, llvm)
        module = binding.parse_assembly(text)
        module.verify()
        machine = binding.Target.from_default_triple().create_target_machine(opt=2, jit=True)
        self._engine = binding.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        self.address = int(self._engine.get_function_address("parallel"))
        work = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self._engine.get_function_address("work"))
        self._work = cast(Callable[[int], None], work)
        self._memory = int(self._engine.get_global_value_address("pool"))
        self._lock = threading.Lock()
        self._start = threading.Semaphore(0)
        self._threads = 0
        self._sleeping = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def wake(self) -> None:
        """Have as many workers at hand as `thread_count` says."""
        if not self._sleeping and self._threads:
            return
        with self._lock:
            for _ in range(thread_count() - 1 - self._threads):
                threading.Thread(target=self._loop, name="flexllm-worker", daemon=True).start()
                self._threads += 1
            self._start.release(self._sleeping) if self._sleeping else None
            self._sleeping = 0

    def _loop(self) -> None:
        while True:
            self._work(_PATIENCE)
            with self._lock:
                self._sleeping += 1
            self._start.acquire()

    def _forget(self) -> None:
        """A forked process has none of its parent's threads."""
        ctypes.memset(self._memory, 0, 40 * 8)
        self._lock = threading.Lock()
        self._start = threading.Semaphore(0)
        self._threads = self._sleeping = 0


@cache
def pool() -> Pool:
    """The one pool of this process."""
    made = Pool()
    cast(Any, llvm).add_symbol(SYMBOL, made.address)
    return made
