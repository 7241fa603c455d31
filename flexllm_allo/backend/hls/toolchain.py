"""The one place that finds tools: C++ compiler, ``ap_int`` headers, Vitis, XRT."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from ...errors import ToolError

SHIM = Path(__file__).parent / "shim"
TAPA_SHIM = Path(__file__).parent / "tapa_shim"
AP_HEADERS_VARIABLE = "FLEXLLM_AP_TYPES"
VITIS_PROGRAMS = ("vitis_hls", "vitis-run")
VITIS_HINT = (
    "install AMD Vitis (2022.2 or newer) and source its settings64.sh, "
    'or use mode="csim", which needs a C++ compiler only'
)
TAPA_HINT = (
    "install TAPA (rapidstream-tapa) and AMD Vitis, and put tapa on the PATH, "
    'or use mode="csim", which needs a C++ compiler only'
)


@dataclass(frozen=True, slots=True)
class Tool:
    """Something found: where it is, and its version if it says one."""

    name: str
    path: Path
    version: str | None = None


def find_compiler() -> Tool:
    """The C++ compiler: ``$CXX``, else g++, else clang++."""
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["g++", "clang++"]:
        if path := shutil.which(name):
            return Tool(name, Path(path), _version(path))
    looked = f"$CXX = {wanted}" if wanted else "g++, clang++"
    raise ToolError(
        "FX501", f"no C++ compiler found (looked for {looked})", hint="install g++ 9 or newer, or set CXX"
    )


def find_ap_headers() -> Tool:
    """The folder with ``ap_int.h`` and ``ap_fixed.h``.

    ``$FLEXLLM_AP_TYPES``, a Vitis installation (``$XILINX_HLS``, ``$XILINX_VITIS``), or the open headers
    in the hls4ml wheel, which is located without importing it.
    """
    override = os.environ.get(AP_HEADERS_VARIABLE)
    if override:
        folders = [Path(override)]
    else:
        roots = [os.environ.get(name) for name in ("XILINX_HLS", "XILINX_VITIS")]
        folders = [Path(root) / "include" for root in roots if root]
        folders += _open_headers()
    for folder in folders:
        if (folder / "ap_int.h").is_file() and (folder / "ap_fixed.h").is_file():
            return Tool("ap_types", folder)
    looked = ", ".join(map(str, folders)) if override else "$XILINX_HLS, $XILINX_VITIS, the package hls4ml"
    raise ToolError(
        "FX501",
        f"the headers ap_int.h and ap_fixed.h are not installed (looked in {looked})",
        hint=f"pip install --no-deps hls4ml, or set {AP_HEADERS_VARIABLE} to a folder that has them",
    )


def _open_headers() -> list[Path]:
    try:
        listed = files("hls4ml") or []
    except PackageNotFoundError:
        return []
    found = [f for f in listed if f.name == "ap_int.h" and f.parent.name == "ap_types"]
    return sorted({Path(str(f.locate())).parent for f in found}, key=lambda p: "vivado" not in p.parts)


def find_vitis_hls() -> Tool:
    """Vitis HLS as a Tcl interpreter: ``vitis_hls``, or ``vitis-run`` of newer releases."""
    return _program("vitis_hls", VITIS_PROGRAMS)


def find_tapa() -> Tool:
    """The compiler of TAPA."""
    return _program("tapa", ("tapa",), TAPA_HINT)


def find_vpp() -> Tool:
    """The Vitis linker ``v++``."""
    return _program("v++", ("v++",))


def is_available(backend: str = "vivado_hls") -> bool:
    """Whether a vendor's tool is on the PATH: ``"vivado_hls"``, ``"tapa"``, any other name means Vitis HLS.

    C simulation (``mode="csim"``) needs none of them.
    """
    names = {"vivado_hls": ("vivado_hls",), "tapa": ("tapa",)}.get(backend, VITIS_PROGRAMS)
    return any(shutil.which(name) for name in names)


def run_process(command: str | Sequence[str], pattern: str | None = None) -> list[str]:
    """Run a command; the lines of its output, or what `pattern` matches in them.

    Raises:
        ToolError: FX502, the command fails.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError("FX502", f"{words[0]} failed: {(done.stderr or done.stdout).strip()}")
    return re.findall(pattern, done.stdout) if pattern else done.stdout.splitlines()


def find_xrt() -> Tool:
    """The Xilinx runtime, for host programs: ``$XILINX_XRT`` or its usual place."""
    for folder in [os.environ.get("XILINX_XRT"), "/opt/xilinx/xrt"]:
        if folder and (Path(folder) / "include").is_dir():
            return Tool("xrt", Path(folder))
    raise ToolError(
        "FX501",
        "the Xilinx runtime XRT is not installed (looked for $XILINX_XRT)",
        hint="install XRT from AMD",
    )


def _program(what: str, names: Sequence[str], hint: str = VITIS_HINT) -> Tool:
    for name in names:
        if path := shutil.which(name):
            return Tool(name, Path(path))
    raise ToolError(
        "FX501", f"{what} is not available (looked for {' and '.join(names)} on the PATH)", hint=hint
    )


def _version(path: str) -> str | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout)
    return found.group(0) if found else None


def run_tool(
    command: Sequence[str], folder: Path, log: str, hint: str = "", environment: dict[str, str] | None = None
) -> Path:
    """Run a tool in a folder, its output going to the file `log` there.

    Raises:
        ToolError: FX502 with the first line of the log that reports an error.
    """
    path = folder / log
    with path.open("w") as stream:
        try:
            done = subprocess.run(
                list(command),
                cwd=folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
                env=environment,
            )
        except OSError as error:
            raise ToolError(
                "FX501", f"{command[0]} cannot be started: {error.strerror}", hint=hint
            ) from error
    if done.returncode:
        name = Path(command[0]).name
        what = first_error(path) or f"it ended with status {done.returncode}"
        raise ToolError(
            "FX502", f"{name} failed: {what}", hint=f"{hint + '; ' if hint else ''}the full log is {path}"
        )
    return path


def first_error(log: Path) -> str | None:
    """The first line of a log that reports an error, in the manner of compilers and of Vitis."""
    with log.open(errors="replace") as stream:
        for line in stream:
            if re.search(r"^ERROR\b|\berror:|undefined reference", line):
                return line.strip()
    return None
