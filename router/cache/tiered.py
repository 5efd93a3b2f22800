"""All cache tiers as one: read through them nearest first, written behind the caller's back."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, Self

from msgspec.structs import replace

from router.cache import (
    CacheTier,
    CacheTierError,
    Flush,
    FlushReport,
    Kind,
    Learn,
    Record,
    Selector,
    TierName,
    TierStatistics,
)
from router.cache.disk import DiskTier
from router.cache.flushes import Flushes
from router.cache.guarded import GuardedTier, end
from router.cache.memory import MemoryTier
from router.cache.metrics import TierCollector
from router.cache.shared import SharedTier
from router.config.cache import Tiers
from router.telemetry import Telemetry

_OPEN_S: Final = 5.0
_SETTLE_S: Final = 2.0
_SCAN_S: Final = 5.0

_logger = logging.getLogger(__name__)


class TieredRecords:
    """`async with TieredRecords(config, telemetry) as records`; see `router.cache.Records`. From one event loop.

    The context owns every task: one a slow tier that writes, and one that follows what other replicas announce.
    """

    def __init__(self, config: Tiers, telemetry: Telemetry) -> None:
        """
        Raises:
            OSError: the file of the shared tier's password cannot be read.
        """
        self._flushes = Flushes()
        self._memory = MemoryTier(config.memory.most_bytes, self._flushes)
        self._disk = DiskTier(config.disk, self._flushes) if config.disk else None
        self._shared = SharedTier(config.shared, self._flushes) if config.shared else None
        self._elsewhere = {TierName.SHARED} if config.shared and not config.shared.on_site else set()
        self._read_s = config.read_ms / 1e3
        self._pause_s = config.breaker_s
        self._listeners: list[tuple[Kind, Learn]] = []
        self._group = asyncio.TaskGroup()
        self._slow: list[CacheTier] = [tier for tier in (self._disk, self._shared) if tier is not None]
        seconds = telemetry.seconds("cache_read", "Reads of slow cache tiers", "cache_tier")
        self._guarded = [
            GuardedTier(
                tier,
                self._group,
                breaker_s=config.breaker_s,
                most_waiting_bytes=config.most_waiting_bytes // len(self._slow),
                seconds=seconds.labels(tier.name),
            )
            for tier in self._slow
        ]
        telemetry.registry.register(TierCollector(self.statistics))
        self._jobs: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for tier in self._slow:
                await stack.enter_async_context(tier)
            await self._open_disk()
            await stack.enter_async_context(self._group)
            self._jobs = [self._group.create_task(guarded.write_behind()) for guarded in self._guarded]
            if self._shared is not None:
                follow = self._shared.follow(self._learn, self._learn_flush, self._pause_s)
                self._jobs.append(self._group.create_task(follow))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self.settle()
        except TimeoutError:
            _logger.warning("Some records were not written to every cache tier before the end.")
        await end(self._jobs)
        for guarded in self._guarded:
            await guarded.end()
        await self._stack.aclose()

    @property
    def deep(self) -> bool:
        """See `Records`."""
        return bool(self._slow)

    def peek(self, key: bytes) -> Record | None:
        """See `Records`; a miss is counted by the `read` that follows it."""
        return self._memory.peek(key)

    async def read(self, key: bytes) -> Record | None:
        """See `Records`; each tier gets an equal share of what is left of the time."""
        record = await self._memory.read(key)
        if record is not None:
            return record
        until = time.monotonic() + self._read_s
        for number, guarded in enumerate(self._guarded):
            left_s = (until - time.monotonic()) / (len(self._guarded) - number)
            if left_s <= 0:  # a tier that was not asked is not to blame
                return None
            record = await guarded.read(key, left_s)
            if record is not None:
                return self._promote(record, self._guarded[:number])
        return None

    def write(self, record: Record, *, on_site: bool = False) -> None:
        """See `Records`; what a slow tier has no time for is dropped and counted."""
        self._memory.put(record)
        for guarded in self._guarded:
            if not on_site or guarded.name not in self._elsewhere:
                guarded.queue(record)

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        """See `Records`; it ends early when the disk fails."""
        if self._disk is None:
            return
        records = aiter(self._disk.scan(kind))
        while True:
            try:
                async with asyncio.timeout(_SCAN_S):
                    record = await anext(records, None)
            except (CacheTierError, TimeoutError) as exc:
                _logger.warning("What the disk has could not all be read: %s", exc)
                return
            if record is None:
                return
            yield record

    def listen(self, kind: Kind, learn: Learn) -> None:
        """See `Records`; begins with the last that were announced, newest first."""
        self._listeners.append((kind, learn))
        if self._shared is not None:
            self._shared.greet(lambda record: learn(record) if record.kind is kind else None)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> FlushReport:
        """See `Records`; from its first moment nothing that it selects is read here."""
        flush = Flush(selector, time.time())
        if not dry_run:
            self._flushes.add(flush)
        memory = await self._memory.flush(flush, dry_run=dry_run)
        counts = await asyncio.gather(*(guarded.flush(flush, dry_run=dry_run) for guarded in self._guarded))
        slow = {guarded.name: count for guarded, count in zip(self._guarded, counts, strict=True)}
        return FlushReport(selector=selector, dry_run=dry_run, records={self._memory.name: memory, **slow})

    async def settle(self) -> None:
        """Wait until what waits is written to every tier that can be reached."""
        for guarded in self._guarded:
            await guarded.settle()

    def statistics(self) -> list[TierStatistics]:
        """See `Records`."""
        return [self._memory.statistics(), *(guarded.statistics() for guarded in self._guarded)]

    async def _open_disk(self) -> None:
        """So that the flushes it remembers are known before the first read, if it can be had."""
        if self._disk is None:
            return
        try:
            async with asyncio.timeout(_OPEN_S):
                await self._disk.open()
        except (CacheTierError, TimeoutError) as exc:
            _logger.warning("The disk's cache cannot be opened now: %s", exc)

    def _promote(self, record: Record, nearer: list[GuardedTier]) -> Record | None:
        """Keep it nearer, unless a newer one came meanwhile or a flush killed it."""
        if self._flushes.kill(record):
            return None
        newer = self._memory.peek(record.key)
        if newer is not None:
            return newer
        # a copy of this thread's: malloc keeps an arena a thread, and one that lives on among a reading thread's
        # short-lived buffers pins the pages around it; without this resident memory grew to twice the limit
        record = replace(record, value=bytes(memoryview(record.value)))
        self._memory.put(record)
        for guarded in nearer:
            guarded.queue(record)
        return record

    def _learn(self, record: Record) -> None:
        for kind, learn in self._listeners:
            if record.kind is kind:
                learn(record)

    def _learn_flush(self, flush: Flush) -> None:
        """Another replica flushed: it holds already; make room for what it killed."""
        for guarded in self._guarded:
            if guarded.name is TierName.DISK:
                guarded.tell(flush)
        self._group.create_task(self._purge(flush))

    async def _purge(self, flush: Flush) -> None:
        await self._memory.flush(flush, dry_run=False)
