"""FlexLLM-Allo: LLM accelerators as Python kernels and reusable schedules.

``import flexllm_allo as allo`` gives the kernel language (`grid`, `reduction`, math, templates),
`customize`, and the errors.  Everything heavy (LLVM, checkpoints) is imported when it is used.
"""

from typing import TYPE_CHECKING

from .customize import customize
from .dsl import (
    Bundle,
    Traits,
    abs,
    add,
    bmm,
    concat,
    conv2d,
    copy,
    cos,
    div,
    exp,
    floor,
    gelu,
    grid,
    layernorm,
    linear,
    log,
    log2,
    log10,
    matmul,
    maxpool,
    meta_elif,
    meta_else,
    meta_for,
    meta_if,
    mul,
    ones,
    params,
    power,
    reduction,
    relu,
    round,
    sin,
    softmax,
    sqrt,
    sub,
    sumpool,
    tan,
    tanh,
    transpose,
    tril,
    view,
    zeros,
)
from .engine import adopted
from .errors import FlexError
from .lazy import lazy
from .memory import Layout, Memory
from .template import template
from .verify import verify

if TYPE_CHECKING:
    from .schedule.memory import Partition
    from .schedule.schedule import Schedule

__version__ = "0.1.0"

__getattr__ = lazy(
    __name__,
    {
        "HLSModule": "backend.hls.module",
        "IPModule": "backend.ip",
        "LLVMModule": "backend.llvm",
        "Partition": "schedule.memory",
        "Schedule": "schedule.schedule",
        "invoke_mlir_parser": "backend.llvm",
        **dict.fromkeys(
            ("autoscheduler", "backend", "dataflow", "frontend", "ir", "library", "memory", "passes"), "."
        ),
        **dict.fromkeys(("primitives", "utils"), "."),
    },
)  # fmt: skip

__all__ = [
    "Bundle",
    "FlexError",
    "Layout",
    "Memory",
    "Partition",
    "Schedule",
    "Traits",
    "abs",
    "add",
    "bmm",
    "concat",
    "conv2d",
    "copy",
    "cos",
    "customize",
    "div",
    "exp",
    "floor",
    "gelu",
    "grid",
    "layernorm",
    "linear",
    "log",
    "log2",
    "log10",
    "matmul",
    "maxpool",
    "meta_elif",
    "meta_else",
    "meta_for",
    "meta_if",
    "mul",
    "ones",
    "params",
    "power",
    "reduction",
    "relu",
    "round",
    "sin",
    "softmax",
    "sqrt",
    "sub",
    "sumpool",
    "tan",
    "tanh",
    "template",
    "transpose",
    "tril",
    "verify",
    "view",
    "zeros",
]

globals().update(adopted("allo", __all__))
