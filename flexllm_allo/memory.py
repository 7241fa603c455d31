"""Where arrays live: `Memory` on the chip, `Layout` over a mesh of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

from .errors import PlacementError
from .lazy import unsupported

RESOURCES = ("AUTO", "BRAM", "URAM", "LUTRAM", "SRL")
STORAGE_TYPES = ("RAM_1P", "RAM_2P", "RAM_T2P", "RAM_1WNR", "RAM_S2P", "ROM_1P", "ROM_2P", "ROM_NP")


class Memory:
    """The kind of on-chip memory an array is kept in: ``A: int32[32] @ Memory("URAM")``.

    Args:
        resource: one of `RESOURCES`, in any case.
        storage_type: one of `STORAGE_TYPES` (number and kind of ports), or None for the tool's choice.
        latency, depth: kept for programs that read them; no directive comes of them.

    Raises:
        PlacementError: a ValueError; no such resource or storage type.
    """

    def __init__(
        self,
        resource: str = "AUTO",
        storage_type: str | None = None,
        latency: int | None = None,
        depth: int | None = None,
    ) -> None:
        self.resource = _one_of(resource, RESOURCES[1:] + RESOURCES[:1], "resource")
        self.storage_type = (
            None if storage_type is None else _one_of(storage_type, STORAGE_TYPES, "storage_type")
        )
        self.latency, self.depth = latency, depth

    def get_memory_space(self) -> int:
        """A number for resource and storage type: ``16 * resource + storage``."""
        storage = STORAGE_TYPES.index(self.storage_type) + 1 if self.storage_type else 0
        return 16 * RESOURCES.index(self.resource) + storage

    @classmethod
    def decode_memory_space(cls, number: int) -> Memory:
        """The inverse of `get_memory_space`."""
        resource, storage = divmod(number, 16)
        if not 0 <= resource < len(RESOURCES) or storage > len(STORAGE_TYPES):
            raise PlacementError("FX103", f"{number} is not the number of a memory")
        return cls(RESOURCES[resource], STORAGE_TYPES[storage - 1] if storage else None)

    def _key(self) -> tuple[object, ...]:
        return self.resource, self.storage_type, self.latency, self.depth

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Memory) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        parts = [f"resource={self.resource!r}"]
        for name in ("storage_type", "latency", "depth"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name}={value!r}")
        return f"Memory({', '.join(parts)})"


def _one_of(value: str, known: Sequence[str], what: str) -> str:
    if value.upper() not in known:
        names = ", ".join(known)
        raise PlacementError("FX103", f"Invalid {what} '{value}'. Must be one of: {names}")
    return value.upper()


@dataclass(frozen=True, slots=True)
class Shard:
    """A tensor dimension split along axis `axis` of the mesh."""

    axis: int


class Replicated:
    """A tensor dimension that every kernel of the mesh sees as a whole."""

    def __repr__(self) -> str:
        return "Replicate"


class Layout:
    """How the dimensions of an argument are spread over a mesh: ``A: T[M, K] @ [S(0), R]``.

    Args:
        partitions: for each dimension ``Layout.Shard(axis)`` or ``Layout.Replicate``.

    Example:
        >>> Layout([Layout.Shard(0), Layout.Replicate]).get_placement([2])
        {(0, 'R'): [(0,)], (1, 'R'): [(1,)]}
    """

    Shard = Shard
    Replicate: ClassVar[Replicated] = Replicated()

    def __init__(self, partitions: Sequence[Shard | Replicated]) -> None:
        self.partitions = tuple(partitions)
        for item in self.partitions:
            if not isinstance(item, Shard | Replicated):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise PlacementError(
                    "FX103", f"a layout has no {item!r}", hint="use Layout.Shard(axis) or Layout.Replicate"
                )

    def get_placement(self, mesh_dims: Sequence[int]) -> dict[tuple[int | str, ...], list[tuple[int, ...]]]:
        """For each tile of the tensor the mesh coordinates that hold it; ``"R"`` stands for a whole
        dimension.

        Raises:
            PlacementError: a dimension is sharded along an axis the mesh does not have.
        """
        out: dict[tuple[int | str, ...], list[tuple[int, ...]]] = {}
        for item in self.partitions:
            if isinstance(item, Shard) and not 0 <= item.axis < len(mesh_dims):
                raise PlacementError("FX103", f"the mesh {list(mesh_dims)} has no axis {item.axis}")
        for point in product(*map(range, mesh_dims)):
            tile = tuple(point[p.axis] if isinstance(p, Shard) else "R" for p in self.partitions)
            out.setdefault(tile, []).append(point)
        return out

    def local_shape(self, shape: Sequence[int], mesh_dims: Sequence[int]) -> tuple[int, ...]:
        """The shape each kernel of the mesh sees of an argument of shape `shape`."""
        whole = [Layout.Replicate] * (len(shape) - len(self.partitions))
        return tuple(
            extent // mesh_dims[p.axis] if isinstance(p, Shard) else extent
            for extent, p in zip(shape, (*self.partitions, *whole), strict=True)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.partitions == other.partitions

    def __hash__(self) -> int:
        return hash(self.partitions)

    def __repr__(self) -> str:
        return f"Layout({list(self.partitions)})"


@dataclass(frozen=True, slots=True)
class Offset4D:
    """A position in a four-dimensional tensor."""

    offset_b: int
    offset_n: int
    offset_m: int
    offset_k: int

    def to_list(self) -> list[int]:
        return [self.offset_b, self.offset_n, self.offset_m, self.offset_k]


@dataclass(frozen=True, slots=True)
class Size4D:
    """The extents of a four-dimensional tensor."""

    size_b: int
    size_n: int
    size_m: int
    size_k: int

    def to_list(self) -> list[int]:
        return [self.size_b, self.size_n, self.size_m, self.size_k]

    def get_total_size(self) -> int:
        """The number of elements."""
        return self.size_b * self.size_n * self.size_m * self.size_k


@dataclass(frozen=True, slots=True)
class DTensor:
    """An argument as ``s.func_args`` describes it: its name, shape and element type.

    `layout` and `mapping` (the extents of the mesh) are set for arguments of dataflow kernels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    layout: Layout | None = field(default=None, kw_only=True)
    mapping: tuple[int, ...] = field(default=(), kw_only=True)

    def get_local_shape(self) -> tuple[int, ...]:
        """The shape that one kernel of the mesh sees."""
        return self.shape if self.layout is None else self.layout.local_shape(self.shape, self.mapping)


coalesce_memory_access = unsupported("coalesce_memory_access", "it belongs to the NPU backend")
