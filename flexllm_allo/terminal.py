"""What commands show: errors and progress on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .errors import FlexError

if TYPE_CHECKING:
    from .runtime.doctor import Check

Advance = Callable[[int, int | None], None]
"""Called with (steps done, steps in all or None)."""


def show_error(error: FlexError) -> None:
    """The message of a refusal, its first line in red."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    head, _, rest = str(error).partition("\n")
    console.print(Text(head, "bold red"))
    if rest:
        console.print(Text(rest))


def show_table(title: str, rows: dict[str, str]) -> None:
    """Names and values."""
    table = Table("name", "value", title=title, show_header=False)
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    Console().print(table)


def show_rows(title: str, rows: list[dict[str, str]]) -> None:
    """A table with one row per result."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(Text(value) for value in row.values()))
    Console().print(table)


def show_checks(checks: Sequence[Check]) -> None:
    """What is installed, and what each missing thing would enable."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found, or how to get it", "enables"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = Text("yes", "green") if check.found else Text("no", "yellow")
        table.add_row(mark, Text(check.name), Text(check.found or check.install), Text(check.enables))
    Console().print(table)


@contextmanager
def progress(label: str, total: int | None = None) -> Generator[Advance]:
    """A bar on stderr while the block runs; nothing at all when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def advance(done: int, of: int | None) -> None:
            bar.update(task, completed=done, total=total if of is None else of)

        yield advance
