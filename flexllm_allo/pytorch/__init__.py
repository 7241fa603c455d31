"""``from_pytorch``: a PyTorch model, traced by torch.fx, becomes a kernel with the library's schedules.

The kernel is a source string with top function ``forward``; each layer is a call of `library.nn` whose
schedule is composed, and tensor functions are the language's own. torch is imported when a model is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..customize import customize
from ..library import KERNEL2SCHEDULE
from ..schedule.schedule import Schedule
from .modules import write_step
from .tracing import TracingError, trace
from .writer import Writer


class WithWeights:
    """A built model whose weights are arguments: calling it adds them behind the inputs."""

    def __init__(self, module: Any, weight_data: Sequence[Any]) -> None:
        self.module = module
        self.weight_data = list(weight_data)

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs, *self.weight_data)


def from_pytorch(
    model: Any,
    example_inputs: Sequence[Any],
    leaf_modules: Sequence[Any] | None = None,
    verbose: bool = False,
    enable_tensor: bool = False,
    target: str = "llvm",
    mode: str | None = "csim",
    project: str = "top.prj",
    op_dtypes: Mapping[str, Any] | None = None,
    weights_as_args: bool = False,
) -> Any:
    """Trace a model and build it.

    Args:
        model: a ``torch.nn.Module``; it is put into evaluation mode.
        example_inputs: tensors with the shapes the model is built for.
        leaf_modules: further module classes that are not looked into.
        verbose: accepted for Allo's sake; the program shows itself by ``print(s)``.
        enable_tensor: passed to `customize`.
        target: as in `Schedule.build`, or "mlir" for the Schedule itself.
        mode: of an HLS project; llvm and vhls have none.
        project: its folder.
        op_dtypes: types by layer: keys are module names, operators ("linear", "softmax", ...), "inputs",
            "outputs" and "default"; a value is a type or, for a linear layer, [TyX, TyW, TyO]. float32 if not
            given.
        weights_as_args: the weights become arguments behind the inputs; the result is a `WithWeights`.

    Raises:
        TracingError: FX603, a layer or function that is not supported.
    """
    del verbose
    nodes = trace(model, example_inputs, leaf_modules or ())
    writer = Writer(dict(op_dtypes or {}), weights_as_args)
    source = writer.forward(nodes, write_step)
    s = customize(source, global_vars=writer.names, enable_tensor=enable_tensor)
    for kernel, sizes, id in writer.layers:
        _compose(s, kernel, sizes, id)
    if target == "mlir":
        return s
    if target in ("llvm", "vhls"):
        built = s.build(target=target)
    else:
        built = s.build(target=target, mode=mode, project=project)
    return WithWeights(built, writer.weights) if weights_as_args else built


def _compose(s: Schedule, kernel: Callable[..., Any], sizes: list[Any], id: str) -> None:
    if kernel in KERNEL2SCHEDULE:
        s.compose(KERNEL2SCHEDULE[kernel](customize(kernel, instantiate=sizes)), id=id)


__all__ = ["TracingError", "WithWeights", "from_pytorch"]
