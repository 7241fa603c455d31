"""`IPModule`: a user's C++ function, callable from Python and from kernels."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UNKNOWN, FrontendError, IPFileError, Span
from ..ir import nodes as ir
from ..ir.dtypes import ArrayType, DType
from .arguments import bind, unbind
from .c_types import C_TYPES
from .external import load

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(
    r"(?P<type>.*?)(?P<pointer>\*?)\s*(?P<name>\w+)\s*(?P<dims>(\[[^\]]*\]\s*)*)", re.DOTALL
)
_CONSTANT = (
    re.compile(r"^\s*#\s*define\s+(\w+)\s+(\d+)\s*$", re.MULTILINE),
    re.compile(r"\bconst(?:expr)?\s+(?:unsigned\s+|static\s+)?(?:int|size_t)\s+(\w+)\s*=\s*(\d+)\s*;"),
)


@dataclass(frozen=True)
class CppParameter:
    """One parameter of a C++ function. `shape` is None for a pointer, whose extent C++ does not tell."""

    name: str
    dtype: DType
    shape: tuple[int, ...] | None
    is_const: bool = False


def parse_cpp_function(code: str, name: str) -> list[CppParameter]:
    """The parameters of the function `name` in a C++ source.

    Raises:
        FrontendError: FX107, there is no such function, it returns a value, or a parameter is of a type
            that a kernel cannot pass.
    """
    text = _COMMENT.sub("", code)
    found = re.search(rf"([\w:<>\s*&]*?)\b{re.escape(name)}\s*\(([^()]*)\)\s*[{{;]", text)
    if found is None:
        raise FrontendError("FX107", f"there is no function {name} in the C++ source")
    returned = found[1].split()
    if returned and returned[-1] != "void":
        hint = "write the result into an array or a pointer"
        raise FrontendError("FX107", f"{name} returns {returned[-1]}, an IP returns nothing", hint=hint)
    constants = {key: int(value) for pattern in _CONSTANT for key, value in pattern.findall(text)}
    declared = [part.strip() for part in found[2].split(",")]
    return [_parameter(part, constants, name) for part in declared if part not in ("", "void")]


def _parameter(text: str, constants: dict[str, int], function: str) -> CppParameter:
    found = _PARAMETER.fullmatch(text)
    words = found["type"].split() if found else []
    ctype = " ".join(w for w in words if w not in ("const", "volatile"))
    if found is None or ctype not in C_TYPES:
        known = "bool, (u)int8_t to (u)int64_t, int, float, double, arrays and pointers of them"
        raise FrontendError("FX103", f"parameter `{text}` of {function} has no type of a kernel", hint=known)
    dims = re.findall(r"\[([^\]]*)\]", found["dims"])
    shape: list[int] = []
    for dim in (part.strip() for part in dims):
        if dim not in constants and not dim.isdigit():
            hint = "write it as a number, a #define or a const int of the same file"
            raise FrontendError("FX105", f"extent `{dim}` of `{text}` of {function} is not known", hint=hint)
        shape.append(constants[dim] if dim in constants else int(dim))
    whole = None if found["pointer"] else tuple(shape)
    return CppParameter(found["name"], C_TYPES[ctype], whole, "const" in words)


class IPModule:
    """A C++ function without result, e.g. ``void vadd(int A[32], int B[32], int C[32])``.

    Called on NumPy arrays it works in place; called in a kernel, ``vadd(A, B, C)``, it is linked into
    the CPU module, and its file is copied to HLS projects and included there.

    Args:
        top: the name of the function.
        impl: its C++ file, relative to the file that makes the module, or to the working directory.
        include_paths: folders of headers.
        link_hls: accepted; headers of Vitis are found as for C simulation when the file needs them.

    Raises:
        FileNotFoundError: an `IPFileError`, FX401; there is no such file.
        FrontendError: FX103, FX105, FX107; the signature is none of a kernel.
    """

    def __init__(
        self, top: str, impl: str | Path, include_paths: Sequence[str] | None = None, link_hls: bool = True
    ) -> None:
        del link_hls
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        self._span = Span(caller.f_code.co_filename, caller.f_lineno) if caller else UNKNOWN
        self.top = top
        self.impl = str(_existing(Path(impl), Path(self._span.file).parent, self._span))
        self.include_paths = [str(Path(p).resolve()) for p in include_paths or ()]
        self.args = parse_cpp_function(Path(self.impl).read_text(errors="replace"), top)
        self.lib_name = f"lib{Path(self.impl).stem}"

    def __repr__(self) -> str:
        return f"IPModule({self.top}, {Path(self.impl).name})"

    def ir_function(self, types: Sequence[ArrayType], at: Span = UNKNOWN) -> ir.Function:
        """The function as a part of a program, for arguments of these types; pointers take their shapes.

        Raises:
            FrontendError: FX107, the number of arguments differs.
        """
        if len(types) != len(self.args):
            message = f"{self.top} takes {len(self.args)} arguments, got {len(types)}"
            raise FrontendError("FX107", message, (at, self._span))
        params = tuple(
            ir.Buffer(p.name, p.dtype, t.shape if p.shape is None else p.shape, span=self._span)
            for p, t in zip(self.args, types, strict=True)
        )
        writes = tuple(p.name for p in self.args if p.shape != () and not p.is_const)
        pointers = tuple(p.name for p in self.args if p.shape is None)
        extern = ir.Extern(self.top, self.impl, tuple(self.include_paths), writes, pointers)
        return ir.Function(self.top, params, (), origin=self.top, extern=extern, span=self._span)

    def __call__(self, *args: object) -> None:
        """Call the function on NumPy arrays, which it may write, and on Python numbers.

        Raises:
            ArgumentError: FX401, the arguments do not fit.
            ToolError: FX501 there is no C++ compiler; FX502 the file does not compile.
        """
        types = [ArrayType(DType(1), np.shape(np.asarray(a))) for a in args]
        if len(types) != len(self.args):
            types = [ArrayType(DType(1), p.shape or ()) for p in self.args]  # `bind` reports the count
        function = self.ir_function(types)
        assert function.extern is not None
        bound = bind(function, args, frozenset(function.extern.writes))
        load(function)(bound.raws)
        unbind(bound)


def _existing(path: Path, folder: Path, span: Span) -> Path:
    for candidate in (path, folder / path):
        if candidate.is_file():
            return candidate.resolve()
    raise IPFileError("FX401", f"Path does not exist: {path}", span, "give the path of the C++ file")
