"""What operators see: Prometheus metrics and one log line a request. Prompts and answers never enter here."""

import logging
import time
from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.engine.generation import Generator

_logger = logging.getLogger("edge")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Telemetry:
    """Counts and times requests."""

    def __init__(self, generator: Generator) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_GeneratorCollector(generator))
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

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def collect(self) -> Iterator[Metric]:
        now = self._generator.statistics()
        generations = GaugeMetricFamily("edge_generations", "Sequences now.", labels=["state"])
        generations.add_metric(["active"], now.active)
        generations.add_metric(["waiting"], now.waiting)
        yield generations
        ended = CounterMetricFamily("edge_generations_ended", "Sequences that ended.", labels=["how"])
        for how in ("finished", "cancelled", "expired", "failed"):
            ended.add_metric([how], getattr(now, how))
        yield ended
        tokens = CounterMetricFamily("edge_tokens", "Tokens read and written.", labels=["kind"])
        tokens.add_metric(["prompt"], now.prompt_tokens)
        tokens.add_metric(["completion"], now.completion_tokens)
        yield tokens
