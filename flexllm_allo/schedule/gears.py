"""The kernels of gearboxes: tokens of one width become tokens of another, in the same order."""

# pyright: basic, reportInvalidTypeForm=false, reportUnboundVariable=false, reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

from ..dsl import Traits, grid, meta_else, meta_if, params, template
from ..ir.dtypes import ArrayType, DType
from ..ir.types import Stream

G, K = params("G, K")


@dataclass(frozen=True)
class Gear(Traits):
    """A wide token of `many` elements is `ratio` narrow ones of `few`."""

    dtype: DType
    few: int
    many: int

    @property
    def narrow(self) -> DType | ArrayType:
        return self.dtype[self.few] if self.few > 1 else self.dtype

    @property
    def wide(self) -> ArrayType:
        return self.dtype[self.many]

    @property
    def ratio(self) -> int:
        return self.many // self.few


@template(G, K)
def collect(narrow: Stream[G.narrow, 2], wide: Stream[G.wide, 2]):
    """Narrow tokens become K wide ones."""
    for k in grid(K, name="gear"):
        word: G.wide
        for part in grid(G.ratio, name="part"):
            with meta_if(G.few == 1):
                word[part] = narrow.get()
            with meta_else():
                token: G.narrow = narrow.get()
                for u in grid(G.few, name="lane"):
                    word[part * G.few + u] = token[u]
        wide.put(word)


@template(G, K)
def deal(wide: Stream[G.wide, 2], narrow: Stream[G.narrow, 2]):
    """K wide tokens become narrow ones."""
    for k in grid(K, name="gear"):
        word: G.wide = wide.get()
        for part in grid(G.ratio, name="part"):
            with meta_if(G.few == 1):
                narrow.put(word[part])
            with meta_else():
                token: G.narrow
                for u in grid(G.few, name="lane"):
                    token[u] = word[part * G.few + u]
                narrow.put(token)


__all__ = ["Gear", "collect", "deal"]
