"""What is said of a deadlock, the same by the interpreter and by compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..analysis.spatial import expanded
from ..errors import DeadlockError, Place, Span
from ..ir import nodes as ir
from ..ir.channels import channel_name
from .effects import process_label


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


def deadlock(program: ir.Program, function: str, blocked: Sequence[Blocked]) -> DeadlockError:
    """The error for a region of `function` in which every process that has not ended is blocked.

    Of many processes it names those that wait for each other, or the one that waits for a process
    that has ended: what the others wait for in the end.
    """
    told = list(blocked) if len(blocked) <= _FEW else _culprits(program, function, blocked)
    full = sorted({f"'{b.subject}'" for b in told if b.kind == "write"})
    if full and told[0].process == function:
        hint = f'make {full[0]} deeper, or run the steps at the same time: s.dataflow("{function}")'
    elif full:
        hint = f"make {' or '.join(full)} deeper, or read and write the FIFOs in the same order"
    else:
        hint = "a FIFO is read more often than it is written, or before it is written"
    parts = [b.text for b in told]
    if len(told) < len(blocked):
        parts.append(f"{len(blocked) - len(told)} more processes wait")
    return DeadlockError("FX303", f"deadlock in '{function}': " + "; ".join(parts), _places(told), hint)


def _places(told: Sequence[Blocked]) -> list[Place]:
    """Each place once, with the first process that is there."""
    at: dict[Span, list[Blocked]] = {}
    for b in told:
        at.setdefault(b.span, []).append(b)
    return [
        Place(span, there[0].text + (f", and {len(there) - 1} more here" if len(there) > 1 else ""))
        for span, there in at.items()
    ]


_FEW = 8  # a message names this many processes without a choice
_MOST = 32


def _culprits(program: ir.Program, function: str, blocked: Sequence[Blocked]) -> list[Blocked]:
    """The processes on a cycle of waiting, or the last one of the chain that the first process heads."""
    users = _users(program, function)
    of = {b.process: b for b in blocked}
    chain: dict[str, Blocked] = {}
    here: Blocked | None = blocked[0]
    while here is not None and here.process not in chain:
        chain[here.process] = here
        names = here.subject.split(", ") if here.kind == "start" else users.get(_flat(here.subject), ())
        here = next((of[name] for name in names if name != here.process and name in of), None)
    path = list(chain.values())
    return path[-1:] if here is None else path[path.index(here) :][:_MOST]


def _users(program: ir.Program, name: str) -> dict[str, list[str]]:
    """The processes at the ends of every FIFO of a function."""
    users: dict[str, list[str]] = {}
    for stmt in expanded(program.function(name).body):
        if isinstance(stmt, ir.Call):
            for view in stmt.args:
                if isinstance(view, ir.View):
                    users.setdefault(channel_name(view).partition(".")[0], []).append(process_label(stmt))
    return users


def _flat(fifo: str) -> str:
    """``f[0, 1]`` as `channel_name` writes it."""
    return fifo.translate({ord("["): "_", ord(","): "_", ord(" "): None, ord("]"): None})
