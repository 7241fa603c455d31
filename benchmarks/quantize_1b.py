"""How long a checkpoint of 1.24 G weights takes to become a quantized model, in how much memory, and what
a kill midway leaves; all measured, through the command line.

python -P benchmarks/quantize_1b.py [--folder FOLDER] [--json FILE]

The checkpoint has Llama-3.2-1B's shape, random bfloat16 weights, in shards. 8 GB of disk are used and
given back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
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
    "rope_scaling": {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
LAYERS_PER_SHARD = 4
RECIPE = "w4a8kv8"
SECONDS, GIGABYTES = 90.0, 4.0
"""What a run may take, on two cores."""
NEEDED = 8 << 30


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    hidden, inner, kv = 2048, 8192, 512
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (128256, hidden)}
    for i in range(16):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (hidden,)}


def shard_of(name: str) -> int:
    parts = name.split(".")
    return 1 + int(parts[2]) // LAYERS_PER_SHARD if parts[1] == "layers" else 0


def make_checkpoint(folder: Path) -> int:
    """Write config.json and five shards with an index; the number of weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    rng = np.random.default_rng(0)
    shapes, index, count = tensor_shapes(), {}, 0
    shards = 1 + CONFIG["num_hidden_layers"] // LAYERS_PER_SHARD
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        names = [name for name in shapes if shard_of(name) == shard]
        header, at = {}, 0
        for name in names:
            size = 2 * int(np.prod(shapes[name]))
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, at + size]}
            at += size
            index[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                count += int(np.prod(shapes[name]))
                for rows in np.array_split(np.arange(shapes[name][0]), -(-shapes[name][0] // 4096)):
                    values = rng.standard_normal((len(rows), *shapes[name][1:]), np.float32)
                    values *= 0.02
                    stream.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    content = {"metadata": {"total_size": 2 * count}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return count


def command(source: Path, out: Path) -> list[str]:
    program = Path(sys.executable).with_name("flexllm")
    return [str(program), "quantize", str(source), "--recipe", RECIPE, "--out", str(out)]


def timed(source: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, seconds of all processors, and peak memory in GB (10^9 bytes) of a run in its own process."""
    start = time.perf_counter()
    process = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"flexllm quantize ended with {process.returncode}"
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def killed(source: Path, out: Path, after_layers: int) -> int:
    """Start a run and kill it (SIGKILL) once that many layers are finished; how many were."""
    staging = out.with_name(f".{out.name}.partial")
    process = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL)
    while len(list(staging.glob("layer-*.safetensors"))) < after_layers:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(staging.glob("layer-*.safetensors")))


def digest(folder: Path) -> dict[str, str]:
    def sha256(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def measure(folder: Path) -> dict[str, object]:
    source, out = folder / "model", folder / "quantized"
    weights = make_checkpoint(source)
    # The previous output that a killed run must not touch is another model's.
    other = folder / "other"
    shutil.copytree(Path(__file__).parents[1] / "models" / "tiny", other)
    timed(other, out)
    before = digest(out)
    finished = killed(source, out, after_layers=6)
    intact = digest(out) == before
    resumed_seconds, *_ = timed(source, out)
    resumed = digest(out)
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    shutil.rmtree(out)
    seconds, cpu_seconds, peak = timed(source, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    return {
        "weights": weights,
        "recipe": RECIPE,
        "cpus": len(os.sched_getaffinity(0)),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_gb": round(peak, 2),
        "size_gb": round(size / 1e9, 3),
        "killed_after_layers": finished,
        "previous_output_intact": intact,
        "resumed_seconds": round(resumed_seconds, 1),
        "resumed_is_the_same": resumed == digest(out),
        "left_behind": left,
        "met": seconds < SECONDS and peak < GIGABYTES and intact and resumed == digest(out) and not left,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if shutil.disk_usage(options.folder or tempfile.gettempdir()).free < NEEDED:
        sys.exit(f"{NEEDED / 1e9:.0f} GB of free disk are needed")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder))
    targets = {"seconds": f"< {SECONDS:.0f}", "peak_gb": f"< {GIGABYTES:.0f}"}
    for name, value in result.items():
        print(f"{name:26}{value!s:>14}  {targets.get(name, '')}".rstrip())
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()
