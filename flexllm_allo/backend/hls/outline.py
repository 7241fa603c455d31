"""Statements of a dataflow function as a function of their own, which TAPA can start as a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...ir import nodes as ir
from ...ir.walk import buffers, rewrite_body, walk
from ..effects import Effects, process_label
from .trim import used_names

Fresh = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Outline:
    """A new function, and the call that takes the place of the statements."""

    function: ir.Function
    call: ir.Call


def fits_invoke(call: ir.Call, function: ir.Function) -> bool:
    """Whether a call hands on what TAPA can hand on: parameters, FIFOs and constants."""
    known = buffers(function)
    for arg in call.args:
        match arg:
            case ir.View() if known[arg.buffer].is_stream:
                constant = all(isinstance(i, ir.Const) for i in arg.indices)
                if not constant or len(arg.indices) not in (0, len(known[arg.buffer].shape)):
                    return False
            case ir.View():
                if arg.indices:
                    return False
            case ir.Const() | ir.Load(indices=()):
                pass
            case _:
                return False
    return True


def outline(
    function: ir.Function,
    group: Sequence[ir.Stmt],
    local: Sequence[ir.Alloc],
    effects: Effects,
    fresh: Fresh,
) -> Outline | None:
    """Statements of a function, with the arrays that they alone use, as a function.

    Args:
        local: allocations that move along.
        fresh: makes names of functions unique.

    Returns:
        None if they use an array of FIFOs both whole and singly.
    """
    body: tuple[ir.Stmt, ...] = (*local, *group)
    inside = {n.buffer.name for s in body for n in walk(s) if isinstance(n, ir.Alloc)}
    fifos = _Singled(function, {b.name: b for b in buffers(function).values() if b.is_stream})
    body = fifos.rewritten(body)
    if fifos.failed:
        return None
    written = effects.of_body(tuple(group)).writes
    used = used_names(body)
    outer = [b for b in buffers(function).values() if b.name in used - inside and not b.is_stream]
    scalars = [b for b in outer if not b.shape and b in function.outputs and b.name in written]
    others = [b for b in outer if b not in scalars]
    params = (*others, *(b for b, _ in fifos.views.values()), *scalars)
    args = (*(_argument(b) for b in others), *(v for _, v in fifos.views.values()), *map(_view, scalars))
    label = process_label(group[0])
    new = ir.Function(
        fresh(f"{function.name}_{label.replace(' ', '_')}"),
        params,
        body,
        results=len(scalars),
        origin=f"{function.origin or function.name}, {label}",
        bindings=function.bindings,
        span=group[0].span,
    )
    return Outline(new, ir.Call(new.name, args, group[0].span, label))


def _argument(buffer: ir.Buffer) -> ir.Expr | ir.View:
    return _view(buffer) if buffer.shape else ir.Load(buffer.name, (), buffer.dtype)


def _view(buffer: ir.Buffer) -> ir.View:
    return ir.View(buffer.name)


@dataclass(slots=True)
class _Singled:
    """FIFOs as parameters: members of an array that are used by constant indices become single ones."""

    function: ir.Function
    known: dict[str, ir.Buffer]
    views: dict[ir.View, tuple[ir.Buffer, ir.View]] = field(
        default_factory=dict[ir.View, tuple[ir.Buffer, ir.View]]
    )
    failed: bool = False
    _taken: set[str] = field(default_factory=set[str])

    def rewritten(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        self._taken = set(buffers(self.function))
        whole = {name for s in body for name, indices in self._uses(s) if not _are_constant(indices)}
        single = {name for s in body for name, indices in self._uses(s) if indices and _are_constant(indices)}
        self.failed = bool(whole & single) or any(
            0 < len(indices) < len(self.known[name].shape) for s in body for name, indices in self._uses(s)
        )
        out = rewrite_body(body, self._rewrite)
        return out  # pyright: ignore[reportReturnType]

    def _uses(self, stmt: ir.Stmt) -> list[tuple[str, tuple[ir.Expr, ...]]]:
        found: list[tuple[str, tuple[ir.Expr, ...]]] = []
        for node in walk(stmt):
            match node:
                case ir.Put() | ir.Get() if node.stream in self.known:
                    found.append((node.stream, node.indices))
                case ir.View() if node.buffer in self.known:
                    found.append((node.buffer, node.indices))
                case _:
                    pass
        return found

    def _rewrite(self, node: ir.Stmt | ir.Expr | ir.View) -> ir.Stmt | ir.Expr | ir.View | None:
        match node:
            case ir.Put() | ir.Get() if node.stream in self.known:
                name, indices = self._parameter(node.stream, node.indices)
                return replace(node, stream=name, indices=indices)
            case ir.View() if node.buffer in self.known:
                name, indices = self._parameter(node.buffer, node.indices)
                return replace(node, buffer=name, indices=indices)
            case _:
                return None

    def _parameter(self, name: str, indices: tuple[ir.Expr, ...]) -> tuple[str, tuple[ir.Expr, ...]]:
        single = bool(indices) and _are_constant(indices)
        places = tuple(replace(i, span=ir.UNKNOWN) for i in indices) if single else ()
        key = ir.View(name, places)
        if key not in self.views:
            buffer = self.known[name]
            if single:
                buffer = replace(buffer, name=self._fresh(name), shape=())
            self.views[key] = buffer, key
        return self.views[key][0].name, () if single else indices

    def _fresh(self, name: str) -> str:
        number = sum(view.buffer == name for view in self.views)
        text = f"{name}_{number}"
        while text in self._taken:
            text += "_"
        self._taken.add(text)
        return text


def _are_constant(indices: Sequence[ir.Expr]) -> bool:
    return bool(indices) and all(isinstance(i, ir.Const) for i in indices)


__all__ = ["Outline", "fits_invoke", "outline"]
