"""Random processes that talk through FIFOs, as IR: some end, some deadlock, by order, depth or number."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ir_build import (
    add,
    array,
    call,
    const,
    fifo,
    function,
    get,
    index,
    load,
    local,
    loop,
    program,
    put,
    store,
)

from flexllm_allo.estimate.fifo.behaviour import Behaviours, Timing
from flexllm_allo.ir import nodes as ir


@dataclass(frozen=True)
class Share:
    """`tokens` accesses to one FIFO by a process."""

    stream: int
    put: bool
    tokens: int


def graph(r: random.Random, *, tokens: int = 6, pipelined: bool = True) -> ir.Program:
    """Two to four processes; a FIFO carries bursts, in loops of their own or shared ones.

    Some share an array, so that one waits for the other to end; some are together in a function that
    is a region, or a sequence, of its own.
    """
    count = r.randint(2, 4)
    shares: list[list[Share]] = [[] for _ in range(count)]
    setup: list[ir.Stmt] = []
    forward = r.random() < 0.7
    for s in range(r.randint(1, 4)):
        writer, reader = sorted(r.sample(range(count), 2)) if forward else r.sample(range(count), 2)
        setup.append(ir.Alloc(fifo(f"s{s}", r.randint(1, 4))))
        total = r.randint(1, tokens) * r.choice((1, 2, 3))
        for process, is_put in ((writer, True), (reader, False)):
            extra = r.random() < 0.04 and not is_put
            for part in _parts(r, total + extra):
                shares[process].append(Share(s, is_put, part))
    functions, calls = [], []
    names = [a.buffer.name for a in setup if isinstance(a, ir.Alloc)]
    for n, todo in enumerate(shares):
        if r.random() < 0.6:
            r.shuffle(todo)
        body = [_loop(r, k, group, pipelined) for k, group in enumerate(_groups(r, todo))]
        functions.append(function(f"p{n}", [array("sum", 1), *(fifo(s) for s in names)], local("v"), *body))
        calls.append(call(f"p{n}", f"sum{n}", *names))
    if r.random() < 0.15:
        first = r.randrange(count - 1)
        calls[first + 1] = call(f"p{first + 1}", f"sum{first}", *names)
    params = [array(f"sum{n}", 1) for n in range(count)]
    if r.random() < 0.4:
        begin = r.randrange(count - 1)
        end = r.randint(begin + 2, count)
        region = r.random() < 0.7
        inside = function("inside", [*params, *map(fifo, names)], *calls[begin:end], dataflow=region)
        functions.append(inside)
        calls[begin:end] = [call("inside", *(f"sum{n}" for n in range(count)), *names)]
    return program(*functions, function("top", params, *setup, *calls, dataflow=True))


def _parts(r: random.Random, total: int) -> list[int]:
    if total > 1 and r.random() < 0.5:
        cut = r.randint(1, total - 1)
        return [cut, total - cut]
    return [total]


def _groups(r: random.Random, todo: list[Share]) -> list[list[Share]]:
    """Neighbours of the same length may share a loop."""
    groups: list[list[Share]] = []
    for share in todo:
        if groups and groups[-1][0].tokens == share.tokens and r.random() < 0.7:
            groups[-1].append(share)
        else:
            groups.append([share])
    return groups


def _loop(r: random.Random, k: int, group: list[Share], pipelined: bool) -> ir.For:
    body: list[ir.Stmt] = []
    for share in group:
        line = 100 * share.put + share.stream
        if share.put:
            body.append(put(f"s{share.stream}", add(load("sum", index(0)), const(k)), line=line))
        else:
            taken = ir.Get("v", f"s{share.stream}", (), get("v", "s", line=line)[1].span)
            body += [taken, store("sum", index(0), add(load("sum", index(0)), load("v")))]
    if r.random() < 0.3:
        body.append(store("sum", index(0), const(3)))
    tokens = group[0].tokens
    if tokens % 2 == 0 and r.random() < 0.4:
        made = loop(f"o{k}", 2, loop(f"i{k}", tokens // 2, *body))
    else:
        made = loop(f"i{k}", tokens, *body)
    return _pipelined(made, r.choice((1, 1, 2, 3))) if pipelined and r.random() < 0.7 else made


def _pipelined(made: ir.For, ii: int) -> ir.For:
    """The innermost loop pipelined."""
    (*before, last) = made.body
    if isinstance(last, ir.For):
        return replace(made, body=(*before, _pipelined(last, ii)))
    return replace(made, attrs=replace(made.attrs, pipeline=ii))


def timing(depth: int = 4) -> Timing:
    """A store takes a cycle, an iteration of a pipelined loop `depth`."""
    return Timing(lambda loop: (loop.attrs.pipeline or 1, depth), lambda stmt, known: 1)


def behaviour(p: ir.Program, depth: int = 4):
    return Behaviours(p, timing(depth)).of(p.top)
