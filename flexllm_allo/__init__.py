"""FlexLLM-Allo: LLM accelerators as Python kernels and reusable schedules.

``import flexllm_allo as allo`` gives the kernel language (`grid`, `reduction`, math, templates),
`customize`, and the errors.  Everything heavy (LLVM, checkpoints) is imported when it is used.
"""

from .customize import customize
from .dsl import (
    abs,
    cos,
    exp,
    floor,
    grid,
    log,
    log2,
    log10,
    meta_elif,
    meta_else,
    meta_for,
    meta_if,
    params,
    power,
    reduction,
    round,
    sin,
    sqrt,
    tan,
    tanh,
    template,
)
from .errors import FlexError
from .schedule.schedule import Schedule

__version__ = "0.1.0"

__all__ = [
    "FlexError",
    "Schedule",
    "abs",
    "cos",
    "customize",
    "exp",
    "floor",
    "grid",
    "log",
    "log2",
    "log10",
    "meta_elif",
    "meta_else",
    "meta_for",
    "meta_if",
    "params",
    "power",
    "reduction",
    "round",
    "sin",
    "sqrt",
    "tan",
    "tanh",
    "template",
]
