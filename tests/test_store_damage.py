"""Folders of quantized models that cannot be read: what is wrong is said, and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_model import edited, float_model, model, refusal, write

from flexllm_allo.quant.store.folder import Source, file_of, read_quantized
from flexllm_allo.quant.store.manifest import MANIFEST


@pytest.fixture
def source(tmp_path) -> Source:
    return float_model(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda f: (f / MANIFEST).unlink(),
        "holds no quantized model: cannot read quantization.json (No such file",
    ),
    (lambda f: (f / MANIFEST).write_text("{"), "quantization.json is damaged: it is not JSON"),
    (lambda f: (f / MANIFEST).write_text("[]"), "is not of a model that this tool quantized"),
    (lambda f: edited(f, format="other"), "is not of a model that this tool quantized"),
    (lambda f: edited(f, version=2), "has version 2, this release reads up to 1"),
    (lambda f: edited(f, version="1"), "is damaged: version: input should be 1"),
    (lambda f: edited(f, sauce={}), "is damaged: sauce: extra inputs are not permitted"),
    (lambda f: edited(f, tensors={"embed": {}}), "is damaged: tensors.embed.kind: field required"),
    (lambda f: edited(f, complete=False), "is not complete"),
    (lambda f: edited(f, recipe={"name": "x", "wieght": 1}), 'wieght is unknown: did you mean "weight"?'),
    (lambda f: (f / "config.json").unlink(), "is damaged: "),
    (lambda f: (f / "layer-01.safetensors").unlink(), "layer-01.safetensors: No such file or directory"),
    (
        lambda f: truncate(f / "layer-01.safetensors"),
        "layer-01.safetensors: Error while deserializing header",
    ),
    (
        lambda f: (f / "head.safetensors").write_bytes(b"x"),
        "head.safetensors: Error while deserializing header",
    ),
    (
        lambda f: shutil.copy(f / "layer-01.safetensors", f / "layer-02.safetensors"),
        "layer-02.safetensors is damaged at layers.2.attn_norm: layers.2.attn_norm is missing",
    ),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_damaged_folders(tmp_path, source, damage, says):
    write(tmp_path / "out", source, model())
    damage(tmp_path / "out")
    assert says in refusal("FX608", lambda: read_quantized(tmp_path / "out"))


def test_files_outside_of_the_folder_are_not_read(tmp_path, source):
    write(tmp_path / "out", source, model())
    text = (tmp_path / "out" / MANIFEST).read_text()
    (tmp_path / "out" / MANIFEST).write_text(text.replace("embed.safetensors", "../embed.safetensors"))
    assert "tensors.embed.file" in refusal("FX608", lambda: read_quantized(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "part"),
    [("layers.0.wq", "codes"), ("layers.2.wq", "scale"), ("embed", None), ("layers.1.attn.outliers", None)],
)
def test_a_flipped_bit_is_found_where_it_is(tmp_path, source, name, part):
    write(tmp_path / "out", source, model())
    array = f"{name}.{part}" if part else name
    path = tmp_path / "out" / file_of(name)
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[array]["data_offsets"]
    data[8 + length + (begin + end) // 2] ^= 4
    path.write_bytes(data)
    tensors = read_quantized(tmp_path / "out").tensors
    text = refusal("FX608", lambda: tensors[name])
    assert f"{path} is damaged at {name}: the checksum of {array} is wrong" in text
    others = [tensors[other] for other in tensors if other != name]
    assert len(others) == len(tensors) - 1


def test_a_shape_that_is_not_the_codes(tmp_path, source):
    write(tmp_path / "out", source, model())
    fields = json.loads((tmp_path / "out" / MANIFEST).read_text())
    fields["tensors"]["layers.0.wq"]["shape"] = [6, 30]
    fields["tensors"]["layers.1.wq"]["shape"] = [5, 32]
    fields["tensors"]["layers.2.wq"]["format"]["bits"] = 12
    edited(tmp_path / "out", tensors=fields["tensors"])
    tensors = read_quantized(tmp_path / "out").tensors
    assert "16 bytes do not hold 30 codes of 4 bits" in refusal("FX608", lambda: tensors["layers.0.wq"])
    assert "it has shape [6, 32], the manifest says [5" in refusal("FX608", lambda: tensors["layers.1.wq"])
    assert "bits is 12: 2 to 8 are supported" in refusal("FX608", lambda: tensors["layers.2.wq"])
