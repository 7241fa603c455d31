"""What function instances take on the die: units, memories, FIFOs, ports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import ceil, prod

from ..analysis.overlap import in_flight
from ..hardware.devices import Resources
from ..ir import nodes as ir
from ..ir.walk import walk
from ..memory import Memory
from .instance import Instance
from .operators import Operator
from .ops import Op
from .pipeline import Body
from .ports import bank_counts, bank_depth
from .result import Module

LUTRAM_BITS = 1024
"""Smaller memories and FIFOs are made of LUTs (Vitis HLS, config_storage -auto_srl_max_bits)."""

BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width of an 18 Kbit block with a port to read and one to write (UG573)."""

URAM_SHAPE = (4096, 72)
"""Depth and width of an UltraRAM (UG573)."""

LUT_RAM = (64, 7, 8)
"""Depth, width and LUTs of a RAM64M8 with a port to read and one to write (UG574)."""

# Recalled from synthesis reports of Vitis HLS 2022.2, not documented: an m_axi adapter holds bursts of 256
# words for reads and for writes; state machines grow with the states they have.
AXI_WORDS = 256
AXI_LUT, AXI_FF = 600, 500
AXI_LUT_PER_BIT, AXI_FF_PER_BIT = 1, 2
STATE_LUT, STATE_FF = 2, 1
LOOP_LUT, LOOP_FF = 60, 70
FIFO_LUT, FIFO_FF = 20, 10

ZERO = Resources(lut=0, ff=0, dsp=0, bram18=0, uram=0)


class _Count:
    """A sum of resources, with fractions of DSPs until the end."""

    def __init__(self) -> None:
        self.lut = self.ff = self.dsp = 0.0
        self.bram18 = self.uram = self.lutram = 0

    def resources(self) -> Resources:
        return Resources(
            lut=ceil(self.lut), ff=ceil(self.ff), dsp=ceil(self.dsp), bram18=self.bram18, uram=self.uram
        )


def module(instance: Instance, program: ir.Program) -> Module:
    """The resources of a function instance, without those of the functions it calls.

    Arrays between processes have the buffers that `analysis.overlap` counts, as the emitted design does.
    """
    count = _Count()
    for plan in instance.plans():
        if plan.body is not None:
            _body(plan.body, count)
            count.lut += LOOP_LUT * len(plan.nest)
            count.ff += LOOP_FF * len(plan.nest)
    _shared([body.ops for body in instance.blocks()], count)
    waiting = in_flight(program, instance.function)
    for node in walk(instance.function.body):
        if isinstance(node, ir.Alloc):
            _memory(node.buffer, count, copies=waiting.get(node.buffer.name, 1))
    return Module(instance.function.name, count.resources(), lutram=count.lutram)


def ports(instance: Instance) -> Module:
    """The adapters of the ports to memory of a top function."""
    count = _Count()
    for buffer in instance.function.params:
        if buffer.name in instance.off_chip:
            width, number = buffer.dtype.bits, prod(bank_counts(buffer))
            count.lut += number * (AXI_LUT + AXI_LUT_PER_BIT * width)
            count.ff += number * (AXI_FF + AXI_FF_PER_BIT * width)
            count.bram18 += number * 2 * _bram18(AXI_WORDS, width)
    return Module("memory ports", count.resources())


def _body(body: Body, count: _Count) -> None:
    """Units that start an operation per cycle, as many as an interval needs."""
    totals = Counter[Operator]()  # adders of two widths are two kinds of units
    for op in body.ops:
        totals[op.operator] += op.copies
    for operator, copies in totals.items():
        _units(operator, ceil(copies / body.interval), count)
    count.lut += STATE_LUT * body.depth
    count.ff += STATE_FF * body.depth + 32 * body.depth * (len(totals) > 0)


def _shared(bodies: Iterable[tuple[Op, ...]], count: _Count) -> None:
    """Straight-line code takes turns on one set of units."""
    most = Counter[Operator]()
    for ops in bodies:
        for op in ops:
            most[op.operator] = max(most[op.operator], 1 if op.operator.latency else op.copies)
    for operator, units in most.items():
        _units(operator, units, count)


def _units(operator: Operator, units: int, count: _Count) -> None:
    count.dsp += operator.dsp * units
    count.lut += operator.lut * units
    count.ff += operator.ff * units


def buffer_resources(buffer: ir.Buffer) -> Resources:
    """What a local array, scalar or FIFO takes."""
    count = _Count()
    _memory(buffer, count)
    return count.resources()


def _memory(buffer: ir.Buffer, count: _Count, copies: int = 1) -> None:
    """What a local array or FIFO takes; `copies` of the array where two processes take turns."""
    bits = buffer.dtype.bits
    if buffer.is_stream:
        width, depth = bits * prod(buffer.token or (1,)), buffer.depth or 2
        _fifo(width, depth, prod(buffer.shape or (1,)), count)
        return
    if not buffer.shape:
        count.ff += bits
        return
    banks, depth = prod(bank_counts(buffer)) * copies, bank_depth(buffer)
    kind = buffer.memory.resource if isinstance(buffer.memory, Memory) else "AUTO"
    if depth == 1:
        count.ff += banks * bits
    elif kind == "URAM":
        count.uram += banks * ceil(depth / URAM_SHAPE[0]) * ceil(bits / URAM_SHAPE[1])
    elif kind == "LUTRAM" or (kind == "AUTO" and depth * bits <= LUTRAM_BITS):
        luts = banks * _lutram(depth, bits)
        count.lut += luts
        count.lutram += luts
    else:
        count.bram18 += banks * _bram18(depth, bits)


def _fifo(width: int, depth: int, number: int, count: _Count) -> None:
    count.lut += number * FIFO_LUT
    count.ff += number * FIFO_FF
    if depth * width <= LUTRAM_BITS or depth <= 2:
        luts = number * ceil(depth / 32) * width  # SRL32, a bit each
        count.lut += luts
        count.lutram += luts
    else:
        count.bram18 += number * _bram18(depth, width)


def _bram18(depth: int, width: int) -> int:
    return min(ceil(depth / d) * ceil(width / w) for d, w in BRAM18_SHAPES)


def _lutram(depth: int, width: int) -> int:
    rows, bits, luts = LUT_RAM
    return ceil(depth / rows) * ceil(width / bits) * luts


__all__ = ["buffer_resources", "module", "ports"]
