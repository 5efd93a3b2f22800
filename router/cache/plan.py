"""What one request has to do with the cache."""

from enum import StrEnum

from msgspec import Struct

from router.cache.directives import Caching
from router.cache.keys import CacheKey
from router.config.cache import Freshness
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


class Plan(Struct, frozen=True):
    """One request's business with the cache: without a key it has none; one that does not read may be kept."""

    query: Query
    rules: Rules
    caching: Caching
    freshness: Freshness
    key: CacheKey | None
    reads: bool = False

    @property
    def status(self) -> CacheStatus:
        """Of a request that was not served from the cache."""
        return CacheStatus.MISS if self.reads else CacheStatus.BYPASS
