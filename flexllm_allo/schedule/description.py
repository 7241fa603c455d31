"""What a schedule says of its program under the names that Allo's programs read."""

from __future__ import annotations

from ..errors import ScheduleNameError
from ..ir import nodes as ir
from ..ir.walk import buffers, walk
from ..memory import DTensor
from .buffers import aliases
from .memory import Partition
from .names import find_function


class Description:
    """Mixed into `Schedule`: views of the program as plain data. They are computed when asked for."""

    @property
    def program(self) -> ir.Program:
        raise NotImplementedError

    @property
    def func_args(self) -> dict[str, list[DTensor]]:
        """The arguments of every function: name, shape and element type."""
        return {f.name: [DTensor(b.name, b.shape, b.dtype) for b in f.inputs] for f in self.program.functions}

    @property
    def partitioned_arrays(self) -> dict[str, list[tuple[Partition, int, int]]]:
        """``"f:A"`` -> how each dimension is partitioned: kind, dimension (from 1), number of banks."""
        return {
            f"{f.name}:{name}": [(Partition[b.kind.capitalize()], b.dim, b.factor) for b in buffer.banks]
            for f in self.program.functions
            for name, buffer in buffers(f).items()
            if buffer.banks
        }

    def get_equivalent_variables(self, name: str) -> set[str] | list[str]:
        """The names of an array across calls, itself included; an empty list if there is none of that name.

        Args:
            name: ``"f:A"``, or ``"f:0"`` for the first argument; arguments are written by number.
        """
        func, _, buffer = name.partition(":")
        try:
            function = find_function(self.program, func)
        except ScheduleNameError:
            return []
        if buffer.isdigit() and int(buffer) < len(function.params):
            buffer = function.params[int(buffer)].name
        if buffer not in buffers(function):
            return []
        return {_numbered(self.program, a.func, a.buffer.name) for a in aliases(self.program, func, buffer)}

    @property
    def func_instances(self) -> dict[str, list[str]]:
        """The functions that are instances of each kernel, by the kernel's name."""
        out: dict[str, list[str]] = {}
        for function in self.program.functions:
            out.setdefault(function.origin or function.name, []).append(function.name)
        return out

    @property
    def ext_libs(self) -> list[ir.Extern]:
        """The C++ functions (`IPModule`) that the program calls."""
        return [f.extern for f in self.program.functions if f.extern is not None]

    @property
    def stateful_var_map(self) -> dict[str, str]:
        """``"f:acc"`` -> the name of the variable that keeps its value from call to call."""
        return {
            f"{f.name}:{node.buffer.name}": f"__stateful_{f.name}_{node.buffer.name}"
            for f in self.program.functions
            for node in walk(f.body)
            if isinstance(node, ir.Alloc) and node.static
        }


def _numbered(program: ir.Program, func: str, buffer: str) -> str:
    inputs = [b.name for b in program.function(func).inputs]
    return f"{func}:{inputs.index(buffer) if buffer in inputs else buffer}"
