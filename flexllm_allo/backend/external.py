"""Functions of a program that are written in C++: loaded into this process, or as files of a project."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ToolError
from ..ir import nodes as ir
from .hls.toolchain import SHIM, find_ap_headers, find_compiler, run_tool
from .hls.types import storage_type

FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-w", "-shared", "-fPIC")
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class Loaded:
    """A C++ function in this process. It takes an array of pointers, one per parameter."""

    def __init__(self, function: ir.Function) -> None:
        assert function.extern is not None
        self._folder = tempfile.TemporaryDirectory(prefix="flexllm-ip-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        (folder / "door.cpp").write_text(_door(function))
        includes = [*function.extern.include_paths, str(Path(function.extern.source).parent), str(SHIM)]
        if uses_ap(function.extern):
            includes.append(str(find_ap_headers().path))
        includes.append(str(SHIM / "fallback"))
        command = [
            str(find_compiler().path),
            *FLAGS,
            *(f"-I{p}" for p in includes),
            "door.cpp",
            "-o",
            "ip.so",
        ]
        try:
            run_tool(command, folder, "build.log")
        except ToolError as error:
            message = f"{function.extern.symbol} does not compile: {error.message}"
            raise ToolError(error.code, message, function.span, "compile the file by itself first") from None
        self._library = ctypes.CDLL(str(folder / "ip.so"))
        self._call: Any = self._library.flexllm_ip
        self.address = ctypes.cast(self._library.flexllm_ip, ctypes.c_void_p).value or 0

    def __call__(self, raws: Sequence[NDArray[Any]]) -> None:
        """Call it on raw arrays (a scalar is an array of one element)."""
        pointers = (ctypes.c_void_p * max(1, len(raws)))(*(raw.ctypes.data for raw in raws))
        self._call(pointers)


# Machine code of modules holds addresses of these, so none is ever unloaded.
_LOADED: dict[tuple[object, ...], Loaded] = {}


def load(function: ir.Function) -> Loaded:
    """The C++ function compiled and loaded, once for every state of its file.

    Raises:
        ToolError: FX501 there is no compiler; FX502 the file does not compile.
    """
    assert function.extern is not None
    changed = Path(function.extern.source).stat().st_mtime_ns
    key = function.extern, tuple((p.dtype, p.shape) for p in function.params), changed
    if key not in _LOADED:
        _LOADED[key] = Loaded(function)
    return _LOADED[key]


def _door(function: ir.Function) -> str:
    """A function with a plain C interface around the user's one."""
    assert function.extern is not None
    args: list[str] = []
    for number, parameter in enumerate(function.params):
        ctype = storage_type(parameter.dtype, parameter.span)
        if not parameter.shape:
            args.append(f"*({ctype} *)args[{number}]")
            continue
        whole = parameter.name not in function.extern.pointers
        inner = "".join(f"[{extent}]" for extent in parameter.shape[1:]) if whole else ""
        args.append(f"({ctype} (*){inner})args[{number}]" if inner else f"({ctype} *)args[{number}]")
    return f"""#include <cstdint>
#include "{function.extern.source}"

extern "C" void flexllm_ip(void **args) {{
  {function.extern.symbol}({", ".join(args)});
}}
"""


def source_files(program: ir.Program) -> dict[str, bytes]:
    """The C++ files of a program by the name they have beside the kernel, with what they include."""
    files: dict[str, bytes] = {}
    for function in program.functions:
        if function.extern is not None:
            source = Path(function.extern.source)
            _collect(source, source.name, [Path(p) for p in function.extern.include_paths], files)
    return files


def _collect(path: Path, name: str, folders: list[Path], files: dict[str, bytes]) -> None:
    if name in files:
        return
    files[name] = path.read_bytes()
    for include in _INCLUDE.findall(path.read_text(errors="replace")):
        for folder in (path.parent, *folders):
            if (folder / include).is_file():
                _collect(folder / include, include, folders, files)
                break


def included(program: ir.Program) -> list[str]:
    """The names of the C++ files that the kernel includes."""
    names = [Path(f.extern.source).name for f in program.functions if f.extern is not None]
    return list(dict.fromkeys(names))


def uses_ap(extern: ir.Extern) -> bool:
    """Whether the C++ file needs the ``ap_`` headers."""
    return re.search(r"\bap_u?(int|fixed)\b", Path(extern.source).read_text(errors="replace")) is not None
