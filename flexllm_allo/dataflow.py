"""Dataflow regions: kernels that run at the same time and talk through FIFOs.

    import flexllm_allo.dataflow as df

    @df.region()
    def top(A: int32[16], B: int32[16]):
        pipe: Stream[int32, 4]

        @df.kernel(mapping=[1], args=[A])
        def producer(a: int32[16]):
            for i in range(16):
                pipe.put(a[i])

        @df.kernel(mapping=[1], args=[B])
        def consumer(b: int32[16]):
            for i in range(16):
                b[i] = pipe.get() + 1

    df.build(top, target="simulator")(A, B)

A kernel has one instance for every point of its `mapping`; `get_pid` tells which one is compiled.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .build import build as build_program
from .customize import Instantiate, lower
from .dsl import intrinsic
from .errors import TargetError, UsageError, did_you_mean
from .frontend.names import Names, caller_names
from .frontend.options import Options
from .ir import nodes as ir
from .ir.walk import walk
from .schedule.schedule import Schedule

F = TypeVar("F", bound=Callable[..., Any])

TARGETS = ("simulator", "llvm", "vhls", "vitis_hls", "tapa")


@intrinsic("df.region")
def region() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a dataflow region. Calling it runs the simulator on NumPy arrays, in place."""
    return _simulated


@intrinsic("df.kernel")
def kernel(
    mapping: Sequence[int] = (), args: Sequence[Any] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of a region a kernel with an instance for each point of a mesh.

    Args:
        mapping: the extents of the mesh, one to three.
        args: the arguments of the region for the kernel's parameters, in order. Scalars and streams
            of the region are visible by name.
    """
    del mapping, args  # the compiler reads them from the source
    return _simulated


def _simulated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, which runs the simulator when called."""
    modules: dict[ir.Program, Any] = {}

    @functools.wraps(fn)
    def simulate(*args: Any) -> Any:
        frame = inspect.currentframe()
        program = lower(fn, (), caller_names(frame.f_back if frame else None))
        if program not in modules:
            modules.clear()
            modules[program] = build_program(program, "llvm")
        return modules[program](*args)

    return simulate


@intrinsic("df.get_pid")
def get_pid() -> Any:
    """The place of an instance in its mesh, as compile-time constants: ``i, j = df.get_pid()``."""
    return _compiled_only("get_pid")


@intrinsic("df.gather")
def gather(streams: Sequence[Any]) -> Any:
    """Read one token from each of several streams, into an array with a leading dimension."""
    del streams
    return _compiled_only("gather")


@intrinsic("df.scatter")
def scatter(array: Any, streams: Sequence[Any]) -> None:
    """Write one slice of an array (along its first dimension) to each of several streams."""
    del array, streams
    _compiled_only("scatter")


def _compiled_only(name: str) -> NoReturn:
    raise UsageError(
        "FX703", f"df.{name} works in a kernel only", hint="call the region to run the simulator"
    )


# ----------------------------------------------------------------------------- schedules, targets


def customize(
    func: Callable[..., Any],
    enable_tensor: bool = False,
    opt_default: bool = False,
    *,
    instantiate: Instantiate | None = None,
) -> Schedule:
    """A schedule of a region: functions are the region and the instances of its kernels.

    Args:
        enable_tensor: accepted for Allo's programs; see `frontend.options.Options`.
        opt_default: pipeline every innermost loop (`df_primitive_default`).
        instantiate: template arguments of the region.

    Raises:
        FrontendError: the region breaks a rule of the language; the error shows the line.
        StreamError: FX302, a stream has several producers or consumers.
    """
    frame = inspect.currentframe()
    names = caller_names(frame.f_back if frame else None)
    schedule = _customized(func, names, enable_tensor, instantiate)
    return df_primitive_default(schedule) if opt_default else schedule


def _customized(
    func: Callable[..., Any], names: Names, enable_tensor: bool, instantiate: Instantiate | None
) -> Schedule:
    given: Instantiate = () if instantiate is None else instantiate
    program = lower(func, given, names, Options(enable_tensor=enable_tensor))
    return Schedule(program, given.values() if isinstance(given, Mapping) else given)


def df_primitive_default(schedule: Schedule) -> Schedule:
    """Pipeline every innermost loop of every function with initiation interval 1 and rewind."""
    for function in schedule.program.functions:
        view = schedule.function(function.name)
        for band in view.get_loops().loops.values():
            for loop in band.loops.values():  # pyright: ignore
                if _innermost(function, loop.loop):  # pyright: ignore
                    view.pipeline(loop, rewind=True)  # pyright: ignore
    return schedule


def _innermost(function: ir.Function, var: str) -> bool:
    loops = [n for n in walk(function.body) if isinstance(n, ir.For) and n.var == var]
    return all(not any(isinstance(n, ir.For) for n in walk(loop.body)) for loop in loops)


def move_stream_to_interface(schedule: Schedule, *_: Any, **__: Any) -> Schedule:
    """Streams are parameters of the instances from the start, so there is nothing to move."""
    return schedule


def build(
    func: Callable[..., Any] | Schedule,
    target: str = "vitis_hls",
    mode: str | None = "csim",
    project: str | Path | None = "top.prj",
    configs: dict[str, Any] | None = None,
    wrap_io: bool = True,
    enable_tensor: bool = False,
    mapping_primitives: Any = None,
    profile: bool = False,
    warmup: int = 20,
    num_iters: int = 100,
    trace: Any = None,
    trace_size: int = 4096,
    device_type: str | None = None,
) -> Any:
    """Build a region (or a schedule of one).

    Args:
        target: "simulator" or "llvm" (the CPU, with bounded FIFOs), "vhls" (HLS C++ text),
            "vitis_hls" or "tapa" (a project).
        mode, project, configs, wrap_io: for projects, see `flexllm_allo.build.build`.
        mapping_primitives, warmup, num_iters, trace_size, device_type: Allo's options of the AIE target.
        profile, trace: refused, they exist for that target only.

    Raises:
        TargetError: FX402, the target does not exist or is another vendor's; `profile` or `trace`.
        FrontendError, StreamError: as `customize`.
    """
    del mapping_primitives, warmup, num_iters, trace_size, device_type
    if target == "aie":
        hint = "simulator runs the region on the CPU, vitis_hls makes an FPGA project"
        raise TargetError("FX402", "Target aie is not supported by this engine", hint=hint)
    if profile or trace:
        what = "Profiling" if profile else "Tracing"
        raise TargetError("FX402", f"{what} is only supported for AIE target")
    if isinstance(func, Schedule):
        schedule = func
    else:
        frame = inspect.currentframe()
        schedule = _customized(func, caller_names(frame.f_back if frame else None), enable_tensor, None)
    match target:
        case "simulator" | "llvm":
            return build_program(schedule.program, "llvm")
        case "vhls":
            return build_program(schedule.program, "vhls")
        case "vitis_hls" | "tapa":
            path = Path(project).resolve() if project is not None else None
            return build_program(schedule.program, target, mode, path, configs, wrap_io=wrap_io)
        case _:
            message = f"Target {target} is not supported"
            raise TargetError("FX402", message, hint=did_you_mean(target, TARGETS))


__all__ = [
    "build",
    "customize",
    "df_primitive_default",
    "gather",
    "get_pid",
    "kernel",
    "move_stream_to_interface",
    "region",
    "scatter",
]
