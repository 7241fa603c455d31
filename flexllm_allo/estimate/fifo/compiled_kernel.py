"""The machine of `simulate` as a kernel of our own language, for long runs.

A process is a list of instructions (`compiled`); it goes on until it ends or waits, then the next one
does, until none moves.  Times are those of `simulate`, access for access.
"""

# pyright: basic
# pyright: reportAssignmentType=false

from __future__ import annotations

from ...ir.types import int32, int64


def run_processes(
    code: int32[...],
    pc: int32[...],
    now: int64[...],
    counter: int64[...],
    before: int64[...],
    times: int64[...],
    depth: int64[...],
    first: int64[...],
    size: int64[...],
    tokens: int64[...],
    head: int64[...],
    count: int64[...],
    places: int64[...],
    free: int64[...],
    freed: int64[...],
    fresh: int64[...],
    n: int32,
) -> int32:
    """How many processes have not ended when none moves any more."""
    left: int32 = n
    moved: int32 = 1
    while moved != 0 and left > 0:
        moved = 0
        for p in range(n):
            running: int32 = 1
            at: int32 = pc[p] * 8
            t: int64 = now[p]
            while running != 0 and code[at] != 0:
                op: int32 = code[at]
                a: int32 = code[at + 1]
                b: int32 = code[at + 2]
                c: int32 = code[at + 3]
                if op == 1:
                    t += counter[a]
                    at += 8
                elif op == 3:
                    counter[a] = counter[b]
                    at += 8
                elif op == 4:
                    counter[a] -= 1
                    at = c * 8 if counter[a] > 0 else at + 8
                elif op == 5:
                    for s in range(c):
                        before[a + s] = t - b + counter[code[at + 4] + s]
                    at += 8
                elif op == 6:
                    times[a] = before[b] + c
                    at += 8
                elif op == 8:
                    for s in range(b):
                        before[a + s] = times[a + s]
                    at += 8
                elif op == 9:
                    t = before[a] + b
                    at += 8
                else:
                    want: int64 = t
                    if op == 7:
                        want = times[c] + code[at + 4]
                        other: int64 = before[code[at + 5]] + code[at + 6]
                        want = max(want, other)
                    ready: int64 = -1
                    ok: int32 = 0
                    if b != 0:
                        if fresh[a] > 0:
                            fresh[a] -= 1
                            ok = 1
                        elif freed[a] > 0:
                            ready = places[first[a] + free[a]] + 1
                            free[a] = 0 if free[a] + 1 == size[a] else free[a] + 1
                            freed[a] -= 1
                            ok = 1
                    elif count[a] > 0:
                        ready = tokens[first[a] + head[a]] + 1
                        head[a] = 0 if head[a] + 1 == size[a] else head[a] + 1
                        count[a] -= 1
                        ok = 1
                    if ok != 0:
                        want = max(want, ready)
                        slot: int64 = 0
                        if b != 0:
                            slot = head[a] + count[a]
                            tokens[first[a] + (slot - size[a] if slot >= size[a] else slot)] = want
                            count[a] += 1
                        elif depth[a] > 0:
                            slot = free[a] + freed[a]
                            places[first[a] + (slot - size[a] if slot >= size[a] else slot)] = want
                            freed[a] += 1
                        if op == 7:
                            times[c + 1] = want
                        else:
                            t = want + 1
                        moved = 1
                        at += 8
                    else:
                        running = 0
            now[p] = t
            if running != 0 and pc[p] > 0:
                left -= 1
                moved = 1
                at = 0
            pc[p] = at // 8
    return left
