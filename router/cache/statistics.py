"""What an operator sees of the caches, and what a flush reaches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from router.cache import FlushReport, Kind, Records, Selector, TierStatistics


class CacheStatistics(Struct, frozen=True, kw_only=True):
    """One cache since the start. A cache with more to say derives a struct of its own: its fields are shown too."""

    kind: Kind
    hits: int = 0
    misses: int = 0

    @classmethod
    def total(cls, caches: "Sequence[CacheStatistics]") -> "CacheStatistics":
        """Of one cache in several processes; only what every cache says."""
        hits, misses = sum(one.hits for one in caches), sum(one.misses for one in caches)
        return CacheStatistics(kind=caches[0].kind, hits=hits, misses=misses)


class CountedCache(Protocol):
    """A cache that says how it does; never waits."""

    def statistics(self) -> CacheStatistics: ...


class CacheReport(Struct, frozen=True):
    """What `GET /v1/cache` answers."""

    tiers: Sequence[TierStatistics]
    caches: Sequence[CacheStatistics]

    @classmethod
    def total(cls, reports: "Sequence[CacheReport]") -> "CacheReport":
        """Of several processes."""
        if len(reports) == 1:
            return reports[0]
        tiers = zip(*(report.tiers for report in reports), strict=True)
        caches = zip(*(report.caches for report in reports), strict=True)
        return CacheReport([TierStatistics.total(same) for same in tiers], [CacheStatistics.total(c) for c in caches])


class Flushable(Protocol):
    """What holds more of a record than its tiers do."""

    async def flush(self, selector: Selector) -> None: ...


@dataclass(frozen=True, slots=True)
class Caches:
    """The tiers of one router, and the caches above them."""

    records: Records
    counted: Sequence[CountedCache] = ()
    semantic: Flushable | None = None

    def report(self) -> CacheReport:
        """Everything's statistics."""
        return CacheReport(self.records.statistics(), [cache.statistics() for cache in self.counted])

    async def flush(self, selector: Selector, *, dry_run: bool) -> FlushReport:
        """See `Records.flush`; questions whose answers go are forgotten too."""
        report = await self.records.flush(selector, dry_run=dry_run)
        if self.semantic is not None and not dry_run:
            await self.semantic.flush(selector)
        return report
