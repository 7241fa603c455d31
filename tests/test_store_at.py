"""`store_at`: an array that moves into a loop keeps every result; tiles of linear layers, which use it."""

from __future__ import annotations

import numpy as np
import pytest
from format_models import random_model, random_tokens

import flexllm_allo as allo
from flexllm_allo.backend.hls.csim import CSimModule
from flexllm_allo.backend.hls.toolchain import find_compiler
from flexllm_allo.backend.interpreter import Interpreter
from flexllm_allo.errors import ScheduleError, ToolError
from flexllm_allo.hybrid import hybrid
from flexllm_allo.ir import nodes as ir
from flexllm_allo.ir.types import Int, UInt, int32
from flexllm_allo.ir.walk import buffers, walk
from flexllm_allo.kernels.linear import linear
from flexllm_allo.models.reference import ReferenceLlama
from flexllm_allo.runtime.build import weight_words
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedule.memory import Partition
from flexllm_allo.schedule.schedule import Schedule
from flexllm_allo.schedules import decode, prefill


def filled(A: int32[6, 8]) -> int32[6, 8]:
    """Only half of every row is written: the rest is what it was filled with."""
    B: int32[6, 8] = 7
    C: int32[6, 8]
    for i in range(6):
        for j in range(4):
            B[i, 2 * j] = A[i, j]
        for k in range(8):
            C[i, k] = B[i, k] + 1
    return C


def written(A: int32[6, 8]) -> int32[6, 8]:
    """Pairs of rows; all of a pair is written before it is read."""
    B: int32[6, 8] = 7
    C: int32[6, 8]
    for i in range(3):
        for p in range(2):
            for j in range(8):
                B[2 * i + p, j] = A[2 * i + 1 - p, j]
        for p2 in range(2):
            for k in range(8):
                C[2 * i + p2, k] = B[2 * i + p2, k] * 3
    return C


def shifted(A: int32[6, 8]) -> int32[6, 8]:
    """An iteration begins in the middle of the array."""
    B: int32[10, 8] = 0
    C: int32[6, 8]
    for i in range(6):
        for j in range(8):
            B[3 + i, j] += A[i, j]
        for k in range(8):
            C[i, k] = B[3 + i, k] + B[i + 3, 7 - k]
    return C


def shared(A: int32[6, 8]) -> int32[6, 8]:
    B: int32[7, 8] = 1
    C: int32[6, 8]
    for i in range(6):
        for j in range(8):
            B[i, j] = A[i, j]
        for k in range(8):
            C[i, k] = B[i + 1, k]
    return C


def whole(A: int32[6, 8]) -> int32[6, 8]:
    B: int32[8] = 1
    C: int32[6, 8]
    for i in range(6):
        for j in range(8):
            C[i, j] = B[j]
            B[j] = A[i, j]
    return C


def later(A: int32[6, 8]) -> int32[6, 8]:
    B: int32[6, 8]
    C: int32[6, 8]
    for i in range(6):
        for j in range(8):
            B[i, j] = A[i, j]
    for k in range(6):
        for l in range(8):
            C[k, l] = B[k, l]
    return C


def picked(A: int32[6, 8]) -> int32[6, 8]:
    B: int32[6, 8] = 0
    C: int32[6, 8]
    for i in range(6):
        for j in range(8):
            B[i, A[i, j] % 8] = A[i, j]
            C[i, j] = B[i, j]
    return C


def local(s: Schedule, name: str) -> ir.Buffer:
    return buffers(s.top_func)[name]


def fills(s: Schedule) -> int:
    """Loops that fill arrays, as the frontend names them."""
    return sum(isinstance(n, ir.For) and n.var in ("_0", "_1") for n in walk(s.top_func.body))


@pytest.mark.parametrize(
    ("kernel", "shape", "left"),
    [(filled, (1, 8), 2), (written, (2, 8), 0), (picked, (1, 8), 2), (shifted, (1, 8), 2)],
)
def test_an_iteration_keeps_its_part(kernel, shape: tuple[int, ...], left: int) -> None:
    A = np.arange(48, dtype=np.int32).reshape(6, 8)
    s = allo.customize(kernel)
    expected = Interpreter(s.program)(A)
    s.store_at(s.B, "i")
    assert local(s, "B").shape == shape
    assert fills(s) == left
    np.testing.assert_array_equal(Interpreter(s.program)(A), expected)
    np.testing.assert_array_equal(s.build()(A), expected)


def test_banks_are_kept_as_far_as_the_part_goes() -> None:
    for factor, expected in ((4, ("cyclic", 4)), (8, ("complete", 0))):
        s = allo.customize(filled)
        s.partition(s.B, dim=2, partition_type=Partition.Cyclic, factor=factor)
        s.partition(s.B, dim=1, partition_type=Partition.Cyclic, factor=3)
        s.store_at(s.B, "i")
        assert [(b.kind, b.dim, b.factor) for b in local(s, "B").banks] == [(expected[0], 2, expected[1])]


@pytest.mark.parametrize(
    ("kernel", "target", "message", "line"),
    [
        (shared, "B", 'iterations of "i" share elements of "B"', "B[i, j] = A[i, j]"),
        (whole, "B", 'iterations of "i" use the same elements of "B"', "C[i, j] = B[j]"),
        (later, "B", '"B" is used outside loop "i" as well', "C[k, l] = B[k, l]"),
        (later, "A", '"A" is no array that the function makes', "for i in range"),
        (filled, "B", '"B" is a FIFO, a scalar, packed, or in blocks', "B: int32[6, 8] = 7"),
    ],
)
def test_refusals(kernel, target: str, message: str, line: str) -> None:
    s = allo.customize(kernel)
    if "blocks" in message:
        s.partition(s.B, dim=2, partition_type=Partition.Block, factor=2)
    before = s.program
    with pytest.raises(ScheduleError) as caught:
        s.store_at(target, "i")
    assert caught.value.code == "FX205"
    assert message in str(caught.value)
    assert line in str(caught.value)
    assert s.program is before


@pytest.mark.parametrize(("tokens", "columns", "macs"), [(4, 1, 4), (4, 2, 4), (3, 2, 2), (5, 1, 1)])
def test_tiles_of_a_linear_layer_are_scaled_while_the_next_are_summed(
    tokens: int, columns: int, macs: int
) -> None:
    sizes = dict(Tx=UInt(4), Tw=Int(4), T=tokens, N=12, K=16, P=2)
    s = allo.customize(linear, instantiate=sizes)
    stage = prefill.spatial(tokens, 4, columns, macs_per_dsp=macs, lanes=2)
    stage.apply(s, [s.top_func_name])
    (tile,) = [n for n in walk(s.top_func.body) if isinstance(n, ir.For) and n.attrs.dataflow]
    inside = {n.buffer.name: n.buffer.shape for n in tile.body if isinstance(n, ir.Alloc)}
    assert inside == {"acc": (tokens, 4)}
    assert fills(s) == 0
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 16, (tokens, 16)), rng.integers(-8, 8, (12, 16))
    terms = [rng.standard_normal((n, 2)).astype(np.float32) for n in (tokens, 12)]
    arrays = (x.astype(np.uint8), terms[0], w.astype(np.int8), terms[1])
    expected = Interpreter(allo.customize(linear, instantiate=sizes).program)(*arrays)
    np.testing.assert_array_equal(Interpreter(s.program)(*arrays), expected)
    np.testing.assert_array_equal(s.build()(*arrays), expected)
    try:
        find_compiler()
    except ToolError:
        return
    np.testing.assert_array_equal(CSimModule(s.program)(*arrays), expected)


@pytest.mark.parametrize(
    ("recipe", "joined"),
    [
        ("w4a4kv8 static", {"gate", "up"}),
        ("rotated", {"gate", "up", "rotated"}),
        ("rotated, Paley sizes", {"rotated"}),
    ],
)
def test_models_in_tiles_keep_every_bit(recipe: str, joined: set[str]) -> None:
    """Gates go to SwiGLU by FIFOs, tile by tile; rows of a Hadamard transform and blocks overlap."""
    model = random_model(recipe)
    stage = prefill.spatial(4, 4, 2, macs_per_dsp=4, lanes=2)
    top = hybrid(model, stage, decode.overlapped(4), weight_words(model))
    fifos = {b.name for f in top.top.functions for b in buffers(f).values() if b.is_stream}
    assert joined <= fifos
    session, reference = Session(model, top), ReferenceLlama(model.weights, sequential=True)
    ids = random_tokens(11, seed=11)
    np.testing.assert_array_equal(session.logits(ids, "prefill"), reference.prefill(ids))
