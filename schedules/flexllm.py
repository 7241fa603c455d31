"""FlexLLM's prefill: vectors of tokens, arrays of multipliers, operators that work at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from flexllm_allo import Partition, Schedule
from flexllm_allo.errors import StreamError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Stage

from . import hadamard


def lanes(s: Schedule, *loops: str) -> None:
    """Those loops side by side, everything else a pipeline."""
    for loop in loops:
        s.vectorize(loop)
    s.pipeline()


def along(*loops: str) -> Callable[[Schedule], None]:
    """`lanes` as a schedule."""
    return lambda s: lanes(s, *loops)


def copies(count: int, *loops: str) -> list[str]:
    """Those loops in every copy that `meta_for` makes."""
    return [f"{loop}_{p}" if p else loop for p in range(count) for loop in loops]


def multiply(s: Schedule) -> None:
    """Tokens x channels products per cycle, all sums in registers."""
    s.partition(s.acc, dim=0)
    ports = buffers(s.top_func)["acc"].shape[1]
    lanes(s, "t_in", "t_0", "p_0", "c_0", *copies(ports, "t", "c", "t_out"))


def read_terms(s: Schedule) -> None:
    """A channel per cycle."""
    (ports,) = buffers(s.top_func)["pairs"].shape
    lanes(s, *copies(ports, "j"))


def softmax(s: Schedule) -> None:
    """Four exponentials in four cycles, one after the other: so every partial sum waits for its adder."""
    for loop in ("t_0", "j_0", "t_top", "t", "j", "t_sum", "t_out"):
        s.vectorize(loop)
    s.pipeline("s_exp", initiation_interval=4)
    s.pipeline()


def append_parts(s: Schedule) -> None:
    """A word of the values per cycle, if the cache is packed."""
    lanes(s, "j.inner" if buffers(s.top_func)["cache"].words > 1 else "j")


def processes(s: Schedule) -> None:
    """The calls of a function as processes."""
    with suppress(StreamError):
        s.duplicate()
    s.dataflow()


def tiles(s: Schedule) -> None:
    """Tiles of keys follow each other: while one is multiplied, the scores of that before leave."""
    s.dataflow("i")
    s.pipeline()


def blocks(s: Schedule) -> None:
    """In either pass the next block enters when the first operator is done with the one before."""
    s.dataflow("b_kv")
    s.dataflow("b")
    s.pipeline()


KERNELS: dict[str, Callable[[Schedule], None]] = {
    "read_beats": along("c"),
    "read_terms": read_terms,
    "multiply": multiply,
    "rms_norm_lanes": along("t_sum", "t", "t_out"),
    "quantize_lanes": along("t_peak", "t", "t_code"),
    "hadamard_lanes": along("t_in", "t_deal", "t", "t_out"),
    **dict.fromkeys(("rope", "split_heads", "swiglu", "keep_lanes", "add_kept"), along("t")),
    "append_parts": append_parts,
    "read_keys": along("i"),
    "dots": along("t_0", "i_0", "t", "i"),
    "send_scores": along("t"),
    "score_keys": tiles,
    "softmax": softmax,
    "read_values": along("j"),
    "mix_values": along("t_in", "t_0", "j_0", "t", "j", "t_out"),
    **dict.fromkeys(("linear_ports", "keys_values", "attend", "layer"), processes),
    "norm_quantize": processes,
    "prefill": blocks,
}


def prefill(token_parallel: int = 8) -> Stage:
    """Blocks of `token_parallel` tokens."""
    return Stage("flexllm prefill", token_parallel, KERNELS, Schedule.pipeline)


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


def softmax_heads(s: Schedule) -> None:
    """`softmax` with heads as lanes."""
    for loop in ("g_0", "i_0", "g_top", "g", "i", "g_sum", "g_out"):
        s.vectorize(loop)
    s.pipeline("s_exp", initiation_interval=4)
    s.pipeline()


def dissolved(s: Schedule) -> None:
    """A part of its caller in hardware: so all linear layers are calls of one function, on one engine."""
    s.inline()


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
        "softmax_heads": softmax_heads,
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


def append_lane(s: Schedule) -> None:
    """An element of the key, which is put into its pack, or a word of the value per cycle."""
    s.vectorize("j.inner" if buffers(s.top_func)["V"].words > 1 else "j")
    s.pipeline()


def memory_words(s: Schedule, attention: int, mlp: int, value: int, gain: int = 1) -> None:
    """Words of a top: rows of weights, terms of a channel, a pack of keys, elements of a value, gains."""
    for name, shape in [(p.name, p.shape) for p in s.top_func.params]:
        if buffers(s.top_func)[name].words > 1:
            continue  # arrays that meet in one kernel are packed together
        if name.startswith("k_"):
            s.pack(getattr(s, name), factor=shape[-1], dim=len(shape))
        elif name.startswith("v_"):
            s.pack(getattr(s, name), factor=value or shape[-1], dim=len(shape))
        elif name.endswith("_gain") and gain > 1:
            s.pack(getattr(s, name), factor=gain, dim=len(shape))
        elif name.startswith("port_"):
            s.pack(getattr(s, name), factor=shape[-1], dim=len(shape))
        elif "_codes_" in name:
            rows = mlp if name.startswith("w_") else attention
            s.pack(getattr(s, name), factor=rows, dim=len(shape) - 1)
        elif name.endswith("terms"):
            s.pack(getattr(s, name), factor=shape[-1], dim=len(shape))
