"""What a kernel may call: loops, scalar math, template parameters.

Every intrinsic is also an ordinary Python function on numbers and NumPy arrays, so that a kernel's
formulas can be tried in the interpreter prompt.  The compiler recognises them by their
``__intrinsic__`` mark, never by module or name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np

from .marks import F, intrinsic
from .tensor_ops import (
    add,
    bmm,
    concat,
    conv2d,
    copy,
    div,
    gelu,
    layernorm,
    linear,
    matmul,
    maxpool,
    mul,
    ones,
    relu,
    softmax,
    sub,
    sumpool,
    transpose,
    tril,
    view,
    zeros,
)


@intrinsic("grid")
def grid(*extents: int, name: str = "", pipeline: Any = None, unroll: Any = None) -> Any:
    """A perfect loop nest over ``range(extent)`` for each extent; `name` names its band."""
    del name, pipeline, unroll
    return np.ndindex(*extents) if len(extents) > 1 else range(*extents)


@intrinsic("reduction")
def reduction(*extents: int, name: str = "", pipeline: Any = None, unroll: Any = None) -> Any:
    """`grid` whose loops accumulate into what does not depend on them."""
    return grid(*extents, name=name, pipeline=pipeline, unroll=unroll)


def _unary(name: str, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(x: Any, name: str | None = None) -> Any:
        del name
        return fn(x)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{name} of a float, or of every element; C's function of the operand's precision."
    return intrinsic(name)(call)


exp = _unary("exp", np.exp)
log = _unary("log", np.log)
log2 = _unary("log2", np.log2)
log10 = _unary("log10", np.log10)
sqrt = _unary("sqrt", np.sqrt)
sin = _unary("sin", np.sin)
cos = _unary("cos", np.cos)
tan = _unary("tan", np.tan)
tanh = _unary("tanh", np.tanh)
abs = _unary("abs", np.abs)  # Allo's name
floor = _unary("floor", np.floor)


@intrinsic("round")
def round(x: Any) -> Any:
    """The nearest whole number, halves away from zero (C's ``roundf``)."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


@intrinsic("power")
def power(x: Any, y: Any, name: str | None = None) -> Any:
    """The first number to the power of the second, as a float."""
    del name
    return np.power(x, y)


class Param:
    """A template parameter: stands for a type or a size until the kernel is instantiated."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return self.__name__

    def __getitem__(self, shape: Any) -> Any:
        return self


def params(names: str) -> Any:
    """Template parameters by name, the form of PEP 695 for Python 3.11.

    ``T, N = params("T, N")`` makes two. A single name gives the parameter itself, several a tuple.
    """
    made = tuple(Param(n) for n in names.replace(",", " ").split())
    return made[0] if len(made) == 1 else made


class Bundle:
    """Several arrays that travel through calls as one argument.

    A subclass lists them by name and type (``wq: int8[N, K]``). A kernel's parameter of that type
    stands for all of them, ``p.wq`` is one; a parameter ``p: Layer[L]`` is a stack of L, of which
    ``p[i]`` passes one on. A field may be a bundle itself. The modules of such classes and kernels
    need ``from __future__ import annotations``.

    A bundle with parameters, ``class Matrix(Bundle, of="N, K")``, is written ``Matrix[W, E]``. One that
    is an attribute of a template argument, ``w: R.Weight[W, E]``, has that object (``R``) as ``Self``
    in its fields.
    """

    __of__: tuple[str, ...] = ()

    def __init_subclass__(cls, of: str = "") -> None:
        cls.__of__ = tuple(of.replace(",", " ").split())

    def __class_getitem__(cls, extents: Any) -> Any:
        return cls


Self: Any = Param("Self")
"""In the fields of a bundle: the object whose attribute the bundle is."""


class Traits:
    """A compile-time record that a kernel may take as a template argument.

    A frozen dataclass derived from it holds types, numbers, kernels and bundles by name; the kernel
    reads ``R.dtype[N]``, calls ``R.quantize(x)``, takes ``w: R.Weight[N, K]``. So one kernel serves
    many recipes. Two equal records give the same kernel instance.
    """

    def __str__(self) -> str:
        """What differs from the defaults, kernels and bundles by name: the same text in every process."""
        record: Any = self
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(record)}
        shown = [f"{k}={getattr(v, '__name__', v)}" for k, (v, default) in values.items() if v is not default]
        return f"{type(self).__name__}({', '.join(shown)})"


def template(
    *parameters: Any, default: Mapping[str, str] | None = None, where: Sequence[str] = ()
) -> Callable[[F], F]:
    """Declare the order of a kernel's template parameters (what ``f[...]`` binds).

    Trailing parameters that the arguments determine may be left out at a call.

    Args:
        default: for a parameter that nothing determines, an expression of the others, e.g. ``{"C": "L"}``.
        where: conditions on the parameters, checked when the kernel is instantiated: ``"M % Mt == 0"``.
    """

    def mark(fn: F) -> F:
        kernel: Any = inspect.unwrap(fn)  # of a region, which is a function around it
        kernel.__type_params__ = parameters
        kernel.__type_defaults__ = dict(default or {})
        kernel.__type_where__ = tuple(where)
        return fn

    return mark


@contextmanager
def _meta(*_: Any) -> Generator[None]:
    yield


meta_if = intrinsic("meta_if")(_meta)


@intrinsic("meta_elif")
@contextmanager
def meta_elif(condition: Any) -> Generator[None]:
    """The next branch of a compile-time selection."""
    del condition
    yield


@intrinsic("meta_else")
@contextmanager
def meta_else() -> Generator[None]:
    """The last branch of a compile-time selection."""
    yield


@intrinsic("meta_for")
@contextmanager
def meta_for(*bounds: int) -> Generator[int]:
    """Repeat the body at compile time for each value of the range."""
    yield bounds[0] if len(bounds) > 1 else 0


__all__ = [
    "Bundle",
    "Param",
    "Self",
    "Traits",
    "abs",
    "add",
    "bmm",
    "concat",
    "conv2d",
    "copy",
    "cos",
    "div",
    "exp",
    "floor",
    "gelu",
    "grid",
    "intrinsic",
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
    "view",
    "zeros",
]
