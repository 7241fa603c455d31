"""A model that answers on a card: the linked design of a project, through the Python binding of XRT."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.hls.project import MANIFEST
from ..errors import ToolError, UsageError
from ..models.hf import Checkpoint, checkpoint_without_weights
from ..models.sampling import Sampling
from .session import GenerationResult

MODEL = "model"
_TYPES = {"i32": np.int32, "f32": np.float32}


class XrtSession:
    """Runs ``generate`` of a project on a card; `encode`, `decode`, `generate`, `close` as in `Session`.

    The weights go to the card once, a file per memory channel; arguments are views into these.

    Args:
        project: a folder that `build_project` wrote for a checkpoint.
        xclbin: the linked design; by default ``<top>.hw.xclbin`` in the project.
        device: index of the card.

    Raises:
        ToolError: FX501, the module pyxrt is not installed, or the design is not linked yet.
        UsageError: FX703, the project has no weights.
    """

    def __init__(self, project: Path | str, xclbin: Path | str | None = None, device: int = 0) -> None:
        self.project = Path(project)
        self.manifest: dict[str, Any] = json.loads((self.project / MANIFEST).read_text())
        if not any("sha256" in tensor for tensor in self.manifest["tensors"].values()):
            raise UsageError(
                "FX703", f"{project} has no weights", hint="build the project of a checkpoint, not of a shape"
            )
        self._xrt = _pyxrt()
        linked = Path(xclbin) if xclbin else self.project / f"{self.manifest['top']}.hw.xclbin"
        if not linked.is_file():
            raise ToolError("FX501", f"there is no {linked}", hint="link the design: make xclbin TARGET=hw")
        self._device = self._xrt.device(device)
        uuid = self._device.load_xclbin(self._xrt.xclbin(str(linked)))
        self._kernel = self._xrt.kernel(self._device, uuid, self.manifest["top"])
        self._channels: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}
        self._load()

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Configuration and tokenizer."""
        return checkpoint_without_weights(self.project / MODEL)

    @property
    def max_seq_len(self) -> int:
        return int(self.manifest["max_seq_len"])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, BOS first where the tokenizer adds one."""
        return self.checkpoint.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.checkpoint.decode(tokens)

    def generate(
        self,
        prompt_tokens: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None] | None = None,
        **sampling: Any,
    ) -> GenerationResult:
        """Continue a prompt until a stop token, `max_new_tokens` or the end of the context.

        The card does all of it in one run, so `on_token` is called for all tokens at its end, and the time
        of the prefill is in `tokens_per_second`.

        Raises:
            UsageError: FX701, the prompt is empty or longer than the context.
        """
        if not 1 <= len(prompt_tokens) <= self.max_seq_len:
            raise UsageError(
                "FX701",
                f"the prompt has {len(prompt_tokens)} tokens",
                hint=f"1 to {self.max_seq_len} tokens fit this design",
            )
        self._write("prompt", np.array(prompt_tokens, np.int32))
        run = self._xrt.run(self._kernel)
        scalars = {
            "n_prompt": len(prompt_tokens),
            "max_new_tokens": min(max_new_tokens, self.max_seq_len),
            **Sampling(**sampling).arguments(),
        }
        for index, argument in enumerate(self.manifest["arguments"]):
            name = argument["name"]
            value = self._buffers[name] if argument["memory"] else scalars.get(name)
            run.set_arg(index, self._constant(argument) if value is None else value)
        start = time.perf_counter()
        run.start()
        run.wait()
        seconds = time.perf_counter() - start
        count = int(self._read(self.manifest["arguments"][-1]["name"])[0])
        tokens = [int(token) for token in self._read("tokens")[:count]]
        for token in tokens:
            if on_token is not None:
                on_token(token)
        return GenerationResult(tokens, len(tokens) / seconds if seconds else 0.0)

    def close(self) -> None:
        """Let go of the card's memory."""
        self._buffers, self._channels = {}, {}

    def _load(self) -> None:
        """Bring every channel's contents to the card, and give the other arguments memory."""
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
                group = self._kernel.group_id(index)
                whole = self._xrt.bo(self._device, ends[channel], self._xrt.bo.normal, group)
                if channel in files:
                    self._fill(whole, self.project / files[channel])
                self._channels[channel] = whole
            self._buffers[argument["name"]] = self._xrt.bo(
                self._channels[channel], tensor["bytes"], tensor["offset"]
            )
        self._write("stop", self._stored_data("stop"))

    def _fill(self, buffer: Any, path: Path) -> None:
        contents = np.memmap(path, np.uint8, "r")
        buffer.write(contents, 0)
        self._sync(buffer, len(contents), to_device=True)

    def _write(self, name: str, values: NDArray[np.int32]) -> None:
        data = values.view(np.uint8)
        self._buffers[name].write(data, 0)
        self._sync(self._buffers[name], data.size, to_device=True)

    def _read(self, name: str) -> NDArray[np.int32]:
        size = self.manifest["tensors"][name]["bytes"]
        self._sync(self._buffers[name], size, to_device=False)
        return np.array(self._buffers[name].read(size, 0), np.uint8).view(np.int32)

    def _sync(self, buffer: Any, size: int, *, to_device: bool) -> None:
        directions = self._xrt.xclBOSyncDirection
        kind = "XCL_BO_SYNC_BO_TO_DEVICE" if to_device else "XCL_BO_SYNC_BO_FROM_DEVICE"
        buffer.sync(getattr(directions, kind), size, 0)

    def _constant(self, argument: dict[str, Any]) -> int | float:
        return self._stored_data(argument["kernel_name"], _TYPES[argument["type"]])[0].item()

    def _stored_data(self, name: str, kind: Any = np.int32) -> NDArray[Any]:
        return np.frombuffer((self.project / "data" / f"{name}.bin").read_bytes(), kind)


def _pyxrt() -> Any:
    try:
        return import_module("pyxrt")
    except ImportError as error:
        raise ToolError(
            "FX501",
            "the Python module of the Xilinx runtime, pyxrt, is not installed",
            hint="install XRT from AMD and put $XILINX_XRT/python on PYTHONPATH",
        ) from error
