"""
Who goes next: by priority, then by deadline, then by arrival. No threads, no clock.

One list for everything that queues on a model of ours: sequences of the decode loop (at the edge and in Triton's
`chat`) and inputs of the embedding batcher.
"""

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_SLACK = 64
"""Entries of items that have left, beyond which they are swept out; fewer are not worth it."""


class WaitingList(Generic[Item]):
    """Two heaps over the same items, by order and by deadline; who leaves early stays in them as a dead entry.

    Each operation takes O(log n), amortized. An item may be in the list once.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, float, int, Item]] = []
        self._deadlines: list[tuple[float, int, Item]] = []
        self._present: dict[Item, int] = {}  # with the number of its arrival: an entry of another number is dead
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._present)

    def push(self, item: Item, priority: int, deadline: float = math.inf) -> None:
        """Add an item; a smaller `priority` goes first, equals by `deadline`."""
        self._arrivals += 1  # no two entries are equal, so items are never compared
        self._present[item] = self._arrivals
        heapq.heappush(self._order, (priority, deadline, self._arrivals, item))
        if deadline < math.inf:
            heapq.heappush(self._deadlines, (deadline, self._arrivals, item))

    def peek(self) -> Item | None:
        """The next item, which stays."""
        order = self._order
        while order and self._present.get(order[0][3]) != order[0][2]:
            heapq.heappop(order)
        return order[0][3] if order else None

    def pop(self) -> Item:
        """Take the next item. Raises `IndexError` when there is none."""
        if (item := self.peek()) is None:
            raise IndexError("nothing waits")
        self.discard(item)
        return item

    def discard(self, item: Item) -> bool:
        """Take an item out, wherever it is; returns whether it was there."""
        if self._present.pop(item, None) is None:
            return False
        if len(self._order) + len(self._deadlines) > 4 * len(self._present) + _SLACK:
            self._sweep()
        return True

    def expire(self, now: float) -> list[Item]:
        """Take every item whose deadline is not after `now`, earliest deadline first."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, arrival, item = heapq.heappop(self._deadlines)
            if self._present.get(item) == arrival:
                expired.append(item)
                self.discard(item)
        return expired

    def clear(self) -> list[Item]:
        """Take every item, by arrival."""
        items = list(self._present)
        self._present.clear()
        self._sweep()
        return items

    def _sweep(self) -> None:
        present = self._present
        self._order = [entry for entry in self._order if present.get(entry[3]) == entry[2]]
        self._deadlines = [entry for entry in self._deadlines if present.get(entry[2]) == entry[1]]
        heapq.heapify(self._order)
        heapq.heapify(self._deadlines)
