"""
The memory tier: S3-FIFO by bytes.

New records wait in a small queue; those used again move to the main queue, the others leave soon and only a digest of
their key stays for a while. So a scan passes through a tenth of the room and leaves the rest alone.
Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, https://s3fifo.com.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Self

from router.cache import Flush, Record, TierName, TierStatistics
from router.cache.flushes import Flushes

_SMALL_SHARE: Final = 0.1
_LARGEST_SHARE: Final = 0.25
"""A record that would take more of the room is not kept."""
_MOST_USES: Final = 3
_USES_TO_STAY: Final = 2
_SWEPT: Final = 4
_SLICE: Final = 256
_ENTRY_BYTES: Final = 512
"""A record's own objects but its texts and value, the queue and index around it, and what the allocator adds."""
_GHOST_BYTES: Final = 224
_LOST_SHARE: Final = 8
"""One part in so many of each value is counted on top for holes between values of different lengths."""


class _Entry:
    __slots__ = ("bytes", "record", "uses")

    def __init__(self, record: Record, size: int) -> None:
        self.record = record
        self.bytes = size
        self.uses = 0


_Queue = OrderedDict[bytes, _Entry]


class MemoryTier:
    """A `CacheTier` inside the process, whose `peek` and `put` are synchronous. From one thread."""

    name = TierName.MEMORY

    def __init__(self, most_bytes: int, flushes: Flushes) -> None:
        self._most_bytes = most_bytes
        self._flushes = flushes
        self._small: _Queue = OrderedDict()
        self._main: _Queue = OrderedDict()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._small_bytes = 0
        self._main_bytes = 0
        self._hits = 0
        self._misses = 0
        self._writes = 0
        self._evictions = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self._small_bytes = self._main_bytes = 0

    def peek(self, key: bytes) -> Record | None:
        """The record, if it is here and alive; counts hits only, since `read` follows a miss."""
        entry = self._small.get(key) or self._main.get(key)
        if entry is None:
            return None
        record = entry.record
        if record.expires_at <= time.time() or self._flushes.kill(record):
            self._remove(key)
            return None
        if entry.uses < _MOST_USES:
            entry.uses += 1
        self._hits += 1
        return record

    def put(self, record: Record) -> None:
        """Keep it, at the cost of others."""
        self._writes += 1
        key, size = record.key, count_bytes(record)
        uses = 0
        queue = self._queue_of(key)
        if queue is not None:
            uses = queue[key].uses
        if size > self._most_bytes * _LARGEST_SHARE:
            self._remove(key)
            self._evictions += 1
            return
        if queue is None:
            known = _digest(key) in self._ghosts
            queue = self._main if known else self._small
            if known:
                del self._ghosts[_digest(key)]
        else:
            self._count(queue, -queue[key].bytes)
        queue[key] = entry = _Entry(record, size)
        entry.uses = uses
        self._count(queue, size)
        self._sweep()
        self._make_room()

    async def read(self, key: bytes) -> Record | None:
        """See `CacheTier`."""
        record = self.peek(key)
        if record is None:
            self._misses += 1
        return record

    async def write(self, records: Sequence[Record]) -> None:
        """See `CacheTier`."""
        for record in records:
            self.put(record)

    async def flush(self, flush: Flush, *, dry_run: bool) -> int:
        """See `CacheTier`; in slices, between which others run. What comes meanwhile is checked when read."""
        if not dry_run:
            self._flushes.add(flush)
        count = 0
        keys = [*self._small, *self._main]
        for start in range(0, len(keys), _SLICE):
            for key in keys[start : start + _SLICE]:
                queue = self._queue_of(key)
                if queue is None or queue[key].record.stored_at > flush.at:
                    continue
                if flush.selector.matches(queue[key].record):
                    count += 1
                    if not dry_run:
                        self._remove(key)
            await asyncio.sleep(0)
        return count

    def statistics(self) -> TierStatistics:
        """See `CacheTier`; `bytes` is what counts against `most_bytes`."""
        return TierStatistics(
            tier=self.name,
            hits=self._hits,
            misses=self._misses,
            writes=self._writes,
            evictions=self._evictions,
            entries=len(self._small) + len(self._main),
            bytes=self._bytes(),
            most_bytes=self._most_bytes,
        )

    def _bytes(self) -> int:
        return self._small_bytes + self._main_bytes + len(self._ghosts) * _GHOST_BYTES

    def _queue_of(self, key: bytes) -> _Queue | None:
        return self._small if key in self._small else self._main if key in self._main else None

    def _count(self, queue: _Queue, size: int) -> None:
        if queue is self._small:
            self._small_bytes += size
        else:
            self._main_bytes += size

    def _remove(self, key: bytes) -> None:
        queue = self._queue_of(key)
        if queue is not None:
            self._count(queue, -queue.pop(key).bytes)

    def _sweep(self) -> None:
        """Drop what has expired at the old ends, a few at a time: equal lifetimes end in the order of the queues."""
        now = time.time()
        for queue in (self._small, self._main):
            for _ in range(_SWEPT):
                key = next(iter(queue), None)
                if key is None or queue[key].record.expires_at > now:
                    break
                self._remove(key)

    def _make_room(self) -> None:
        most_bytes, most_small = self._most_bytes, self._most_bytes * _SMALL_SHARE
        while self._bytes() > most_bytes:
            if self._small and (self._small_bytes > most_small or not self._main):
                self._evict_small()
            elif self._main:
                self._evict_main()
            else:
                self._ghosts.popitem(last=False)
        while len(self._ghosts) > len(self._small) + len(self._main):
            self._ghosts.popitem(last=False)

    def _evict_small(self) -> None:
        key, entry = self._small.popitem(last=False)
        self._small_bytes -= entry.bytes
        if entry.uses >= _USES_TO_STAY:
            entry.uses = 0
            self._main[key] = entry
            self._main_bytes += entry.bytes
        else:
            self._ghosts[_digest(key)] = None
            self._evictions += 1

    def _evict_main(self) -> None:
        """The oldest unused one; each that is passed over pays with one of its uses, so this is O(1) a use."""
        key, entry = self._main.popitem(last=False)
        if entry.uses and entry.record.expires_at > time.time():
            entry.uses -= 1
            self._main[key] = entry
        else:
            self._main_bytes -= entry.bytes
            self._evictions += 1


def count_bytes(record: Record) -> int:
    """What a record costs the process: its objects, what holds them, and what the allocator loses."""
    value, tags = len(record.value), record.tags
    size = _ENTRY_BYTES + value + value // _LOST_SHARE + sys.getsizeof(record.tenant) + sys.getsizeof(record.model)
    return size + sum(map(sys.getsizeof, (tags, *tags))) if tags else size


def _digest(key: bytes) -> int:
    """Eight bytes of the key's digest: two keys that share them only swap a chance to stay."""
    return int.from_bytes(key[:8], "little")
