"""What torch.fx sees of a model, as plain records with the shape of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from numpy.typing import NDArray

from ..errors import FlexError


class TracingError(FlexError, NotImplementedError):
    """A model holds something that is not translated."""


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Several values as they are, a single one as a tuple."""
    return tuple(cast(Sequence[Any], value)) if isinstance(value, list | tuple) else (value,)


@dataclass(frozen=True)
class Value:
    """A tensor of the model by the name of the node that computes it."""

    name: str


@dataclass(frozen=True)
class Traced:
    """One step of a model.

    `kind` is input, constant, module, function, method or output; `op` the function's or method's name or the
    module itself, `target` the module's name; numbers known from the inputs are plain Python.
    """

    kind: str
    name: str
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    target: str = ""
    data: NDArray[Any] | None = None


def trace(model: Any, inputs: Sequence[Any], leaves: Sequence[Any]) -> list[Traced]:
    """Run the model once under torch.fx and record every step that yields a tensor."""
    import torch
    from torch import fx

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
            return isinstance(m, tuple(leaves)) or super().is_leaf_module(m, module_qualified_name)

    model = model.eval()
    graph = Tracer().trace(model)
    module = fx.GraphModule(model, graph)
    values: dict[Any, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.no_grad():
        Recorder(module).run(*inputs)
    return [_record(n, values, dict(model.named_modules())) for n in graph.nodes if _wanted(n, values)]


def _wanted(node: Any, values: dict[Any, Any]) -> bool:
    return node.op == "output" or hasattr(values[node], "detach")


def _record(node: Any, values: dict[Any, Any], modules: dict[str, Any]) -> Traced:
    def known(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return tuple(known(a) for a in as_tuple(argument))
        if isinstance(argument, slice):
            given = cast(Any, argument)
            return slice(known(given.start), known(given.stop), known(given.step))
        if not hasattr(argument, "op"):
            return argument
        return Value(argument.name) if hasattr(values[argument], "detach") else values[argument]

    kinds = {"placeholder": "input", "get_attr": "constant", "call_module": "module",
             "call_function": "function", "call_method": "method", "output": "output"}  # fmt: skip
    kind = kinds[node.op]
    op = modules[node.target] if kind == "module" else getattr(node.target, "__name__", node.target)
    shape = () if kind == "output" else tuple(values[node].shape)
    data = values[node].detach().numpy() if kind == "constant" else None
    return Traced(
        kind, node.name, op, known(node.args), {k: known(v) for k, v in node.kwargs.items()}, shape,
        str(node.target) if kind == "module" else "", data,
    )  # fmt: skip


__all__ = ["Traced", "TracingError", "Value", "as_tuple", "trace"]
