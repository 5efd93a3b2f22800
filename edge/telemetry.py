"""What operators see: Prometheus metrics and one log line a request. Prompts and answers never enter here."""

import logging
from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.engine.generator import Generator
from edge.engine.metrics import COUNTERS, GAUGES

_logger = logging.getLogger("edge")
_encode = msgspec.json.encode
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that is over: a line of the log. `request_id` and `trace_id` are the router's."""

    request_id: str | None
    url: str
    status: int
    model: str = ""
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_ms: float | None = None
    total_ms: float
    trace_id: str = ""


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

    def see_first(self, seconds: float) -> None:
        """A request has its first piece, so long after it came in."""
        self._first.observe(seconds)

    def finish(self, record: RequestRecord) -> None:
        """A request is over."""
        self._requests.labels(record.url, str(record.status)).inc()
        self._seconds.labels(record.url).observe(record.total_ms / 1e3)
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("%s", _encode(record).decode())

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
