"""The response cache: what a request may be answered with, and what is kept of its answer."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.cache import Kind, Record, Records
from router.cache.directives import Caching, Use, judge_use, lifetime_s, longest_use_s
from router.cache.entry import Entry, EntryCodec
from router.cache.keys import CacheKey, KeyMaker, is_storable
from router.config.cache import Freshness
from router.config.cache import ResponseCache as ResponseSection
from router.decision import Rules
from router.query import Query


class CacheStatus(StrEnum):
    """What the caches did for a request: `x-cache`, log field and metric label alike."""

    HIT = "hit"
    SEMANTIC = "semantic"
    MISS = "miss"
    BYPASS = "bypass"

    @property
    def stored(self) -> bool:
        """Whether the answer was made for an earlier request, and no target worked for this one."""
        return self in {CacheStatus.HIT, CacheStatus.SEMANTIC}


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer, and what it is good for."""

    entry: Entry
    age_s: float
    use: Use
    status: CacheStatus = CacheStatus.HIT


@dataclass(frozen=True, slots=True)
class Plan:
    """One request's business with the cache. Without a key it has none."""

    query: Query
    caching: Caching
    freshness: Freshness
    key: CacheKey | None
    reads: bool = False
    writes: bool = False
    shares: bool = False

    @property
    def status(self) -> CacheStatus:
        """Of a request that was not served from the cache."""
        return CacheStatus.MISS if self.reads else CacheStatus.BYPASS


class Similar(Protocol):
    """Finds stored answers to questions that mean the same. Nothing here raises."""

    async def find(self, key: CacheKey, tenant: str) -> bytes | None:
        """The exact key of such an answer."""
        ...

    async def add(self, key: CacheKey, record: Record) -> None:
        """An answer that similar questions may get from now on."""
        ...

    def forget(self, exact: bytes) -> None:
        """An answer that is gone."""
        ...


class ResponseCache:
    """Finds and keeps answers. Nothing here raises."""

    def __init__(
        self,
        config: ResponseSection,
        records: Records,
        keys: KeyMaker,
        similar: Similar | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._records = records
        self._keys = keys
        self._similar = similar
        self._clock = clock
        self._codec = EntryCodec()
        self._routes: Mapping[str, Freshness] = config.routes

    def plan(self, query: Query, rules: Rules, caching: Caching) -> Plan:
        """What the request and the configuration allow."""
        freshness = self._routes.get(rules.model, self._config.freshness)
        control = caching.control
        if not self._config.enabled or not is_storable(query.parameters, self._config.store):
            return Plan(query, caching, freshness, None)
        if control.no_store:
            return Plan(query, caching, freshness, None)
        reads = not control.no_cache
        return Plan(query, caching, freshness, self._keys.make(query, rules), reads, writes=True, shares=reads)

    def peek(self, plan: Plan) -> Hit | None:
        """The request's own answer, if memory has it."""
        if plan.key is None:
            return None
        return self._judge(plan, plan.key.exact, self._records.peek(plan.key.exact), CacheStatus.HIT)

    async def find(self, plan: Plan) -> Hit | None:
        """The request's own answer, else one to a question that means the same."""
        if plan.key is None:
            return None
        if (hit := self.peek(plan)) is not None and hit.use is Use.FRESH:
            return hit
        exact = plan.key.exact
        hit = self._judge(plan, exact, await self._records.read(exact), CacheStatus.HIT)
        if plan.reads and (hit is None or hit.use is Use.ON_ERROR):
            return await self._find_similar(plan, plan.key) or hit
        return hit

    async def remember(self, plan: Plan, entry: Entry, rules: Rules) -> None:
        """Keep an answer, unless what shapes it has changed since it was asked for."""
        key = plan.key
        if key is None or not plan.writes or key != self._keys.make(plan.query, rules):
            return
        value = self._codec.encode(entry)
        if len(value) > self._config.most_entry_bytes:
            return
        now, tenant = self._clock(), plan.query.tenant
        ends = now + longest_use_s(plan.freshness)
        record = Record(key.exact, Kind.RESPONSE, value, tenant, entry.target, now, ends, plan.caching.tags)
        self._records.write(record)
        if self._similar is not None and key.partition is not None:
            await self._similar.add(key, record)

    async def _find_similar(self, plan: Plan, key: CacheKey) -> Hit | None:
        if self._similar is None or key.partition is None:
            return None
        exact = await self._similar.find(key, plan.query.tenant)
        if exact is None:
            return None
        record = await self._records.read(exact)
        if record is None:
            self._similar.forget(exact)
        hit = self._judge(plan, exact, record, CacheStatus.SEMANTIC)
        return hit if hit is not None and hit.use is Use.FRESH else None

    def _judge(self, plan: Plan, exact: bytes, record: Record | None, status: CacheStatus) -> Hit | None:
        if record is None or (entry := self._codec.decode(record.value)) is None:
            return None
        age_s = max(self._clock() - record.stored_at, 0.0)
        use = judge_use(age_s, lifetime_s(plan.freshness, exact), plan.freshness, plan.caching.control)
        return None if use is Use.NONE else Hit(entry, age_s, use, status)
