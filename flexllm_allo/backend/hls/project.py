"""Output folders: planned in memory, written in one step, recognised by their manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from ...errors import UsageError

MANIFEST = "manifest.json"
SCHEMA = 1
GENERATOR = "flexllm-allo"


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Everything a project folder will hold, as bytes by relative path.

    The same program and data give the same bytes: no time stamps, no absolute paths.
    """

    top: str
    device: str
    frequency_mhz: float
    files: Mapping[str, bytes]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(self.files.items())}

    def manifest(self) -> bytes:
        content = {
            "schema": SCHEMA,
            "generator": GENERATOR,
            "version": _version(),
            "top": self.top,
            "device": self.device,
            "frequency_mhz": self.frequency_mhz,
            "files": self.digests,
        }
        return (json.dumps(content, indent=2) + "\n").encode()


def write_project(plan: BuildPlan, out_dir: str | Path) -> Path:
    """Write a plan to a folder: all of it, or nothing.

    An existing folder is replaced only if it is empty or a project of ours.

    Raises:
        UsageError: FX702, the folder belongs to something else or cannot be written.
    """
    out = Path(os.path.abspath(out_dir))
    check_folder(out)
    staging: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        staging.chmod(0o755)
        for name, data in {**plan.files, MANIFEST: plan.manifest()}.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _swap(staging, out)
        staging = None
    except OSError as error:
        raise _refusal(out, error.strerror or str(error)) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return out


def _swap(staging: Path, out: Path) -> None:
    """Put the new folder in the place of the old one, which comes back if that fails."""
    if not out.exists():
        staging.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_folder(out: str | Path) -> None:
    """Refuse a place that `write_project` would refuse, before the work that leads there.

    Raises:
        UsageError: FX702, it holds something else, or lies in what is no folder.
    """
    out = Path(os.path.abspath(out))
    if not os.path.lexists(out):
        parent = next(p for p in out.parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise _refusal(out, f'"{parent}" is not a folder one can write to')
        return
    if not out.is_dir() or out.is_symlink():
        raise _refusal(out, "it is not a folder")
    if any(out.iterdir()) and not _is_ours(out / MANIFEST):
        raise _refusal(out, "it holds files that are not a project of this tool")


def _is_ours(manifest: Path) -> bool:
    try:
        content = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and cast("dict[str, object]", content).get("generator") == GENERATOR


def _version() -> str:
    try:
        return version(GENERATOR)
    except PackageNotFoundError:
        return "unknown"


def _refusal(out: Path, reason: str) -> UsageError:
    return UsageError(
        "FX702",
        f'cannot write the project to "{out}": {reason}',
        hint="name a new folder, or one written by an earlier build",
    )
