"""Vectors by number, for nearest neighbours: compared one and all while they are few, in a graph of usearch's after."""

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from usearch.compiled import MetricKind
from usearch.index import Index as UsearchIndex
from usearch.index import search as search_exactly

__all__ = ["BLOCK", "Floats", "Segment", "Vector"]

Vector = NDArray[np.float16]
Floats = NDArray[np.float32] | Vector

BLOCK: Final = 64
"""Vectors up to which there is no graph: one takes 46 KB (and maps 16 MB) before its first vector, and a search in so
small a one visits them all anyway."""
_CONNECTIVITY: Final = 16
_EXPANSION_ADD: Final = 128
_EXPANSION_SEARCH: Final = 64


class Segment:
    """Vectors (L2-normed float16) that are added and never removed, numbered from 0; `owners` says whose each one is.

    It is append-only because usearch gives a removed vector's place to the next one, and links to the old one stay:
    recall@1 on encoded questions fell from 1.00 to .987 after 1.75 turnovers. Instead whole segments are replaced:
    `live` is how many of its vectors still count.
    """

    __slots__ = ("_near", "live", "owners")

    def __init__(self, width: int) -> None:
        self._near: _Neighbours = _Block(width)
        self.owners: list[bytes] = []
        self.live = 0

    def add(self, owner: bytes, vector: Vector) -> None:
        """A new vector, which is live."""
        number = len(self.owners)
        if number == BLOCK and isinstance(self._near, _Block):
            self._near = _Graph(self._near)
        self._near.add(number, vector)
        self.owners.append(owner)
        self.live += 1

    def get(self, number: int) -> Vector:
        """The vector of this number."""
        return self._near.get(number)

    def search(self, vector: Vector, count: int) -> Iterator[tuple[bytes, float]]:
        """Owners and cosines of the nearest vectors, best first, dead ones too; not those taken off `owners`."""
        for number, similarity in self._near.search(vector, count):
            if number < len(self.owners):
                yield self.owners[number], similarity

    def mostly_dead(self) -> bool:
        """Whether it is worth taking apart."""
        return len(self.owners) >= BLOCK and self.live * 2 < len(self.owners)


class _Neighbours(Protocol):
    """Vectors by number; `search` gives numbers and cosines, best first."""

    def add(self, number: int, vector: Vector) -> None: ...

    def get(self, number: int) -> Vector: ...

    def search(self, vector: Vector, count: int) -> list[tuple[int, float]]: ...


class _Block:
    """Rows in order of their numbers."""

    def __init__(self, width: int) -> None:
        self.rows: Vector = np.empty((2, width), np.float16)
        self._count = 0

    def add(self, number: int, vector: Vector) -> None:
        if number == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[number] = vector
        self._count = number + 1

    def get(self, number: int) -> Vector:
        row: Vector = self.rows[number]
        return row

    def search(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        if not self._count:
            return []
        rows = self.rows[: self._count]
        found = search_exactly(rows, vector, min(count, self._count), MetricKind.IP, exact=True, threads=1)
        return _pair(found.keys, found.distances)


class _Graph:
    """A navigable small world (HNSW, https://arxiv.org/abs/1603.09320)."""

    def __init__(self, block: _Block) -> None:
        self._index = UsearchIndex(
            ndim=block.rows.shape[1],
            metric=MetricKind.IP,
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self._index.add(np.arange(len(block.rows)), block.rows, threads=1)

    def add(self, number: int, vector: Vector) -> None:
        self._index.add(number, vector, threads=1)

    def get(self, number: int) -> Vector:
        return np.asarray(self._index.get(number), np.float16).reshape(-1)

    def search(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        found = self._index.search(vector, count, threads=1)
        return _pair(found.keys, found.distances)


def _pair(numbers: NDArray[np.uint64], distances: NDArray[np.float32]) -> list[tuple[int, float]]:
    """usearch's inner-product distance is one less the product."""
    return [(number, 1.0 - far) for number, far in zip(numbers.tolist(), distances.tolist(), strict=True)]
