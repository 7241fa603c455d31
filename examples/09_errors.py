"""Lesson 9: what a refusal tells you: the rule, the lines in kernel and schedule, and what to do.

You learn that all errors are `FlexError`s with a code (docs/errors.md lists them), that they can be caught by
the usual Python types too, and that a refused primitive leaves the schedule as it was.
"""

from collections.abc import Callable

import flexllm_allo as allo
from flexllm_allo.ir.types import int32


def typo(A: int32[8]) -> int32[8]:
    B: int32[8]
    for i in range(8):
        B[i] = A[i] + ofset  # pyright: ignore[reportUndefinedVariable]
    return B


def wave(A: int32[8, 8]):
    for row, col in allo.grid(7, 7):
        A[row + 1, col] = A[row, col + 1]


def refusal(action: Callable[[], object]) -> allo.FlexError:
    try:
        action()
    except allo.FlexError as error:
        print(error, end="\n\n")
        return error
    raise AssertionError("this should have been refused")


offset = 3  # the name that was meant; the hint offers it
error = refusal(lambda: allo.customize(typo))
assert error.code == "FX102"
assert "offset" in error.hint

s = allo.customize(wave)
assert refusal(lambda: s.pipeline("rwo")).hint == 'did you mean "row"?'
before = s.program
error = refusal(lambda: s.reorder("col", "row"))  # an element would be read before it is written
assert error.code == "FX203"
assert len(error.places) == 3  # the write, the read, and the line of this schedule
assert isinstance(error, RuntimeError)  # as programs written for Allo expect
assert s.program is before
