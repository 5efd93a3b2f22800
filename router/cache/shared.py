"""
The shared tier: a Valkey or Redis that several replicas use, told in `prefix`ed keys.

`record:<hex>` holds one sealed record; the stream `announcements` the keys of the last semantic records, and that a
flush was made; the hash `flushes` the newest flush of each selector. What the server says is never trusted: records
carry their checksum and key, and anything else that is not as expected is an error of the tier.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Self

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.cache import CacheTierError, Flush, Kind, Learn, Record, Selector, TierName, TierStatistics
from router.cache.flushes import MOST_FLUSHES, Flushes
from router.cache.sealing import DamagedError, read_head, seal, unseal
from router.config import cache as config

_CONNECTIONS: Final = 16
_CALL_S: Final = 1.0
_FOLLOW_MS: Final = 1000
_RELEARN_S: Final = 10.0
_PAGE: Final = 64
_HEAD_BYTES: Final = 4096
_ANNOUNCES: Final = frozenset({Kind.SEMANTIC})
_PART_BYTES: Final = 262_144

_logger = logging.getLogger(__name__)


class SharedTier:
    """A `CacheTier` on a server. `follow` is a job that never ends; its owner cancels it."""

    name = TierName.SHARED

    def __init__(self, tier: config.SharedTier, flushes: Flushes) -> None:
        """
        Raises:
            OSError: the password's file cannot be read.
        """
        self._flushes = flushes
        self._most_announced = tier.announcements
        self._records = f"{tier.prefix}record:".encode()
        self._stream = f"{tier.prefix}announcements".encode()
        self._remembered = f"{tier.prefix}flushes".encode()
        self._replica = secrets.token_bytes(8)
        password = tier.password_file.read_text().strip() if tier.password_file else None
        self._pool = BlockingConnectionPool.from_url(
            tier.url,
            max_connections=_CONNECTIONS,
            timeout=_CALL_S,
            socket_timeout=_CALL_S + _FOLLOW_MS / 1e3,
            socket_connect_timeout=_CALL_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **({"password": password} if password else {}),
        )
        self._client: Any = Redis.from_pool(self._pool)
        self._newcomers: deque[Learn] = deque()
        self._hits = 0
        self._misses = 0
        self._writes = 0
        self._corrupt = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            with _translated():
                async with asyncio.timeout(_CALL_S):
                    await self._client.aclose()
        except CacheTierError as exc:
            _logger.info("%s", exc)

    async def read(self, key: bytes) -> Record | None:
        """See `CacheTier`."""
        with _translated():
            sealed = await self._client.get(self._at(key))
        record = self._unseal(key, sealed)
        if record is None:
            self._misses += 1
        else:
            self._hits += 1
        return record

    async def write(self, records: Sequence[Record]) -> None:
        """See `CacheTier`; a round trip for each part, semantic records announced after it."""
        now = time.time()
        live = (record for record in records if record.expires_at > now and not self._flushes.kill(record))
        for part in _split(live):
            with _translated():
                pipeline = self._client.pipeline(transaction=False)
                for record in part:
                    pipeline.set(self._at(record.key), seal(record), px=max(int((record.expires_at - now) * 1e3), 1))
                for record in part:
                    if record.kind in _ANNOUNCES and self._most_announced:
                        self._announce(pipeline, {b"key": record.key})
                await pipeline.execute()
            self._writes += len(part)

    async def flush(self, flush: Flush, *, dry_run: bool) -> int:
        """See `CacheTier`; told to every replica first, then the keys are gone through. Counts by unverified heads."""
        if not dry_run:
            self._flushes.add(flush)
            await self.tell_flushes()
        count = 0
        with _translated():
            cursor: Any = 0
            while True:
                cursor, places = await self._client.scan(cursor, match=self._records + b"*", count=512)
                count += await self._purge(flush, places, dry_run=dry_run)
                if int(cursor) == 0:
                    return count

    async def tell_flushes(self) -> None:
        """Remember every flush there, and have the other replicas look.

        Raises:
            CacheTierError: they may not know.
        """
        with _translated():
            async with self._client.pipeline(transaction=True) as pipeline:
                # if another replica comes between, this fails, to be told again
                await pipeline.watch(self._remembered)
                await self._learn_flushes(pipeline)
                rows = {msgspec.json.encode(flush.selector): repr(flush.at) for flush in self._flushes}
                pipeline.multi()
                pipeline.delete(self._remembered)
                if rows:
                    pipeline.hset(self._remembered, mapping=rows)
                self._announce(pipeline, {b"flush": b""})
                await pipeline.execute()

    def greet(self, learn: Learn) -> None:
        """Have `follow` call it with the last announced records, newest first."""
        self._newcomers.append(learn)

    async def follow(self, learn: Learn, learn_flush: Callable[[Flush], None], pause_s: float) -> None:
        """
        Call `learn` with each semantic record that another replica announces from now on, and `learn_flush` with each
        flush that is new here. After an error it goes on where it was, `pause_s` later.
        """
        after: bytes | None = None
        while True:
            try:
                with _translated():
                    if after is None:  # before the flushes are read, so that none is announced in between unseen
                        newest = await self._client.xrevrange(self._stream, count=1)
                        after = newest[0][0] if newest else b"0-0"
                    for flush in await self._learn_flushes(self._client):
                        learn_flush(flush)
                    while self._newcomers:
                        await self._catch_up(self._newcomers[0])
                        self._newcomers.popleft()
                    after = await self._listen(after, learn)
            except CacheTierError as exc:
                _logger.info("Announcements are not followed: %s", exc)
                await asyncio.sleep(pause_s)

    async def _learn_flushes(self, client: Any) -> list[Flush]:
        """Add what is remembered there to ours; returns what was new."""
        if int(await client.hlen(self._remembered)) > 2 * MOST_FLUSHES:
            raise CacheTierError("shared: more flushes are remembered than any replica writes")
        rows = await client.hgetall(self._remembered)
        now = time.time()
        flushes = [Flush(msgspec.json.decode(selector, type=Selector), float(at)) for selector, at in rows.items()]
        return [flush for flush in flushes if self._flushes.learn(flush, now)]

    async def _catch_up(self, learn: Learn) -> None:
        upper, left = b"+", self._most_announced
        while left > 0:
            page = await self._client.xrevrange(self._stream, max=upper, count=_PAGE)
            await self._learn([fields[b"key"] for _, fields in page[:left] if b"key" in fields], learn)
            if len(page) < _PAGE:
                return
            left -= _PAGE
            upper = b"(" + page[-1][0]

    async def _listen(self, after: bytes, learn: Learn) -> bytes:
        """Learn what is announced, until there is something else to do; returns where it stopped."""
        until = time.monotonic() + _RELEARN_S
        while time.monotonic() < until and not self._newcomers:
            answer = await self._client.xread({self._stream: after}, count=_PAGE, block=_FOLLOW_MS)
            if not answer:
                continue
            entries = answer[0][1]
            others = [fields for _, fields in entries if fields.get(b"by") != self._replica]
            await self._learn([fields[b"key"] for fields in others if b"key" in fields], learn)
            after = entries[-1][0]
            if any(b"flush" in fields for fields in others):
                break
        return after

    async def _learn(self, keys: list[bytes], learn: Learn) -> None:
        if not keys:
            return
        for key, sealed in zip(keys, await self._client.mget([self._at(key) for key in keys]), strict=True):
            record = self._unseal(key, sealed)
            if record is not None:
                learn(record)

    def _announce(self, pipeline: Any, fields: dict[bytes, bytes]) -> None:
        most = max(self._most_announced, _PAGE)
        pipeline.xadd(self._stream, {**fields, b"by": self._replica}, maxlen=most, approximate=True)

    async def _purge(self, flush: Flush, places: Sequence[bytes], *, dry_run: bool) -> int:
        """Delete what a flush selects of these; their heads are enough to see."""
        chosen = []
        for start in range(0, len(places), _PAGE):
            page = places[start : start + _PAGE]
            pipeline = self._client.pipeline(transaction=False)
            for place in page:
                pipeline.getrange(place, 0, _HEAD_BYTES - 1)
            heads = await pipeline.execute()
            chosen += [place for place, head in zip(page, heads, strict=True) if _selects(flush, head)]
        if chosen and not dry_run:
            await self._client.unlink(*chosen)
        return len(chosen)

    def _unseal(self, key: bytes, sealed: object) -> Record | None:
        """What the server says of a key: a live record of ours, or nothing of use."""
        if sealed is None:
            return None
        try:
            if not isinstance(sealed, bytes):
                raise DamagedError  # noqa: TRY301 - one place counts
            record = unseal(sealed, key)
        except DamagedError:
            self._corrupt += 1
            return None
        return None if record.expires_at <= time.time() or self._flushes.kill(record) else record

    def _at(self, key: bytes) -> bytes:
        return self._records + key.hex().encode()

    def statistics(self) -> TierStatistics:
        """See `CacheTier`; how much the server holds is its own to say."""
        return TierStatistics(
            tier=self.name, hits=self._hits, misses=self._misses, writes=self._writes, corrupt=self._corrupt
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Whatever comes of talking to the server as ours: of nonsense, redis-py raises whatever it stumbles over."""
    try:
        yield
    except CacheTierError:
        raise
    except Exception as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # redis-py takes a cancelled connect for a failed one
            raise asyncio.CancelledError from exc
        raise CacheTierError(f"shared: {type(exc).__name__}: {exc}") from exc


def _split(records: Iterator[Record]) -> Iterator[list[Record]]:
    """In parts of bounded length: each is sealed without a pause on the event loop."""
    while part := list(islice(records, 1)):
        size = len(part[0].value)
        while size < _PART_BYTES and (more := next(records, None)) is not None:
            part.append(more)
            size += len(more.value)
        yield part


def _selects(flush: Flush, sealed: bytes) -> bool:
    """By the head alone; what has none is not ours to count."""
    try:
        head = read_head(sealed)
    except DamagedError:
        return False
    selector = flush.selector
    return (
        head.stored_at <= flush.at
        and selector.tenant in {None, head.tenant}
        and selector.model in {None, head.model}
        and (selector.tag is None or selector.tag in head.tags)
    )
