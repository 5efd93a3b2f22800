"""What operators see of the semantic cache."""

from collections.abc import Callable, Iterator
from enum import StrEnum

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.cache.error_budget import BudgetStatistics
from router.cache.evidence import Interval
from router.cache.statistics import CacheStatistics
from router.telemetry import Telemetry

__all__ = ["Outcome", "SemanticMetrics", "SemanticStatistics"]


class Outcome(StrEnum):
    """What a lookup came to."""

    HIT = "hit"
    FAR = "far"
    REFUSED = "refused"
    PAUSED = "paused"
    SHUT = "shut"
    UNFIT = "unfit"
    BUSY = "busy"
    LATE = "late"
    FAILED = "failed"


class SemanticStatistics(CacheStatistics, frozen=True, kw_only=True):
    """How the semantic cache stands; the budget speaks of false hits."""

    entries: int
    partitions: int
    budget: BudgetStatistics


class SemanticMetrics:
    """Counts lookups; the rest is read from `statistics` when somebody looks."""

    def __init__(self, telemetry: Telemetry, statistics: Callable[[], SemanticStatistics]) -> None:
        lookups = telemetry.counter("semantic_lookups", "Lookups for questions that mean the same", "outcome")
        self.hits = self.lookups = 0
        self._lookups = {outcome: lookups.labels(outcome) for outcome in Outcome}
        self._refusals = telemetry.counter("semantic_refusals", "Near questions that the guard refused", "kind")
        self._dropped = telemetry.counter("semantic_dropped", "Changes not made for want of room")
        self._seconds = telemetry.seconds("semantic_lookup", "A lookup, without the embedding")
        telemetry.registry.register(_StatisticsCollector(statistics))

    def count(self, outcome: Outcome, seconds: float) -> None:
        """A lookup is over."""
        self.hits += outcome is Outcome.HIT
        self.lookups += 1
        self._lookups[outcome].inc()
        self._seconds.observe(seconds)

    def count_refusal(self, kind: StrEnum) -> None:
        """The guard refused a question that was near enough."""
        self._refusals.labels(kind).inc()

    def count_dropped(self) -> None:
        """A change was not made."""
        self._dropped.inc()


class _StatisticsCollector(Collector):
    def __init__(self, statistics: Callable[[], SemanticStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Sizes, states, and the false-hit rate with its interval; never a series a partition."""
        now = self._statistics()
        yield GaugeMetricFamily("hybrid_semantic_entries", "Questions that can be found", now.entries)
        yield GaugeMetricFamily("hybrid_semantic_partitions", "Partitions that have any", now.partitions)
        states = GaugeMetricFamily(
            "hybrid_semantic_states", "Partitions with hits, by what they may do", labels=("state",)
        )
        for state, count in now.budget.states.items():
            states.add_metric([state], count)
        yield states
        rate = GaugeMetricFamily(
            "hybrid_semantic_false_hits", "Share of audited hits, with its 95% bounds (Wilson)", labels=("of", "bound")
        )
        for of, interval in (("all", now.budget.pooled), ("worst_partition", now.budget.worst)):
            _add_interval(rate, of, interval)
        yield rate


def _add_interval(rate: GaugeMetricFamily, of: str, interval: Interval) -> None:
    for bound, value in (("low", interval.low), ("estimate", interval.share), ("high", interval.high)):
        rate.add_metric([of, bound], value)
