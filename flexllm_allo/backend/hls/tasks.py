"""A program in TAPA's form: functions that only make FIFOs and start tasks, above functions that compute.

TAPA knows two kinds of tasks.  An *upper* task declares channels and invokes other tasks, nothing else;
a *leaf* is plain HLS C++.  So a dataflow function becomes an upper task where its processes talk through
FIFOs and memory alone: loops of its body become functions of their own, and processes that wait for one
another's arrays become one leaf.  Any other function stays as it is, and a leaf calls it: Vitis HLS
compiles the dataflow regions inside of leaves as ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ...ir import nodes as ir
from ...ir.channels import Ends, endpoints
from ...ir.memo import remembered
from ...ir.merge import merge_instances
from ...ir.walk import Node, buffers, rewrite_body, walk
from ..effects import Effects, Process, split_processes
from .duplicates import without_duplicates
from .outline import Outline, fits_invoke, outline
from .trim import trimmed


@dataclass(frozen=True, slots=True)
class TaskProgram:
    """A program and the names of its functions that are upper tasks; the top is one of them."""

    program: ir.Program
    uppers: frozenset[str]


@remembered
def task_program(program: ir.Program) -> TaskProgram:
    """The program with its top function, and all that can, as upper tasks."""
    maker = _Maker(program)
    top = maker.task(program.function(program.top))
    if top.name not in maker.uppers:
        top = maker.above(top)
    needed = ir.Program((*program.functions, *maker.made), top.name)
    merged = merge_instances(replace(needed, functions=_reachable(needed)))
    left = {f.name for f in merged.functions}
    names = {new: old for old, new in maker.named().items() if new in left and old not in left}
    single = without_duplicates(_renamed(merged, names))
    uppers = {names.get(n, n) for n in maker.uppers} & {f.name for f in single.functions}
    return TaskProgram(trimmed(single, uppers), frozenset(uppers))


def _renamed(program: ir.Program, names: dict[str, str]) -> ir.Program:
    def call(node: Node) -> Node | None:
        return (
            replace(node, func=names[node.func]) if isinstance(node, ir.Call) and node.func in names else None
        )

    functions = tuple(
        replace(f, name=names.get(f.name, f.name), body=rewrite_body(f.body, call)) for f in program.functions
    )
    return ir.Program(functions, names.get(program.top, program.top))


def _reachable(program: ir.Program) -> tuple[ir.Function, ...]:
    """What the top function needs, callees first."""
    found: dict[str, ir.Function] = {}

    def visit(name: str) -> None:
        function = program.function(name)
        for node in walk(function.body):
            if isinstance(node, ir.Call) and node.func not in found:
                visit(node.func)
        found[name] = function

    visit(program.top)
    return tuple(found.values())


@dataclass(slots=True)
class _Maker:
    """Makes functions tasks; a function that is an upper task gets a new name, for it may be called too."""

    program: ir.Program
    made: list[ir.Function] = field(default_factory=list[ir.Function])
    uppers: set[str] = field(default_factory=set[str])
    effects: Effects = field(init=False)
    _tasks: dict[str, ir.Function] = field(default_factory=dict[str, ir.Function])
    _ends: dict[str, dict[str, Ends]] = field(default_factory=dict[str, dict[str, Ends]])
    _called: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.effects = Effects(self.program)
        # Functions that something may call, as opposed to invoke: their names stay theirs.
        self._called = {f.name for f in self.program.functions}

    def task(self, function: ir.Function) -> ir.Function:
        """The function as a task: an upper one if its body allows, else itself."""
        if function.name not in self._tasks:
            body = self._upper_body(function)
            if body is None:
                self._tasks[function.name] = function
            else:
                new = replace(function, name=self.fresh(f"{function.name}_tasks"), body=body, concurrent=True)
                self._add_upper(new)
                self._tasks[function.name] = new
        return self._tasks[function.name]

    def above(self, function: ir.Function) -> ir.Function:
        """An upper task that invokes one leaf, for a top function that computes."""
        leaf = replace(function, name=self.fresh(f"{function.name}_leaf"))
        self.made.append(leaf)
        args = tuple(_passed(b, b in leaf.outputs) for b in leaf.params)
        new = replace(
            function,
            name=self.fresh(f"{function.name}_tasks"),
            body=(ir.Call(leaf.name, args, leaf.span),),
            dataflow=False,
            concurrent=True,
        )
        self._add_upper(new)
        self._tasks[function.name] = new
        return new

    def named(self) -> dict[str, str]:
        """The names of upper tasks by those of the functions they were made of."""
        return {old: task.name for old, task in self._tasks.items() if task.name in self.uppers}

    def fresh(self, name: str) -> str:
        text, number = name, 0
        while text in self._called:
            number += 1
            text = f"{name}_{number}"
        self._called.add(text)
        return text

    def ends(self, function: ir.Function) -> dict[str, Ends]:
        """Which ends of its FIFOs a function holds."""
        if function.name not in self._ends:
            self._ends[function.name] = endpoints(function, (*self.program.functions, *self.made))
        return self._ends[function.name]

    def _add_upper(self, function: ir.Function) -> None:
        self.made.append(function)
        self.uppers.add(function.name)

    def _upper_body(self, function: ir.Function) -> tuple[ir.Stmt, ...] | None:
        """FIFOs and invocations; None if the processes share more than FIFOs and memory."""
        work = [s for s in function.body if not isinstance(s, ir.Alloc)]
        single = len(work) == 1 and isinstance(work[0], ir.Call)
        if function.extern is not None or not (function.dataflow or function.concurrent or single):
            return None
        first, processes = split_processes(function.body, self.effects, function.concurrent)
        allocs = [s for s in first if isinstance(s, ir.Alloc)]
        groups = _sequences(processes)
        if len(allocs) != len(first) or groups is None:
            return None
        locals_ = self._owned(allocs, groups)
        if locals_ is None:
            return None
        before = len(self.made)
        calls = [self._invocation(function, g, own) for g, own in zip(groups, locals_, strict=True)]
        complete = [c for c in calls if c is not None]
        if len(complete) < len(calls) or not self._one_end_each(function, complete):
            del self.made[before:]
            self.uppers &= {f.name for f in self.made}
            self._tasks = {k: v for k, v in self._tasks.items() if v.name == k or v.name in self.uppers}
            return None
        used = {arg.buffer for call in complete for arg in call.args if isinstance(arg, ir.View)}
        fifos = [a for a in allocs if a.buffer.is_stream and a.buffer.name in used]
        return (*fifos, *complete)

    def _owned(
        self, allocs: Sequence[ir.Alloc], groups: Sequence[list[ir.Stmt]]
    ) -> list[list[ir.Alloc]] | None:
        """The local arrays of each group; None if two groups share one that is written."""
        owned: list[list[ir.Alloc]] = [[] for _ in groups]
        accesses = [self.effects.of_body(tuple(group)) for group in groups]
        for alloc in allocs:
            name = alloc.buffer.name
            if alloc.buffer.is_stream:
                continue
            users = [i for i, a in enumerate(accesses) if name in a.reads | a.writes]
            if len(users) > 1 and (alloc.static or any(name in accesses[i].writes for i in users)):
                return None
            for i in users:
                owned[i].append(alloc)
        return owned

    def _invocation(
        self, function: ir.Function, group: list[ir.Stmt], local: list[ir.Alloc]
    ) -> ir.Call | None:
        """The call that starts a group as a task."""
        call = group[0]
        if len(group) == 1 and isinstance(call, ir.Call) and not local:
            callee = self.program.function(call.func)
            if callee.extern is None and fits_invoke(call, function):
                task = self.task(callee)
                label = call.label or (callee.name if task.name != callee.name else "")
                return replace(call, func=task.name, label=label) if self._is_one_way(task) else None
        found: Outline | None = outline(function, group, local, self.effects, self.fresh)
        if found is None:
            return None
        self.made.append(found.function)
        return found.call if self._is_one_way(found.function) else None

    def _is_one_way(self, task: ir.Function) -> bool:
        """Whether the task only reads or only writes each of its FIFOs."""
        ends = self.ends(task)
        return not any(all(ends.get(b.name, (None,))) for b in task.params if b.is_stream)

    def _one_end_each(self, function: ir.Function, calls: Iterable[ir.Call]) -> bool:
        """Whether every FIFO has one writer and one reader, an array of them being used whole or singly."""
        table = {f.name: f for f in (*self.program.functions, *self.made)}
        known = buffers(function)
        held: Counter[tuple[str, str]] = Counter()
        whole: dict[str, set[bool]] = {}
        for call in calls:
            callee = table[call.func]
            for param, arg in zip(callee.params, call.args, strict=True):
                if not (param.is_stream and isinstance(arg, ir.View)):
                    continue
                writes, reads = self.ends(callee).get(param.name, (None, None))
                if not (writes or reads):
                    continue
                text = f"{arg.buffer}{[getattr(i, 'value', None) for i in arg.indices]}"
                held[text, "writes" if writes else "reads"] += 1
                whole.setdefault(arg.buffer, set()).add(not arg.indices and bool(known[arg.buffer].shape))
        return max(held.values(), default=0) <= 1 and all(len(kinds) == 1 for kinds in whole.values())


def _sequences(processes: Sequence[Process]) -> list[list[ir.Stmt]] | None:
    """Processes that wait for one another, as one sequence; None if such a group is not one."""
    group_of = list(range(len(processes)))
    for j, process in enumerate(processes):
        for i in process.after:
            old, new = sorted((group_of[i], group_of[j]), reverse=True)
            group_of = [new if g == old else g for g in group_of]
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(group_of):
        groups.setdefault(group, []).append(i)
    for members in groups.values():
        earlier: dict[int, set[int]] = {}
        for j in members:
            direct = set(processes[j].after)
            earlier[j] = direct.union(*(earlier[i] for i in direct))
            if earlier[j] != {i for i in members if i < j}:
                return None
    return [[processes[i].statement for i in members] for members in groups.values()]


def _passed(buffer: ir.Buffer, is_result: bool) -> ir.Expr | ir.View:
    """A parameter handed on as it is."""
    if buffer.shape or buffer.is_stream or is_result:
        return ir.View(buffer.name)
    return ir.Load(buffer.name, (), buffer.dtype)


__all__ = ["TaskProgram", "task_program"]
