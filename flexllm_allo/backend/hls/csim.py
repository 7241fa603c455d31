"""C simulation: the emitted C++ compiled by the host's compiler and called in this process.

The text is the one a project of Vitis or of TAPA has.  Where types of the C++ differ in layout
from the containers of the CPU backends (``ap_int<70>`` takes 16 bytes, not 9), arrays are converted.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, DeadlockError, ToolError
from ...ir import nodes as ir
from ...ir.dtypes import DType, Index
from ...ir.producers_first import producers_first
from ...ir.walk import walk
from ..arguments import bind, unbind
from ..containers import container, is_signed, width
from ..effects import Effects
from ..external import source_files
from ..raw_values import from_raw, to_raw
from .emit import emit, emit_header, has_sequential_processes, top_name, uses_ap
from .interface import Flow
from .precompiled import precompiled
from .toolchain import SHIM, TAPA_SHIM, find_ap_headers, find_compiler, run_tool
from .types import storage_type

FLAGS = ("-std=c++17", "-ffp-contract=off", "-Wno-unknown-pragmas", "-Wno-unused-label", "-w")
MANY_FIFOS = 64  # in one function; alias analysis at -O2 then takes most of the time
MAIN_STACK = 2 << 20  # larger frames get a thread with a stack of their own
MESSAGE_BYTES = 4096

_STOPPED = (
    "C simulation runs the processes of a region one after the other, producers first",
    "give the FIFOs that are full a greater depth, or make the tasks read in the order they are written to",
)
Array = NDArray[Any]


class CSimModule:
    """A program as compiled C++; calls follow the convention of every module (`backend.arguments`).

    Args:
        program: the scheduled IR.
        folder: where sources and the shared object go; by default a folder that is deleted with the module.
        flow: ``"vitis"``, or ``"tapa"``: a thread per task and FIFOs of their declared depth.

    Raises:
        ToolError: a compiler or header is missing (FX501), or the C++ does not compile (FX502).
    """

    def __init__(self, program: ir.Program, folder: Path | None = None, flow: Flow = "vitis") -> None:
        self.flow: Flow = flow
        self.program = program = producers_first(program)
        self.top = program.function(program.top)
        for parameter in self.top.params:
            if parameter.is_stream:
                raise BackendError(
                    "FX403",
                    f"C simulation cannot pass the stream '{parameter.name}' of the top function",
                    parameter.span,
                    hint="wrap it in a function whose arguments are arrays",
                )
        self._temporary = tempfile.TemporaryDirectory(prefix="flexllm-csim-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else folder or Path()
        self._stored = Effects(program).stored(self.top)
        self._stack = _stack_bytes(program)
        self._library = self._build()
        self._check_layout()

    def __call__(self, *args: object) -> Any:
        """Run the top function on NumPy arrays and Python numbers; return its results."""
        bound = bind(self.top, args, self._stored)
        raws = [_to_csim(b, raw) for b, raw in zip(self.top.params, bound.raws, strict=True)]
        self._run(raws)
        for buffer, raw, simulated in zip(self.top.params, bound.raws, raws, strict=True):
            if buffer.name in self._stored and not np.shares_memory(raw, simulated):
                from_csim(buffer, simulated, raw)
        return unbind(bound)

    def _build(self) -> ctypes.CDLL:
        compiler = find_compiler()
        tapa = [TAPA_SHIM] if self.flow == "tapa" else []
        includes = [
            SHIM,
            *tapa,
            *([find_ap_headers().path] if uses_ap(self.program) else []),
            SHIM / "fallback",
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "kernel.cpp").write_text(emit(self.program, self.flow))
        (self.folder / "kernel.h").write_text(emit_header(self.program, self.flow))
        for name, content in source_files(self.program).items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        (self.folder / "csim_entry.cpp").write_text(_entry(self.program, self.flow))
        flags = [*FLAGS, "-O1" if _many_fifos(self.program) else "-O2", "-fPIC", "-DFLEXLLM_STREAM_THROWS"]
        flags += ["-pthread"] if self.flow == "tapa" else []
        flags += [f"-I{path}" for path in includes]
        command = [str(compiler.path), *flags, *precompiled(compiler, flags)]
        command += task_flags(self.program) if self.flow == "tapa" else []
        # Bound to its own symbols: a kernel may be called as a function of the C library is (`fork`).
        command += ["-shared", "-Wl,-Bsymbolic", "csim_entry.cpp", "-o", "csim.so"]
        if self._temporary is not None:
            try:
                run_tool(command, self.folder, "csim.log")
            except ToolError as error:
                raise self._keep_log(error) from None
        else:
            run_tool(command, self.folder, "csim.log")
        return ctypes.CDLL(str((self.folder / "csim.so").resolve()))

    def _keep_log(self, error: ToolError) -> ToolError:
        """The sources of a failed build outlive the module, so that its message can point to them."""
        assert self._temporary is not None
        kept = Path(tempfile.mkdtemp(prefix="flexllm-csim-failed-"))
        for path in self.folder.iterdir():
            path.rename(kept / path.name)
        return ToolError(error.code, error.message, hint=error.hint.replace(str(self.folder), str(kept)))

    def _check_layout(self) -> None:
        sizes = (ctypes.c_uint * len(self.top.params)).in_dll(self._library, "flexllm_sizes")
        for buffer, size in zip(self.top.params, sizes, strict=True):
            if size != csim_bytes(buffer.dtype):
                raise ToolError(
                    "FX502",
                    f"{storage_type(buffer.dtype)} takes {size} bytes with these headers, "
                    f"not {csim_bytes(buffer.dtype)}",
                    buffer.span,
                    hint="use the ap_types headers of the hls4ml package or of Vitis",
                )

    def _run(self, raws: list[Array]) -> None:
        pointers = (ctypes.c_void_p * max(1, len(raws)))(*(raw.ctypes.data for raw in raws))
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        status: list[int] = []

        def call() -> None:
            status.append(self._library.flexllm_run(pointers, message, MESSAGE_BYTES))

        _with_stack(call, self._stack)
        if status[0]:
            raise DeadlockError(
                "FX303",
                f"C simulation of '{self.top.name}' stopped: {message.value.decode(errors='replace')}",
                self.top.span,
                hint=_STOPPED[self.flow == "tapa"],
            )


def csim_bytes(dtype: DType) -> int:
    """Bytes of one element in C simulation: native up to 64 bits, then multiples of 8."""
    if isinstance(dtype, Index):
        return 4
    return container(dtype).itemsize if width(dtype) <= 64 else 8 * -(-width(dtype) // 64)


def csim_dtype(buffer: ir.Buffer) -> np.dtype[Any]:
    """The NumPy type of the elements in C++ layout; raw bytes beyond 64 bits."""
    size = csim_bytes(buffer.dtype)
    if isinstance(buffer.dtype, Index):
        return np.dtype(np.int32)
    return container(buffer.dtype) if width(buffer.dtype) <= 64 else np.dtype(f"V{size}")


def to_csim_bytes(buffer: ir.Buffer, raw: Array) -> bytes:
    """The contents of a data file: the elements as C simulation and the device's memory hold them."""
    return _to_csim(buffer, raw).tobytes()


def _to_csim(buffer: ir.Buffer, raw: Array) -> Array:
    """The array in C++ layout, bits above the width being the extension; itself where that is so already."""
    dtype = buffer.dtype
    bits, size = width(dtype), csim_bytes(dtype)
    if bits == 8 * size > 64:  # words without unused bits are the same bytes in both
        return np.ascontiguousarray(raw).view(np.uint8).reshape(*raw.shape, size)
    if bits > 64:
        data = b"".join(v.to_bytes(size, "little", signed=is_signed(dtype)) for v in from_raw(dtype, raw))
        return np.frombuffer(bytearray(data), np.uint8).reshape(*raw.shape, size)
    if dtype.is_float:
        return raw
    spare = 8 * raw.dtype.itemsize - bits
    if spare:
        raw = np.asarray((raw << spare) >> spare)
    return raw if raw.dtype.itemsize == size else raw.astype(f"<{raw.dtype.kind}{size}")


def from_csim(buffer: ir.Buffer, simulated: Array, raw: Array) -> None:
    """Fill a raw array from one in C++ layout (or its bytes)."""
    dtype = buffer.dtype
    if width(dtype) <= 64:
        raw[...] = simulated
        return
    data, size = simulated.tobytes(), csim_bytes(dtype)
    values = [
        int.from_bytes(data[i : i + size], "little", signed=is_signed(dtype))
        for i in range(0, len(data), size)
    ]
    raw[...] = to_raw(dtype, values).reshape(raw.shape)


def _entry(program: ir.Program, flow: Flow) -> str:
    """The translation unit that is compiled: the kernel and a plain C door to it."""
    top = program.function(program.top)
    results = {b.name for b in top.outputs}
    args: list[str] = []
    for i, b in enumerate(top.params):
        ctype = storage_type(b.dtype)
        if not b.shape and b.name not in results:
            args.append(f"*({ctype} *)args[{i}]")
        elif flow == "tapa":
            args.append(f"tapa::mmap<{ctype} >(({ctype} *)args[{i}], {prod(b.shape)})")
        else:
            args.append(f"({ctype} *)args[{i}]")
    name = top_name(program)
    words = ", ".join([name, '""', *args] if flow == "tapa" else args)
    run = f"tapa::invoke({words})" if flow == "tapa" else f"{name}({words})"
    sizes = ", ".join(f"sizeof({storage_type(b.dtype)})" for b in top.params) or "0"
    return f"""#include "kernel.cpp"
#include <cstdio>
#include <exception>

extern "C" {{
extern const unsigned flexllm_sizes[];
const unsigned flexllm_sizes[] = {{{sizes}}};

int flexllm_run(void **args, char *message, unsigned size) {{
  try {{
    {run};
    return 0;
  }} catch (const std::exception &error) {{
    std::snprintf(message, size, "%s", error.what());
    return 1;
  }}
}}
}}
"""


def task_flags(program: ir.Program) -> list[str]:
    """Definitions for the stand-in of TAPA: room for a task's arrays, and whether its FIFOs have an end.

    A leaf whose own processes use FIFOs of its task runs them one after the other in simulation, not at
    once as the hardware does.  Bounded FIFOs could then block where the hardware does not.
    """
    flags = [f"-DFLEXLLM_TASK_STACK={(8 << 20) + -(-_stack_bytes(program) // 4096) * 4096}"]
    return [*flags, "-DFLEXLLM_TAPA_UNBOUNDED"] if has_sequential_processes(program) else flags


def _many_fifos(program: ir.Program) -> bool:
    """Whether a function declares so many FIFOs that it takes long to compile."""
    return any(
        sum(isinstance(s, ir.Alloc) and s.buffer.is_stream for s in f.body) > MANY_FIFOS
        for f in program.functions
    )


def _stack_bytes(program: ir.Program) -> int:
    """An upper bound of what the local arrays of all functions take at once."""
    total = 0
    for function in program.functions:
        for node in walk(function.body):
            if isinstance(node, ir.Alloc):
                total += prod(node.buffer.shape) * max(csim_bytes(node.buffer.dtype), 1)
    return total


_STACK_LOCK = threading.Lock()


def _with_stack(call: Callable[[], None], size: int) -> None:
    """Run `call` where local arrays of that many bytes fit."""
    if size < MAIN_STACK:
        call()
        return
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    with _STACK_LOCK:
        before = threading.stack_size(-(-size // 4096) * 4096 + (8 << 20))
        try:
            thread = threading.Thread(target=guarded, name="csim")
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if failures:
        raise failures[0]
