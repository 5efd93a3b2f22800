"""What operators see of lanes, read from their statistics when somebody looks."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.lanes import LaneReport
from router.pressure import Statistics
from router.tickets import Tally, TenantStatistics

_PLACE = ("target", "kind")
_CLASS = (*_PLACE, "priority")
_OUTCOMES = ("started", "done", "refused", "shed", "expired", "cancelled")


class LaneCollector(Collector):
    """Every lane's slots, depth, waits and outcomes, and the pressure that they make.

    Of tenants only the first to come have series, the others one together.
    """

    def __init__(self, read: Callable[[], Sequence[LaneReport]], read_pressure: Callable[[], Statistics]) -> None:
        self._read = read
        self._read_pressure = read_pressure

    def collect(self) -> Iterator[Metric]:
        """See the README for the list."""
        slots = GaugeMetricFamily("hybrid_lane_slots", "How many may run", labels=_PLACE)
        running = GaugeMetricFamily("hybrid_lane_running", "How many do", labels=_PLACE)
        waiting = GaugeMetricFamily("hybrid_lane_waiting", "Requests in the backlog", labels=_CLASS)
        tokens = GaugeMetricFamily("hybrid_lane_waiting_tokens", "Their estimated work", labels=_CLASS)
        oldest = GaugeMetricFamily("hybrid_lane_oldest_seconds", "How long the oldest waits", labels=_CLASS)
        outcomes = CounterMetricFamily("hybrid_lane_requests", "By what became of them", labels=(*_CLASS, "outcome"))
        wait = SummaryMetricFamily("hybrid_lane_wait_seconds", "Of those started", labels=_CLASS)
        service = SummaryMetricFamily("hybrid_lane_service_seconds", "In a slot, of those over", labels=_CLASS)
        tenants = TenantMetrics()
        for lane in self._read():
            place, now = [lane.target, lane.kind.value], lane.now
            slots.add_metric(place, now.slots)
            running.add_metric(place, now.running)
            for priority, one in now.classes.items():
                labels, count = [*place, priority.value], one.count
                waiting.add_metric(labels, one.waiting)
                tokens.add_metric(labels, one.waiting_tokens)
                oldest.add_metric(labels, one.oldest_wait_s)
                wait.add_metric(labels, count.started, count.wait_s)
                service.add_metric(labels, count.done, count.service_s)
                for outcome in _OUTCOMES:
                    outcomes.add_metric([*labels, outcome], _outcome(count, outcome))
            tenants.add(place, now.tenants)
        pressure = self._read_pressure()
        yield GaugeMetricFamily("hybrid_pressure_shift", "Of the threshold, in log-odds", pressure.offset)
        yield CounterMetricFamily("hybrid_pressure_turns", "How often it turned round", pressure.turns)
        yield from (slots, running, waiting, tokens, oldest, outcomes, wait, service)
        yield from tenants.families()


class TenantMetrics:
    """One scrape's families by tenant."""

    def __init__(self) -> None:
        labels = (*_CLASS, "tenant")
        self._waiting = GaugeMetricFamily("hybrid_lane_tenant_waiting", "Requests in the backlog", labels=labels)
        self._wait = SummaryMetricFamily("hybrid_lane_tenant_wait_seconds", "Of those started", labels=labels)
        self._service = SummaryMetricFamily(
            "hybrid_lane_tenant_service_seconds", "In a slot, of those over", labels=labels
        )
        self._outcomes = CounterMetricFamily(
            "hybrid_lane_tenant_requests", "By what became of them", labels=(*labels, "outcome")
        )

    def add(self, place: Sequence[str], tenants: Sequence[TenantStatistics]) -> None:
        """A lane's."""
        for one in tenants:
            labels, count = [*place, one.priority.value, one.tenant], one.count
            self._waiting.add_metric(labels, one.waiting)
            self._wait.add_metric(labels, count.started, count.wait_s)
            self._service.add_metric(labels, count.done, count.service_s)
            for outcome in _OUTCOMES:
                self._outcomes.add_metric([*labels, outcome], _outcome(count, outcome))

    def families(self) -> Iterator[Metric]:
        """All."""
        yield from (self._waiting, self._wait, self._service, self._outcomes)


def _outcome(count: Tally, name: str) -> int:
    value: int = getattr(count, name)
    return value
