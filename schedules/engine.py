"""Decode on one engine for all linear layers: our own design, and FlexLLM's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flexllm_allo import Partition, Schedule
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Stage

from . import hadamard
from .flexllm import KERNELS, along, copies, lanes, processes, tiles


def grouped(*loops: str, lanes: int) -> Callable[[Schedule], None]:
    """Groups of `lanes` iterations of those loops side by side."""

    def schedule(s: Schedule) -> None:
        for loop in loops:
            s.vectorize(loop, lanes)
        s.pipeline()

    return schedule


def rms_norm_blocks(s: Schedule) -> None:
    """Four terms of a lane in four cycles, each to a sum of its own."""
    for loop in ("b_0", "j_0", "b", "b_out"):
        s.vectorize(loop)
    s.unroll("j")
    s.pipeline("e_sum", initiation_interval=4)
    s.pipeline()


def hadamard_lanes(s: Schedule, block: int) -> None:
    """A stage after the other, on `block` lanes."""
    for buffer in (s.row, s.dealt):  # two accesses of a bank at once, as many as it has ports
        s.partition(buffer, partition_type=Partition.Cyclic, dim=2, factor=block)
    s.vectorize("i_in", block)
    s.vectorize("i_out", block)
    for loop in ("i_deal", "i"):
        s.split(loop, block)
        s.unroll(f"{loop}.inner")
        s.unroll(loop.replace("i", "t", 1))
    s.pipeline()


def dots_heads(s: Schedule, heads: int) -> None:
    """All heads at once, each with its queries in a bank."""
    s.partition(s.Q, partition_type=Partition.Block, dim=1, factor=heads)
    lanes(s, "g_0", "i_0", *copies(heads, "i"))


def mix_heads(s: Schedule, heads: int, vector: int) -> None:
    """All heads at once; `vector` elements of one of them leave at a time."""
    s.vectorize("d_out", vector)
    lanes(s, "g_in", "g_0", "d_0", *copies(heads, "d"))


def dissolved(s: Schedule) -> None:
    """A part of its caller in hardware: so all linear layers are calls of one function, on one engine."""
    s.inline()


def append_lane(s: Schedule) -> None:
    """An element of the key, which is put into its pack, or a word of the value per cycle."""
    s.vectorize("j.inner" if buffers(s.top_func)["V"].words > 1 else "j")
    s.pipeline()


def append_rows(s: Schedule) -> None:
    """Whole words, if the cache is packed."""
    if (words := buffers(s.top_func)["K_0"].words) > 1:
        s.vectorize("d", words)
    s.pipeline()


def score_rows(s: Schedule, heads: int, vector: int) -> None:
    """A key of every head meets all queries of its group at once."""
    ports = buffers(s.top_func)["keys"].shape[0] // heads
    s.partition(s.q, dim=0)
    s.vectorize("d_q", vector)
    lanes(s, *copies(ports, "h_out"), *copies(heads * ports, "j", "d"))


def softmax_rows(s: Schedule) -> None:
    """All heads at once; four exponentials of a head in four cycles, as in `softmax`."""
    for loop in ("h_0", "i_0", "h_top", "h", "i", "h_sum", "h_out"):
        s.vectorize(loop)
    s.pipeline("s_exp", initiation_interval=4)
    s.pipeline()


def mix_rows(s: Schedule, heads: int, vector: int) -> None:
    """A value of every head meets the probabilities of all its queries; `vector` sums leave at a time."""
    s.partition(s.codes_token, dim=0)
    s.vectorize("d_out", vector)
    lanes(s, "h_0", "d_0", *copies(heads, "j", "d"))


def decode(block: int = 16, vector: int = 8, heads: int = 8, ports: int = 16, side: int = 8) -> Stage:
    """One token; `block` lanes in front of the engine and in the Hadamard transform, else `vector`.

    Args:
        heads: of keys and values; `side` of them are side by side in FlexLLM's attention.
    """
    kernels: dict[str, Callable[[Schedule], None]] = {
        **KERNELS,
        "send_beats": along("c"),
        "send_terms": along(*copies(ports, "j")),
        "engine": along("b_in", "p_0", "c_0", *copies(ports, "c")),
        "rms_norm_blocks": rms_norm_blocks,
        "quantize_blocks": along("b_0", "b", "b_out"),
        "largest": along("b_0", "i_0", "i", "b"),
        "hadamard_lanes": partial(hadamard_lanes, block=block),
        "hadamard": partial(hadamard.rows, lanes=(block, block)),
        "butterfly": grouped("i", lanes=block // 2),
        "base_product": hadamard.base,
        "take": grouped("i", lanes=block),
        "swiglu": grouped("i", lanes=max(vector, 16)),
        **dict.fromkeys(("rope", "residual"), grouped("i", lanes=vector)),
        "split_heads": grouped("d", lanes=vector),
        "quantize_static": grouped("k_code", lanes=vector),
        "append_lane": append_lane,
        "read_lane_keys": along("i"),
        "dots_heads": partial(dots_heads, heads=side),
        "send_heads": along("g"),
        "score_heads": tiles,
        "softmax_heads": along("g"),
        "read_lane_values": along("d"),
        "mix_heads": partial(mix_heads, heads=side, vector=vector),
        "read_rows": along("d"),
        "score_rows": partial(score_rows, heads=heads, vector=vector),
        "softmax_rows": softmax_rows,
        "mix_rows": partial(mix_rows, heads=heads, vector=vector),
        **dict.fromkeys(("linear_engine", "append_lanes", "mix_packs"), processes),
        "append_rows": append_rows,
        "attend_rows": processes,
        "candidates": along("i"),
        **dict.fromkeys(("on_engine", "attention", "mlp"), dissolved),
    }
    return Stage("flexllm decode", 1, kernels, Schedule.pipeline)
