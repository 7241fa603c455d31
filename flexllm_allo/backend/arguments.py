"""The calling convention of everything that runs: NumPy and Python arguments <-> raw containers.

What goes in: arrays of any integer or boolean type for integer parameters (values wrap), of any
real type for floats and fixed point, lists and scalars likewise.  bfloat16 also takes its raw bits
as uint16 (or ml_dtypes' bfloat16).  What comes out: native widths in their NumPy type, bool as
`np.bool_`, other widths up to 64 in the next NumPy type, fixed point as float64, bfloat16 as
float32, wider integers as records of bytes ``f0..``, little end first; scalars as Python numbers.

An array that already has the container's size and layout is passed without a copy.  Container bits
above the width of the type are then the caller's own, and every reader drops them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentCountError, ArgumentError, ArgumentTypeError, DTypeWarning
from ..ir import nodes as ir
from ..ir.dtypes import BOOL, ArrayType, DType, Float, fits_shape
from .containers import container, is_bfloat16, is_signed, width
from .raw_values import from_raw, to_raw

Array = NDArray[Any]


def encode(buffer: ir.Buffer, value: object) -> Array:
    """The raw array for a parameter: C-contiguous, aligned, of `containers.container`'s type.

    It shares memory with `value` where that has the layout already.
    """
    array = np.asarray(value)
    if not fits_shape(array.shape, buffer.shape):
        raise _misfit(buffer, array)
    kind = container(buffer.dtype)
    fits = array.dtype == kind and not buffer.dtype.is_fixed
    raw = array if fits else np.asarray(_encode_values(buffer, array))
    if raw.flags.c_contiguous and raw.flags.aligned:
        return raw
    return np.require(raw, kind, ["C", "A"])


def _encode_values(buffer: ir.Buffer, array: Array) -> Array:
    dtype, kind = buffer.dtype, container(buffer.dtype)
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
        if is_bfloat16(dtype):
            return array
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "biufO" or (array.dtype.kind == "f" and dtype.is_integer):
        raise _misfit(buffer, array)
    if array.dtype.kind == "O":
        return _encode_objects(buffer, array)
    if is_bfloat16(dtype):
        return bfloat16_bits(array)
    if isinstance(dtype, Float):
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(kind)
    if dtype.is_fixed:
        return _encode_fixed(dtype, array)
    if width(dtype) > 64:
        return to_raw(dtype, [int(v) for v in array.ravel().tolist()]).reshape(array.shape)
    if dtype == BOOL and array.dtype != np.bool_:
        return (array & 1).astype(kind)
    if array.dtype.itemsize == kind.itemsize:
        return array.view(kind)
    return _normalise(dtype, array.astype(kind))


def _encode_objects(buffer: ir.Buffer, array: Array) -> Array:
    """Python integers beyond 64 bits arrive as an array of objects."""
    items = array.ravel().tolist()
    if not buffer.dtype.is_integer or not all(isinstance(v, int) for v in items):
        raise _misfit(buffer, array)
    mask = (1 << width(buffer.dtype)) - 1
    wrapped = [v & mask for v in items]
    if width(buffer.dtype) > 64:
        return to_raw(buffer.dtype, _signed(buffer.dtype, wrapped)).reshape(array.shape)
    unsigned = np.array(wrapped, np.uint64).reshape(array.shape)
    return _normalise(buffer.dtype, unsigned.astype(container(buffer.dtype)))


def _signed(dtype: DType, wrapped: list[int]) -> list[int]:
    if not is_signed(dtype):
        return wrapped
    half, full = 1 << (width(dtype) - 1), 1 << width(dtype)
    return [v - full if v >= half else v for v in wrapped]


def _normalise(dtype: DType, raw: Array) -> Array:
    """Make the bits above the width the sign or zero extension."""
    spare = 8 * raw.dtype.itemsize - width(dtype)
    return (raw << spare) >> spare if spare else raw


def _encode_fixed(dtype: DType, array: Array) -> Array:
    """floor(x * 2**f), then wrap; NaN, infinities and magnitudes from 2**63 on give 0."""
    if array.dtype.kind in "biu":
        values = [int(v) << dtype.fracs for v in array.ravel().tolist()]
    else:
        with np.errstate(all="ignore"):
            scaled = np.floor(np.ldexp(array.astype(np.float64), dtype.fracs))
            whole = np.where(np.abs(scaled) < 2.0**63, scaled, 0.0).astype(np.int64)
        if width(dtype) <= 64:
            return _normalise(dtype, whole.astype(container(dtype)))
        values = [int(v) for v in whole.ravel().tolist()]
    mask = (1 << width(dtype)) - 1
    return to_raw(dtype, _signed(dtype, [v & mask for v in values])).reshape(array.shape)


def bfloat16_bits(array: Array) -> NDArray[np.uint16]:
    """The bit patterns of the nearest bfloat16 values, ties to even."""
    with np.errstate(all="ignore"):
        exact = array.astype(np.float64)
        single = exact.astype(np.float32)
        back = single.astype(np.float64)
    bits = single.view(np.int32)
    # Round to odd on the way through float32, so that rounding twice equals rounding once.
    inexact = np.isfinite(exact) & np.isfinite(single) & (back != exact) & (bits & 1 == 0)
    step = np.where(np.abs(back) < np.abs(exact), 1, -1).astype(np.int32)
    odd = np.where(inexact, bits + step, bits).view(np.uint32)
    rounded = (odd + np.uint32(0x7FFF) + ((odd >> 16) & 1)) >> 16
    quiet = (odd >> 16) | 0x40
    return np.where(np.isnan(exact), quiet, rounded).astype(np.uint16)


def decode(buffer: ir.Buffer, raw: Array) -> Array | int | float:
    """What a caller gets for a raw array: an array, or a Python number for a scalar."""
    dtype = buffer.dtype
    if dtype.is_fixed:
        values = [v * 2.0**-dtype.fracs for v in from_raw(dtype, raw)]
        array: Array = np.array(values, np.float64).reshape(raw.shape)
    elif is_bfloat16(dtype):
        array = (raw.astype(np.uint32) << 16).view(np.float32)
    elif dtype == BOOL:
        array = (raw & 1).view(np.bool_)
    elif width(dtype) > 64:
        return raw if raw.shape else cast(int, from_raw(dtype, raw)[0])
    elif isinstance(dtype, Float):
        array = raw
    else:
        array = _normalise(dtype, raw)
    return array if raw.shape else cast("int | float", array.item())


@dataclass(frozen=True, slots=True)
class Bound:
    """One call under way: a raw array per parameter, and what to do with those after it."""

    function: ir.Function
    raws: tuple[Array, ...]
    given: tuple[object, ...]
    stored: frozenset[str]


def bind(function: ir.Function, args: Sequence[object], stored: frozenset[str]) -> Bound:
    """Check and encode the arguments of a call, and make arrays for the results.

    Args:
        args: one per input; or one per parameter, arrays for the results included.
        stored: the parameters the callee stores to (`Effects.stored`).
    """
    inputs, params = function.inputs, function.params
    if len(args) not in (len(inputs), len(params)):
        names = ", ".join(f"{b.name}: {_type(b)}" for b in inputs)
        raise ArgumentCountError(
            "FX401",
            f"# of input arguments mismatch, got {len(args)} but expected {len(inputs)}",
            function.span,
            f"the inputs of '{function.name}' are ({names})",
        )
    args = [*args[: len(inputs)], *map(_cell, params[len(inputs) :], args[len(inputs) :])]
    raws: list[Array] = []
    for buffer, value in zip(params, args, strict=False):
        if buffer.is_stream:
            raise ArgumentTypeError(
                "FX401",
                f"parameter '{buffer.name}' of '{function.name}' is a FIFO, which lives inside a program",
                buffer.span,
                "call a function that declares the FIFO",
            )
        if buffer.name in stored:
            _check_writable(buffer, value)
        if isinstance(value, np.ndarray):
            _warn_of_conversion(buffer, cast(Array, value))
        raws.append(encode(buffer, cast(object, value)))
    raws += [np.zeros(b.shape, container(b.dtype)) for b in params[len(args) :]]
    if function.extern is None:  # C++ sees the pointers as they are
        _separate(params, raws, stored)
    return Bound(function, tuple(raws), tuple(args), stored)


def _cell(result: ir.Buffer, value: object) -> object:
    """A scalar result is a pointer in C++: an array of one element receives it too."""
    if result.shape or not isinstance(value, np.ndarray):
        return value
    array = cast(Array, value)
    return array.reshape(()) if array.size == 1 else array


def unbind(bound: Bound) -> Any:
    """Bring stored values back to the caller's arrays; return no, one, or a list of results."""
    for buffer, raw, value in zip(bound.function.params, bound.raws, bound.given, strict=False):
        if buffer.name in bound.stored and isinstance(value, np.ndarray):
            target = cast(Array, value)
            if not np.may_share_memory(target, raw):
                _write_back(buffer, raw, target)
    given = len(bound.given)
    results = [decode(b, r) for b, r in zip(bound.function.params[given:], bound.raws[given:], strict=True)]
    if not results:
        return None
    return results[0] if len(results) == 1 else results


def _write_back(buffer: ir.Buffer, raw: Array, target: Array) -> None:
    if target.dtype.name == "bfloat16" or (is_bfloat16(buffer.dtype) and target.dtype == np.uint16):
        target.view(np.uint16)[...] = raw
    elif target.dtype.kind == "O" or target.dtype.fields is not None:
        values = from_raw(buffer.dtype, raw)
        fill = np.empty(target.shape, object)
        fill.ravel()[:] = values
        target[...] = fill if target.dtype.kind == "O" else raw
    else:
        if width(buffer.dtype) > 64 and not buffer.dtype.is_fixed:
            low = [v & 0xFFFF_FFFF_FFFF_FFFF for v in from_raw(buffer.dtype, raw)]
            value: Array = np.array(low, np.uint64).reshape(raw.shape)
        else:
            value = np.asarray(decode(buffer, raw))
        with np.errstate(all="ignore"):
            np.copyto(target, value, casting="unsafe")


def _check_writable(buffer: ir.Buffer, value: object) -> None:
    if isinstance(value, np.ndarray) and cast(Array, value).flags.writeable:
        return
    what = "this array is read-only" if isinstance(value, np.ndarray) else f"got {type(value).__name__}"
    raise ArgumentTypeError(
        "FX401",
        f"argument '{buffer.name}' is written in place, so it must be a writable NumPy array; {what}",
        buffer.span,
        f"pass np.zeros({buffer.shape}, np.{container(buffer.dtype).name})",
    )


def _separate(params: Sequence[ir.Buffer], raws: list[Array], stored: frozenset[str]) -> None:
    """Parameters are distinct memories: copy those that overlap one that is written."""
    for i, written in enumerate(params):
        if written.name not in stored:
            continue
        for j, other in enumerate(params):
            if i == j or not np.may_share_memory(raws[i], raws[j]):
                continue
            if other.name in stored:
                raise ArgumentError(
                    "FX401",
                    f"arguments '{written.name}' and '{other.name}' share memory and both are written",
                    (written.span, other.span),
                    "pass two separate arrays",
                )
            raws[j] = raws[j].copy()


_CODES = {"b": "ui1", "i": "i{}", "u": "ui{}", "f": "f{}"}


def _warn_of_conversion(buffer: ir.Buffer, array: Array) -> None:
    """Tell of an array of another type than the parameter has, where NumPy has the parameter's type."""
    given, kind = array.dtype, container(buffer.dtype)
    exact = 8 * kind.itemsize == width(buffer.dtype) and not buffer.dtype.is_fixed
    if given == kind or not exact or is_bfloat16(buffer.dtype) or given.kind not in _CODES:
        return
    code = _CODES[given.kind].format(8 * given.itemsize)
    warnings.warn(
        f"Input type mismatch: {code} vs {buffer.dtype!s}; argument '{buffer.name}' is converted",
        DTypeWarning,
        stacklevel=5,
    )


def _type(buffer: ir.Buffer) -> str:
    return str(ArrayType(buffer.dtype, buffer.shape))


def _misfit(buffer: ir.Buffer, array: Array) -> ArgumentError:
    given = f"{array.dtype}[{', '.join(map(str, array.shape))}]" if array.shape else str(array.dtype)
    hint = ""
    if array.shape == buffer.shape and array.dtype.kind == "f":
        hint = f"convert it first, for example np.round(x).astype(np.{container(buffer.dtype).name})"
    kind = ArgumentError if array.dtype.kind in "biufV" else ArgumentTypeError
    return kind(
        "FX401", f"argument '{buffer.name}' should be {_type(buffer)}, got {given}", buffer.span, hint
    )
