"""The text of functions typed at Python's own prompt, which keeps none before Python 3.13.

The line editor remembers what was typed; the last definition of that name is the one meant.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from ..errors import register_source


def typed_source(fn: Any) -> tuple[list[str], str] | None:
    """The lines of a function typed at the prompt and a name for their place, or None."""
    code = getattr(fn, "__code__", None)
    readline = sys.modules.get("readline")
    if code is None or readline is None or not code.co_filename.startswith("<"):
        return None
    count = readline.get_current_history_length()
    history = [readline.get_history_item(n) or "" for n in range(1, count + 1)]
    heads = [n for n, line in enumerate(history) if line.startswith(f"def {code.co_name}(")]
    if not heads:
        return None
    first = last = heads[-1]
    while last + 1 < len(history) and history[last + 1][:1].isspace():
        last += 1
    while first and history[first - 1].startswith("@"):
        first -= 1
    lines = [f"{line}\n" for line in history[first : last + 1]]
    file = f"<typed {hashlib.sha256(''.join(lines).encode()).hexdigest()[:8]}>"
    register_source(file, "".join(lines))
    return lines, file
