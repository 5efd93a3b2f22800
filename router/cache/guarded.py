"""A slow tier behind its breakers: reads with a limit, writes behind the caller's back, and nothing raised."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from prometheus_client import Histogram

from router.cache import CacheTier, CacheTierError, Flush, Record, TierName, TierStatistics
from router.cache.breaker import Breaker
from router.cache.flushes import Flushes
from router.cache.memory import count_bytes

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_FAILURES_TO_OPEN: Final = 4
_BATCH_RECORDS: Final = 128
_BATCH_BYTES: Final = 524_288
_MOST_CALLS: Final = 512
_CANCEL_S: Final = 0.25
_WRITE_S: Final = 5.0
_FLUSH_S: Final = 30.0
_SHORTEST_PAUSE_S: Final = 0.01


class Backlog:
    """Records that wait to be written, the oldest first, of each key the newest; bounded in bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waiting: OrderedDict[bytes, Record] = OrderedDict()
        self._taken: dict[bytes, Record] = {}
        self._bytes = 0

    def add(self, record: Record) -> bool:
        """Returns whether there was room."""
        size = count_bytes(record)
        before = self._waiting.get(record.key)
        if before is not None:
            size -= count_bytes(before)
        if self._bytes + size > self._most_bytes:
            return False
        self._bytes += size
        self._waiting[record.key] = record
        return True

    def get(self, key: bytes) -> Record | None:
        """The record, if it waits or is being written."""
        return self._waiting.get(key) or self._taken.get(key)

    def take(self) -> list[Record]:
        """The next to write; their room is free again after `finish`."""
        size = 0
        while self._waiting and len(self._taken) < _BATCH_RECORDS and size < _BATCH_BYTES:
            key, record = self._waiting.popitem(last=False)
            self._taken[key] = record
            size += len(record.value)
        return list(self._taken.values())

    def finish(self) -> None:
        """Those taken are written, or lost."""
        self._bytes -= sum(map(count_bytes, self._taken.values()))
        self._taken = {}

    def __len__(self) -> int:
        return len(self._waiting)


class GuardedTier:
    """One `CacheTier` that may hang, fail or lie. Reads and writes have a breaker each: a full disk still answers."""

    def __init__(
        self,
        tier: CacheTier,
        group: asyncio.TaskGroup,
        *,
        breaker_s: float,
        most_waiting_bytes: int,
        seconds: Histogram,
    ) -> None:
        """
        Args:
            tier: What is guarded.
            group: Owns the calls to it; entered before the first.
            breaker_s: How long a dead tier is left out between probes.
            most_waiting_bytes: Of records to be written.
            seconds: Of the reads.
        """
        self._tier = tier
        self._group = group
        self._calls: set[asyncio.Task[Any]] = set()
        self._reads = Breaker(_FAILURES_TO_OPEN, breaker_s)
        self._writes = Breaker(_FAILURES_TO_OPEN, breaker_s)
        self._backlog = Backlog(most_waiting_bytes)
        self._untold = Flushes()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds = seconds
        self._errors = 0
        self._dropped = 0
        self._took_s = 0.0

    @property
    def name(self) -> TierName:
        """Which place it is."""
        return self._tier.name

    async def read(self, key: bytes, limit_s: float) -> Record | None:
        """The record if it can be had in time; what waits to be written is had at once."""
        waiting = self._backlog.get(key)
        if waiting is not None:
            return waiting if waiting.expires_at > time.time() else None
        begun = time.monotonic()
        if not self._reads.admit(begun):
            return None
        try:
            return await self._call(self._reads, self._tier.read(key), limit_s)
        except CacheTierError:
            return None
        finally:
            took_s = time.monotonic() - begun
            self._took_s += took_s
            self._seconds.observe(took_s)

    def queue(self, record: Record) -> None:
        """Write it soon, or drop it if too much waits."""
        if self._backlog.add(record):
            self._wake()
        else:
            self._dropped += 1

    def tell(self, flush: Flush) -> None:
        """Flush it soon, and for as long as that fails again."""
        if self._untold.add(flush):
            self._wake()

    async def flush(self, flush: Flush, *, dry_run: bool) -> int | None:
        """How many records it selects; None if the tier cannot be asked: then it will be told."""
        if not dry_run:
            self._untold.add(flush)
        count = None
        if self._writes.admit(time.monotonic()):
            count = await self._flush(flush, dry_run=dry_run)
        if count is None and not dry_run:
            self._wake()
        return count

    async def write_behind(self) -> None:
        """Write what waits and tell what is untold; a job that never ends."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._backlog or self._untold:
                pause_s = self._writes.next_probe - time.monotonic()
                if self._writes.admit(time.monotonic()):
                    await self._write_some()
                else:
                    self._idle.set()  # whoever waits for the writes is not to wait for the tier's return
                    await asyncio.sleep(max(pause_s, _SHORTEST_PAUSE_S))
            self._idle.set()

    async def settle(self) -> None:
        """Wait until nothing waits to be written, or the tier is out of reach."""
        await self._idle.wait()

    def statistics(self) -> TierStatistics:
        """The tier's, with what happened on the way to it."""
        return replace(
            self._tier.statistics(),
            errors=self._errors,
            dropped=self._dropped,
            seconds=self._took_s,
            open=self._reads.open or self._writes.open,
        )

    async def end(self) -> None:
        """Have every call end, before the group is left."""
        await end(self._calls)

    def _wake(self) -> None:
        if not self._writes.open:
            self._idle.clear()
        self._work.set()

    async def _write_some(self) -> None:
        """Flushes first: a record must not be purged by one that is older."""
        flush = next(iter(self._untold), None)
        if flush is not None:
            await self._flush(flush, dry_run=False)
            return
        batch = self._backlog.take()
        try:
            await self._call(self._writes, self._tier.write(batch), _WRITE_S)
        except CacheTierError:
            self._dropped += len(batch)
        finally:
            self._backlog.finish()

    async def _flush(self, flush: Flush, *, dry_run: bool) -> int | None:
        try:
            count = await self._call(self._writes, self._tier.flush(flush, dry_run=dry_run), _FLUSH_S)
        except CacheTierError:
            return None
        if not dry_run:
            self._untold.discard(flush)
        return count

    async def _call(self, breaker: Breaker, call: Coroutine[None, None, Result], limit_s: float) -> Result:
        """The call's result, within the limit.

        Raises:
            CacheTierError: there is none; the breaker knows.
        """
        begun = time.monotonic()
        outcome = await self._wait(call, limit_s)
        if not isinstance(outcome, Exception):
            breaker.succeed(time.monotonic())
            return outcome
        self._errors += 1
        breaker.fail(time.monotonic(), begun)
        if breaker.streak == _FAILURES_TO_OPEN:
            _logger.warning("The cache tier %s is left out for now: %s", self.name, outcome)
        if not isinstance(outcome, CacheTierError):
            _logger.error("The cache tier %s is wrong: %s", self.name, type(outcome).__name__)
        raise CacheTierError(f"{self.name}: {outcome}")

    async def _wait(self, call: Coroutine[None, None, Result], limit_s: float) -> Result | Exception:
        """In a task, which is left to end when it may: redis-py is known not to end at once when it is cancelled."""
        if len(self._calls) >= _MOST_CALLS:
            call.close()
            return CacheTierError(f"{_MOST_CALLS} calls have not ended")
        task = self._group.create_task(_settle(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=limit_s)
        finally:
            task.cancel()
        return task.result() if done else CacheTierError(f"no answer within {limit_s * 1e3:.0f} ms")


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them until they are over: redis-py swallows a cancellation now and then."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_S)


async def _settle(call: Coroutine[None, None, Result]) -> Result | Exception:
    """The group must not end for what a tier stumbles over."""
    try:
        return await call
    except Exception as exc:  # noqa: BLE001 - handed over whole
        return exc
