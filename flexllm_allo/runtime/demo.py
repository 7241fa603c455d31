"""The demonstration: the shipped checkpoint through everything, in under a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.hls.project import write_project
from ..backend.hls.steps import run_csim
from ..errors import ToolError, UsageError
from ..models import load
from ..models.reference import ReferenceLlama
from .bitstream import run_arguments, whole
from .build import hardware_top
from .outputs import OutputFile
from .perplexity import text_perplexity
from .project_plan import plan_project
from .session import Session

PROMPT = "The import statement"
NEW_TOKENS = 48
CSIM_TOKENS = 8
RECIPE = "w8a8kv8"
RECIPES = ("w8a8kv8", "w4a8kv8")
TINY = Path(__file__).parent.parent / "models" / "tiny"
"""The checkpoint that ships with the package, with its held-out text."""

Advance = Callable[[int, int | None], None]


def run_demo(out: Path, advance: Advance = lambda _done, _total: None) -> Mapping[str, Any]:
    """Run the demonstration and write ``summary.json`` and the HLS project into `out`.

    Returns:
        The summary: ``text`` and ``tokens`` generated on the CPU, ``tokens_per_second``;
        ``reference_match`` (the NumPy reference gives the same tokens); ``csim_match`` (the compiled
        HLS C++ gives the same tokens and the same KV cache, None without a compiler); ``ppl_float``
        and ``ppl_quant`` by recipe; ``hls_project``, a path relative to `out`.

    Raises:
        UsageError: FX702, `out` cannot be written.
    """
    total = 4 + len(RECIPES)
    summary_file = OutputFile(_folder(out) / "summary.json")
    with closing(Session.open(TINY, RECIPE)) as session:
        prompt = session.encode(PROMPT)
        result = session.generate(prompt, NEW_TOKENS)
        advance(1, total)
        reference = ReferenceLlama(session.model.weights).generate(prompt, NEW_TOKENS, session.stop_token)
        advance(2, total)
        csim = _csim_match(session, prompt, result.tokens[:CSIM_TOKENS], out / "hls")
        advance(3, total)
        text = PROMPT + session.decode(result.tokens)
    heldout = (TINY / "heldout.txt").read_text(encoding="utf-8")
    ppl: dict[str, float] = {}
    for n, recipe in enumerate(("none", *RECIPES)):
        with closing(Session.open(TINY, recipe)) as session:
            ppl[recipe] = text_perplexity(session, heldout)["ppl"]
        advance(4 + n, total)
    summary = {
        "text": text,
        "prompt_tokens": prompt,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "recipe": RECIPE,
        "reference_match": list(reference) == result.tokens,
        "csim_match": csim,
        "ppl_float": ppl.pop("none"),
        "ppl_quant": ppl,
        "hls_project": "hls",
    }
    summary_file.write_json(summary)
    return summary


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("FX702", f'cannot make the folder "{out}": {error.strerror}') from None
    return out


def _csim_match(session: Session, prompt: list[int], tokens: list[int], folder: Path) -> bool | None:
    """Whether the hardware design, compiled from its C++, repeats what the CPU said.

    The test bench compares every token and the whole KV cache with the LLVM run of the same
    design; its tokens in turn must be those of the CPU's own schedules.
    """
    top = hardware_top(load(TINY, RECIPE))
    plan = plan_project(whole(top, run_arguments(top.model, prompt, len(tokens))))
    project = write_project(plan, folder)
    golden = np.frombuffer(plan.files["data/golden_tokens.bin"], np.int32)
    if golden[: len(tokens)].tolist() != tokens:
        return False
    try:
        run_csim(project)
    except ToolError as error:
        if error.code == "FX501":
            return None
        return False
    return True
