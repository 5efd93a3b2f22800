"""The response cache: what a request may be answered with, and what is kept of its answer."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from router.cache import Kind, Record, Records
from router.cache.directives import Caching, Use, judge_use, lifetime_s, longest_use_s
from router.cache.entry import Entry, EntryCodec
from router.cache.keys import CacheKey, KeyMaker, is_storable
from router.cache.plan import CacheStatus, Plan
from router.cache.semantic import Found
from router.cache.statistics import CacheStatistics
from router.config.cache import Freshness
from router.config.cache import ResponseCache as ResponseSection
from router.decision import Rules
from router.query import Query


class Hit(Struct, frozen=True):
    """A stored answer, and what it is good for."""

    entry: Entry
    age_s: float
    use: Use
    status: CacheStatus = CacheStatus.HIT


class Similar(Protocol):
    """See `router.cache.similar`."""

    async def find(self, key: CacheKey, tenant: str, *, on_site: bool) -> Found | None: ...

    async def add(self, key: CacheKey, record: Record, *, on_site: bool) -> None: ...

    def forget(self, found: Found) -> None: ...

    def count(self, found: Found, plan: Plan, entry: Entry) -> None: ...


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
        self._hits = self._misses = 0
        self._routes: Mapping[str, Freshness] = config.routes

    def statistics(self) -> CacheStatistics:
        """How it does; never waits."""
        return CacheStatistics(kind=Kind.RESPONSE, hits=self._hits, misses=self._misses)

    def plan(self, query: Query, rules: Rules, caching: Caching) -> Plan:
        """What the request and the configuration allow."""
        freshness = self._routes.get(rules.model, self._config.freshness)
        control = caching.control
        if not self._config.enabled or not is_storable(query.parameters, self._config.store):
            return Plan(query, rules, caching, freshness, None)
        if control.no_store:
            return Plan(query, rules, caching, freshness, None)
        return Plan(query, rules, caching, freshness, self._keys.make(query, rules), reads=not control.no_cache)

    def count(self, plan: Plan, hit: Hit | None) -> None:
        """A request was looked up, with this result."""
        if hit is not None and hit.use is not Use.ON_ERROR:
            self._hits += 1
        elif plan.reads:
            self._misses += 1

    def peek(self, plan: Plan) -> Hit | None:
        """The request's own answer, if memory has it."""
        if plan.key is None or not plan.reads:
            return None
        return self._judge(plan, plan.key.exact, self._records.peek(plan.key.exact), CacheStatus.HIT)

    async def find(self, plan: Plan) -> Hit | None:
        """The request's own answer, else one to a question that means the same."""
        if plan.key is None or not plan.reads:
            return None
        if (hit := self.peek(plan)) is not None and hit.use is Use.FRESH:
            return hit
        if self._similar is None and not self._records.deep:
            return hit
        exact = plan.key.exact
        hit = self._judge(plan, exact, await self._records.read(exact), CacheStatus.HIT)
        if hit is None or hit.use is Use.ON_ERROR:
            return await self._find_similar(plan, plan.key) or hit
        return hit

    async def remember(self, plan: Plan, entry: Entry) -> None:
        """Keep an answer, unless what shapes it has changed since it was asked for."""
        key = plan.key
        if key is None or not self._keys.still_holds(key, plan.rules):
            return
        value = self._codec.encode(entry)
        if len(value) > self._config.most_entry_bytes:
            return
        now, tenant = self._clock(), plan.query.tenant
        ends = now + longest_use_s(plan.freshness)
        record = Record(key.exact, Kind.RESPONSE, value, tenant, entry.target, now, ends, plan.caching.tags)
        self._records.write(record, on_site=plan.query.on_site)
        if self._similar is not None:
            await self._similar.add(key, record, on_site=plan.query.on_site)

    async def _find_similar(self, plan: Plan, key: CacheKey) -> Hit | None:
        if self._similar is None or key.before is None:
            return None
        found = await self._similar.find(key, plan.query.tenant, on_site=plan.query.on_site)
        if found is None:
            return None
        record = await self._records.read(found.key)
        if record is None:
            self._similar.forget(found)
        hit = self._judge(plan, found.key, record, CacheStatus.SEMANTIC)
        if hit is None or hit.use is not Use.FRESH:
            return None
        self._similar.count(found, plan, hit.entry)
        return hit

    def _judge(self, plan: Plan, exact: bytes, record: Record | None, status: CacheStatus) -> Hit | None:
        if record is None or (entry := self._codec.decode(record.value)) is None:
            return None
        age_s = max(self._clock() - record.stored_at, 0.0)
        use = judge_use(age_s, lifetime_s(plan.freshness, exact), plan.freshness, plan.caching.control)
        return None if use is Use.NONE else Hit(entry, age_s, use, status)
