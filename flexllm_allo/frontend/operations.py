"""What every tensor intrinsic is described by."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FrontendError
from .axes import Region, Shape
from .context import Context
from .tensors import Array, Pending, Tensor, Value, band_name, cheap, reads, type_of


@dataclass(frozen=True)
class Request:
    """One call of an intrinsic: its array and scalar operands, its compile-time settings."""

    ctx: Context
    op: str
    node: ast.expr
    values: Sequence[tuple[Value, ast.expr]]
    settings: Mapping[str, Any]
    name: str | None = None

    def operands(self) -> list[Tensor]:
        """The operands as arrays that may be read any number of times."""
        found: list[Tensor] = []
        for value, part in self.values:
            if not isinstance(value, Tensor | Pending):
                raise self.ctx.error("FX105", f"{self.op} takes arrays, got a scalar", part, "pass an array")
            found.append(cheap(self.ctx, value, part))
        return found

    def mismatch(self, operands: Sequence[Tensor], rule: str) -> FrontendError:
        """The refusal of operands whose shapes do not fit."""
        shapes = " and ".join(str(type_of(o)) for o in operands)
        return self.ctx.error("FX105", f"Shape mismatch, got {shapes}", self.node, f"{self.op}: {rule}")

    def pending(
        self,
        operands: Sequence[Tensor],
        shape: Shape,
        write: Callable[[Region, str], None],
        elements: Tensor | None = None,
    ) -> Pending:
        """A result of the first operand's type that `write` computes, under its band's name."""
        band = band_name(self.ctx, self.op, self.name)
        return Pending(operands[0].dtype, shape, lambda r: write(r, band), reads(*operands), band, elements)


@dataclass(frozen=True)
class Operation:
    """An intrinsic's signature and its lowering.

    `operands` are the run-time parameters, the last `optional` of which may be left out;
    `settings` are compile-time parameters with their defaults (`...`: required).
    `ranked` names the setting that is the shape of the result.
    """

    lower: Callable[[Request], Array]
    operands: tuple[str, ...]
    settings: Mapping[str, Any]
    optional: int = 0
    ranked: str | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.operands, *self.settings)

    @property
    def required(self) -> list[str]:
        needed = list(self.operands[: len(self.operands) - self.optional])
        return needed + [s for s, default in self.settings.items() if default is ...]
