"""Who goes next: the more urgent first, equals by arrival. No threads, no clock."""

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class WaitingList(Generic[Item]):
    """A heap whose items may leave early."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Item]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, item: Item, priority: int) -> None:
        """Add an item; a smaller `priority` goes first."""
        self._arrivals += 1  # no two entries are equal, so items are never compared
        heapq.heappush(self._heap, (priority, self._arrivals, item))

    def pop(self) -> Item:
        """Take the next item. Raises `IndexError` when there is none."""
        return heapq.heappop(self._heap)[2]

    def peek(self) -> Item | None:
        """The next item, which stays."""
        return self._heap[0][2] if self._heap else None

    def take(self, leaves: Callable[[Item], bool]) -> list[Item]:
        """Take every item that `leaves`, in the order in which they would have gone."""
        taken = sorted(entry for entry in self._heap if leaves(entry[2]))
        if taken:
            self._heap = [entry for entry in self._heap if not leaves(entry[2])]
            heapq.heapify(self._heap)
        return [entry[2] for entry in taken]
