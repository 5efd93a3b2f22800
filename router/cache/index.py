"""
Nearest earlier questions in hard partitions: the synchronous core of the semantic cache, without clock or asyncio.

Each partition has entries and vectors of its own, so a search cannot see another's by construction: there is no filter
that could be forgotten.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from router.cache import Selector
from router.cache.segment import BLOCK, Segment, Vector

__all__ = ["Entry", "Match", "PartitionedIndex"]

_SEGMENTS: Final = 2
"""How many full segments hold all entries: fewer are faster to search, more are faster to replace."""
_SWEPT_A_CHANGE: Final = 64
_SPARE: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One earlier question: `key` finds its answer's record, until `expires_at` (Unix seconds)."""

    key: bytes
    text: str
    tenant: str
    model: str
    tags: tuple[str, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class Match:
    """An entry, and the cosine of its vector with the one searched for."""

    entry: Entry
    similarity: float


class PartitionedIndex:
    """Entries by partition, at most `most_entries` over all. For one thread at a time.

    When there are too many entries, the least recently used partition's oldest one goes; when too many partitions, the
    least recently used one. No call takes longer than two insertions and a little tidying, so that a search never waits
    long behind a change.
    """

    def __init__(self, *, most_entries: int, most_partitions: int, width: int) -> None:
        self._most_entries = most_entries
        self._most_partitions = most_partitions
        self._width = width
        self._segment_size = max(most_entries // _SEGMENTS, BLOCK)
        self._partitions: OrderedDict[bytes, _Partition] = OrderedDict()
        self._dropped: deque[_Partition] = deque()
        self.entries = 0

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self._partitions)

    def add(self, partition: bytes, entry: Entry, vector: Vector, *, newest: bool = True) -> None:
        """Make the entry findable in this partition alone; `vector` is float16 [width] of length 1.

        A key that is known keeps its vector, since it stands for the same text. Not `newest`: it is older than all that
        is there, and its partition not used just now.
        """
        known = partition in self._partitions
        if not known:
            self._partitions[partition] = _Partition(self._width, self._segment_size)
        if newest or not known:
            self._partitions.move_to_end(partition, last=newest)
        self._change(partition, lambda kept: kept.put(entry, vector, newest=newest))
        while len(self._partitions) > self._most_partitions:
            self._drop(next(iter(self._partitions)))
        while self.entries > self._most_entries:
            self._change(next(iter(self._partitions)), _Partition.discard_oldest)

    def search(self, partition: bytes, vector: Vector, count: int, now: float) -> list[Match]:
        """The nearest entries of this partition that are good at `now`, best first; expired ones are forgotten."""
        kept = self._partitions.get(partition)
        if kept is None:
            return []
        self._partitions.move_to_end(partition)
        matches = kept.search(vector, count)
        for match in matches:
            if match.entry.expires_at <= now:
                self.forget(partition, match.entry.key)
        return [match for match in matches if match.entry.expires_at > now]

    def forget(self, partition: bytes, key: bytes) -> None:
        """Forget one entry, if it is there."""
        if partition in self._partitions:
            self._change(partition, lambda kept: kept.discard(key))

    def names(self) -> list[bytes]:
        """Every partition."""
        return list(self._partitions)

    def flush(self, partition: bytes, selector: Selector) -> None:
        """Forget what matches of a partition, in time that grows with what it holds."""
        kept = self._partitions.get(partition)
        for key in kept.select(selector) if kept else ():
            self.forget(partition, key)

    def _change(self, partition: bytes, change: Callable[["_Partition"], None]) -> None:
        self._sweep()
        kept = self._partitions[partition]
        before = len(kept)
        change(kept)
        self.entries += len(kept) - before
        if not len(kept):
            self._drop(partition)

    def _drop(self, partition: bytes) -> None:
        kept = self._partitions.pop(partition)
        self.entries -= len(kept)
        self._dropped.append(kept)

    def _sweep(self) -> None:
        """Free dropped partitions bit by bit: 100,000 entries at once would keep the interpreter for a long time."""
        if self._dropped and self._dropped[0].empty(_SWEPT_A_CHANGE):
            self._dropped.popleft()


class _Partition:
    """Entries by key, oldest first, and in which segment the vector of each is; of forgotten ones too, since the same
    question is likely to be answered again.
    """

    def __init__(self, width: int, segment_size: int) -> None:
        self._width = width
        self._segment_size = segment_size
        self._segments = [Segment(width)]
        self._worn: Segment | None = None
        # a plain dict finds its first key only behind the places of all that went before
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._places: dict[bytes, Segment] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry, vector: Vector, *, newest: bool) -> None:
        """Add it as the newest or the oldest."""
        known = self._entries.pop(entry.key, None)
        if known is None:
            place = self._places.get(entry.key)
            if place is None:
                self._store(entry.key, vector)
            else:
                place.live += 1
        self._entries[entry.key] = entry
        self._entries.move_to_end(entry.key, last=newest)
        self._replace_worn()

    def discard(self, key: bytes) -> None:
        """Forget the entry of this key, if there is one."""
        if self._entries.pop(key, None) is not None:
            self._places[key].live -= 1

    def discard_oldest(self) -> None:
        """Make room for one."""
        self.discard(next(iter(self._entries)))

    def search(self, vector: Vector, count: int) -> list[Match]:
        """The nearest `count` entries, best first."""
        found = [
            Match(entry, similarity)
            for segment in self._segments
            for key, similarity in segment.search(vector, count + _SPARE)
            if (entry := self._entries.get(key)) is not None
        ]
        return sorted(found, key=lambda match: match.similarity, reverse=True)[:count]

    def select(self, selector: Selector) -> list[bytes]:
        """Keys of the entries that match."""
        return [key for key, entry in self._entries.items() if _matches(selector, entry)]

    def empty(self, count: int) -> bool:
        """Let go of so many entries, now that it is out of use; whether that was all."""
        for kept in (self._entries, self._places):
            for _ in range(min(count, len(kept))):
                kept.popitem()
        return not self._places

    def _store(self, key: bytes, vector: Vector) -> None:
        if len(self._segments[-1].owners) >= self._segment_size:
            self._segments.append(Segment(self._width))
        self._segments[-1].add(key, vector)
        self._places[key] = self._segments[-1]

    def _replace_worn(self) -> None:
        """Take a segment that is mostly dead apart, a little at a time: one live vector moves, or many dead ones go."""
        if self._worn is None:
            self._worn = next(filter(Segment.mostly_dead, self._segments), None)
            if self._worn is None:
                return
            if self._worn is self._segments[-1]:
                self._segments.append(Segment(self._width))
        owners = self._worn.owners
        for _ in range(min(_SWEPT_A_CHANGE, len(owners))):
            key = owners.pop()
            if key in self._entries:
                self._store(key, self._worn.get(len(owners)))
                break
            del self._places[key]
        if not owners:
            self._segments.remove(self._worn)
            self._worn = None


def _matches(selector: Selector, entry: Entry) -> bool:
    return (
        selector.tenant in {None, entry.tenant}
        and selector.model in {None, entry.model}
        and (selector.tag is None or selector.tag in entry.tags)
    )
