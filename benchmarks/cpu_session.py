"""How fast the CPU session answers, next to transformers (float32, bfloat16) and llama.cpp in one run.

python -P benchmarks/cpu_session.py [--json FILE] [--rounds N] [--layers N] [--folder FOLDER]

Random weights in Llama-3.2-1B's shape, recipe w4a8kv8, two threads.  Every engine is a process of its own,
and they take turns: a prompt of 128 tokens, then 16 new tokens, round after round, so that whatever else
the machine does falls on all of them.  Reported are best rounds (shortest times), and medians beside them.

`decode_ratio` and `prefill_ratio` compare with the faster one of the two transformers, `peak_gb` (10^9 bytes)
is the most memory our process had, from its start.  Where llama-cpp-python is installed, llama.cpp takes its
turn too, on random weights in Q4_0 (the tied embedding in Q6_K, as llama.cpp's own Q4_0 files have it) or
on the file that ``--gguf FILE`` names; `llama_cpp` says what became of it.

A token needs all weights once, so memory limits what any program can reach: two threads only read in every
round too, and `memory_gbs` is their best. `decode_limit` is the largest `decode_ratio` that leaves; memory of
a machine that others share is not always as fast, so there are medians too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PROMPT, NEW, THREADS = 128, 16, 2
CONTEXT = 512
TARGETS = {"decode_ratio": 10.0, "prefill_ratio": 4.0, "peak_gb": 2.5}
SHAPE: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}

Turn = Callable[[list[int]], tuple[float, float]]
"""A prompt in: seconds to the first token, seconds for each token after it."""


# --------------------------------------------------------------------------------------- engines


def flexllm(layers: int, folder: Path | None) -> Turn:
    from flexllm_allo.models import load
    from flexllm_allo.runtime.session import Session

    model = load(folder, max_seq_len=CONTEXT) if folder else random_model(layers)
    session = Session(model)
    del model

    def turn(prompt: list[int]) -> tuple[float, float]:
        start, stamps = time.perf_counter(), list[float]()
        session.generate(prompt, NEW + 1, on_token=lambda _: stamps.append(time.perf_counter()))
        return stamps[0] - start, (stamps[-1] - stamps[0]) / (len(stamps) - 1)

    return turn


def random_model(layers: int) -> Any:
    """A model whose tensors are made when they are read, as those of a folder are read when used."""
    from flexllm_allo.models.hf import Checkpoint
    from flexllm_allo.models.model import Model
    from flexllm_allo.models.spec import LlamaConfig
    from flexllm_allo.quant.model import QuantizedModel
    from flexllm_allo.quant.recipes import get_recipe

    raw = {**SHAPE, "num_hidden_layers": layers, "eos_token_id": None, "architectures": ["LlamaForCausalLM"]}
    config = LlamaConfig.from_dict({**raw, "model_type": "llama"}, "the benchmark")
    checkpoint = Checkpoint(config, {}, "the benchmark", lambda: None)  # type: ignore[arg-type]
    cos, sin = checkpoint.rope_tables(CONTEXT)
    recipe = get_recipe("w4a8kv8")
    return Model(checkpoint, QuantizedModel(config, recipe, RandomTensors(recipe, layers), cos, sin))


class RandomTensors(Mapping[str, Any]):
    """Tensors of a quantized model by name, random codes and scales that keep activations near 1."""

    def __init__(self, recipe: Any, layers: int) -> None:
        hidden, inner, kv = 2048, 8192, 512
        self._recipe = recipe
        self._shapes: dict[str, tuple[int, ...]] = {"embed": (128256, hidden), "final_norm": (hidden,)}
        weights = {"wq": (hidden, hidden), "wk": (kv, hidden), "wv": (kv, hidden), "wo": (hidden, hidden)}
        weights |= {"w_gate": (inner, hidden), "w_up": (inner, hidden), "w_down": (hidden, inner)}
        for i in range(layers):
            norms = {"attn_norm": (hidden,), "mlp_norm": (hidden,)}
            self._shapes |= {f"layers.{i}.{k}": v for k, v in (norms | weights).items()}
        self._shapes["w_head"] = (128256, hidden)

    def __getitem__(self, name: str) -> Any:
        import numpy as np

        from flexllm_allo.quant.weight import QuantizedWeight

        shape, rng = self._shapes[name], np.random.default_rng(len(name))
        if name == "embed":
            return rng.standard_normal(shape, np.float32)
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        fmt = self._recipe.weight_of(name.rpartition(".")[2])
        most = (1 << (fmt.bits - 1)) - 1
        codes = rng.integers(-most, most + 1, shape, np.int8)
        scale = np.full((shape[0], 1), 2.0 / most / shape[1] ** 0.5, np.float32)
        return QuantizedWeight(fmt, codes, scale)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def transformers(layers: int, dtype: str) -> Turn:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": layers})).eval()

    def turn(prompt: list[int]) -> tuple[float, float]:
        start = time.perf_counter()
        out = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1:].argmax(-1)
        first = time.perf_counter()
        for _ in range(NEW):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return first - start, (time.perf_counter() - first) / NEW

    return turn


def llama_cpp(layers: int, gguf: Path | None) -> Turn:
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        if gguf is None:
            gguf = Path(folder) / "random.gguf"
            random_gguf(gguf, layers)
        model = Llama(str(gguf), n_ctx=CONTEXT, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)

    def turn(prompt: list[int]) -> tuple[float, float]:
        model.reset()
        start = time.perf_counter()
        model.eval(prompt)
        token = model.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(NEW):
            model.eval([token])
            token = model.sample(temp=0.0)
        return first - start, (time.perf_counter() - first) / NEW

    return turn


def random_gguf(path: Path, layers: int) -> None:
    """A Llama of that shape in GGUF: random blocks, vocabulary entries that no text has."""
    import numpy as np

    from flexllm_allo.quant.gguf.container import GgufTensor, write_gguf

    hidden, inner, kv, vocabulary = 2048, 8192, 512, SHAPE["vocab_size"]
    shapes = {"attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden)}
    shapes |= {"attn_output": (hidden, hidden), "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden)}
    shapes["ffn_down"] = (hidden, inner)

    def ones(name: str) -> GgufTensor:
        return GgufTensor.quantize(f"{name}.weight", np.ones(hidden, np.float32), "F32")

    tensors = [random_blocks("token_embd.weight", (vocabulary, hidden), "Q6_K"), ones("output_norm")]
    for i in range(layers):
        tensors += [ones(f"blk.{i}.attn_norm"), ones(f"blk.{i}.ffn_norm")]
        tensors += [random_blocks(f"blk.{i}.{k}.weight", shape, "Q4_0") for k, shape in shapes.items()]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    names += [f"token{i}" for i in range(len(names), vocabulary)]
    kinds = np.array(
        [2, 3, 3, *[6] * 256, *[1] * (vocabulary - 259)], np.int32
    )  # unknown, control, byte, text
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 2,  # mostly Q4_0
        "llama.block_count": layers,
        "llama.context_length": SHAPE["max_position_embeddings"],
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": SHAPE["num_attention_heads"],
        "llama.attention.head_count_kv": SHAPE["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": SHAPE["rms_norm_eps"],
        "llama.rope.dimension_count": SHAPE["head_dim"],
        "llama.rope.freq_base": SHAPE["rope_theta"],
        "llama.vocab_size": vocabulary,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.scores": np.zeros(vocabulary, np.float32),
        "tokenizer.ggml.token_type": kinds,
    }
    write_gguf(path, metadata, tensors)


def random_blocks(name: str, shape: tuple[int, int], kind: str) -> Any:
    """A tensor of random codes whose values are of the size of trained weights."""
    import numpy as np

    from flexllm_allo.quant.gguf.blocks import block_type
    from flexllm_allo.quant.gguf.container import GgufTensor

    form, rng = block_type(kind), np.random.default_rng(len(name))
    blocks = rng.integers(0, 256, (shape[0], shape[1] // form.weights, form.nbytes), np.uint8)
    first = {"Q4_0": 0, "Q6_K": form.nbytes - 2}[kind]  # where the scale of a block is, in float16
    scale = np.float16({"Q4_0": 0.004, "Q6_K": 1e-5}[kind])
    blocks[..., first : first + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return GgufTensor(name, kind, shape, blocks.reshape(shape[0], -1))


def serve(engine: str, options: argparse.Namespace) -> None:
    """A child: load, say so, then a line of figures for every line with a prompt."""
    made = {
        "flexllm": lambda: flexllm(options.layers, options.folder),
        "float32": lambda: transformers(options.layers, "float32"),
        "bfloat16": lambda: transformers(options.layers, "bfloat16"),
        "llama.cpp": lambda: llama_cpp(options.layers, options.gguf),
    }
    turn = made[engine]()
    print("ready", flush=True)
    for line in sys.stdin:
        prefill, decode = turn(json.loads(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"prefill_s": prefill, "decode_s": decode, "peak_gb": peak}), flush=True)


# --------------------------------------------------------------------------------------- memory


def reader() -> Callable[[], float]:
    """A function that reads half a gigabyte in two threads, and says in how many 10^9 bytes per second."""
    os.environ["FLEXLLM_THREADS"] = str(THREADS)
    import numpy as np

    import flexllm_allo as allo
    from flexllm_allo.ir.types import int32

    def read(words: int32[128, 1 << 20], sums: int32[128]):  # pyright: ignore
        for i in range(128):
            total: int32 = 0  # pyright: ignore
            for j in range(1 << 20):
                total += words[i, j]
            sums[i] = total

    s = allo.customize(read)
    s.parallel("i")
    module, words, sums = s.build(), np.ones((128, 1 << 20), np.int32), np.zeros(128, np.int32)

    def speed() -> float:
        start = time.perf_counter()
        module(words, sums)
        return words.nbytes / (time.perf_counter() - start) / 1e9

    return speed


def weight_bytes(layers: int) -> float:
    """Of all weights that a token is multiplied with: every linear layer, and the head."""
    from flexllm_allo.quant.recipes import get_recipe

    recipe, tensors = get_recipe("w4a8kv8"), RandomTensors(get_recipe("w4a8kv8"), layers)
    kinds = {name: recipe.weight_of(name.rpartition(".")[2]) for name in tensors if ".w" in f".{name}"}
    return sum(math.prod(tensors.shape(name)) * fmt.bits / 8 for name, fmt in kinds.items() if fmt)


# --------------------------------------------------------------------------------------- measure


class DidNotStart(SystemExit):
    """An engine ended before it was ready."""


class Engine:
    """A child process that answers prompts."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        environment = {**os.environ, "FLEXLLM_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
        command = [sys.executable, "-P", __file__, "--serve", name, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.rounds: list[dict[str, float]] = []
        start = time.perf_counter()
        if self._line() != "ready":
            raise DidNotStart(f"{name} did not start")
        self.load_s = time.perf_counter() - start

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def turn(self, prompt: list[int], keep: bool) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(prompt) + "\n")
        self.process.stdin.flush()
        figures = {**json.loads(self._line()), "load": os.getloadavg()[0]}
        if keep:
            self.rounds.append(figures)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def figures(self) -> dict[str, Any]:
        prefill = [r["prefill_s"] for r in self.rounds]
        decode = [r["decode_s"] for r in self.rounds]
        return {
            "prefill_s": min(prefill),
            "prefill_s_median": statistics.median(prefill),
            "decode_tokens_per_s": 1 / min(decode),
            "decode_tokens_per_s_median": 1 / statistics.median(decode),
            "peak_gb": max(r["peak_gb"] for r in self.rounds),
            "load_s": self.load_s,
            "rounds": self.rounds,
        }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    arguments = ["--layers", str(options.layers)]
    for name in ("folder", "gguf"):
        if getattr(options, name):
            arguments += [f"--{name}", str(getattr(options, name))]
    engines: dict[str, Engine] = {}
    llama = "measured" if importlib.util.find_spec("llama_cpp") else "not installed"
    try:
        for name in ("flexllm", "float32", "bfloat16"):
            engines[name] = Engine(name, arguments)
        if llama == "measured":
            try:
                engines["llama.cpp"] = Engine("llama.cpp", arguments)
            except DidNotStart as error:
                llama = str(error)
        speed, speeds = reader(), list[float]()
        prompt = [1000 + 37 * i % 100_000 for i in range(PROMPT)]
        for number in range(options.rounds + 1):  # the first one warms up
            for engine in engines.values():
                engine.turn(prompt, keep=number > 0)
            speeds += [speed() for _ in range(3)]
    finally:
        for engine in engines.values():
            engine.close()
    figures: dict[str, Any] = {name: engine.figures() for name, engine in engines.items()}
    ours, peers = figures["flexllm"], [figures["float32"], figures["bfloat16"]]
    token = weight_bytes(options.layers) / 1e9
    fastest = [max(p[f"decode_tokens_per_s{which}"] for p in peers) for which in ("", "_median")]
    return {
        **ratios(ours, peers),
        "peak_gb": ours["peak_gb"],
        "memory_gbs": max(speeds),
        "memory_gbs_median": statistics.median(speeds),
        "weight_gb": token,
        "decode_limit": max(speeds) / token / fastest[0],
        "decode_limit_median": statistics.median(speeds) / token / fastest[1],
        "llama_cpp": llama,
        **{f"llama_cpp_{k}": v for k, v in ratios(ours, [figures.get("llama.cpp")]).items()},
        "layers": options.layers,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW,
        "threads": THREADS,
        "engines": figures,
    }


def ratios(ours: dict[str, Any], peers: list[dict[str, Any] | None]) -> dict[str, float | None]:
    """How many times as fast as the fastest of the peers; None without one."""
    there = [p for p in peers if p is not None]
    if not there:
        return {"decode_ratio": None, "prefill_ratio": None}
    return {
        "decode_ratio": ours["decode_tokens_per_s"] / max(p["decode_tokens_per_s"] for p in there),
        "prefill_ratio": min(p["prefill_s"] for p in there) / ours["prefill_s"],
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'':10} {'prefill s':>10} {'(median)':>10} {'tokens/s':>10} {'(median)':>10} {'peak GB':>8}")
    for name, f in result["engines"].items():
        print(
            f"{name:10} {f['prefill_s']:10.3f} {f['prefill_s_median']:10.3f} "
            f"{f['decode_tokens_per_s']:10.2f} {f['decode_tokens_per_s_median']:10.2f} {f['peak_gb']:8.2f}"
        )
    for name, target in TARGETS.items():
        sign = "<" if name == "peak_gb" else ">="
        print(f"{name:14} {result[name]:8.2f}   target {sign} {target}")
    speed, usual, token = (result[key] for key in ("memory_gbs", "memory_gbs_median", "weight_gb"))
    print(f"memory         {speed:.1f} GB/s (median {usual:.1f}), {token:.2f} GB of weights per token:")
    limit, median = result["decode_limit"], result["decode_limit_median"]
    print(f"               decode_ratio can be {limit:.1f} at most (of medians {median:.1f})")
    if result["llama_cpp"] == "measured":
        decode, prefill = result["llama_cpp_decode_ratio"], result["llama_cpp_prefill_ratio"]
        print(f"llama.cpp      decode {decode:.2f}, prefill {prefill:.2f} times as fast as it")
    else:
        print(f"llama.cpp      {result['llama_cpp']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="a quantized model instead of random weights")
    parser.add_argument("--gguf", type=Path, help="a file for llama.cpp instead of random weights")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options)
        return
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
