"""What operators see: Prometheus metrics and one log line a request. Prompts and answers never enter here."""

import logging
import time
from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.engine.generator import Generator
from edge.engine.metrics import COUNTERS, GAUGES

_logger = logging.getLogger("edge")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Telemetry:
    """Counts and times requests."""

    def __init__(self, generator: Generator, model: str) -> None:
        """`model` is the name of what the generator runs."""
        self._registry = CollectorRegistry()
        self._registry.register(_GeneratorCollector(generator, model))
        self._requests = Counter("edge_requests", "Requests answered.", ["url", "status"], registry=self._registry)
        self._seconds = Histogram(
            "edge_request_seconds", "From head to last byte.", ["url"], buckets=_SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "edge_first_token_seconds", "From head to first piece.", buckets=_SECONDS, registry=self._registry
        )

    def first(self, started: float) -> None:
        """A request that came in at `started` (`time.perf_counter()`) has its first piece."""
        self._first.observe(time.perf_counter() - started)

    def finish(self, url: str, status: int, started: float, request_id: str | None) -> None:
        """A request is over."""
        elapsed = time.perf_counter() - started
        self._requests.labels(url, str(status)).inc()
        self._seconds.labels(url).observe(elapsed)
        line = {"url": url, "status": status, "ms": round(elapsed * 1e3, 1), "request_id": request_id}
        _logger.info("%s", msgspec.json.encode(line).decode())

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _GeneratorCollector(Collector):
    """The generator's own statistics, read when they are asked for."""

    def __init__(self, generator: Generator, model: str) -> None:
        self._generator = generator
        self._model = model

    def collect(self) -> Iterator[Metric]:
        now = self._generator.statistics()
        kinds = ((COUNTERS, CounterMetricFamily), (GAUGES, GaugeMetricFamily))
        for families, kind in kinds:
            for family in families:
                metric = kind(family.name, family.help, labels=["model", family.label])
                for value, attribute in family.members.items():
                    metric.add_metric([self._model, value], getattr(now, attribute))
                yield metric
