"""What every module says about the program it was built from, by Allo's names."""

from __future__ import annotations

from ..ir import nodes as ir


class Signature:
    """Mixed into the modules that backends build; they keep their program in `program`."""

    program: ir.Program

    @property
    def module(self) -> ir.Program:
        """The program; printing it shows it as Python."""
        return self.program

    @property
    def top_func_name(self) -> str:
        return self.program.top

    @property
    def in_types(self) -> list[tuple[str, tuple[int, ...]]]:
        """Short code of the element type (``i8``) and shape of every input of the top function."""
        return [(str(b.dtype), b.shape) for b in self.program.function(self.program.top).inputs]

    @property
    def out_types(self) -> list[tuple[str, tuple[int, ...]]]:
        """The same of every result."""
        return [(str(b.dtype), b.shape) for b in self.program.function(self.program.top).outputs]
