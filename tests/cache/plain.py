"""The seam `Records` in its simplest form: a dict without a bound, for tests of what stands on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from router.cache import FlushReport, Kind, Learn, Record, Selector, TierName, TierStatistics


class PlainRecords:
    """See `router.cache.Records`.

    What is in `kept` outlives it when a test starts the next one with the same; so do `replicas`, who hear of each
    write. A flush takes `flush_s`.
    """

    def __init__(
        self,
        kept: dict[bytes, Record] | None = None,
        replicas: "list[PlainRecords] | None" = None,
        *,
        clock: Callable[[], float] = time.time,
        flush_s: float = 0.0,
    ) -> None:
        self.kept = {} if kept is None else kept
        self._replicas = [] if replicas is None else replicas
        self._replicas.append(self)
        self._learners: dict[Kind, list[Learn]] = {kind: [] for kind in Kind}
        self.on_site: set[bytes] = set()
        self._clock = clock
        self._flush_s = flush_s
        self._hits = self._misses = self._writes = 0

    @property
    def deep(self) -> bool:
        return False

    def peek(self, key: bytes) -> Record | None:
        record = self.kept.get(key)
        if record is None or record.expires_at <= self._clock():
            self._misses += 1
            return None
        self._hits += 1
        return record

    async def read(self, key: bytes) -> Record | None:
        return self.peek(key)

    def write(self, record: Record, *, on_site: bool = False) -> None:
        self._writes += 1
        self.kept[record.key] = record
        if on_site:
            self.on_site.add(record.key)
        for replica in self._replicas:
            if replica is not self:
                for learn in replica._learners[record.kind]:
                    learn(record)

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        for record in reversed([*self.kept.values()]):
            if record.kind is kind:
                yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        self._learners[kind].append(learn)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        chosen = [key for key, record in self.kept.items() if selector.matches(record)]
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
