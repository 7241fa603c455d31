"""``allo.backend.vitis``: pieces of Vitis projects, under Allo's path."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import nodes as ir
from ..lazy import unsupported
from .hls.placement import spelled
from .hls.vitis import vitis_project

_EMITTED = "the emitter writes the final text"
postprocess_hls_code = unsupported("postprocess_hls_code", _EMITTED, "use the module's hls_code")
generate_description_file = unsupported(
    "generate_description_file", "projects have a Makefile instead", "build with project=folder"
)


def generate_hbm_config(
    top: str, hbm_mapping: Mapping[str, int | str], arg_name_mapping: Mapping[str, str] | None = None
) -> str:
    """The connectivity file of a kernel: one ``sp=`` line per argument.

    Args:
        hbm_mapping: an HBM channel number, or text such as ``"DDR[0]"``, by argument.
        arg_name_mapping: the names of the arguments in the C++, where they differ.

    Raises:
        TargetError: a ValueError; FX402, a memory is neither a number nor such a text.
    """
    names = arg_name_mapping or {}
    lines = ["[connectivity]"]
    for name, where in hbm_mapping.items():
        lines.append(f"sp={top}_1.{names.get(name, name)}:{spelled(name, where, 'HBM')}")
    return "\n".join(lines) + "\n"


def codegen_host(top: str, module: ir.Program, num_output_args: int = 0) -> str:
    """The host program of a design; the number of outputs is known from the program."""
    del num_output_args
    return vitis_project(module.with_top(top)).files["host.cpp"].decode()


def codegen_tcl(top: str, configs: Mapping[str, Any]) -> str:
    """The script of a project for a device and a clock, with an empty design of that name."""
    empty = ir.Program((ir.Function(top, (), ()),), top)
    device, frequency = configs.get("device", "u280"), configs.get("frequency", 300)
    return vitis_project(empty, device=device, frequency=frequency).files["run.tcl"].decode()


def extract_hls_arg_names(hls_code: str, top: str) -> list[str]:
    """The names of the arguments of a function in HLS C++."""
    found = re.search(rf"\bvoid {re.escape(top)}\(([^)]*)\)", hls_code)
    declared = found[1].split(",") if found else []
    return [re.findall(r"\w+", re.sub(r"\[[^\]]*\]", "", part))[-1] for part in declared if part.strip()]


def separate_header(hls_code: str, top: str) -> tuple[str, str]:
    """The declaration of the top function, and the whole text."""
    found = re.search(rf"void {re.escape(top)}\([^)]*\)", hls_code)
    return (f"{found[0]};\n" if found else ""), hls_code


def copy_ext_libs(ext_libs: Iterable[Any], project: str | Path) -> None:
    """Copy the C++ files of `IPModule`s into a project."""
    for library in ext_libs:
        shutil.copy(library.impl, project)


def write_tensor_to_file(tensor: NDArray[Any], shape: tuple[int, ...], path: str | Path) -> None:
    """The elements of an array as raw bytes, in row-major order."""
    Path(path).write_bytes(np.ascontiguousarray(tensor).reshape(shape).tobytes())


def read_tensor_from_file(dtype: Any, shape: tuple[int, ...], path: str | Path) -> NDArray[Any]:
    """The inverse of `write_tensor_to_file`; `dtype` is a NumPy type or a short code such as ``"i32"``."""
    kind: Any = dtype
    if isinstance(dtype, str):
        from ..utils import np_supported_types  # utils lies above the backends

        kind = np_supported_types.get(dtype, dtype)
    return np.frombuffer(Path(path).read_bytes(), kind).reshape(shape).copy()
