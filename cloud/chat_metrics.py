"""The decode loop's counters as Triton metrics, beside Triton's own on the metrics port."""

from typing import Any

import triton_python_backend_utils as pb_utils

from edge.engine.events import Statistics
from edge.engine.metrics import COUNTERS, GAUGES, Family


class ChatMetrics:
    """Not for every decode step: each change of a metric is a message to tritonserver."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._families: list[Any] = []  # a family must outlive its metrics
        self._counters: dict[str, Any] = {}
        self._gauges: dict[str, Any] = {}
        for family in COUNTERS:
            self._counters |= self._register(family, pb_utils.MetricFamily.COUNTER)
        for family in GAUGES:
            self._gauges |= self._register(family, pb_utils.MetricFamily.GAUGE)
        self._published = Statistics(*(0 for _ in Statistics.__struct_fields__))

    def publish(self, statistics: Statistics) -> bool:
        """Publish what has changed; returns whether sequences are there that will change it again."""
        for name, counter in self._counters.items():
            if increment := getattr(statistics, name) - getattr(self._published, name):
                counter.increment(increment)
        for name, gauge in self._gauges.items():
            if (now := getattr(statistics, name)) != getattr(self._published, name):
                gauge.set(now)
        self._published = statistics
        return bool(statistics.active or statistics.waiting)

    def _register(self, family: Family, kind: Any) -> dict[str, Any]:
        """The family's metrics, by the attribute of `Statistics` that each shows."""
        made = pb_utils.MetricFamily(name=family.name, description=family.help, kind=kind)
        self._families.append(made)
        return {
            attribute: made.Metric(labels={"model": self._model, family.label: value})
            for value, attribute in family.members.items()
        }
