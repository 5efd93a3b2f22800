"""The disk tier: an SQLite file, written on one thread and read on another, so that no read waits behind a batch."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final, Self, TypeVar

from router.cache import CacheTierError, Flush, Kind, Record, TierName, TierStatistics
from router.cache.database import Found, Reading, UnusableError, Used, Writing, remove
from router.cache.flushes import Flushes
from router.cache.sealing import DamagedError, unseal
from router.cache.worker import Worker
from router.config import cache as config

Result = TypeVar("Result")
FILE: Final = "records.sqlite3"
_READS_WAITING: Final = 256
_WRITES_WAITING: Final = 16
"""Fewer, since each holds a batch of records."""
_SCANNED: Final = 32
_PURGED: Final = 64

_logger = logging.getLogger(__name__)


class DiskTier:
    """A `CacheTier` in one file. A file that is damaged or of another version is removed, and a new one begun.

    The file is opened by the first call, and again by the next after an error: nothing here fails a start.
    """

    name = TierName.DISK

    def __init__(self, tier: config.DiskTier, flushes: Flushes) -> None:
        self._path = tier.folder / FILE
        self._most_bytes = tier.most_bytes
        self._flushes = flushes
        self._used = Used()
        self._writer = Worker("cache-disk-write", most_waiting=_WRITES_WAITING)
        self._reader = Worker("cache-disk-read", most_waiting=_READS_WAITING)
        self._writing: Writing | None = None
        self._reading: tuple[Writing, Reading] | None = None
        self._hits = 0
        self._misses = 0
        self._writes = 0
        self._evictions = 0
        self._corrupt = 0

    async def __aenter__(self) -> Self:
        self._writer.start()
        self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(CacheTierError):
            self._reader.post(self._close_reading)
            self._writer.post(self._close_writing)
        await self._reader.stop()
        await self._writer.stop()

    async def open(self) -> None:
        """Open the file, and learn which flushes it remembers.

        Raises:
            CacheTierError: it cannot be had now.
        """
        await self._write(lambda writing: None)

    async def read(self, key: bytes) -> Record | None:
        """See `CacheTier`."""
        record = await self._read(lambda reading: self._find(reading, key))
        if record is None or not self._lives(record):
            self._misses += 1
            return None
        self._hits += 1
        return record

    async def write(self, records: Sequence[Record]) -> None:
        """See `CacheTier`; those too large for a bounded log are left out and counted as evicted."""
        live = [record for record in records if not self._flushes.kill(record)]
        await self._write(lambda writing: writing.write(live))
        self._writes += len(live)

    async def flush(self, flush: Flush, *, dry_run: bool) -> int:
        """See `CacheTier`; in slices, between which others write."""
        if dry_run:
            return await self._write(lambda writing: writing.count(flush))
        self._flushes.add(flush)
        await self._write(lambda writing: writing.remember(self._flushes))
        count, after = 0, 0
        while True:
            start = after
            purged, last = await self._write(lambda writing: writing.purge(flush, start, _PURGED))  # noqa: B023 - awaited
            count += purged
            if last is None:
                return count
            after = last

    async def scan(self, kind: Kind) -> AsyncIterator[Record]:
        """All records of a kind, newest first.

        Raises:
            CacheTierError: the rest cannot be read.
        """
        before: int | None = None
        while True:
            start = before
            page = await self._read(lambda reading: reading.scan(kind, start, _SCANNED))  # noqa: B023 - awaited
            for key, found in page:
                before = found.id
                record = self._unseal(key, found)
                if record is not None and record.kind is kind and self._lives(record):
                    yield record
            if len(page) < _SCANNED:
                return

    def statistics(self) -> TierStatistics:
        """See `CacheTier`; `bytes` is what records take in the file."""
        writing = self._writing
        return TierStatistics(
            tier=self.name,
            hits=self._hits,
            misses=self._misses,
            writes=self._writes,
            evictions=self._evictions + (writing.evictions if writing else 0),
            corrupt=self._corrupt,
            entries=writing.entries if writing else 0,
            bytes=writing.bytes if writing else 0,
            most_bytes=self._most_bytes,
        )

    async def _write(self, call: Callable[[Writing], Result]) -> Result:
        return await self._writer.run(lambda: self._with_writing(call))

    async def _read(self, call: Callable[[Reading], Result]) -> Result:
        if self._writing is None:
            await self.open()
        return await self._reader.run(lambda: self._with_reading(call))

    def _with_writing(self, call: Callable[[Writing], Result]) -> Result:
        """On the writing thread. An error closes the file; the next call opens it again, or a new one."""
        try:
            if self._writing is None:
                self._writing = self._open()
            return call(self._writing)
        except UnusableError as exc:
            self._close_writing()
            self._begin_afresh(exc)
            raise
        except CacheTierError:
            self._close_writing()
            raise

    def _open(self) -> Writing:
        try:
            writing = Writing(self._path, self._most_bytes, self._used)
            remembered = writing.flushes()
        except UnusableError as exc:
            self._begin_afresh(exc)
            writing = Writing(self._path, self._most_bytes, self._used)
            remembered = []
        for flush in remembered:
            self._flushes.learn(flush, time.time())
        if set(self._flushes) != set(remembered):
            writing.remember(self._flushes)
        return writing

    def _begin_afresh(self, why: UnusableError) -> None:
        self._corrupt += 1
        _logger.warning("%s: %s; a new file is begun.", self._path, why)
        remove(self._path)

    def _with_reading(self, call: Callable[[Reading], Result]) -> Result:
        """On the reading thread, through a connection to the file that is being written."""
        writing = self._writing
        if writing is None:
            raise CacheTierError("disk: not open")
        if self._reading is None or self._reading[0] is not writing:
            self._close_reading()
            self._reading = (writing, Reading(self._path))
        try:
            return call(self._reading[1])
        except UnusableError as exc:
            why = exc
            self._close_reading()
            with suppress(CacheTierError):
                self._writer.post(lambda: self._give_up(writing, why))
            raise
        except CacheTierError:
            self._close_reading()
            raise

    def _give_up(self, writing: Writing, why: UnusableError) -> None:
        """Begin afresh for what the reading thread found, unless that was done."""
        if self._writing is writing:
            self._close_writing()
            self._begin_afresh(why)

    def _lives(self, record: Record) -> bool:
        return record.expires_at > time.time() and not self._flushes.kill(record)

    def _find(self, reading: Reading, key: bytes) -> Record | None:
        found = reading.find(key)
        return None if found is None else self._unseal(key, found)

    def _unseal(self, key: bytes, found: Found) -> Record | None:
        """The record, or None if it is damaged: then it is deleted."""
        try:
            record = unseal(found.sealed, key)
        except (DamagedError, TypeError):
            self._corrupt += 1
            with suppress(CacheTierError):  # the next read will find it again
                self._writer.post(lambda: self._with_writing(lambda writing: writing.delete(found)))
            return None
        self._used.mark(found.id)
        return record

    def _close_writing(self) -> None:
        if self._writing is not None:
            self._evictions += self._writing.evictions
            self._writing.close()
            self._writing = None

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading[1].close()
            self._reading = None
