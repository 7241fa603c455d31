"""Finding loops and bands by name, and the objects `Schedule.get_loops` returns.

A *band* is an outermost loop of a function with everything nested in it; its name is that of the
loop statement (`For.band`).  Loops of a band are listed in program order; a name that occurs twice
is numbered (``j``, ``j_1``).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from ..errors import ScheduleError, ScheduleNameError, did_you_mean
from ..ir import nodes as ir
from ..ir.memo import remembered

Path = tuple[tuple[str, int], ...]
_Owner = TypeVar("_Owner", ir.Function, ir.For, ir.While, ir.If)


@dataclass(frozen=True, eq=False)
class LoopSite:
    """A loop of a program and where it is: the function, its band, the path to it."""

    function: ir.Function
    band: str
    name: str
    path: Path
    loop: ir.For
    outer: tuple[ir.For, ...]  # the loops around it, outermost first

    @property
    def full_name(self) -> str:
        return f"{self.function.name}:{self.band}.{self.name}"


class LoopWrapper:
    """A loop by name: ``LoopWrapper("func:band.loop")`` or ``LoopWrapper("func", "band", "loop")``.

    It stands for whatever loop has that name when it is used.
    """

    def __init__(self, func: str, band: str | None = None, loop: str | None = None) -> None:
        if band is None or loop is None:
            func, _, rest = func.rpartition(":")
            band, _, loop = rest.partition(".")
        self.func, self.band, self.loop = func, band, loop

    @property
    def name(self) -> str:
        return f"{self.func}:{self.band}.{self.loop}"

    def __repr__(self) -> str:
        return f"LoopWrapper({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoopWrapper) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class LoopBand:
    """The loops of a band, or the bands of a function, by name and in program order."""

    def __init__(self, loops: dict[str, LoopWrapper | LoopBand]) -> None:
        self.loops = loops

    def __getitem__(self, name: str) -> LoopWrapper | LoopBand:
        if name not in self.loops:
            raise ScheduleNameError("FX201", f"No such loop {name}", hint=did_you_mean(name, self.loops))
        return self.loops[name]

    def __getattr__(self, name: str) -> LoopWrapper | LoopBand:
        if name.startswith("__") or name == "loops":
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[tuple[str, LoopWrapper | LoopBand]]:
        return iter(self.loops.items())

    def __len__(self) -> int:
        return len(self.loops)

    def __contains__(self, name: object) -> bool:
        return name in self.loops

    def get_outer_most(self) -> LoopWrapper | LoopBand:
        return next(iter(self.loops.values()))

    def __repr__(self) -> str:
        return f"LoopBand({list(self.loops)})"


def sub_bodies(stmt: ir.Stmt) -> tuple[str, ...]:
    """Names of the fields of a statement that hold statements."""
    match stmt:
        case ir.For() | ir.While():
            return ("body",)
        case ir.If():
            return ("then", "otherwise")
        case _:
            return ()


def statement_at(function: ir.Function, path: Path) -> ir.Stmt:
    """The statement at a path, which must not be empty."""
    node: ir.Function | ir.Stmt = function
    for attr, i in path:
        node = getattr(node, attr)[i]
    assert not isinstance(node, ir.Function)
    return node


def replace_at(owner: _Owner, path: Path, new: tuple[ir.Stmt, ...]) -> _Owner:
    """The function (or statement) with the statement at `path` replaced by `new`."""
    (attr, i), *rest = path
    body: tuple[ir.Stmt, ...] = getattr(owner, attr)
    inner = (replace_at(body[i], tuple(rest), new),) if rest else new  # pyright: ignore
    return replace(owner, **{attr: (*body[:i], *inner, *body[i + 1 :])})


@remembered
def bands(function: ir.Function) -> dict[str, list[LoopSite]]:
    """The loops of every band of a function, by band name."""
    return {
        band: [_site(function, band, root, inner) for inner in _inside(root[2])]
        for band, root in _named_roots(function).items()
    }


@remembered
def _named_roots(function: ir.Function) -> dict[str, _Root]:
    out: dict[str, _Root] = {}
    for root in _roots(function.body, "body", (), ()):
        out[_unused(root[2].band or f"S_{root[2].var}", out)] = root
    return out


def _site(function: ir.Function, band: str, root: _Root, inner: _Inner) -> LoopSite:
    path, outer, _ = root
    name, rest, loop, around = inner
    return LoopSite(function, band, name, (*path, *rest), loop, (*outer, *around))


def _is_named(loop: ir.For) -> bool:
    """Whether schedules can name a loop: not zero fills, nor loops that were unfolded into space."""
    return not loop.hidden and not loop.attrs.spatial


_Root = tuple[Path, tuple[ir.For, ...], ir.For]
_Inner = tuple[str, Path, ir.For, tuple[ir.For, ...]]


def _roots(body: tuple[ir.Stmt, ...], attr: str, path: Path, outer: tuple[ir.For, ...]) -> Iterator[_Root]:
    """The first loop of each band, with the path to it and the loops without a name around it."""
    for i, stmt in enumerate(body):
        here = (*path, (attr, i))
        if isinstance(stmt, ir.For) and _is_named(stmt):
            yield here, outer, stmt
            continue
        around = (*outer, stmt) if isinstance(stmt, ir.For) else outer
        for field in sub_bodies(stmt):
            yield from _roots(getattr(stmt, field), field, here, around)


@remembered
def _inside(root: ir.For) -> tuple[_Inner, ...]:
    """The loops of a band: listed name, path from the first loop, the loop, the loops around it."""
    found: list[_Inner] = [(root.var, (), root, ())]
    listed = {root.var}

    def visit(body: tuple[ir.Stmt, ...], attr: str, path: Path, outer: tuple[ir.For, ...]) -> None:
        for i, stmt in enumerate(body):
            here = (*path, (attr, i))
            around = outer
            if isinstance(stmt, ir.For):
                around = (*outer, stmt)
                if _is_named(stmt):
                    name = _unused(stmt.var, listed)
                    listed.add(name)
                    found.append((name, here, stmt, outer))
            for field in sub_bodies(stmt):
                visit(getattr(stmt, field), field, here, around)

    visit(root.body, "body", (), (root,))
    return tuple(found)


def _unused(name: str, taken: Container[str]) -> str:
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def find_function(program: ir.Program, name: str) -> ir.Function:
    """The function of that name, or the one instance of the kernel of that name.

    Raises:
        ScheduleNameError: FX201, there is none, or there are several instances.
    """
    try:
        return program.function(name)
    except KeyError:
        pass
    found = [f for f in program.functions if f.origin == name]
    if len(found) == 1:
        return found[0]
    known = [f.name for f in program.functions]
    hint = (
        did_you_mean(name, known)
        if not found
        else "one of its instances: " + ", ".join(f.name for f in found)
    )
    raise ScheduleNameError("FX201", f"Function {name} not found", hint=hint)


def find_loop(program: ir.Program, func: str, axis: str | LoopWrapper | LoopBand) -> LoopSite:
    """Resolve ``"i"``, ``"band.i"``, ``"func:i"``, ``"func:band.i"``, a `LoopWrapper` or a `LoopBand`.

    Raises:
        ScheduleNameError: FX201, no such loop, or the name occurs in several bands.
    """
    while isinstance(axis, LoopBand):
        axis = axis.get_outer_most()
    text = axis.name if isinstance(axis, LoopWrapper) else axis
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ScheduleError(
            "FX204", f"a loop is given by its name or a LoopWrapper, not {text!r}",
            hint='"i", "func:i", or s.get_loops("func")["band"]["i"]',
        )  # fmt: skip
    prefix, _, name = text.rpartition(":")
    function = find_function(program, prefix or func)
    # Sites are made for what is found only: a function may have hundreds of bands.
    hits = [
        _site(function, band, root, inner)
        for band, root in _named_roots(function).items()
        for inner in _inside(root[2])
        if inner[0] == name or (name.startswith(band) and name == f"{band}.{inner[0]}")
    ]
    if not hits:
        known = [site.name for sites in bands(function).values() for site in sites]
        raise ScheduleNameError(
            "FX201", f'Cannot find the band of loop {name} in function "{function.name}"',
            at=function.span, hint=did_you_mean(name, known),
        )  # fmt: skip
    if len(hits) > 1:
        names = ", ".join(f'"{site.band}.{site.name}"' for site in hits)
        raise ScheduleNameError(
            "FX201", f'Find multiple bands containing loop {name} in function "{function.name}"',
            at=[site.loop.span for site in hits], hint=f"name the band as well: {names}",
        )  # fmt: skip
    return hits[0]


def get_loops(function: ir.Function) -> LoopBand:
    """The bands of a function as a `LoopBand` of `LoopBand`s of `LoopWrapper`s."""
    out: dict[str, LoopWrapper | LoopBand] = {}
    for band, sites in bands(function).items():
        out[band] = LoopBand({s.name: LoopWrapper(function.name, band, s.name) for s in sites})
    return LoopBand(out)


def fresh(name: str, taken: set[str]) -> str:
    """The name itself, or with a number when it is taken."""
    return _unused(name, taken)


def is_identifier(name: str) -> bool:
    """Whether ``s.<name>`` can be written."""
    return re.fullmatch(r"[A-Za-z_]\w*", name) is not None
