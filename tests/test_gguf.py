"""GGUF: blocks to the bit, quantizers, products in integers, files that are whole or refused."""

from __future__ import annotations

import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexllm_allo.errors import QuantError, UsageError
from flexllm_allo.quant.gguf.blocks import BLOCK_TYPES, block_dot, dequantize_blocks
from flexllm_allo.quant.gguf.container import GgufTensor, read_gguf, write_gguf
from flexllm_allo.quant.gguf.encode import quantize_blocks

NBYTES = {"Q4_0": 18, "Q8_0": 34, "Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "Q8_K": 292}
K_TYPES = [k for k in NBYTES if k.endswith("_K")]
SEEDS = st.integers(0, 2**32 - 1)


def refused(code: str, function, *args, **kwargs) -> str:
    with pytest.raises((QuantError, UsageError)) as caught:
        function(*args, **kwargs)
    assert caught.value.code == code
    return str(caught.value)


def arbitrary(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Blocks of any bytes, but with finite scales."""
    i = np.arange(count * NBYTES[kind], dtype=np.uint64) + np.uint64(seed)
    mixed = (i * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    blocks = (mixed & np.uint64(255)).astype(np.uint8).reshape(count, -1)
    records = blocks.view(BLOCK_TYPES[kind].layout)[:, 0]
    for field in ("d", "dmin"):
        if field in records.dtype.names:
            records[field] = (np.arange(count) % 7 - 3) / 64 + 0.005
    return blocks


# --------------------------------------------------------------------------------- layout


def test_blocks_have_exactly_the_bytes_of_ggml():
    assert {k: BLOCK_TYPES[k].nbytes for k in NBYTES} == NBYTES
    assert {k: BLOCK_TYPES[k].weights for k in NBYTES} == {k: 256 if k.endswith("K") else 32 for k in NBYTES}
    bits = {k: BLOCK_TYPES[k].bits_per_weight for k in K_TYPES[:-1]}
    assert bits == {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}


def half(block: bytes, at: int) -> np.float32:
    return np.float32(np.frombuffer(block, "<f2", 1, at)[0])


def pair(scales: bytes, j: int) -> tuple[int, int]:
    """Scale and min j of the twelve bytes of Q4_K and Q5_K."""
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    return (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4, (scales[j + 4] >> 4) | (scales[j] >> 6) << 4


def weight(kind: str, b: bytes, i: int) -> tuple[np.float32, int, int, np.float32, int]:
    """Weight i of a block by its definition: d, scale, code, dmin, min."""
    half_block, place, l = i // 128, i % 128 // 32, i % 32
    zero = np.float32(0)
    if kind == "Q4_0":
        return half(b, 0), 1, (b[2 + i % 16] >> 4 * (i // 16) & 15) - 8, zero, 0
    if kind == "Q8_0":
        return half(b, 0), 1, int.from_bytes(b[2 + i : 3 + i], "little", signed=True), zero, 0
    if kind == "Q8_K":
        d = np.frombuffer(b, "<f4", 1, 0)[0]
        return d, 1, int.from_bytes(b[4 + i : 5 + i], "little", signed=True), zero, 0
    if kind == "Q2_K":
        code = b[16 + half_block * 32 + l] >> 2 * place & 3
        return half(b, 80), b[i // 16] & 15, code, half(b, 82), b[i // 16] >> 4
    if kind == "Q3_K":
        high = b[l] >> (4 * half_block + place) & 1
        code = (b[32 + half_block * 32 + l] >> 2 * place & 3) - (0 if high else 4)
        scales, j = b[96:108], i // 16
        low = scales[j % 8] >> 4 * (j // 8) & 15
        return half(b, 108), (low | (scales[8 + j % 4] >> 2 * (j // 4) & 3) << 4) - 32, code, zero, 0
    if kind in ("Q4_K", "Q5_K"):
        codes = b[-128:]
        code = codes[i // 64 * 32 + l] >> 4 * (i // 32 % 2) & 15
        if kind == "Q5_K":
            code |= (b[16 + l] >> (i // 32) & 1) << 4
        scale, least = pair(b[4:16], i // 32)
        return half(b, 0), scale, code, half(b, 2), least
    assert kind == "Q6_K"
    low = b[half_block * 64 + i % 64] >> 4 * (i % 128 // 64) & 15
    code = (low | (b[128 + half_block * 32 + l] >> 2 * place & 3) << 4) - 32
    scale = int.from_bytes(b[192 + i // 16 : 193 + i // 16], "little", signed=True)
    return half(b, 208), scale, code, zero, 0


@pytest.mark.parametrize("kind", NBYTES)
def test_every_weight_is_that_of_the_definition(kind):
    """Element by element from the bytes, in plain Python; products and difference rounded to float32."""
    blocks = arbitrary(kind, 3)
    values = dequantize_blocks(blocks, kind)
    for block, row in zip(blocks, values, strict=True):
        raw = block.tobytes()
        for i, value in enumerate(row):
            d, scale, code, dmin, least = weight(kind, raw, i)
            assert value == d * np.float32(scale) * np.float32(code) - dmin * np.float32(least)


# SHA-256 of the float32 weights of `arbitrary(kind, 16)`, as the package gguf 0.19.0 dequantizes them.
GOLDEN = {
    "Q4_0": "7e0f4cb7039b357c",
    "Q8_0": "a4b32a849babda35",
    "Q2_K": "318cb6615ae035f9",
    "Q3_K": "5720c84a26efb1a5",
    "Q4_K": "cf9b8d8eb3ef269e",
    "Q5_K": "24d14052254b982e",
    "Q6_K": "ab38f7ca5d41d3dc",
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_weights_are_those_of_ggml(kind):
    values = dequantize_blocks(arbitrary(kind, 16), kind)
    assert hashlib.sha256((values + np.float32(0)).astype("<f4").tobytes()).hexdigest()[:16] == GOLDEN[kind]


@pytest.mark.parametrize("kind", NBYTES)
@pytest.mark.parametrize("seed", range(3))
def test_taking_apart_and_packing_again_keeps_every_bit(kind, seed):
    form = BLOCK_TYPES[kind]
    assert form.unpack is not None
    assert form.pack is not None
    records = arbitrary(kind, 50, seed).view(form.layout)[:, 0]
    if kind == "Q8_K":  # its sums follow from its codes
        records["bsums"] = records["qs"].reshape(-1, 16, 16).sum(axis=-1, dtype=np.int16)
    assert form.pack(form.unpack(records)).tobytes() == records.tobytes()


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_the_package_gguf_agrees(kind):
    """Dequantized weights bit for bit, and quantized ones where the package can quantize."""
    gguf = pytest.importorskip("gguf")
    number = gguf.GGMLQuantizationType[kind]
    assert number.value == BLOCK_TYPES[kind].number
    assert gguf.GGML_QUANT_SIZES[number] == (BLOCK_TYPES[kind].weights, BLOCK_TYPES[kind].nbytes)
    values = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    blocks = quantize_blocks(values, kind)
    try:
        assert np.array_equal(gguf.quants.dequantize(blocks, number), dequantize_blocks(blocks, kind))
        theirs = np.ascontiguousarray(gguf.quants.quantize(values, number)).view(np.uint8)
    except NotImplementedError:
        return
    assert np.array_equal(theirs.reshape(blocks.shape), blocks)


# ----------------------------------------------------------------------------- quantizing


@st.composite
def rows(draw):
    """Rows of 512 weights of quite different sizes, some of one sign, some constant or zero."""
    rng = np.random.default_rng(draw(SEEDS))
    values = rng.standard_normal((6, 512)) * 10.0 ** rng.uniform(-3, 2, (6, 1))
    values[1] = np.abs(values[1])
    values[2] = -np.abs(values[2])
    values[3, 100:300] = values[3, 0]
    values[4] = 0
    values[5, ::64] *= 20
    return values.astype(np.float32)


# Largest error in units of (largest magnitude of the block) / (codes on one side of zero). Half a code would
# be 0.5; scales of 4 and 6 bits, and ranges chosen for the squared error, come on top.
LARGEST = {
    "Q2_K": 1.3,
    "Q3_K": 1.3,
    "Q4_K": 1.2,
    "Q5_K": 1.2,
    "Q6_K": 2.5,
    "Q4_0": 1.01,
    "Q8_0": 0.6,
    "Q8_K": 0.51,
}
STEPS = {"Q2_K": 2, "Q3_K": 4, "Q4_K": 8, "Q5_K": 16, "Q6_K": 32, "Q4_0": 8, "Q8_0": 127, "Q8_K": 127}


@settings(max_examples=60)
@given(rows())
def test_quantized_rows_are_near(values):
    for kind, form in ((k, BLOCK_TYPES[k]) for k in NBYTES):
        blocks = quantize_blocks(values, kind)
        assert blocks.shape == (6, 512 // form.weights * form.nbytes)
        back = dequantize_blocks(blocks, kind)
        assert not back[4].any()
        whole = values.reshape(6, -1, form.weights)
        error = np.abs(back.reshape(whole.shape) - whole).max(axis=-1)
        size = np.abs(whole).max(axis=-1)
        # float16 has nothing below 6e-8, the least scale.
        assert (error <= LARGEST[kind] * size / STEPS[kind] + 1e-5).all(), kind


@pytest.mark.parametrize(
    ("kind", "snr"),
    [
        ("Q2_K", 11),
        ("Q3_K", 16.5),
        ("Q4_K", 22.5),
        ("Q5_K", 28.5),
        ("Q6_K", 35),
        ("Q4_0", 21),
        ("Q8_0", 45),
        ("Q8_K", 43),
    ],
)
def test_signal_to_noise_of_normal_weights(kind, snr):
    values = np.random.default_rng(0).standard_normal((32, 1024)).astype(np.float32)
    back = dequantize_blocks(quantize_blocks(values, kind), kind)
    assert 10 * np.log10(np.square(values).mean() / np.square(back - values).mean()) > snr


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_the_search_beats_plain_rounding(kind):
    """Least squared error within the type's own structure, against ranges from extremes, in exact scales."""
    values = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    ours = np.square(dequantize_blocks(quantize_blocks(values, kind), kind) - values).sum()
    length = {"Q4_K": 32, "Q5_K": 32}.get(kind, 16)
    x = values.reshape(-1, length)
    if kind in ("Q3_K", "Q6_K"):
        scale = np.abs(x).max(axis=1, keepdims=True) / (STEPS[kind] - 0.5)
        plain = np.clip(np.rint(x / scale), -STEPS[kind], STEPS[kind] - 1) * scale
    else:
        low = np.minimum(x.min(axis=1, keepdims=True), 0)
        scale = (x.max(axis=1, keepdims=True) - low) / (2 * STEPS[kind] - 1)
        plain = np.rint((x - low) / scale) * scale + low
    assert ours < np.square(plain - x).sum() * (1 if kind != "Q6_K" else 1.1)


@given(hnp.arrays(np.float32, 64, elements=st.floats(-1e4, 1e4, width=32)))
def test_q8_0_is_absmax_rounding(values):
    back = dequantize_blocks(quantize_blocks(values, "Q8_0"), "Q8_0")
    for block, got in zip(values.reshape(2, 32), back.reshape(2, 32), strict=True):
        d = np.abs(block).max() / 127
        # Half a code, and the rounding of the scale to float16 (11 bits, or multiples of 2**-24) 127 times.
        assert (np.abs(got - block) <= d / 2 * 1.001 + 127 * max(d / 2048, 2**-25)).all()


@given(hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_plain_floats(values):
    assert np.array_equal(dequantize_blocks(quantize_blocks(values, "F32"), "F32"), values)
    brain = dequantize_blocks(quantize_blocks(values, "BF16"), "BF16")
    assert (np.abs(brain - values) <= np.abs(values) / 256 + 1e-40).all()
    again = quantize_blocks(brain, "BF16")
    assert np.array_equal(dequantize_blocks(again, "BF16"), brain)
    small = np.clip(values, -65504, 65504)
    assert np.array_equal(dequantize_blocks(quantize_blocks(small, "F16"), "F16"), small.astype(np.float16))


def test_values_that_cannot_be_stored_are_refused():
    values = np.ones((2, 256), np.float32)
    assert "w: rows of 200 weights are not whole Q4_K" in refused(
        "FX608", quantize_blocks, values[:, :200], "Q4_K", "w"
    )
    assert "w: there is no GGUF type 'Q4K'" in refused("FX608", quantize_blocks, values, "Q4K", "w")
    assert 'did you mean "Q4_K"' in refused("FX608", quantize_blocks, values, "Q4K", "w")
    assert "rows of 143 bytes" in refused("FX608", dequantize_blocks, np.zeros((1, 143), "u1"), "Q4_K")
    assert "BF16 has no integer product" in refused(
        "FX608", block_dot, np.zeros((1, 2), "u1"), "BF16", values
    )
    values[1, 3] = 1e12
    for kind in NBYTES:
        if kind == "Q8_K":  # whose scale is float32
            continue
        text = refused("FX606", quantize_blocks, values, kind, "w")
        assert f"w: weights up to 1e+12 are beyond the float16 of {kind}" in text
    assert "1e+12 are beyond the float16 of F16" in refused("FX606", quantize_blocks, values, "F16", "w")
    for bad in (np.nan, np.inf):
        values[1, 3] = bad
        for kind in BLOCK_TYPES:
            assert "w: NaN or infinity" in refused("FX606", quantize_blocks, values, kind, "w")


# ------------------------------------------------------------------------------- products


@settings(max_examples=50)
@given(rows(), SEEDS)
def test_integer_products_are_those_of_the_weights(values, seed):
    """Codes times codes with the block sums of Q8_K, against dequantized weights in float64."""
    x = np.random.default_rng(seed).standard_normal(512).astype(np.float32)
    for kind, form in ((k, BLOCK_TYPES[k]) for k in NBYTES):
        other = "Q8_K" if form.weights == 256 else "Q8_0"
        x8 = quantize_blocks(x, other)
        blocks = quantize_blocks(values, kind)
        weights, inputs = (dequantize_blocks(*a).astype(float) for a in ((blocks, kind), (x8, other)))
        exact, size = weights @ inputs, np.abs(weights) @ np.abs(inputs)
        assert (np.abs(block_dot(blocks, kind, x8) - exact) <= 1e-6 * size + 1e-30).all(), kind


def test_mins_use_the_stored_sums():
    """The dmin term takes the sums that come with the vector; without them the product is another."""
    values = np.random.default_rng(0).uniform(-2, 1, (1, 256)).astype(np.float32)
    x8 = quantize_blocks(np.ones(256, np.float32), "Q8_K")
    blocks = quantize_blocks(values, "Q4_K")
    silent = x8.copy()
    silent.view(BLOCK_TYPES["Q8_K"].layout)["bsums"] = 0
    mins = dequantize_blocks(blocks, "Q4_K").sum() - block_dot(blocks, "Q4_K", silent)[0]
    assert mins < -100
    assert block_dot(blocks, "Q4_K", x8)[0] == pytest.approx(
        dequantize_blocks(blocks, "Q4_K").sum(), rel=1e-5
    )


# ---------------------------------------------------------------------------------- files

SCALARS = st.one_of(
    st.booleans(),
    st.text(max_size=8).filter(lambda t: "\ud800" > max(t, default="") or min(t) > "\udfff"),
    *(
        hnp.arrays(kind, (), elements=hnp.from_dtype(np.dtype(kind), allow_nan=False)).map(lambda a: a[()])
        for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8")
    ),
)
METADATA = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=6),
    st.one_of(
        SCALARS,
        st.lists(st.text("xyz☃", max_size=3), max_size=4),
        st.lists(st.booleans(), max_size=4),
        hnp.arrays(
            st.sampled_from(["u1", "i4", "f4", "i8", "f8"]), st.integers(0, 5), elements={"allow_nan": False}
        ),
        st.just([["a", "b"], ["c"]]),
    ),
    max_size=5,
)


def some_tensors(seed: int = 0) -> list[GgufTensor]:
    rng = np.random.default_rng(seed)
    out = [
        GgufTensor.quantize(f"blk.{k}", rng.standard_normal((3, 256)).astype("f4"), k) for k in BLOCK_TYPES
    ]
    norm = GgufTensor.quantize("norm", rng.standard_normal(7).astype("f4"), "F32")
    stack = GgufTensor.quantize("experts", rng.standard_normal((2, 3, 32)).astype("f4"), "Q8_0")
    return [*out, norm, stack]


@settings(max_examples=50)
@given(metadata=METADATA, seed=st.integers(0, 9), alignment=st.sampled_from([None, 1, 8, 64]))
def test_a_file_comes_back(metadata, seed, alignment, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    tensors = some_tensors(seed)[seed:]
    if alignment is not None:
        metadata["general.alignment"] = np.uint32(alignment)
    write_gguf(path, metadata, tensors)
    got = read_gguf(path)
    assert list(got.metadata) == list(metadata)
    for key, value in metadata.items():
        back = got.metadata[key]
        if isinstance(value, np.ndarray | np.generic):
            assert back.dtype == value.dtype
            assert np.array_equal(back, value)
        else:
            assert type(back) is type(value) or not value
            assert list(back) == value if isinstance(value, list) else back == value
    assert list(got.tensors) == [t.name for t in tensors]
    for tensor in tensors:
        back = got.tensors[tensor.name]
        assert (back.kind, back.shape) == (tensor.kind, tensor.shape)
        assert np.array_equal(back.data, tensor.data)
        assert not back.data.flags.writeable
    # Written again, the same bytes: numbers keep their types.
    again = path.with_name("b.gguf")
    write_gguf(again, got.metadata, got.tensors.values())
    assert again.read_bytes() == path.read_bytes()
    assert sorted(os.listdir(path.parent)) == ["a.gguf", "b.gguf"]


def test_the_bytes_of_a_small_file(tmp_path):
    """By hand from the specification: head, metadata, tensor info, padding, data."""
    path = tmp_path / "small.gguf"
    tensor = GgufTensor.quantize("w", np.arange(6, dtype=np.float32).reshape(2, 3), "F32")
    other = GgufTensor.quantize("v", np.ones(32, np.float32), "Q8_0")
    write_gguf(path, {"a": 3, "b": "xy", "c": [1, -2], "d": 0.5, "e": True, "f": ["p", ""]}, [tensor, other])

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 6)
    head += text("a") + struct.pack("<II", 4, 3)
    head += text("b") + struct.pack("<I", 8) + text("xy")
    head += text("c") + struct.pack("<IIQqq", 9, 11, 2, 1, -2)
    head += text("d") + struct.pack("<If", 6, 0.5)
    head += text("e") + struct.pack("<IB", 7, 1)
    head += text("f") + struct.pack("<IIQ", 9, 8, 2) + text("p") + text("")
    head += text("w") + struct.pack("<IQQIQ", 2, 3, 2, 0, 0)
    head += text("v") + struct.pack("<IQIQ", 1, 32, 8, 32)
    head += bytes(-len(head) % 32)
    data = struct.pack("<6f", *range(6)) + bytes(8)
    data += np.float16(1 / 127).tobytes() + b"\x7f" * 32 + bytes(30)
    assert path.read_bytes() == head + data


def test_reading_maps_the_file(tmp_path):
    """Opening costs no copy of the data: tensors are views of one map."""
    path = tmp_path / "a.gguf"
    write_gguf(path, {}, some_tensors())
    tensors = read_gguf(path).tensors
    bases = set()
    for tensor in tensors.values():
        base = tensor.data
        while isinstance(base, np.ndarray):
            base = base.base
        bases.add(type(base.obj).__name__ if isinstance(base, memoryview) else type(base).__name__)
    assert bases == {"mmap"}
    assert np.array_equal(tensors["blk.F32"].dequantize(), some_tensors()[0].dequantize())


def test_every_truncation_is_refused(tmp_path):
    path, cut = tmp_path / "a.gguf", tmp_path / "cut.gguf"
    metadata = {"name": "x", "n": 3, "words": ["a", "b"], "values": [0.5, 1.5], "deep": [["a"], ["b"]]}
    write_gguf(path, metadata, some_tensors()[3:5])
    raw = path.read_bytes()
    last = read_gguf(path).tensors["blk.Q8_0"]
    end = raw.rindex(last.data.tobytes()) + last.data.nbytes
    for size in [*range(700), *range(700, end, 41), end - 1]:
        cut.write_bytes(raw[:size])
        text = refused("FX608", read_gguf, cut)
        assert f'"{cut}"' in text
        assert "truncated" in text or size < 4
    assert "tensor 'blk.Q8_0' (Q8_0) ends at byte" in text
    cut.write_bytes(raw[:end])  # the padding behind the last tensor may be missing
    assert np.array_equal(read_gguf(cut).tensors["blk.Q8_0"].data, last.data)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(data, tmp_path_factory):
    """Whatever bytes change, the answer is an error of ours or a file of sound shapes."""
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    write_gguf(path, {"name": "x", "deep": [["a"], ["b"]], "values": [1, 2]}, some_tensors()[3:5])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 320))
        raw[at] = data.draw(st.sampled_from([0, 1, 9, 127, 255]))
    path.write_bytes(raw)
    try:
        tensors = read_gguf(path).tensors
    except QuantError as error:
        code = error.code
        tensors = {}
    else:
        code = "FX608"
    assert code == "FX608"
    for tensor in tensors.values():
        assert tensor.dequantize().shape == (tensor.shape or (1,))


def hand_made(number: int, version: int = 3, shape: tuple[int, ...] = (32, 2), offset: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, 1, 0) + struct.pack("<Q", 3) + b"w.x"
    head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset)
    return head + bytes(-len(head) % 32) + bytes(4096)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (hand_made(20), "has tensor 'w.x' of the unsupported type IQ4_NL"),
        (hand_made(3), "has tensor 'w.x' of the unsupported type Q4_1"),
        (hand_made(77), "has tensor 'w.x' of the unsupported type number 77"),
        (hand_made(12), "w.x: rows of 32 weights are not whole Q4_K blocks"),
        (hand_made(0, shape=(1 << 60, 1 << 60)), "truncated: tensor 'w.x' (F32)"),
        (hand_made(0, shape=(4, 0)), "tensor 'w.x' (F32) of shape (0, 4)"),
        (hand_made(0, shape=(1,) * 5), "tensor 'w.x' of 5 dimensions"),
        (hand_made(2, offset=16), "tensor 'w.x' (Q4_0) at 16, not a multiple of 32"),
        (hand_made(2, version=1), "is GGUF of version 1"),
        (hand_made(2, version=3 << 24), "big-endian version 3"),
        (b"PK\3\4" + bytes(99), "is not GGUF"),
        (b"", "is truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "is truncated"),
    ],
)
def test_what_cannot_be_read_is_refused(raw, text, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(raw)
    assert text in refused("FX608", read_gguf, path)


def test_sound_hand_made_file_is_read(tmp_path):
    path = tmp_path / "a.gguf"
    for version in (2, 3):
        path.write_bytes(hand_made(2, version))
        assert read_gguf(path).tensors["w.x"].dequantize().shape == (2, 32)
    assert "cannot read" in refused("FX608", read_gguf, tmp_path / "none.gguf")
    assert "cannot read" in refused("FX608", read_gguf, tmp_path)


def test_nothing_is_written_when_something_cannot_be(tmp_path):
    path = tmp_path / "a.gguf"
    good = some_tensors()[0]
    bad = [
        (GgufTensor("w", "IQ4_NL", (2, 32), np.zeros((2, 18), "u1")), "w: there is no GGUF type 'IQ4_NL'"),
        (
            GgufTensor("w", "Q4_K", (2, 32), np.zeros((2, 18), "u1")),
            "w: rows of 32 weights are not whole Q4_K",
        ),
        (GgufTensor("w", "Q4_0", (2, 32), np.zeros((2, 17), "u1")), "w: Q4_0 data uint8 (2, 17) do not fit"),
        (GgufTensor("w", "F32", (1,) * 5, np.zeros((1,) * 4 + (4,), "u1")), "w: 5 dimensions (F32)"),
        (good, "two tensors are called 'blk.F32'"),
    ]
    for tensor, text in bad:
        assert text in refused("FX608", write_gguf, path, {}, [good, tensor])
    for value in (None, {"a": 1}, [1, "a"], 1 << 70, np.zeros((2, 2)), b"bytes"):
        assert "metadata 'k' is" in refused("FX608", write_gguf, path, {"k": value}, [good])
    for alignment in (0, 3, "x", 2.0):
        assert "not a power of two" in refused(
            "FX608", write_gguf, path, {"general.alignment": alignment}, []
        )
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.gguf"
    write_gguf(path, {"n": 1}, [])
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "No space left" in refused("FX702", write_gguf, path, {"n": 2}, some_tensors())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.gguf"]
    assert "cannot write" in refused("FX702", write_gguf, tmp_path / "none" / "a.gguf", {}, [])


def test_the_package_gguf_reads_our_files(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    tensors = [t for t in some_tensors() if t.kind != "Q8_K"]
    write_gguf(path, {"general.architecture": "llama", "n": 3, "words": ["a", "b"]}, tensors)
    reader = gguf.GGUFReader(path)
    assert reader.get_field("n").contents() == 3
    assert reader.get_field("words").contents() == ["a", "b"]
    for theirs, ours in zip(reader.tensors, tensors, strict=True):
        assert (theirs.name, theirs.tensor_type.name) == (ours.name, ours.kind)
        assert theirs.data.tobytes() == ours.data.tobytes()
