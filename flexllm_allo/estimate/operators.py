"""What every operation of the IR costs as hardware: cycles, delay, DSP, LUT, FF (`operators.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import frexp
from typing import Any

from ..errors import EstimateError, did_you_mean
from ..ir import nodes as ir
from ..ir.dtypes import DType

USABLE_PERIOD = 0.73
"""Part of the clock period that logic may take: Vitis HLS keeps 27 % as uncertainty (UG1399)."""

MULTIPLIER_LATENCY = 3
"""Registers of a DSP used at full speed: input, product, output (UG579)."""

LOGIC_MULTIPLIER_BITS = 10
"""Products of operands with at most this many bits together are made of LUTs (Vitis HLS does so)."""

_FLOAT_BINARY = {"+": "add", "-": "add", "*": "multiply", "/": "divide", "//": "divide", "%": "remainder"}
_MATH = {
    "exp": "exp", "log": "log", "log2": "log", "log10": "log", "sqrt": "sqrt", "sin": "trigonometric",
    "cos": "trigonometric", "tan": "trigonometric", "tanh": "exp", "power": "power", "round": "round",
    "floor": "round",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operator:
    """One unit of hardware that can start an operation in every cycle.

    Attributes:
        latency: cycles until the result; 0 for logic, whose `delay_ns` counts instead.
        dsp: DSPs.
    """

    name: str
    latency: int = 0
    delay_ns: float = 0.0
    dsp: int = 0
    lut: int = 0
    ff: int = 0

    @property
    def arithmetic(self) -> bool:
        """Whether it counts as an operation on data: sums, products and functions, no choices or moves."""
        return bool(
            self.dsp or (self.latency and self.lut) or self.name.startswith(("int", "tree", "int add"))
        )


WIRE = Operator("wire")


class Operators:
    """The operations of a device family at a clock.

    Args:
        family: of the DSPs, as `hardware.devices` names it.
        mhz: the clock that latencies are counted at.
        overrides: operation on float32 -> what to replace, ``{"add": {"latency": 6}}``.

    Raises:
        EstimateError: FX902, an override names no operation.
    """

    def __init__(self, family: str, mhz: float, overrides: Mapping[str, Mapping[str, Any]] | None = None):
        table = _tables().get(family) or _tables()["DSP48E2"]
        self.mhz = mhz
        self.multiplier: tuple[int, int] = tuple(table["multiplier"])
        self.period_ns = 1e3 / mhz * USABLE_PERIOD
        scale = mhz / float(table["reference_mhz"])
        self.float = _scaled("float", table["float"], scale)
        self.half = {**self.float, **_scaled("half", table["half"], scale)}
        self.double = {**self.float, **_scaled("double", table["double"], scale)}
        for name, changes in (overrides or {}).items():
            if name not in self.float:
                raise EstimateError("FX902", f'no operation "{name}"', hint=did_you_mean(name, self.float))
            self.float[name] = replace(self.float[name], **changes)

    def of(self, node: ir.Expr) -> Operator:
        """The unit that computes a node from its operands."""
        match node:
            case ir.Binary() | ir.Unary() if _operand(node).is_float:
                return self._of_float(node)
            case ir.Binary():
                return self._of_integer(node)
            case ir.Unary("-"):
                return _adder(node.type.bits)
            case ir.Logic() | ir.Unary():
                return Operator("logic", delay_ns=0.3, lut=node.type.bits)
            case ir.Select():
                return Operator("select", delay_ns=0.3, lut=_bits(node.type))
            case ir.Math("abs"):
                return WIRE if node.type.is_float else _adder(node.type.bits)
            case ir.Math():
                return self._table(node.type)[_MATH[node.name]]
            case ir.Cast():
                return self._of_cast(node.value.type, node.type)
            case _:
                return WIRE

    def accumulator(self, node: ir.Expr) -> Operator:
        """The same for an operation whose result is its own next operand."""
        if isinstance(node, ir.Binary) and node.type.is_float and node.op in ("+", "-"):
            return self._table(node.type)["accumulate"]
        return self.of(node)

    def _table(self, dtype: DType) -> Mapping[str, Operator]:
        return self.float if dtype.bits == 32 else self.half if dtype.bits < 32 else self.double

    def _of_float(self, node: ir.Binary | ir.Unary) -> Operator:
        if isinstance(node, ir.Unary):
            return WIRE  # the sign bit
        table = self._table(_operand(node))
        if node.op in ("min", "max"):
            return replace(table["compare"], name=f"float {node.op}", lut=table["compare"].lut + 32)
        name = _FLOAT_BINARY.get(node.op, "compare")
        if name == "multiply" and _power_of_two(node):
            return Operator("float scale", delay_ns=0.6, lut=12)  # an addition to the exponent
        return table[name]

    def _of_integer(self, node: ir.Binary) -> Operator:
        bits = max(_bits(node.left.type), _bits(node.right.type))
        constant = isinstance(node.right, ir.Const) or isinstance(node.left, ir.Const)
        match node.op:
            case "+" | "-":
                return _adder(_bits(node.type))
            case "*":
                if constant and _power_of_two(node):
                    return WIRE
                return self.product(node.left.type.bits, node.right.type.bits)
            case "//" | "/" | "%":
                if constant and _power_of_two(node):
                    return WIRE
                # A non-restoring divider: a bit of the quotient per stage.
                return Operator("divide", latency=bits + 4, lut=bits * bits, ff=2 * bits * bits)
            case "<<" | ">>":
                return WIRE if constant else Operator("shift", delay_ns=1.0, lut=3 * bits)
            case "&" | "|" | "^":
                return Operator("logic", delay_ns=0.3, lut=bits)
            case "min" | "max":
                return Operator(f"int {node.op}", delay_ns=1.2, lut=2 * bits)
            case _:
                return Operator("compare", delay_ns=0.8, lut=bits)

    def product(self, left: int, right: int) -> Operator:
        """A multiplier of integers. Products share a DSP where the schedule packs them (`pack_products`)."""
        if left + right <= LOGIC_MULTIPLIER_BITS:
            return Operator(f"int{left} x int{right}", latency=1, lut=left * right, ff=left + right)
        wide, narrow = max(left, right), min(left, right)
        tiles = -(-(wide) // self.multiplier[0]) * -(-narrow // self.multiplier[1])
        latency = MULTIPLIER_LATENCY + (tiles > 1)
        return Operator(f"int{left} x int{right}", latency, dsp=tiles, ff=left + right)

    def _of_cast(self, source: DType, target: DType) -> Operator:
        if source.is_float and not target.is_float:
            return self._table(source)["to_integer"]
        if target.is_float and not source.is_float:
            return self._table(target)["from_integer"]
        return WIRE


def _scaled(kind: str, entries: Mapping[str, Mapping[str, Any]], scale: float) -> dict[str, Operator]:
    """The units of a table at a clock that is `scale` times the one they are given for."""
    return {
        name: Operator(f"{kind} {name}", **{**entry, "latency": max(1, round(entry["latency"] * scale))})
        for name, entry in entries.items()
    }


def _operand(node: ir.Binary | ir.Unary) -> DType:
    return node.left.type if isinstance(node, ir.Binary) else node.value.type


def _bits(dtype: DType) -> int:
    return dtype.bits


def _adder(bits: int) -> Operator:
    # A carry chain: the delay of a LUT and of a CARRY8 every eight bits.
    return Operator("int add", delay_ns=0.6 + 0.015 * bits, lut=bits)


def _power_of_two(node: ir.Binary) -> bool:
    for side in (node.left, node.right):
        if isinstance(side, ir.Const) and side.value:
            return frexp(abs(float(side.value)))[0] == 0.5
    return False


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads((files(__package__ or "flexllm_allo.estimate") / "operators.toml").read_text())


__all__ = ["WIRE", "Operator", "Operators"]
