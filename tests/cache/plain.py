"""The seam `Records` in its simplest form: a dict, no bound, no other tier."""

import time
from collections.abc import AsyncIterator, Callable

from router.cache import Flush, FlushReport, Kind, Learn, Record, Selector, TierName, TierStatistics


class PlainRecords:
    """See `router.cache.Records`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.kept: dict[bytes, Record] = {}
        self.flushes: list[Flush] = []

    def peek(self, key: bytes) -> Record | None:
        record = self.kept.get(key)
        return record if record is not None and record.expires_at > self._clock() else None

    async def read(self, key: bytes) -> Record | None:
        return self.peek(key)

    def write(self, record: Record) -> None:
        self.kept[record.key] = record

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        for record in sorted(self.kept.values(), key=lambda one: -one.stored_at):
            if record.kind is kind:
                yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        """Nobody announces anything."""

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        keys = [key for key, record in self.kept.items() if selector.matches(record)]
        if not dry_run:
            self.flushes.append(Flush(selector, self._clock()))
            for key in keys:
                del self.kept[key]
        return FlushReport(selector=selector, dry_run=dry_run, records={TierName.MEMORY: len(keys)})

    def statistics(self) -> list[TierStatistics]:
        return [TierStatistics(tier=TierName.MEMORY, entries=len(self.kept))]
