"""What operators see of lanes, read from their statistics when somebody looks."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.lanes import LaneReport
from router.pressure import Statistics
from router.tickets import ClassCount

_PLACE = ("target", "kind")
_CLASS = (*_PLACE, "priority")
_OUTCOMES = ("started", "done", "refused", "shed", "expired", "cancelled")


class LaneCollector(Collector):
    """Every lane's slots, depth, waits and outcomes, and the pressure that they make.

    Of tenants only those with the most waiting have series.
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
        tenants = GaugeMetricFamily("hybrid_lane_tenant_waiting", "Of the largest", labels=(*_CLASS, "tenant"))
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
            for tenant in now.tenants:
                tenants.add_metric([*place, tenant.priority.value, tenant.tenant], tenant.waiting)
        pressure = self._read_pressure()
        yield GaugeMetricFamily("hybrid_pressure_shift", "Of the threshold, in log-odds", pressure.offset)
        yield CounterMetricFamily("hybrid_pressure_turns", "How often it turned round", pressure.turns)
        yield from (slots, running, waiting, tokens, oldest, outcomes, wait, service, tenants)


def _outcome(count: ClassCount, name: str) -> int:
    value: int = getattr(count, name)
    return value
