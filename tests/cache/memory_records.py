"""Records in one process's memory: the seam's smallest real implementation, for tests of the caches above it."""

from collections.abc import AsyncIterator

from router.cache import FlushReport, Kind, Learn, Record, Selector, TierName, TierStatistics


class MemoryRecords:
    """`disk` outlives it when a test starts the next one with the same; so do `replicas`, who hear of each write."""

    def __init__(self, disk: dict[bytes, Record] | None = None, replicas: "list[MemoryRecords] | None" = None) -> None:
        self.disk = {} if disk is None else disk
        self._replicas = [] if replicas is None else replicas
        self._replicas.append(self)
        self._learners: dict[Kind, list[Learn]] = {kind: [] for kind in Kind}

    def peek(self, key: bytes) -> Record | None:
        return self.disk.get(key)

    async def read(self, key: bytes) -> Record | None:
        return self.disk.get(key)

    def write(self, record: Record) -> None:
        self.disk[record.key] = record
        for replica in self._replicas:
            if replica is not self:
                for learn in replica._learners[record.kind]:
                    learn(record)

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        for record in reversed([*self.disk.values()]):
            if record.kind is kind:
                yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        self._learners[kind].append(learn)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        chosen = [key for key, record in self.disk.items() if selector.matches(record)]
        for key in () if dry_run else chosen:
            del self.disk[key]
        return FlushReport(selector=selector, dry_run=dry_run, records={TierName.MEMORY: len(chosen)})

    def statistics(self) -> list[TierStatistics]:
        return [TierStatistics(tier=TierName.MEMORY, entries=len(self.disk))]
