"""From a checkpoint to a U280: chat with the exact design on the CPU, then write its Vitis project.

python -P examples/llama_u280.py [FOLDER] [OUT] [RECIPE]: a Hugging Face folder; default: the shipped model.
"""

import json
import sys
from pathlib import Path

import flexllm_allo
from flexllm_allo.hybrid import hybrid
from flexllm_allo.models import load
from flexllm_allo.runtime.build import build_project, weight_words
from flexllm_allo.runtime.session import Session
from flexllm_allo.schedules import decode, prefill

given = dict(enumerate(sys.argv[1:]))
folder = Path(given.get(0, Path(flexllm_allo.__file__).parent / "models" / "tiny"))
out, recipe = Path(given.get(1, "llama_u280")), given.get(2, "w4a8kv8")

# One model, two stages: blocks of 8 tokens in prefill, one in decode, the same weights in the same words.
model = load(folder, recipe)
top = hybrid(model, prefill.spatial(8, 16), decode.temporal(64), weight_words(model))
print(top.schedule.top_func_name, "with", len(top.program.functions), "kernel instances")

chat = Session(model)
for question in sys.stdin if sys.stdin.isatty() else ["The import statement", "A list of the names"]:
    prompt = chat.encode(question.strip())
    answer = chat.generate(prompt, 24)
    print(f"> {question.strip()}\n{chat.decode(answer.tokens)}\n  ({answer.tokens_per_second:.1f} tokens/s)")

# The same design as C++, connectivity, host program and one file of weights per memory channel.
project = build_project(folder, out, recipe=recipe, device="u280")
manifest = json.loads((project / "manifest.json").read_text())
for name, tensor in manifest["tensors"].items():
    print(f"{name:16} {tensor['channel']:12} {tensor['bytes']:>12,} bytes")
print("next: make -C", project, "csim  # g++ only;  make xclbin TARGET=hw_emu  # Vitis")
assert (project / "generate.cfg").read_text().count("sp=") == len(manifest["tensors"])
