"""docs/schedules.md from the docstrings of the primitives: ``python tests/schedule_page.py`` writes it.

Their examples run as doctests (tests/test_schedule_random.py), so before and after are real.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

from flexllm_allo.schedule.schedule import Schedule

PAGE = Path(__file__).parents[1] / "docs" / "schedules.md"

GROUPS = {
    "Loops": "split reorder fuse unroll vectorize pack_products flatten pipeline parallel reassociate "
    "inline compute_at",
    "Memory": "partition bind_storage buffer_at store_at narrow reuse_at reshape pack unpack",
    "Dataflow": "dataflow to duplicate size_fifos unfold",
    "Schedules of several kernels": "compose",
}

HEAD = """# Schedules

`s = allo.customize(kernel)` holds a program; a primitive is a method of `s` that rewrites it. Every primitive
checks that the result stays the same, bit for bit, and is refused otherwise with both accesses and both
lines; a refused primitive changes nothing. `print(s)` shows the program, `s.get_loops()` its loops,
`print(s.trace)` the primitives so far as a function that applies them to another schedule
(`other.replay(s.trace)`).

**Loops** are named by their variable (`"i"`), in another function by `"f:i"`, in a band by `"band.i"`, or by
the handles of `s.get_loops()`. A split loop becomes `i.outer` and `i.inner`. **Buffers** are attributes:
`s.A`.

`s.build()` compiles for the CPU, `s.build(target="simulator")` runs with every access checked, `"vhls"` and
`"vitis_hls"` give HLS C++ and a project. `s.mlir()` gives the program as MLIR text, which upstream MLIR
parses and runs to the same bits (`pip install torch-mlir`; nothing else here needs it).

This page is made from the docstrings (`python tests/schedule_page.py`); their examples run as tests.
"""


def _section(name: str) -> str:
    method = getattr(Schedule, name)
    signature = str(inspect.signature(method)).replace("(self, /, ", "(").replace("(self, ", "(")
    signature = re.sub(r"flexllm_allo\.[\w.]*\.", "", signature).replace("'", "")
    doc = inspect.getdoc(method) or ""
    summary, *blocks = re.split(r"\n(Args|Returns|Raises|Example):\n", doc)
    out = f"### {name}\n\n```text\ns.{name}{signature}\n```\n\n{summary.strip()}\n"
    for title, body in zip(blocks[::2], blocks[1::2], strict=True):
        text = textwrap.dedent(body).rstrip()
        if title == "Example":
            out += f"\n```pycon\n{text}\n```\n"
        else:
            items = [f"- {item}" for item in re.split(r"\n(?! )", text)]
            out += f"\n{title}:\n\n" + "\n".join(re.sub(r"\n +", "\n  ", item) for item in items) + "\n"
    return _single_ticks(out)


def _single_ticks(text: str) -> str:
    """reStructuredText's double backquotes as Markdown's single ones; fences stay."""
    return re.sub(r"(?<!`)``(?!`)", "`", text)


def page() -> str:
    """docs/schedules.md."""
    out = [HEAD]
    for group, names in GROUPS.items():
        out.append(f"## {group}\n")
        out += [_section(name) for name in names.split() if hasattr(Schedule, name)]
    return "\n".join(out)


if __name__ == "__main__":
    PAGE.write_text(page())
