"""Every refusal of the library: one family, a code, the user's line with a caret, a hint.

A `FlexError` knows *where* (one or more `Span`s, each with a label), *what rule* (a code such as
``FX201`` and a message) and *what to do* (a hint).  `str(error)` renders all three.  Layers raise
the subclass that names the part of the library at fault; the catalogue of codes is `CODES`.
"""

from __future__ import annotations

import difflib
import linecache
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A region of the user's source text. Lines count from 1, columns from 0 (as in `ast`)."""

    file: str
    line: int
    col: int = 0
    end_line: int = 0
    end_col: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col + 1}"


UNKNOWN = Span("<unknown>", 0)

_SOURCES: dict[str, list[str]] = {}


def register_source(file: str, text: str) -> None:
    """Keep the text of a source that is in no file (a string kernel, a notebook cell)."""
    _SOURCES[file] = text.splitlines()


def source_line(span: Span) -> str | None:
    """The line of source text a span starts on, or None when the text cannot be had."""
    lines = _SOURCES.get(span.file)
    if lines is not None:
        return lines[span.line - 1] if 0 < span.line <= len(lines) else None
    text = linecache.getline(span.file, span.line)
    return text.rstrip("\n") or None


@dataclass(frozen=True, slots=True)
class Place:
    """A span with a word on what is there, for errors that concern several places."""

    span: Span
    label: str = ""


class FlexError(Exception):
    """Base of all errors the library raises on purpose.

    Args:
        code: a key of `CODES`, e.g. ``"FX201"``.
        message: the rule that was broken, with the user's own names.
        at: the places concerned, the main one first; spans or labelled `Place`s.
        hint: what the user can do about it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        at: Span | Place | Iterable[Span | Place] = (),
        hint: str = "",
    ) -> None:
        assert code in CODES, f"error code {code} is not in the catalogue"
        self.code = code
        self.message = message
        items = [at] if isinstance(at, Span | Place) else list(at)
        self.places = tuple(p if isinstance(p, Place) else Place(p) for p in items)
        self.hint = hint
        super().__init__(message)

    @property
    def span(self) -> Span | None:
        """The main place, or None for errors that concern no source text."""
        return self.places[0].span if self.places else None

    def __str__(self) -> str:
        parts = [f"{type(self).__name__} {self.code}: {self.message}"]
        parts += [_snippet(place) for place in self.places if place.span.line]
        if self.hint:
            parts.append(f"  help: {self.hint}")
        return "\n".join(parts)


def _snippet(place: Place) -> str:
    span = place.span
    head = f"  --> {span}"
    text = source_line(span)
    if text is None:
        return f"{head}  {place.label}".rstrip()
    number = f"{span.line:>5}"
    end = span.end_col if span.end_line == span.line else len(text)
    caret = " " * span.col + "^" * max(1, end - span.col)
    return f"{head}\n{number} | {text}\n      | {caret} {place.label}".rstrip()


class FrontendError(FlexError):
    """The kernel's source breaks a rule of the language."""


class DTypeError(FrontendError, TypeError):
    """A type that does not exist or cannot be used here."""


class PlacementError(FrontendError, ValueError):
    """A memory or a layout that does not exist."""


class VerifyError(FlexError):
    """An internal invariant of the IR does not hold (a fault of the library or of hand-made IR)."""


class ScheduleError(FlexError, RuntimeError):
    """A primitive was refused; the program and the trace are unchanged."""


class ScheduleValueError(ScheduleError, ValueError):
    """An argument of a primitive is out of range."""


class ScheduleTypeError(ScheduleError, TypeError):
    """An argument of a primitive is of the wrong kind."""


class ScheduleNameError(ScheduleError, AttributeError):
    """No loop, band, buffer or function of that name."""


class StreamError(ScheduleError):
    """A buffer cannot become a FIFO: order, count, producer or consumer do not fit."""


class DeadlockError(FlexError, RuntimeError):
    """All processes of a dataflow region wait for each other."""


# Allo raises one of Python's own exceptions where a class below has a second base, so that ported
# programs still catch what they expect.


class ArgumentError(FlexError, ValueError):
    """A built module was called with arguments that do not fit its signature."""


class ArgumentCountError(ArgumentError, AssertionError):
    """A built module was called with too few or too many arguments."""


class ArgumentTypeError(ArgumentError, TypeError, RuntimeError):
    """An argument is of a kind that a parameter cannot take."""


class BackendError(FlexError, RuntimeError):
    """A backend cannot express the program."""


class IPFileError(BackendError, FileNotFoundError):
    """The C++ file of an IP does not exist."""


class TargetError(BackendError, NotImplementedError, AssertionError, ValueError):
    """There is no such target, mode, device or memory, or it belongs to another engine."""


class ToolError(FlexError, RuntimeError, AssertionError):
    """An external tool (compiler, Vitis) is missing or failed."""


class ModelError(FlexError, ValueError):
    """A checkpoint, its configuration or its tokenizer cannot be used."""


class QuantError(FlexError, ValueError):
    """A quantization recipe does not exist or does not fit the model."""


class EstimateError(FlexError, ValueError):
    """A design does not fit its device, or what it will do cannot be told before a run."""


class UsageError(FlexError, ValueError):
    """A command or a run was asked for something it cannot do (prompt, output folder)."""


class FlexWarning(RuntimeWarning):
    """Base of the warnings of the library; they go through `warnings`."""


class DTypeWarning(FlexWarning):
    """A type was replaced by another one, or an argument converted."""


class StreamWarning(FlexWarning):
    """A design runs here that would stop in hardware."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that lists the nearest known names, or all of them when none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return "did you mean " + " or ".join(f'"{n}"' for n in near) + "?"
    return "known names: " + ", ".join(names) if names else "there are none"


# One line per code. FX1xx language, FX2xx schedules, FX3xx streams, FX4xx backends and calls,
# FX5xx tools, FX6xx models and recipes, FX7xx commands, FX9xx estimates.
CODES: dict[str, str] = {
    "FX100": "the source of the kernel cannot be read",
    "FX101": "unsupported statement or expression",
    "FX102": "unknown or out-of-scope name",
    "FX103": "type annotation missing or not a type",
    "FX104": "type mismatch",
    "FX105": "shape mismatch",
    "FX106": "index out of range or of the wrong kind",
    "FX107": "call does not fit the function called",
    "FX108": "template parameter cannot be resolved",
    "FX109": "operator not defined for these types",
    "FX110": "loop header not supported",
    "FX111": "name declared twice",
    "FX112": "return statement does not fit",
    "FX113": "value is not a compile-time constant",
    "FX199": "invalid IR",
    "FX201": "no such loop, band, buffer or function",
    "FX202": "loops are not perfectly nested",
    "FX203": "a dependence forbids the new order",
    "FX204": "argument of a primitive out of range",
    "FX205": "primitive does not apply here",
    "FX206": "schedules cannot be composed",
    "FX301": "elements are not read in the order they are written",
    "FX302": "a stream needs one producer and one consumer",
    "FX303": "deadlock",
    "FX304": "lanes do not fit the tokens of a FIFO",
    "FX401": "call arguments do not fit",
    "FX402": "target, mode or device not supported",
    "FX403": "backend cannot express this",
    "FX404": "index out of bounds or uninitialised value at run time",
    "FX501": "a tool is not installed",
    "FX502": "a tool failed",
    "FX601": "checkpoint file missing or unreadable",
    "FX602": "tensors missing or of the wrong shape",
    "FX603": "model configuration not supported",
    "FX604": "recipe unknown or not applicable",
    "FX605": "tokenizer missing or unreadable",
    "FX606": "a tensor cannot be quantized",
    "FX607": "calibration data not usable",
    "FX608": "quantized file unreadable or of an unsupported type",
    "FX701": "prompt empty or too long",
    "FX702": "output folder cannot be used",
    "FX703": "bad value of an option",
    "FX901": "the length of a loop is not known before the run",
    "FX902": "an argument of an estimate does not fit",
    "FX910": "the design does not fit the device",
    "FX911": "the device lacks figures for an estimate",
    "FX921": "what a process does to its FIFOs depends on data",
}
