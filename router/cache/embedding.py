"""Vectors by who made them, for whom, and of what: a vector is reused for exactly the same input, or not at all."""

import struct
import time
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from router.cache import Kind, Record, Records
from router.cache.statistics import CacheStatistics
from router.config.cache import EmbeddingCache as EmbeddingCacheSection
from router.query import Input
from router.telemetry import Telemetry

_HEAD: Final = struct.Struct("<II")
_UNCOUNTED: Final = 0xFFFF_FFFF
_LENGTH: Final = struct.Struct("<Q")


class Owner(StrEnum):
    """Whose encoder: a target and the router's own may bear the same name."""

    ROUTER = "router"
    TARGET = "target"


class Maker(NamedTuple):
    """What computes vectors: `name` is the target's, or that of the router's embedding model, and what a flush names.

    `model` and `version` say which weights; when either changes, no earlier vector is found.
    """

    owner: Owner
    name: str
    model: str
    version: str


class StoredVector(NamedTuple):
    """Little-endian float32 numbers, and how many tokens its input had, where that was counted."""

    vector: bytes
    tokens: int | None = None


class EmbeddingCache:
    """Nothing here raises: a tier in trouble, or a damaged value, is a miss."""

    def __init__(self, records: Records, config: EmbeddingCacheSection, telemetry: Telemetry) -> None:
        self._records = records
        self._ttl_s = config.ttl_s
        lookups = telemetry.counter("embedding_cache_lookups", "Vectors looked up", "result")
        self._counters = {True: lookups.labels("hit"), False: lookups.labels("miss")}
        self._counts = {True: 0, False: 0}

    @property
    def deep(self) -> bool:
        """Whether `read` can find what `peek` does not."""
        return self._records.deep

    def statistics(self) -> CacheStatistics:
        """How it does; never waits."""
        return CacheStatistics(kind=Kind.EMBEDDING, hits=self._counts[True], misses=self._counts[False])

    def peek(self, maker: Maker, tenant: str, content: Input) -> StoredVector | None:
        """From memory alone, at once; what is not there is not counted as missing, since `read` may still find it."""
        found = _unpack(self._records.peek(make_key(maker, tenant, content)))
        if found is not None:
            self._count(hit=True)
        return found

    async def read(self, maker: Maker, tenant: str, content: Input) -> StoredVector | None:
        """From whichever tier has it in time."""
        found = _unpack(await self._records.read(make_key(maker, tenant, content)))
        self._count(hit=found is not None)
        return found

    def write(self, maker: Maker, tenant: str, content: Input, made: StoredVector, *, on_site: bool = False) -> None:
        """Keep a vector for as long as the configuration says."""
        now = time.time()
        key, value = make_key(maker, tenant, content), _pack(made)
        record = Record(key, Kind.EMBEDDING, value, tenant, maker.name, now, now + self._ttl_s)
        self._records.write(record, on_site=on_site)

    def _count(self, *, hit: bool) -> None:
        self._counters[hit].inc()
        self._counts[hit] += 1


def make_key(maker: Maker, tenant: str, content: Input) -> bytes:
    """32 bytes. Each field is preceded by its length, so no two different lists of fields read the same; a text and its
    tokens are two inputs.
    """
    if isinstance(content, str):
        form, said = "text", _encode(content)
    else:
        form, said = "tokens", struct.pack(f"<{len(content)}q", *content)
    return _digest([*map(_encode, (Kind.EMBEDDING, *maker, tenant, form)), said])


def _digest(fields: Iterable[bytes]) -> bytes:
    return sha256(b"".join([part for field in fields for part in (_LENGTH.pack(len(field)), field)])).digest()


def _encode(text: str) -> bytes:
    """UTF-8; also of half a surrogate pair, which must not stop a request nor be taken for another."""
    return text.encode("utf-8", "surrogatepass")


def _pack(made: StoredVector) -> bytes:
    """Tokens and width before the numbers, so that a value cut short is known for one."""
    tokens = _UNCOUNTED if made.tokens is None else made.tokens
    return _HEAD.pack(tokens, len(made.vector) // 4) + made.vector


def _unpack(record: Record | None) -> StoredVector | None:
    if record is None or len(record.value) <= _HEAD.size:
        return None
    tokens, width = _HEAD.unpack_from(record.value)
    vector = record.value[_HEAD.size :]
    if len(vector) != 4 * width:
        return None
    return StoredVector(vector, None if tokens == _UNCOUNTED else tokens)
