"""What operators see of the cache tiers, read when somebody looks: a request pays nothing for it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.cache import TierStatistics

_COUNTERS: Final = {
    "hits": "Reads that found a live record",
    "misses": "Reads that found none",
    "writes": "Records kept",
    "evictions": "Records dropped for room",
    "errors": "Calls that failed or were given up",
    "corrupt": "Records, or whole files, found damaged",
    "dropped": "Records not written, since the tier was slow or out of reach",
}
_GAUGES: Final = {
    "entries": "Records kept now",
    "bytes": "What they take",
    "most_bytes": "What they may take",
    "open": "Whether a breaker keeps the tier out",
}


class TierCollector(Collector):
    """`TierStatistics` of each tier, by `cache_tier`; a shared tier's size is its server's to report."""

    def __init__(self, statistics: Callable[[], Sequence[TierStatistics]]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """One family for each number."""
        tiers = self._statistics()
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"hybrid_cache_{name}", text, labels=("cache_tier",))
            for tier in tiers:
                counter.add_metric([tier.tier], getattr(tier, name))
            yield counter
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"hybrid_cache_{name}", text, labels=("cache_tier",))
            for tier in tiers:
                gauge.add_metric([tier.tier], float(getattr(tier, name)))
            yield gauge
