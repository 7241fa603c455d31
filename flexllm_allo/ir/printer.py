"""The IR as the Python the user wrote: what ``print(schedule)`` shows."""

from __future__ import annotations

from pathlib import PurePath

from . import nodes as ir
from .dtypes import RUN_TIME

_PRECEDENCE = {
    "**": 8, "*": 6, "/": 6, "//": 6, "%": 6, "+": 5, "-": 5, "<<": 4, ">>": 4, "&": 3, "^": 2,
    "|": 1, "==": 0, "!=": 0, "<": 0, "<=": 0, ">": 0, ">=": 0,
}  # fmt: skip
_ATOM, _LOWEST = 9, -3


def print_program(program: ir.Program) -> str:
    """All functions, callees first."""
    return "\n\n".join(print_function(f) for f in program.functions) + "\n"


def print_function(function: ir.Function) -> str:
    """One function as a Python definition; hardware attributes appear as comments."""
    params = ", ".join(f"{b.name}: {type_text(b)}" for b in function.inputs)
    results = ", ".join(type_text(b) for b in function.outputs)
    arrow = "" if not function.results else f" -> {results}" if function.results == 1 else f" -> ({results})"
    notes = [n for n in ("dataflow", "inline") if getattr(function, n)]
    if function.extern is not None:
        notes.append(f"C++: {PurePath(function.extern.source).name}")
    head = f"def {function.name}({params}){arrow}:"
    lines = [head + (f"  # {', '.join(notes)}" if notes else "")]
    for b in function.params:
        lines += [f"    # {b.name}: {text}" for text in _buffer_notes(b)]
    lines += [f"    {b.name}: {type_text(b)}" for b in function.outputs]
    lines += _body(function.body, 1)
    if function.results:
        lines.append("    return " + ", ".join(b.name for b in function.outputs))
    return "\n".join(lines)


def type_text(b: ir.Buffer) -> str:
    """The annotation of a buffer: ``int8[4, 8]``, ``Stream[int32, 2]``."""
    dims = f"[{', '.join(str(n) if n != RUN_TIME else '...' for n in b.shape)}]" if b.shape else ""
    if b.is_stream:
        token = f"[{', '.join(map(str, b.token))}]" if b.token else ""
        return f"Stream[{b.dtype}{token}, {b.depth}]{dims}"
    return f"{b.dtype}{dims}"


def _buffer_notes(b: ir.Buffer) -> list[str]:
    notes = [
        f"partition({bank.kind}, dim={bank.dim}" + (f", factor={bank.factor})" if bank.factor else ")")
        for bank in b.banks
    ]
    if b.words > 1:
        notes.append(f"pack({b.words} x {b.logical} along dimension {len(b.shape) + b.word_axis + 1})")
    resource = getattr(b.memory, "resource", "AUTO")
    if resource != "AUTO":
        notes.append(f"bind_storage({resource})")
    return notes


def _body(body: tuple[ir.Stmt, ...], level: int) -> list[str]:
    lines: list[str] = []
    for stmt in body:
        lines += _stmt(stmt, level)
    return lines or ["    " * level + "pass"]


def _stmt(stmt: ir.Stmt, level: int) -> list[str]:
    pad = "    " * level
    match stmt:
        case ir.Alloc():
            init = ""
            if stmt.init is not None:
                init = f" = [{', '.join(map(str, stmt.init[:8]))}{', ...' if len(stmt.init) > 8 else ''}]"
            notes = "; ".join([*(["static"] if stmt.static else []), *_buffer_notes(stmt.buffer)])
            note = f"  # {notes}" if notes else ""
            return [f"{pad}{stmt.buffer.name}: {type_text(stmt.buffer)}{init}{note}"]
        case ir.Store():
            return [pad + _store(stmt)]
        case ir.Put():
            value = stmt.value
            token = _place(value.buffer, value.indices) if isinstance(value, ir.View) else expr_text(value)
            return [f"{pad}{_place(stmt.stream, stmt.indices)}.put({token})"]
        case ir.Get():
            return [f"{pad}{stmt.target} = {_place(stmt.stream, stmt.indices)}.get()"]
        case ir.For():
            return _for(stmt, level)
        case ir.While():
            return [f"{pad}while {expr_text(stmt.condition)}:", *_body(stmt.body, level + 1)]
        case ir.If():
            lines = [f"{pad}if {expr_text(stmt.condition)}:", *_body(stmt.then, level + 1)]
            if stmt.otherwise:
                lines += [f"{pad}else:", *_body(stmt.otherwise, level + 1)]
            return lines
        case ir.Call():
            args = ", ".join(
                _place(a.buffer, a.indices) if isinstance(a, ir.View) else expr_text(a) for a in stmt.args
            )
            note = f"  # {stmt.label}" if stmt.label not in ("", stmt.func) else ""
            return [f"{pad}{stmt.func}({args}){note}"]


def _store(stmt: ir.Store) -> str:
    """``A[i] += x`` where the stored value is a sum with the element itself."""
    place = _place(stmt.buffer, stmt.indices)
    value = stmt.value
    while isinstance(value, ir.Cast) and value.implicit:
        value = value.value
    if isinstance(value, ir.Binary) and value.op in ("+", "-", "*", "|", "&", "^"):
        left = value.left
        while isinstance(left, ir.Cast) and left.implicit:
            left = left.value
        if isinstance(left, ir.Load) and _place(left.buffer, left.indices) == place:
            return f"{place} {value.op}= {expr_text(value.right)}"
    return f"{place} = {expr_text(stmt.value)}"


def _for(stmt: ir.For, level: int) -> list[str]:
    bounds = expr_text(stmt.upper)
    zero = isinstance(stmt.lower, ir.Const) and stmt.lower.value == 0
    if not zero or stmt.step != 1:
        bounds = f"{expr_text(stmt.lower)}, {bounds}"
    if stmt.step != 1:
        bounds += f", {stmt.step}"
    if stmt.band:
        bounds += f', name="{stmt.band}"'
    kind = "reduction" if stmt.attrs.reduction and zero and stmt.step == 1 else "range"
    note = loop_notes(stmt.attrs)
    head = f"{'    ' * level}for {_name(stmt.var)} in {kind}({bounds}):"
    return [head + (f"  # {note}" if note else ""), *_body(stmt.body, level + 1)]


def loop_notes(attrs: ir.LoopAttrs) -> str:
    """The schedule's words on a loop: ``pipeline II=1, unroll``."""
    notes: list[str] = []
    if attrs.pipeline is not None:
        notes.append(f"pipeline II={attrs.pipeline}" + (" rewind" if attrs.rewind else ""))
    if attrs.unroll is not None:
        notes.append(f"unroll factor={attrs.unroll}" if attrs.unroll else "unroll")
    notes += [n for n in ("parallel", "dataflow", "reassociate", "spatial") if getattr(attrs, n)]
    return ", ".join(notes)


def _name(var: str) -> str:
    """Loop names with dots are no Python names; they print with underscores."""
    return var.replace(".", "_")


def _place(buffer: str, indices: tuple[ir.Expr, ...]) -> str:
    return f"{buffer}[{', '.join(map(expr_text, indices))}]" if indices else buffer


def expr_text(expr: ir.Expr, outer: int = _LOWEST) -> str:
    """An expression as Python; implied casts are left out."""
    text, level = _expr(expr)
    return f"({text})" if level < outer else text


def _expr(expr: ir.Expr) -> tuple[str, int]:
    match expr:
        case ir.Const():
            return _const(expr), _ATOM
        case ir.LoopVar():
            return _name(expr.name), _ATOM
        case ir.Load():
            return _place(expr.buffer, expr.indices), _ATOM
        case ir.Unary():
            word = "not " if expr.op == "not" else expr.op
            return word + expr_text(expr.value, 7), 7
        case ir.Binary() if expr.op in ("min", "max"):
            return f"{expr.op}({expr_text(expr.left)}, {expr_text(expr.right)})", _ATOM
        case ir.Binary():
            level = _PRECEDENCE[expr.op]
            left, right = expr_text(expr.left, level), expr_text(expr.right, level + 1)
            return f"{left} {expr.op} {right}", level
        case ir.Logic():
            return f"{expr_text(expr.left, -1)} {expr.op} {expr_text(expr.right, 0)}", -1
        case ir.Select():
            parts = [expr_text(e, -1) for e in (expr.then, expr.condition, expr.otherwise)]
            return f"{parts[0]} if {parts[1]} else {parts[2]}", -2
        case ir.Cast():
            if expr.implicit:
                return _expr(expr.value)
            return f"{expr.type}({expr_text(expr.value)})", _ATOM
        case ir.Bitcast():
            return f"{expr_text(expr.value, _ATOM)}.bitcast({expr.type})", _ATOM
        case ir.BitSlice():
            lo = expr_text(expr.lo)
            return f"{expr_text(expr.value, _ATOM)}[{lo}:{lo} + {expr.type.bits}]", _ATOM
        case ir.Math():
            return f"{expr.name}({', '.join(map(expr_text, expr.args))})", _ATOM


def _const(expr: ir.Const) -> str:
    if expr.type.is_fixed:
        return repr(expr.value / 2**expr.type.fracs)
    if expr.type.is_float and expr.type.bits <= 32:
        from .convert import round_float

        for digits in range(1, 18):  # the shortest text that reads back as the same float
            text = f"{float(expr.value):.{digits}g}"
            if round_float(float(text), expr.type) == expr.value:
                return text if any(c in text for c in ".en") else text + ".0"
    return repr(expr.value)
