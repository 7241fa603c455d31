"""The folder of a quantized model: what comes back, what a kill leaves, what is refused."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from stored_model import (
    FORMATS,
    LAYERS,
    RECIPE,
    Tensors,
    contents,
    edited,
    float_model,
    hidden,
    model,
    refusal,
    weight,
    write,
)

from flexllm_allo import staging
from flexllm_allo.errors import QuantError
from flexllm_allo.quant.formats import INT8_WEIGHT
from flexllm_allo.quant.recipes import recipes
from flexllm_allo.quant.store.folder import Source, file_of, read_quantized, write_quantized
from flexllm_allo.quant.store.manifest import MANIFEST, read_manifest


@pytest.fixture
def source(tmp_path) -> Source:
    return float_model(tmp_path)


# ---- what comes back -------------------------------------------------------------------------------------


def test_every_format_comes_back(tmp_path, source):
    tensors = {f"layers.{i}.wq": weight(i, (6, 64), fmt) for i, fmt in enumerate(FORMATS)}
    write(tmp_path / "out", source, tensors)
    config, recipe, found, _ = read_quantized(tmp_path / "out")
    assert config == {"hidden_size": 32}
    assert recipe == RECIPE
    assert list(found) == list(tensors)
    for name, expected in tensors.items():
        value = found[name]
        assert value.format == expected.format
        assert value.shape == expected.shape == found.shape(name)
        for part in ("codes", "scale", "zero", "step", "index"):
            a, b = getattr(value, part), getattr(expected, part)
            assert (a is None) == (b is None), (name, part)
            assert a is None or (a.dtype == b.dtype and (a == b).all()), (name, part)


def test_codes_take_their_bits(tmp_path, source):
    tensors = {f"layers.{i}.wq": weight(i, (6, 64), fmt) for i, fmt in enumerate(FORMATS)}
    write(tmp_path / "out", source, tensors)
    found = read_quantized(tmp_path / "out").tensors
    for i, fmt in enumerate(FORMATS):
        bits = fmt.bits_per_weight(64) if fmt else 32
        # Only the zero points of a row are filled up to a byte: 4 of 5 bits are 20 bits, and take 24.
        slack = 4 / 64 if fmt and fmt.bits == 5 else 0
        assert found.stored_bytes(f"layers.{i}.wq") * 8 / (6 * 64) == bits + slack, fmt


def test_floats_take_two_bytes_where_no_value_changes(tmp_path, source):
    exact = np.array([[1, -0.5, 3.140625, np.inf, 0, -0.0]], np.float32)
    inexact = np.array([[1, 0.1, 1e-45]], np.float32)
    write(
        tmp_path / "out", source, {"embed": exact, "layers.0.wq.side": inexact, "layers.1.q_scale": exact[0]}
    )
    found = read_quantized(tmp_path / "out").tensors
    assert found.stored_bytes("embed") == 2 * exact.size
    assert found.stored_bytes("layers.0.wq.side") == 4 * inexact.size
    for name, value in (("embed", exact), ("layers.0.wq.side", inexact), ("layers.1.q_scale", exact[0])):
        assert found[name].dtype == np.float32
        assert (found[name].view(np.uint32) == value.view(np.uint32)).all()


def test_other_readers_read_the_files(tmp_path, source):
    tensors = model()
    write(tmp_path / "out", source, tensors)
    with safe_open(tmp_path / "out" / "layer-01.safetensors", "numpy") as file:
        assert set(file.keys()) == {
            "layers.1.wq.codes", "layers.1.wq.scale", "layers.1.w_down.codes", "layers.1.w_down.scale",
            "layers.1.attn_norm", "layers.1.attn.outliers",
        }  # fmt: skip
        assert (file.get_tensor("layers.1.wq.scale") == tensors["layers.1.wq"].scale).all()
        assert file.get_tensor("layers.1.wq.codes").shape == (6, 16)


def test_the_folder(tmp_path, source):
    calibration = {"text_sha256": "0" * 64, "samples": 4, "length": 16, "seed": 3}
    write(tmp_path / "a", source, model(), calibration=calibration)
    assert sorted(contents(tmp_path / "a")) == sorted(
        ["config.json", "tokenizer.json", MANIFEST, "embed.safetensors", "head.safetensors"]
        + [f"layer-0{i}.safetensors" for i in range(LAYERS)]
    )
    assert hidden(tmp_path) == []
    manifest = read_manifest(tmp_path / "a")
    assert manifest.complete
    assert manifest.calibration == calibration
    assert list(manifest.source) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert str(tmp_path) not in (tmp_path / "a" / MANIFEST).read_text()
    # The same input gives the same bytes, wherever it is written.
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", source, model(), calibration=calibration)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_files_of_tensors():
    assert file_of("embed") == "embed.safetensors"
    assert file_of("layers.7.wq.side") == "layer-07.safetensors"
    assert file_of("layers.123.attn_norm") == "layer-123.safetensors"
    assert {file_of(name) for name in ("final_norm", "w_head", "head.outliers")} == {"head.safetensors"}


# ---- one step or not at all ------------------------------------------------------------------------------


class Broken(Exception):
    """Ends a run at a chosen tensor, as a bug or Ctrl-C would."""


def broken_stream(tensors: Tensors, at: str, error: Exception, seen: list[str]):
    def stream(done: frozenset[str]) -> Iterator:
        for name, value in tensors.items():
            if name not in done:
                if name == at:
                    raise error
                seen.append(name)
                yield name, value

    return stream


def test_a_run_goes_on_after_the_last_complete_layer(tmp_path, source):
    out, tensors = tmp_path / "out", model()
    write(tmp_path / "whole", source, tensors)
    write(out, source, model(9))
    before = contents(out)
    with pytest.raises(Broken):
        write_quantized(out, source, RECIPE, broken_stream(tensors, "layers.2.wq", Broken(), []))
    assert contents(out) == before
    assert hidden(tmp_path) == [".out.partial"]
    seen: list[str] = []
    write_quantized(out, source, RECIPE, broken_stream(tensors, "", Broken(), seen))
    assert seen == [n for n in tensors if file_of(n) in ("layer-02.safetensors", "head.safetensors")]
    assert contents(out) == contents(tmp_path / "whole")
    assert hidden(tmp_path) == []


def test_a_stream_may_give_again_what_is_done(tmp_path, source):
    with pytest.raises(Broken):
        write_quantized(tmp_path / "out", source, RECIPE, broken_stream(model(), "w_head", Broken(), []))
    # As a recipe does whose later layers depend on the activations of the earlier ones.
    write_quantized(tmp_path / "out", source, RECIPE, lambda done: model().items())
    write(tmp_path / "whole", source, model())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["recipe", "source", "calibration", "tool", "damage"])
def test_what_another_run_left_is_not_used(tmp_path, source, change):
    out = tmp_path / "out"
    with pytest.raises(Broken):
        write_quantized(out, source, RECIPE, broken_stream(model(9), "w_head", Broken(), []), {"seed": 1})
    recipe, calibration = RECIPE, {"seed": 1}
    if change == "recipe":
        recipe = replace(RECIPE, description="another")
    elif change == "source":
        (source.folder / "model.safetensors").write_bytes(b"others")
        source = Source.of(source.folder)
    elif change == "calibration":
        calibration = {"seed": 2}
    elif change == "tool":
        edited(tmp_path / ".out.partial", tool="flexllm-allo 0.0.1")
    else:
        (tmp_path / ".out.partial" / MANIFEST).write_text("{")
    (tmp_path / ".out.partial" / "stray").mkdir()
    write(out, source, model(), recipe, calibration)
    write(tmp_path / "whole", source, model(), recipe, calibration)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_truncated_layer_is_made_again(tmp_path, source):
    with pytest.raises(Broken):
        write_quantized(tmp_path / "out", source, RECIPE, broken_stream(model(), "w_head", Broken(), []))
    path = tmp_path / ".out.partial" / "layer-01.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    seen: list[str] = []
    write_quantized(tmp_path / "out", source, RECIPE, broken_stream(model(), "", Broken(), seen))
    assert {file_of(name) for name in seen} == {"layer-01.safetensors", "head.safetensors"}
    write(tmp_path / "whole", source, model())
    found, expected = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert read_quantized(tmp_path / "out").tensors["layers.1.wq"].shape == (6, 32)
    assert {k: v for k, v in found.items() if k != MANIFEST} == {
        k: v for k, v in expected.items() if k != MANIFEST
    }


def test_a_refusal_leaves_nothing(tmp_path, source):
    out = tmp_path / "out"
    error = QuantError("FX606", "model.layers.1.self_attn.q_proj.weight: NaN")
    stream = broken_stream(model(), "layers.1.wq", error, [])
    assert "q_proj" in refusal("FX606", lambda: write_quantized(out, source, RECIPE, stream))
    assert not out.exists()
    assert hidden(tmp_path) == []


FILE_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.dlsym")


def forked(work: Callable[[], object], kill_at: int = -1) -> tuple[int, int]:
    """Run in a child process and kill it (SIGKILL) before the n-th thing it does to files.

    Returns:
        The signal that ended it or 0, and how many things it did.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _arguments: object) -> None:
            nonlocal count
            if event in FILE_EVENTS:
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        try:
            sys.addaudithook(hook)
            work()
            os.write(send, str(count).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), int(text or -1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("old_recipe", [recipes["w8a8kv8"], RECIPE], ids=["another recipe", "the same"])
def test_killed_at_any_point_the_previous_output_is_intact(tmp_path, source, old_recipe, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda _handle: None
    )  # the files outlive the process without, and faster
    old, new = model(9, layers=1), model(layers=1)
    write(tmp_path / "old", source, old, old_recipe)
    write(tmp_path / "new", source, new)
    write(tmp_path / "out", source, old, old_recipe)
    before, after = contents(tmp_path / "old"), contents(tmp_path / "new")
    signalled, points = forked(lambda: write(tmp_path / "out", source, new))
    assert signalled == 0
    assert contents(tmp_path / "out") == after
    assert points > 30
    changed = 0
    for point in range(points):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "old", tmp_path / "out")
        signalled, _ = forked(lambda: write(tmp_path / "out", source, new), kill_at=point)
        assert signalled == signal.SIGKILL, point
        left = contents(tmp_path / "out")
        assert left in (before, after), point
        changed += left == after
        write(tmp_path / "out", source, new)
        assert contents(tmp_path / "out") == after, point
        assert hidden(tmp_path) == [], point
    assert 0 < changed < points  # some kills came after the swap, the others before


def test_without_an_exchange_of_names(tmp_path, source, monkeypatch):
    monkeypatch.setattr(staging, "_exchanged", lambda a, b: False)
    write(tmp_path / "out", source, model(9))
    write(tmp_path / "out", source, model())
    write(tmp_path / "whole", source, model())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert hidden(tmp_path) == []
    # Killed between the two renames: the next run finds the old output, whatever else happens to it.
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(Broken):
        write_quantized(tmp_path / "out", source, RECIPE, broken_stream(model(9), "embed", Broken(), []))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    # Killed after them, the old one goes.
    shutil.copytree(tmp_path / "out", tmp_path / ".out.old")
    write(tmp_path / "out", source, model(9))
    assert hidden(tmp_path) == []


def test_two_writers(tmp_path, source):
    def nested(done: frozenset[str]) -> Iterator:
        text = refusal("FX702", lambda: write(tmp_path / "out", source, model(9)))
        assert "another process is writing it" in text
        return iter(model().items())

    write_quantized(tmp_path / "out", source, RECIPE, nested)
    write(tmp_path / "whole", source, model())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert hidden(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_full_disk(tmp_path, source):
    out = tmp_path / "out"
    write(out, source, model(9))
    before = contents(out)
    big = model() | {"w_head": weight(0, (300, 200), INT8_WEIGHT)}

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # as if the disk had no more room
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        text = refusal("FX702", lambda: write(out, source, big))
        assert f'cannot write "{out}": File too large' in text
        assert "out is as it was; what is finished is in .out.partial" in text
        (tmp_path / "refused").write_text("")

    forked(limited)
    assert (tmp_path / "refused").exists()
    assert contents(out) == before
    assert hidden(tmp_path) == [".out.partial"]
    write(out, source, big)
    assert read_quantized(out).tensors["w_head"].shape == (300, 200)


def test_a_disk_that_fills_up_at_a_sync(tmp_path, source, monkeypatch):
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    text = refusal("FX702", lambda: write(tmp_path / "out", source, model()))
    assert "No space left on device" in text
    assert "out was not made" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no/folder", 'there is no folder "'),
        ("float/config.json", "it is a file"),
        ("photos", "it holds other files and no quantization.json"),
    ],
)
def test_folders_that_are_not_written(tmp_path, source, name, says):
    shutil.copytree(source.folder, tmp_path / "photos")
    before = contents(tmp_path / "photos")
    text = refusal("FX702", lambda: write(tmp_path / name, source, model()))
    assert f'cannot write "{tmp_path / name}": {says}' in text
    assert contents(tmp_path / "photos") == before
    assert contents(source.folder) == before


def test_the_source_is_not_replaced(tmp_path, source):
    (source.folder / MANIFEST).write_text("{}")
    text = refusal("FX702", lambda: write(source.folder, source, model()))
    assert "it is the model that is to be quantized" in text


def test_a_link_stays_a_link(tmp_path, source):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    write(tmp_path / "out", source, model())
    write(tmp_path / "out", source, model(9))
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / MANIFEST).exists()
