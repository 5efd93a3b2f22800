"""Records kept in a dictionary: the seam of the caches in its smallest form, for tests of what stands on it."""

import asyncio
import time
from collections.abc import AsyncIterator

from router.cache import FlushReport, Kind, Learn, Record, Records, Selector, TierName, TierStatistics


class DictRecords(Records):
    """One unbounded memory tier; `flush_s` is how long a flush takes."""

    def __init__(self, flush_s: float = 0.0) -> None:
        self.kept: dict[bytes, Record] = {}
        self._flush_s = flush_s
        self._hits = self._misses = self._writes = 0

    def peek(self, key: bytes) -> Record | None:
        record = self.kept.get(key)
        if record is None or record.expires_at <= time.time():
            self._misses += 1
            return None
        self._hits += 1
        return record

    async def read(self, key: bytes) -> Record | None:
        return self.peek(key)

    def write(self, record: Record) -> None:
        self._writes += 1
        self.kept[record.key] = record

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        for record in sorted(self.kept.values(), key=lambda one: -one.stored_at):
            if record.kind is kind:
                yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        """There are no replicas."""

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        chosen = [record.key for record in self.kept.values() if selector.matches(record)]
        if not dry_run:
            await asyncio.sleep(self._flush_s)
            for key in chosen:
                del self.kept[key]
        return FlushReport(selector=selector, dry_run=dry_run, records={TierName.MEMORY: len(chosen)})

    def statistics(self) -> list[TierStatistics]:
        return [
            TierStatistics(
                tier=TierName.MEMORY,
                hits=self._hits,
                misses=self._misses,
                writes=self._writes,
                entries=len(self.kept),
                bytes=sum(len(record.value) for record in self.kept.values()),
                most_bytes=1 << 20,
            )
        ]
