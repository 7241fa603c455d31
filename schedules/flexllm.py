"""FlexLLM's prefill: vectors of tokens, arrays of multipliers, operators that work at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from flexllm_allo import Schedule
from flexllm_allo.errors import StreamError
from flexllm_allo.ir.walk import buffers
from flexllm_allo.schedule.stage import Stage


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
