"""The memory map: every array has its own place, weights are packed there piece by piece, and come back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexllm_allo.analysis.traffic import footprints
from flexllm_allo.backend.hls.bundles import concurrent_pairs, shared_bundles
from flexllm_allo.errors import BackendError, UsageError
from flexllm_allo.hardware.devices import device
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.dtypes import FLOAT32, DType, Int, UInt
from flexllm_allo.ir.layout import logical_shape
from flexllm_allo.models import architecture, load
from flexllm_allo.models.arrays import constant_arrays, constant_parts
from flexllm_allo.runtime import packing
from flexllm_allo.runtime.bitstream import run_arguments
from flexllm_allo.runtime.build import build_project, hardware_top
from flexllm_allo.runtime.memory_map import MemoryMap, memory_map
from flexllm_allo.staging import StagedFolder

TINY = Path(__file__).parent.parent / "models" / "tiny"
RECIPES = ("w4a8kv8", "w4a4kv8", "w4a8kv4", "w2a8kv4", "none")


def map_of(model, card: str = "u280") -> MemoryMap:
    return memory_map(hardware_top(model), device(card), 300.0, run_arguments(model))


@pytest.fixture(scope="module")
def full() -> MemoryMap:
    return map_of(architecture("llama-3.2-1b", "w4a4kv8", 2048))


def spans(plan: MemoryMap) -> list[tuple[str, int, int]]:
    """(memory, first byte, last byte + 1) of every array, channels one after the other."""
    size = {m.kind: m.channel_bytes for m in plan.device.memories}
    out = []
    for p in plan.placements.values():
        begin = p.slot.first * size[p.slot.memory] + p.slot.offset
        assert p.slot.offset + p.slot.bytes <= p.slot.channels * size[p.slot.memory], p.name
        out.append((p.slot.memory, begin, begin + p.slot.bytes))
    return sorted(out)


@pytest.mark.parametrize("recipe", ["w4a8kv8", "w2a8kv4", "none"])
def test_no_two_arrays_overlap(recipe: str) -> None:
    model = architecture("llama-3.2-1b", recipe, 4096)
    top = hardware_top(model)
    for card in ("u280", "v80"):
        found = spans(memory_map(top, device(card), 300.0, run_arguments(model)))
        for (kind, begin, end), (other, next_begin, _) in pairwise(found):
            assert begin % 4096 == 0
            assert kind != other or end <= next_begin


def test_sizes_and_traffic_follow_from_the_ports(full: MemoryMap) -> None:
    p = full.placements
    assert p["w_gate_codes"].word_bytes == 32  # 64 rows of 4 bits
    assert p["w_gate_codes"].slot.bytes == 16 * 8192 * 2048 // 2
    assert p["w_gate_codes"].bytes_per_token == p["w_gate_codes"].slot.bytes
    assert p["embed"].bytes_per_token == 2048 * 4  # one row
    assert str(p["embed"].slot) == "DDR[0]"
    assert p["cosine"].bytes_per_token == 32 * 4
    assert p["k_codes"].bytes_per_token == 16 * 8 * 2048 * 64
    assert not p["k_codes"].is_constant
    assert p["w_down_terms"].bytes_per_token == 16 * 2048 * 2 * 4  # scale and sum of every row
    heavy = [q for q in p.values() if q.bytes_per_token > 1 << 20]
    assert len({str(q.slot) for q in heavy}) == len(heavy)  # a channel each


def test_bandwidth_is_bounded_by_port_and_channel(full: MemoryMap) -> None:
    gate = full.placements["w_gate_codes"]
    assert full.seconds(gate) == pytest.approx(gate.slot.bytes / (32 * 300e6))
    fast = replace(full, frequency_mhz=600.0)  # 19.2 GB/s asked of 14.375
    assert fast.seconds(gate) == pytest.approx(gate.slot.bytes / 14.375e9)
    assert "w_gate_codes" in fast.bandwidth()["limited_by_channel"]
    assert "w_gate_codes" not in full.bandwidth()["limited_by_channel"]


def test_arrays_beyond_the_ports_share_them() -> None:
    model = architecture("llama-3.2-1b", "w2a8kv4", 2048)
    top, card = hardware_top(model), device("u280")
    plan = map_of(model)
    by_bundle: dict[str, list] = {}
    for p in plan.placements.values():
        by_bundle.setdefault(p.bundle, []).append(p)
    assert len(by_bundle) == card.ports < len(plan.placements)
    apart = concurrent_pairs(top.top)
    for members in by_bundle.values():
        assert len({(p.slot.memory, p.slot.first) for p in members}) == 1
        assert not any(frozenset((a.name, b.name)) in apart for a in members for b in members)
    few = replace(card, memory=replace(card.memory, ports=3))
    sizes = {p.name: p.slot.bytes for p in plan.placements.values()}
    with pytest.raises(BackendError, match=r"needs \d+ memory ports, \d+ more than AMD Alveo U280 has \(5\)"):
        shared_bundles(top.top, few, sizes, {})


def test_processes_of_a_region_keep_ports_of_their_own() -> None:
    a, b, c = (ir.Buffer(n, Int(32), (4,)) for n in "abc")

    def touch(name: str) -> ir.Store:
        return ir.Store(name, (ir.Const(0, Int(32)),), ir.Const(1, Int(32)))

    inner = ir.Function("inner", (a, b), (touch("a"), touch("b")), dataflow=True)
    views = tuple(ir.View(n) for n in ("b", "c"))
    top = ir.Function("top", (a, b, c), (touch("a"), ir.Call("inner", views)))
    assert concurrent_pairs(ir.Program((inner, top), "top")) == {frozenset("bc")}


def test_a_design_that_is_too_large_is_refused_with_what_would_fit() -> None:
    with pytest.raises(BackendError) as caught:
        map_of(architecture("llama-3.2-1b", "w4a8kv8"), "zcu104")  # 131,072 positions
    assert caught.value.code == "FX402"
    assert "too many" in caught.value.message
    assert "it fits with max_seq_len" in caught.value.hint
    fitting = int(caught.value.hint.split()[-1])
    map_of(architecture("llama-3.2-1b", "w4a8kv8", fitting), "zcu104")
    with pytest.raises(BackendError):
        map_of(architecture("llama-3.2-1b", "w4a8kv8", fitting + 1), "zcu104")
    with pytest.raises(BackendError, match="does not fit") as caught:
        map_of(architecture("llama-3.2-1b", "none", 2048), "zedboard")
    assert "it fits on u280, v80" in caught.value.hint


ELEMENTS: list[DType] = [Int(2), Int(3), Int(4), UInt(4), Int(5), Int(8), UInt(8), UInt(1), Int(16)]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_bytes_in_the_card_come_back_as_elements(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(ELEMENTS))
    words = data.draw(st.integers(1, min(70, 512 // dtype.bits)))
    axis = data.draw(st.sampled_from([-1, -2]))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    word = UInt(dtype.bits * words) if words > 1 else dtype
    buffer = ir.Buffer("W", word, shape, words=words, word_axis=axis, logical=dtype)
    signed = isinstance(dtype, Int)
    low, high = (-(1 << dtype.bits - 1), 1 << dtype.bits - 1) if signed else (0, 1 << dtype.bits)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = f"{'i' if signed else 'u'}{1 if dtype.bits <= 8 else 2}"
    values = random.integers(low, high, logical_shape(buffer)).astype(kind)
    whole = packing.to_bytes(buffer, values)
    np.testing.assert_array_equal(packing.from_bytes(buffer, whole), values)
    step = packing._PIECE
    try:
        packing._PIECE = data.draw(st.integers(1, 50))
        pieces = (
            [
                piece
                for part in (values[i : i + 1] for i in range(len(values)))
                for piece in packing._pieces(buffer, part)
            ]
            if axis != -len(shape)
            else list(packing._pieces(buffer, values))
        )
    finally:
        packing._PIECE = step
    assert b"".join(pieces) == whole


def test_floats_come_back() -> None:
    buffer = ir.Buffer("t", FLOAT32, (3, 2))
    values = np.arange(6, dtype=np.float32).reshape(3, 2) / 7
    np.testing.assert_array_equal(packing.from_bytes(buffer, packing.to_bytes(buffer, values)), values)


@pytest.mark.parametrize("recipe", RECIPES)
def test_parts_are_the_arrays(recipe: str) -> None:
    model = load(TINY, recipe)
    for name, array in constant_arrays(model.weights).items():
        parts = list(constant_parts(model.weights, name))
        whole = np.concatenate(parts) if array.ndim else parts[0]
        assert whole.dtype == array.dtype
        np.testing.assert_array_equal(whole, array, err_msg=name)


@pytest.mark.parametrize("recipe", ["w4a8kv8", "w2a8kv4"])
def test_a_project_holds_every_tensor_where_the_manifest_says(tmp_path: Path, recipe: str) -> None:
    out = build_project(TINY, tmp_path / "p", recipe=recipe)
    model = load(TINY, recipe)
    plan = map_of(model)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["tensors"].keys() == plan.placements.keys()
    for name, array in constant_arrays(model.weights).items():
        if name == "eps":
            continue
        entry = manifest["tensors"][name]
        with (out / entry["file"]).open("rb") as file:
            file.seek(entry["offset"])
            assert hashlib.sha256(file.read(entry["bytes"])).hexdigest() == entry["sha256"]
        np.testing.assert_array_equal(packing.unpack(out, plan, name), array, err_msg=name)
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest, name
    held = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert held == {*manifest["files"], "manifest.json"}
    file = out / manifest["tensors"]["wq_codes"]["file"]
    data = bytearray(file.read_bytes())
    data[manifest["tensors"]["wq_codes"]["offset"]] ^= 1
    file.write_bytes(data)
    with pytest.raises(UsageError, match="damaged at wq_codes"):
        packing.unpack(out, plan, "wq_codes")
    with pytest.raises(UsageError, match="no stored tensor 'k_codes'"):
        packing.unpack(out, plan, "k_codes")


def test_packing_goes_on_where_it_was(tmp_path: Path) -> None:
    model = load(TINY, "w4a8kv8")
    plan = map_of(model)
    read: list[str] = []

    def parts(name: str):
        read.append(name)
        if len(read) == 4:
            raise OSError(28, "No space left on device")
        return constant_parts(model.weights, name)

    with pytest.raises(UsageError, match="No space"), StagedFolder(tmp_path / "p", "m") as staged:
        packing.pack(staged, plan, parts, "one")
    done = read[:3]
    with StagedFolder(tmp_path / "p", "m") as staged:
        resumed = packing.pack(staged, plan, parts, "one")
        assert not set(done) & set(read[4:])
        assert set(read[3:]) | set(done) == {p.name for f in plan.files.values() for p in f}
        before = len(read)
        assert packing.pack(staged, plan, parts, "one") == resumed
        assert len(read) == before
        again = packing.pack(staged, plan, parts, "another model")
        assert len(read) == before + len(resumed.tensors)
        assert again == resumed


def test_footprints_count_distinct_elements() -> None:
    index = ir.LoopVar("i")
    a, b = ir.Buffer("a", Int(32), (8, 4)), ir.Buffer("b", Int(32), (16,))
    row = ir.Load("b", (ir.Const(3, Int(32)),), Int(32))
    loads = [ir.Load("a", (row, index), Int(32)), ir.Load("a", (row, index), Int(32))]
    loop = ir.For(
        "i", ir.Const(0, Int(32)), ir.Const(4, Int(32)),
        tuple(ir.Store("b", (ir.Const(0, Int(32)),), load) for load in loads),
    )  # fmt: skip
    function = ir.Function("f", (a, b), (loop,))
    assert footprints(ir.Program((function,), "f"), "f") == {"a": 4, "b": 2}
