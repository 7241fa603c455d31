"""A project on a card: its linked design, weights and arguments, through the Python binding of XRT."""

from __future__ import annotations

import json
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.hls.project import MANIFEST
from ..errors import ToolError, UsageError
from ..models.hf import Checkpoint, checkpoint_without_weights
from .project_plan import MODEL

Array = NDArray[Any]
_TYPES = {"i32": np.int32, "f32": np.float32, "i8": np.int8, "ui8": np.uint8}


class CardDesign:
    """The design of a project, to be loaded on a card.

    Args:
        project: a folder that `build_project` wrote for a checkpoint.
        xclbin: the linked design; by default ``<top>.hw.xclbin`` in the project.

    Raises:
        UsageError: FX703, there is no project, it has no weights or not all of them, or is one of TAPA.
    """

    def __init__(self, project: Path, xclbin: Path | None = None) -> None:
        self.project = project
        if not (project / MANIFEST).is_file():
            raise UsageError("FX703", f"there is no project {project}", hint="flexllm build writes one")
        self.manifest: dict[str, Any] = json.loads((project / MANIFEST).read_text())
        if self.manifest.get("target") == "tapa":
            hint = "build it for vitis_hls; its own host program runs this one"
            raise UsageError("FX703", f"{project} is a project of TAPA", hint=hint)
        if not any("sha256" in tensor for tensor in self.manifest["tensors"].values()):
            raise UsageError(
                "FX703", f"{project} has no weights", hint="build the project of a checkpoint, not of a shape"
            )
        self._check_weights()
        self.xclbin = xclbin or project / f"{self.manifest['top']}.hw.xclbin"
        self._xrt: Any = None
        self._kernel: Any = None
        self._channels: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}

    @property
    def positions(self) -> int:
        """Those of its KV cache; of a prefill by itself, tokens of the longest prompt."""
        return int(self.manifest["max_seq_len"])

    def checkpoint(self) -> Checkpoint:
        """Configuration and tokenizer."""
        return checkpoint_without_weights(self.project / MODEL)

    def check_linked(self) -> None:
        """Refuse a project whose design is not linked.

        Raises:
            ToolError: FX501.
        """
        if not self.xclbin.is_file():
            hint = "link the design: make xclbin TARGET=hw"
            raise ToolError("FX501", f"there is no {self.xclbin}", hint=hint)

    def _check_weights(self) -> None:
        """Refuse files that end before the weights do, as after a copy that was cut short."""
        for name, tensor in self.manifest["tensors"].items():
            if "sha256" in tensor:
                path, end = self.project / tensor["file"], tensor["offset"] + tensor["bytes"]
                if not path.is_file() or path.stat().st_size < end:
                    hint = "copy the project again, or build it anew"
                    raise UsageError("FX703", f"{path} lacks weights ({name})", hint=hint)

    def load(self, xrt: Any, device: Any) -> None:
        """Configure the card with the design, and bring every channel's contents to its memory."""
        uuid = device.load_xclbin(xrt.xclbin(str(self.xclbin)))
        self._xrt, self._kernel = xrt, xrt.kernel(device, uuid, self.manifest["top"])
        tensors = self.manifest["tensors"]
        ends: dict[str, int] = {}
        files = {t["channel"]: t["file"] for t in tensors.values() if "file" in t}
        for tensor in tensors.values():
            end = tensor["offset"] + tensor["bytes"]
            ends[tensor["channel"]] = max(ends.get(tensor["channel"], 0), end)
        for index, argument in enumerate(self.manifest["arguments"]):
            if not argument["memory"]:
                continue
            tensor = tensors[argument["name"]]
            channel = tensor["channel"]
            if channel not in self._channels:
                whole = xrt.bo(device, ends[channel], xrt.bo.normal, self._kernel.group_id(index))
                if channel in files:
                    self._fill(whole, self.project / files[channel])
                self._channels[channel] = whole
            self._buffers[argument["name"]] = xrt.bo(
                self._channels[channel], tensor["bytes"], tensor["offset"]
            )

    def unload(self) -> None:
        """Let go of the card's memory."""
        self._buffers, self._channels, self._kernel = {}, {}, None

    def run(self, **scalars: float) -> int | None:
        """Run the kernel once; what it returns, if it does."""
        run = self._xrt.run(self._kernel)
        for index, argument in enumerate(self.manifest["arguments"]):
            name = argument["name"]
            value = self._buffers[name] if argument["memory"] else scalars.get(name)
            run.set_arg(index, self._constant(argument) if value is None else value)
        run.start()
        run.wait()
        last = self.manifest["arguments"][-1]
        return int(self.read(last["name"])) if last["name"].startswith("result") else None

    def write(self, name: str, values: Array) -> None:
        """Bring the (first) elements of an argument to the card."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._buffers[name].write(data, 0)
        self._sync(self._buffers[name], data.size, to_device=True)

    def read(self, name: str) -> Array:
        """The elements of an argument; bytes where several are in one."""
        size = self.manifest["tensors"][name]["bytes"]
        self._sync(self._buffers[name], size, to_device=False)
        data = np.array(self._buffers[name].read(size, 0), np.uint8)
        argument = next(a for a in self.manifest["arguments"] if a["name"] == name)
        kind = np.dtype(_TYPES.get(argument["element"], np.uint8))
        shape = argument["elements"]
        return data.view(kind).reshape(shape) if prod(shape) * kind.itemsize == size else data

    def stored(self, name: str, kind: Any = np.int32) -> Array:
        """The data of an argument in the project."""
        return np.frombuffer((self.project / "data" / f"{name}.bin").read_bytes(), kind)

    def _constant(self, argument: dict[str, Any]) -> int | float:
        return self.stored(argument["kernel_name"], _TYPES[argument["type"]])[0].item()

    def _fill(self, buffer: Any, path: Path) -> None:
        contents = np.memmap(path, np.uint8, "r")
        buffer.write(contents, 0)
        self._sync(buffer, len(contents), to_device=True)

    def _sync(self, buffer: Any, size: int, *, to_device: bool) -> None:
        directions = self._xrt.xclBOSyncDirection
        kind = "XCL_BO_SYNC_BO_TO_DEVICE" if to_device else "XCL_BO_SYNC_BO_FROM_DEVICE"
        buffer.sync(getattr(directions, kind), size, 0)


def pyxrt() -> Any:
    """The module pyxrt.

    Raises:
        ToolError: FX501, it is not installed.
    """
    try:
        return import_module("pyxrt")
    except ImportError as error:
        raise ToolError(
            "FX501",
            "the Python module of the Xilinx runtime, pyxrt, is not installed",
            hint="install XRT from AMD and put $XILINX_XRT/python on PYTHONPATH",
        ) from error


__all__ = ["CardDesign", "pyxrt"]
