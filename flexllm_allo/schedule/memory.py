"""Primitives on memory: banks and local accumulation buffers."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from math import lcm

from ..errors import Place, ScheduleError, ScheduleValueError, did_you_mean
from ..ir import nodes as ir
from ..memory import Memory
from .accumulate import accumulator
from .buffers import Alias, Target, aliases, change_buffer, find_buffer
from .loops import Axis
from .names import find_function, find_loop, replace_at


class Partition(IntEnum):
    """How the elements of a dimension are spread over banks, as in Vitis' ``array_partition``."""

    Complete = 0
    Block = 1
    Cyclic = 2


def partition(
    program: ir.Program,
    func: str,
    target: Target,
    partition_type: Partition | int = Partition.Complete,
    dim: int = 0,
    factor: int = 0,
) -> ir.Program:
    """Spread an array over several memories, so that more elements are reached per cycle.

    The array is partitioned under all its names: parameters it is passed to and arguments it comes
    from.  Repeating the same partition changes nothing.

    Args:
        target: the array, ``s.A`` or ``"func:A"``.
        partition_type: Complete (a register per element), Block or Cyclic; 0, 1, 2 as in Allo.
        dim: the dimension, counted from 1; 0 means all of them.
        factor: the number of banks, for Block and Cyclic.

    Raises:
        ScheduleValueError: FX204, type, dimension or factor out of range.
        ScheduleError: FX205, the dimension is partitioned otherwise, or the target is a FIFO.

    Example:
        >>> s = allo.customize(vadd)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
        >>> s.partition(s.A, partition_type=Partition.Cyclic, dim=1, factor=5)
        >>> print(s)
        def vadd(A: int32[10], B: int32[10]) -> int32[10]:
            # A: partition(cyclic, dim=1, factor=5)
            C: int32[10]
            for i in range(10, name="S_i_0"):
                C[i] = A[i] + B[i]
            return C
    """
    function, buffer = find_buffer(program, func, target)
    kind = _check_partition(buffer, partition_type, dim, factor)
    banks = 0 if kind == Partition.Complete else factor
    if dim == 0 and 0 < len(buffer.banks) < len(buffer.shape):
        raise _mixed(buffer, f"{function.name}:{buffer.name}", buffer.banks[0])
    dims = range(1, len(buffer.shape) + 1) if dim == 0 else (dim,)
    for alias in aliases(program, function.name, buffer.name):
        new = alias.buffer
        for d in dims:
            new = _with_bank(new, ir.Bank(kind.name.lower(), d - alias.shift, banks), alias, dim)
        if new is not alias.buffer:
            program = program.with_function(change_buffer(find_function(program, alias.func), new))
    return program


def bind_storage(
    program: ir.Program, func: str, target: Target, resource: str, storage_type: str | None = None
) -> ir.Program:
    """Keep an array in one kind of memory, as Vitis' directive of that name does.

    The array lies there under all its names: parameters it is passed to and arguments it comes from.

    Args:
        target: the array, ``s.A`` or ``"func:A"``.
        resource: ``AUTO``, ``BRAM``, ``URAM``, ``LUTRAM`` or ``SRL``, in any case.
        storage_type: ports, such as ``RAM_S2P``; the tool's choice by default.

    Raises:
        PlacementError: FX103, no such resource or storage type.
        ScheduleError: FX205, the target is a FIFO or a scalar.

    Example:
        >>> s = allo.customize(double)
        >>> s.bind_storage(s.C, "URAM")
        >>> print(s)
        def double(A: int32[4, 3]) -> int32[4, 3]:
            # C: bind_storage(URAM)
            C: int32[4, 3]
            for i in range(4, name="S_i_j_0"):
                for j in range(3):
                    C[i, j] = A[i, j] * 2
            return C
    """
    memory = Memory(resource, storage_type)
    function, buffer = find_buffer(program, func, target)
    if buffer.is_stream or not buffer.shape:
        what = "a FIFO" if buffer.is_stream else "a scalar"
        raise ScheduleError(
            "FX205",
            f'"{buffer.name}" is {what} and lies in no memory',
            at=buffer.span,
            hint="bind_storage is for arrays",
        )
    for alias in aliases(program, function.name, buffer.name):
        changed = change_buffer(find_function(program, alias.func), replace(alias.buffer, memory=memory))
        program = program.with_function(changed)
    return program


def spread(program: ir.Program, func: str, name: str, dim: int, factor: int) -> ir.Program:
    """Give a dimension of an array so many cyclic banks, or a multiple that banks it has already ask for.

    As many banks as elements are a complete partition.

    Raises:
        ScheduleValueError: FX205, the dimension is in blocks.
    """
    found = aliases(program, func, name)
    for alias in found:
        for old in alias.buffer.banks:
            if old.dim == dim - alias.shift and old.kind == "block":
                raise _mixed(alias.buffer, f"{alias.func}:{alias.buffer.name}", old, old.dim)
            if old.dim == dim - alias.shift:
                size = alias.buffer.shape[old.dim - 1]
                factor = size if old.kind == "complete" else lcm(factor, old.factor)
    for alias in found:
        at, buffer = dim - alias.shift, alias.buffer
        if factor > 1 and 1 <= at <= len(buffer.shape):
            whole = factor == buffer.shape[at - 1]
            bank = ir.Bank("complete", at) if whole else ir.Bank("cyclic", at, factor)
            others = tuple(b for b in buffer.banks if b.dim != at)
            new = replace(buffer, banks=(*others, bank))
            program = program.with_function(change_buffer(find_function(program, alias.func), new))
    return program


def _check_partition(buffer: ir.Buffer, kind: int, dim: int, factor: int) -> Partition:
    at = Place(buffer.span, f'"{buffer.name}" has {len(buffer.shape)} dimension(s)')
    if buffer.is_stream:
        raise ScheduleError(
            "FX205",
            f'"{buffer.name}" is a FIFO and has no banks',
            at=buffer.span,
            hint="pack it before to() for wider words",
        )
    if isinstance(kind, bool) or kind not in (0, 1, 2):
        raise ScheduleValueError(
            "FX204", f"Invalid partition type {kind!r}", hint="Partition.Complete, Block or Cyclic (0, 1, 2)"
        )
    _natural("dimension", dim)
    _natural("factor", factor)
    rank = len(buffer.shape)
    if dim > rank or rank == 0:
        raise ScheduleValueError(
            "FX204", f'Invalid dimension {dim} of "{buffer.name}"', at=at,
            hint=f"dimensions count from 1 to {rank}; 0 means all" if rank else "a scalar has no banks",
        )  # fmt: skip
    if kind != Partition.Complete:
        extents = [buffer.shape[dim - 1]] if dim else list(buffer.shape)
        if factor < 1:
            raise ScheduleValueError(
                "FX204",
                f"Invalid factor {factor}: Block and Cyclic need the number of banks",
                at=at,
                hint="factor=2 or more",
            )
        if factor > min(extents):
            raise ScheduleValueError(
                "FX204",
                f'Invalid factor {factor} exceeds the extent {min(extents)} of "{buffer.name}"',
                at=at,
                hint="at most the extent; Partition.Complete gives every element its own bank",
            )
    return Partition(kind)


def _natural(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ScheduleValueError("FX204", f"Invalid {name} {value!r}", hint="an integer of at least 0")


def _with_bank(buffer: ir.Buffer, bank: ir.Bank, alias: Alias, asked: int) -> ir.Buffer:
    if not 1 <= bank.dim <= len(buffer.shape) or bank in buffer.banks:
        return buffer  # the view drops that dimension, or it is partitioned so already
    for old in buffer.banks:
        if old.dim == bank.dim:
            raise _mixed(buffer, f"{alias.func}:{buffer.name}", old, bank.dim if asked else 0)
    return replace(buffer, banks=(*buffer.banks, bank))


def _mixed(buffer: ir.Buffer, where: str, old: ir.Bank, dim: int = 0) -> ScheduleValueError:
    """The refusal of a partition of one dimension, or with 0 of all, beside that of `old`."""
    message = (
        f"Cannot partition the same array on dimension {dim} twice: {where}"
        if dim
        else f"Cannot mix all-dim partitioning (dim=0) with per-dimension partitions for array {where}"
    )
    was = old.kind + (f", factor {old.factor}" if old.factor else "")
    return ScheduleValueError(
        "FX205", message, at=Place(buffer.span, f"dimension {old.dim} is partitioned: {was}"),
        hint="partition each dimension once, or all at once",
    )  # fmt: skip


def buffer_at(program: ir.Program, func: str, target: Target, axis: Axis) -> ir.Program:
    """Accumulate into a local buffer in each iteration of a loop, then write it back.

    Inside one iteration of `axis` the elements of `target` are held in a local array, one dimension
    per inner loop that indexes the target (none: a scalar).  Inner loops that do not index it are its
    reduction loops.  The buffer starts from what the target holds: a constant when the target was
    just filled with it, else a copy.

    Args:
        target: the array that is written.
        axis: the loop; it must index the target and have loops inside.

    Raises:
        ScheduleError: FX205, the loop does not write the target, is the innermost one or a reduction
            loop, or the accesses do not all go to the same element per iteration.

    Example:
        >>> s = allo.customize(gemm)
        >>> print(s)
        def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
            C: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    C[_0, _1] = 0
            for i in range(6, name="S_i_j_k_0"):
                for j in range(4):
                    for k in range(5):
                        C[i, j] += A[i, k] * B[k, j]
            return C
        >>> s.reorder("k", "j")
        >>> s.buffer_at(s.C, "i")
        >>> print(s)
        def gemm(A: int8[6, 5], B: int8[5, 4]) -> int32[6, 4]:
            C: int32[6, 4]
            for _0 in range(6):
                for _1 in range(4):
                    C[_0, _1] = 0
            for i in range(6, name="S_i_j_k_0"):
                C_buf: int32[4]
                for j_init in range(4):  # pipeline II=1
                    C_buf[j_init] = 0
                for k in range(5):
                    for j in range(4):
                        C_buf[j] += A[i, k] * B[k, j]
                for j_back in range(4):  # pipeline II=1
                    C[i, j_back] = C_buf[j_back]
            return C
    """
    site = find_loop(program, func, axis)
    function, buffer = find_buffer(program, func, target)
    if function.name != site.function.name:
        raise ScheduleError(
            "FX205", f'"{buffer.name}" belongs to "{function.name}", the loop to "{site.function.name}"',
            at=site.loop.span, hint=did_you_mean(buffer.name, [b.name for b in site.function.params]),
        )  # fmt: skip
    new = accumulator(program, site, buffer)
    return program.with_function(replace_at(site.function, site.path, (new,)))
