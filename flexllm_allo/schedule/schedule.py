"""`Schedule`: an immutable program, the trace of primitives applied to it, and their methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..errors import Place, ScheduleError, ScheduleNameError, ScheduleTypeError, Span, did_you_mean
from ..ir import nodes as ir
from ..ir.printer import print_program
from ..ir.walk import buffers
from ..lowering import lower
from . import compose as composing
from . import (
    computing,
    copies,
    loops,
    memory,
    multipliers,
    narrowing,
    packing,
    reshaping,
    reuse,
    spatial,
    storing,
)
from . import dataflow as streams
from .buffers import Target
from .callers import caller_span
from .description import Description
from .flatten import flatten as _flatten
from .lanes import vectorize as _vectorize
from .loops import Axis
from .memory import Partition
from .names import LoopBand, LoopWrapper, find_function, get_loops
from .tokens import Lanes
from .trace import MockBuffer, Primitive, Trace, recorded

P = ParamSpec("P")
R = TypeVar("R")
_CUSTOMIZE = "customize the kernel, apply primitives, compose the result"
_Method = Callable[Concatenate["Schedule", P], R]


class _State:
    """What a schedule and its views share."""

    def __init__(self, program: ir.Program, inst_list: tuple[object, ...]) -> None:
        self.original = program
        self.program = program
        self.trace = Trace()
        self.inst_list = inst_list
        self.replaying: Span | None = None
        self.after: list[ir.Program] = []  # the program after each primitive of the trace
        self.composed: dict[str, object] = {}  # the schedule each called function has from `compose`


def primitive(definition: Callable[..., object]) -> Callable[[_Method[P, R]], _Method[P, R]]:
    """Make a method that records itself and, when refused, leaves the schedule as it was.

    The method's body does the work; `definition` is the function that documents it.
    """

    def decorate(method: _Method[P, R]) -> _Method[P, R]:
        @functools.wraps(method)
        def wrapper(self: Schedule, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return self._record(method, args, kwargs)  # pyright: ignore[reportPrivateUsage]

        wrapper.__doc__ = inspect.getdoc(definition)
        return wrapper

    return decorate


def wrapped_apply(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of a schedule a primitive: recorded in the trace, and undone when it is refused."""
    return primitive(method)(method)


class Schedule(Description):
    """A program under transformation.

    Primitives act in place; what they change is only which immutable program is held.  A primitive
    that is refused raises a `ScheduleError` and changes nothing.

    Args:
        program: the program to start from.
        inst_list: template arguments it was made with.
    """

    def __init__(self, program: ir.Program, inst_list: Iterable[object] = ()) -> None:
        self._state = _State(program, tuple(inst_list))
        self._func: str | None = None

    # ---- what it holds

    @property
    def program(self) -> ir.Program:
        return self._state.program

    @property
    def original(self) -> ir.Program:
        """The program before the first primitive."""
        return self._state.original

    @property
    def module(self) -> ir.Program:
        """The program; ``print(s)`` shows it as Python."""
        return self._state.program

    @property
    def trace(self) -> Trace:
        """The primitives applied so far; ``print(s.trace)`` is a function that applies them."""
        return self._state.trace

    @property
    def primitive_sequences(self) -> list[tuple[str, list[object], dict[str, object]]]:
        """The trace as Allo shows it."""
        return list(self.trace.steps())

    @property
    def inst_list(self) -> list[object]:
        return list(self._state.inst_list)

    @property
    def top_func_name(self) -> str:
        """The function that plain names are searched in."""
        return self._func or self.program.top

    @property
    def top_func(self) -> ir.Function:
        return find_function(self.program, self.top_func_name)

    def __str__(self) -> str:
        return print_program(self.program)

    def __repr__(self) -> str:
        return f"Schedule({self.top_func_name}, {len(self.trace)} primitives)"

    def get_loops(self, func: str | Callable[..., Any] | None = None) -> LoopBand:
        """The loops of a function (a name or the kernel; default: the top one), by band."""
        name = func if isinstance(func, str) else getattr(func, "__name__", None)
        return get_loops(find_function(self.program, name or self.top_func_name))

    def __getattr__(self, name: str) -> MockBuffer:
        if name.startswith("_"):
            raise AttributeError(name)
        function = self.top_func
        table = buffers(function)
        if name not in table:
            methods = [n for n in dir(type(self)) if not n.startswith("_")]
            known = [*table, *(m for m in methods if get_close_matches(name, [m]))]
            error = ScheduleNameError(
                "FX201", f'no buffer or primitive "{name}" in "{function.name}"', at=function.span,
                hint=did_you_mean(name, known),
            )  # fmt: skip
            raise _with_place(error, Place(caller_span()))
        inputs = [p.name for p in function.inputs]
        return MockBuffer(function.name, name, inputs.index(name) if name in inputs else None)

    # ---- views, replay, functions as schedules

    def function(self, name: str) -> Schedule:
        """A view of the same schedule in which plain names mean those of function `name`."""
        find_function(self.program, name)
        view = object.__new__(Schedule)
        view._state = self._state
        view._func = None if name == self.program.top else name
        return view

    def instances(self, origin: str) -> list[str]:
        """Names of the functions that are instances of the kernel `origin`."""
        return [f.name for f in self.program.functions if (f.origin or f.name) == origin]

    def apply(self, schedule: Callable[..., R], *args: Any, **params: Any) -> R:
        """Apply a function schedule: ``schedule(self, *args, **params)``. All of it, or nothing."""
        return self._all_or_nothing(lambda: schedule(self, *args, **params))

    def replay(self, trace: Iterable[Primitive]) -> None:
        """Apply the primitives of another schedule's trace here. All of them, or nothing."""
        self._all_or_nothing(lambda: [self._replay_one(p) for p in trace])

    def build(
        self,
        target: str | None = None,
        mode: str | None = None,
        project: str | None = None,
        configs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Make the program executable or emit it; see `flexllm_allo.build.build`."""
        # Backends lie above schedules, so they are looked up by name when they are wanted.
        builder = import_module("flexllm_allo.build")
        return builder.build(self.program, target, mode, project, configs, **options)

    def estimate(self, device: str = "u280", **options: Any) -> Any:
        """Cycles, resources, bandwidth and power on a card; see `flexllm_allo.estimate.estimator.estimate`.

        Example:
            >>> s.estimate("u280").cycles
        """
        # Estimates lie above schedules too.
        estimator = import_module("flexllm_allo.estimate.estimator")
        return estimator.estimate(self.program, device, trace=self.trace, **options)

    def mlir(self, locations: bool = True) -> str:
        """The program as MLIR text (affine, scf, memref, arith, math, func); see `backend.mlir`.

        Raises:
            BackendError: FX403, FIFOs, which those dialects do not have.
        """
        return import_module("flexllm_allo.backend.mlir").to_mlir(self.program, locations)

    def check_streams(self, **scalars: int) -> None:
        """Make sure that no FIFO is so shallow that the design stops; nothing is run.

        Args:
            scalars: values of scalar parameters that loop bounds depend on, by name.

        Raises:
            DeadlockError: FX303, with the processes and FIFOs that wait for each other, and the depth
                that frees them.
            EstimateError: FX921, what a process does to its FIFOs depends on data.
        """
        import_module("flexllm_allo.estimate.fifo.analysis").check_streams(self.program, scalars)

    def fifo_depths(self, full_speed: bool = True, device: str | None = None, **scalars: int) -> Any:
        """The depth that each FIFO needs, not to deadlock and not to slow the design, as a table.

        Args:
            full_speed: also find the depths that do not slow the design.
            device: a card, for the intervals, depths and latencies that an estimate finds; by default every
                loop meets its interval and every statement takes a cycle.
            scalars: values of scalar parameters that loop bounds depend on, by name.

        Raises:
            DeadlockError: FX303, no depths help.
            EstimateError: FX921, what a process does to its FIFOs depends on data.
        """
        figures = import_module("flexllm_allo.estimate.figures")
        timing = figures.fifo_timing(self.program, device) if device else None
        analysis = import_module("flexllm_allo.estimate.fifo.analysis")
        return analysis.fifo_depths(self.program, full_speed, scalars, timing)

    # ---- primitives on loops

    @primitive(loops.split)
    def split(self, axis: Axis, factor: int) -> None:
        self._set(loops.split(self.program, self.top_func_name, axis, factor))

    @primitive(loops.reorder)
    def reorder(self, *axes: Axis) -> None:
        self._set(loops.reorder(self.program, self.top_func_name, *axes))

    @primitive(loops.fuse)
    def fuse(self, *axes: Axis) -> LoopWrapper:
        program, fused = loops.fuse(self.program, self.top_func_name, *axes)
        self._set(program)
        return fused

    @primitive(computing.compute_at)
    def compute_at(self, from_loop: Axis, target_loop: Axis) -> None:
        self._set(computing.compute_at(self.program, self.top_func_name, from_loop, target_loop))

    @primitive(_flatten)
    def flatten(self, axis: Axis) -> None:
        self._set(_flatten(self.program, self.top_func_name, axis))

    @primitive(loops.unroll)
    def unroll(self, axis: Axis, factor: int = 0) -> None:
        self._set(loops.unroll(self.program, self.top_func_name, axis, factor))

    @primitive(loops.pipeline)
    def pipeline(self, axis: Axis | None = None, initiation_interval: int = 1, rewind: bool = False) -> None:
        self._set(loops.pipeline(self.program, self.top_func_name, axis, initiation_interval, rewind))

    @primitive(_vectorize)
    def vectorize(self, axis: Axis, lanes: int = 0) -> LoopWrapper | None:
        program, around = _vectorize(self.program, self.top_func_name, axis, lanes)
        self._set(program)
        return around

    @primitive(multipliers.pack_products)
    def pack_products(self, *axes: Axis) -> None:
        self._set(multipliers.pack_products(self.program, self.top_func_name, *axes))

    @primitive(loops.parallel)
    def parallel(self, axis: Axis) -> None:
        self._set(loops.parallel(self.program, self.top_func_name, axis))

    @primitive(loops.reassociate)
    def reassociate(self, axis: Axis) -> None:
        self._set(loops.reassociate(self.program, self.top_func_name, axis))

    @primitive(loops.inline)
    def inline(self, axis: str | None = None) -> None:
        self._set(loops.inline(self.program, self.top_func_name, axis))

    # ---- primitives on memory

    @primitive(memory.partition)
    def partition(
        self,
        target: Target,
        partition_type: Partition | int = Partition.Complete,
        dim: int = 0,
        factor: int = 0,
    ) -> None:
        self._set(memory.partition(self.program, self.top_func_name, target, partition_type, dim, factor))

    @primitive(memory.bind_storage)
    def bind_storage(self, target: Target, resource: str, storage_type: str | None = None) -> None:
        program = memory.bind_storage(self.program, self.top_func_name, target, resource, storage_type)
        self._set(program)

    @primitive(memory.buffer_at)
    def buffer_at(self, target: Target, axis: Axis) -> None:
        self._set(memory.buffer_at(self.program, self.top_func_name, target, axis))

    @primitive(storing.store_at)
    def store_at(self, target: Target, axis: Axis) -> None:
        self._set(storing.store_at(self.program, self.top_func_name, target, axis))

    @primitive(narrowing.narrow)
    def narrow(self, target: Target) -> None:
        self._set(narrowing.narrow(self.program, self.top_func_name, target))

    @primitive(reuse.reuse_at)
    def reuse_at(self, target: Target, axis: Axis) -> MockBuffer:
        program, buffer = reuse.reuse_at(self.program, self.top_func_name, target, axis)
        self._set(program)
        return buffer

    @primitive(reshaping.reshape)
    def reshape(self, target: Target, shape: Sequence[int]) -> None:
        self._set(reshaping.reshape(self.program, self.top_func_name, target, shape))

    @primitive(packing.pack)
    def pack(
        self, target: Target, factor: int | None = None, word_bits: int | None = None, dim: int = 0
    ) -> None:
        self._set(packing.pack(self.program, self.top_func_name, target, factor, word_bits, dim))

    # ---- primitives on dataflow

    @primitive(streams.dataflow)
    def dataflow(self, axis: str | LoopWrapper | LoopBand | None = None) -> None:
        self._set(streams.dataflow(self.program, self.top_func_name, axis))

    @primitive(streams.to)
    def to(
        self,
        target: Target,
        dst: str | LoopWrapper | Sequence[int] | None = None,
        axis: int | None = None,
        depth: int = -1,
        lanes: Lanes = 1,
    ) -> None:
        self._set(streams.to(self.program, self.top_func_name, target, dst, axis, depth, lanes))

    @primitive(copies.duplicate)
    def duplicate(self, target: Target | None = None) -> None:
        self._set(copies.duplicate(self.program, self.top_func_name, target))

    @primitive(streams.size_fifos)
    def size_fifos(self, full_speed: bool = True, device: str | None = None, **scalars: int) -> None:
        report = self.fifo_depths(full_speed, device, **scalars)
        self._set(streams.size_fifos(self.program, report.depths()))

    @primitive(spatial.unfold)
    def unfold(self, band_name: str, axes: Sequence[int]) -> list[int]:
        program, positions = spatial.unfold(self.program, self.top_func_name, band_name, axes)
        self._set(program)
        return positions

    def compose(
        self,
        schs: Schedule | Callable[..., Any] | Sequence[Schedule | Callable[..., Any]],
        id: str | None = None,
        instantiate: Sequence[object] | None = None,
    ) -> None:
        """Apply the schedule of a kernel to the instances of that kernel here.

        Every primitive is replayed, bound to the instance; the trace records them as if they had
        been given here.

        Args:
            schs: the schedule of a callee, or a list of them. A kernel of the library stands for
                the schedule that `library.KERNEL2SCHEDULE` has for it.
            id: only the instance made with that id.
            instantiate: template arguments of a library kernel; by default those of the instance here.

        Raises:
            ScheduleError: FX206, no such instance; or what the replayed primitive raises.
        """
        span = self._state.replaying or caller_span()
        listed: list[Any] = [schs]
        if isinstance(schs, list | tuple):
            listed = list(schs)  # pyright: ignore[reportUnknownArgumentType]
        for given in listed:
            try:
                other = given if isinstance(given, Schedule) else self._library(given, id, instantiate)
            except ScheduleError as error:
                raise self._placed(error, span, "compose") from None
            self._all_or_nothing(lambda other=other: self._compose(other, id, span))

    def _library(self, kernel: object, id: str | None, instantiate: Sequence[object] | None) -> Schedule:
        """A library kernel customized for its instance here, and scheduled by the library."""
        name = getattr(kernel, "__name__", None)
        if not callable(kernel) or name is None:
            message = f"The first argument must be a Schedule object, not {type(kernel).__name__}"
            raise ScheduleTypeError("FX206", message, hint=_CUSTOMIZE)
        # The library lies above schedules, so it is looked up when it is wanted.
        found = import_module("flexllm_allo.library").KERNEL2SCHEDULE.get(kernel)
        if found is None:
            raise ScheduleError("FX206", f"Cannot find schedule for kernel {name}", hint=_CUSTOMIZE)
        if instantiate is None:
            probe = ir.Function(name, (), (), origin=name)
            (instance, *_) = composing.instances(self.program, probe, id)
            bindings = self.program.function(instance).bindings
            instantiate = [value for key, value in bindings if key != "id" and not isinstance(value, str)]
        made = Schedule(lower(kernel, instantiate), instantiate)
        return found(made) or made

    # ---- how primitives run

    def _set(self, program: ir.Program) -> None:
        self._state.program = program

    def _record(self, method: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        state, func = self._state, self.top_func_name
        span = state.replaying or caller_span()
        before = state.program
        name = method.__name__
        try:
            out = method(self, *args, **kwargs)
        except ScheduleError as error:
            state.program = before
            raise self._placed(error, span, name) from None
        except BaseException:
            state.program = before
            raise
        shown = tuple(recorded(a, func) for a in args)
        named = tuple((k, recorded(v, func)) for k, v in kwargs.items())
        del state.after[len(state.trace) :]
        state.after.append(state.program)
        state.trace = Trace((*state.trace, Primitive(name, shown, named, self._func, span)))
        return out

    def _placed(self, error: ScheduleError, span: Span, name: str) -> ScheduleError:
        """The error with the schedule's line as its last place."""
        return _with_place(error, Place(span, f"primitive {len(self.trace) + 1}: {name}"))

    def _all_or_nothing(self, action: Callable[[], R]) -> R:
        state = self._state
        before = state.program, state.trace
        try:
            return action()
        except BaseException:
            state.program, state.trace = before
            raise

    def _replay_one(self, step: Primitive) -> None:
        view = self if step.func is None else self.function(step.func)
        outer = self._state.replaying
        self._state.replaying = step.span if step.span.line else outer
        try:
            getattr(view, step.name)(*step.args, **dict(step.kwargs))
        finally:
            self._state.replaying = outer

    def _compose(self, other: Schedule, id: str | None, span: Span) -> None:
        kernel = find_function(other.original, other.original.top)
        try:
            found = composing.instances(self.program, kernel, id)
        except ScheduleError as error:
            raise self._placed(error, span, "compose") from None
        for instance in found:
            self._compose_instance(other, instance)

    def _compose_instance(self, other: Schedule, instance: str) -> None:
        # Followed next to the original: functions that primitives create are matched too.
        pattern, root = other.original, other.original.top
        steps = [(s.name, s.args, s.kwargs, s.func) for s in other.trace]
        composed = self._state.composed
        first = composing.matching(pattern, root, self.program, instance)
        # Instances may share what they call: the same schedule is applied to it once.
        done = {mine for mine, theirs in first.items() if mine != root and composed.get(theirs) == steps}
        for step, after in zip(other.trace, other._state.after, strict=False):
            names = composing.matching(pattern, root, self.program, instance)
            before = {id(f) for f in pattern.functions}
            changed = {f.name for f in after.functions if id(f) not in before}
            if not changed or not changed <= done:
                self.function(instance)._replay_one(composing.renamed(step, names, instance))
            pattern = after
        composed.update({theirs: steps for mine, theirs in first.items() if mine != root})


def _with_place(error: ScheduleError, place: Place) -> ScheduleError:
    if place.span.line and all(place.span != other.span for other in error.places):
        error.places = (*error.places, place)
    return error
