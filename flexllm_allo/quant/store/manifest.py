"""quantization.json: what a folder with a quantized model holds, and what it was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ... import __version__
from ...errors import QuantError

MANIFEST = "quantization.json"
FORMAT, VERSION = "flexllm-quantized", 1

FileName = Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]


class Entry(BaseModel):
    """One tensor: its file, and how the arrays in it become values.

    Attributes:
        kind: a ``weight`` is a `QuantizedWeight`, an ``array`` just values.
        file: the safetensors file.
        shape: of the matrix the codes stand for, or of the array.
        format: of a weight, as in a recipe file; None for float.
        crc32: checksum of the bytes of every array, by its name in the file.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["weight", "array"]
    file: FileName
    shape: list[int]
    format: dict[str, Any] | None = None
    crc32: dict[str, int]


class Manifest(BaseModel):
    """The whole of it. Nothing in it changes from one run to the next: no dates, no times, no paths.

    Attributes:
        tool: name and version of the software that made it.
        recipe: in full, as in a recipe file.
        source: sha256 of every file of the float model, by name.
        calibration: sha256 of the tokens looked at, and how they were chosen; None for recipes without data.
        complete: False while the folder is being written.
        tensors: by name, in the order in which they were written.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["flexllm-quantized"] = FORMAT
    version: Literal[1] = VERSION
    complete: bool = False
    tool: str = f"flexllm-allo {__version__}"
    recipe: dict[str, Any]
    source: dict[str, str]
    calibration: dict[str, Any] | None = None
    tensors: dict[str, Entry] = {}

    def same_origin(self, other: Manifest) -> bool:
        """Whether both come of one model, recipe, calibration and tool: one may go on from the other."""
        ours, theirs = ((m.version, m.tool, m.recipe, m.source, m.calibration) for m in (self, other))
        return ours == theirs

    def text(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        QuantError: FX608, there is none, or it is damaged, of another kind, or of a newer version.
    """
    path = folder / MANIFEST
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QuantError(
            "FX608",
            f"{folder} holds no quantized model: cannot read {MANIFEST} ({error.strerror})",
            hint="flexllm quantize makes such a folder",
        ) from error
    except ValueError as error:
        raise _damaged(path, f"it is not JSON ({error})") from error
    fields: dict[str, Any] = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    if fields.get("format") != FORMAT:
        raise QuantError("FX608", f"{path} is not of a model that this tool quantized")
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise QuantError(
            "FX608",
            f"{path} has version {version}, this release reads up to {VERSION}",
            hint="take a newer release, or quantize the model again",
        )
    try:
        return Manifest.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{at}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _damaged(path: Path, reason: str) -> QuantError:
    return QuantError("FX608", f"{path} is damaged: {reason}", hint="quantize the model again")
