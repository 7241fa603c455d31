"""What is said of a deadlock, the same by the interpreter and by compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DeadlockError, Place, Span


@dataclass(frozen=True, slots=True)
class Blocked:
    """A process that cannot go on: `kind` is read, write (of a FIFO) or start (after other processes)."""

    process: str
    kind: str
    subject: str
    depth: int
    span: Span

    @property
    def text(self) -> str:
        if self.kind == "start":
            return f"{self.process} waits for {self.subject} to end"
        state = "empty" if self.kind == "read" else "full"
        return f"{self.process} waits to {self.kind} FIFO '{self.subject}' ({state}, depth {self.depth})"


def fifo_name(name: str, shape: tuple[int, ...], flat: int) -> str:
    """The name of one FIFO of an array of FIFOs."""
    indices: list[str] = []
    for extent in reversed(shape):
        flat, index = divmod(flat, extent)
        indices.insert(0, str(index))
    return f"{name}[{', '.join(indices)}]" if indices else name


def deadlock(function: str, blocked: Sequence[Blocked]) -> DeadlockError:
    """The error for a region of `function` in which every process that has not ended is blocked."""
    full = sorted({f"'{b.subject}'" for b in blocked if b.kind == "write"})
    if full:
        hint = f"make {' or '.join(full)} deeper, or read and write the FIFOs in the same order"
    else:
        hint = "a FIFO is read more often than it is written, or before it is written"
    return DeadlockError(
        "FX303",
        f"deadlock in '{function}': " + "; ".join(b.text for b in blocked),
        [Place(b.span, b.text) for b in blocked],
        hint,
    )
