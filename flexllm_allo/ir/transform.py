"""``allo.ir.transform``: loop handles and look-ups in a program, under Allo's path."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..lazy import lazy
from . import nodes as ir

__getattr__ = lazy(__name__, {"LoopBand": "schedule.names", "LoopWrapper": "schedule.names"})


def get_affine_loop_nests(func: ir.Function) -> Any:
    """The bands of a function, as `Schedule.get_loops` gives them."""
    return import_module("flexllm_allo.schedule.names").get_loops(func)


def find_loop_in_bands(func: ir.Function, axis: Any) -> tuple[str, str]:
    """The names of the band and of the loop that an axis denotes.

    Raises:
        ScheduleNameError: FX201, there is no such loop, or several.
    """
    program = ir.Program((func,), func.name)
    site = import_module("flexllm_allo.schedule.names").find_loop(program, func.name, axis)
    return site.band, site.name


def find_buffer(module: ir.Program, target: Any) -> tuple[ir.Function, ir.Buffer]:
    """The function and the buffer that a `MockBuffer` or ``"func:name"`` denotes.

    Raises:
        ScheduleNameError: FX201, there is no such buffer.
    """
    return import_module("flexllm_allo.schedule.buffers").find_buffer(module, module.top, target)


def find_func_in_module(module: ir.Program, func_name: str) -> ir.Function | None:
    """The function of that name, or None."""
    return next((f for f in module.functions if f.name == func_name), None)
