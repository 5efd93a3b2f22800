"""What operators see: Prometheus metrics and one JSON log line a request. Prompts and keys never enter here."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from router.query import Usage
from router.request_log import RequestLog, RequestRecord
from router.tallies import SECONDS, RequestTallies

_STORED = frozenset({"hit", "semantic"})


@dataclass(slots=True)
class Stopwatch:
    """One request's times in seconds (`time.perf_counter()`); what is not waiting for a backend is overhead."""

    started: float = field(default_factory=time.perf_counter)
    backend_s: float = 0.0
    queue_s: float = 0.0
    first_s: float | None = None
    _overhead_s: float | None = None

    def elapsed_s(self) -> float:
        """Since the request came in."""
        return time.perf_counter() - self.started

    def overhead_s(self) -> float:
        """Time that the router itself took, up to `answered()` or else up to now."""
        if self._overhead_s is not None:
            return self._overhead_s
        return max(self.elapsed_s() - self.backend_s - self.queue_s, 0.0)

    def answered(self) -> None:
        """The answer's first byte is ready: what follows is the client's and the target's time."""
        self._overhead_s = self.overhead_s()

    def wait_backend(self) -> "BackendWait":
        """A context whose duration counts as waiting for a backend, but for what of it is queueing."""
        return BackendWait(self)

    @contextmanager
    def wait_queue(self) -> Iterator[None]:
        """A context whose duration counts as queueing."""
        entered = time.perf_counter()
        try:
            yield
        finally:
            self.queue_s += time.perf_counter() - entered


class BackendWait:
    """See `Stopwatch.wait_backend`."""

    __slots__ = ("_entered", "_queued_s", "_watch")

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._entered = time.perf_counter()
        self._queued_s = self._watch.queue_s

    def __exit__(self, *_: object) -> None:
        watch = self._watch
        watch.backend_s += time.perf_counter() - self._entered - (watch.queue_s - self._queued_s)


class Telemetry:
    """The metrics of one router, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tokens = self.counter("tokens", "Tokens read and written", "direction", "tier", "target")
        self._fallbacks = self.counter("fallbacks", "Answers from a fallback", "target")
        self._failures = self.counter(
            "target_failures", "Calls without an answer, or without a stream's first piece", "target", "code"
        )
        self._up = self.gauge("target_up", "Whether a target is up", "target")
        self._running = 0
        self.gauge("requests_in_flight", "Requests being answered").set_function(lambda: self._running)
        self._tallies = RequestTallies()
        self.registry.register(self._tallies)
        self.log = RequestLog()

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A new counter of this router."""
        return Counter(f"hybrid_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A new gauge of this router."""
        return Gauge(f"hybrid_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """A new histogram of this router."""
        return Histogram(f"hybrid_{name}", text, labels, registry=self.registry, buckets=buckets)

    def seconds(self, name: str, text: str, *labels: str) -> Histogram:
        """A new histogram of durations."""
        return self.histogram(f"{name}_seconds", text, *labels, buckets=SECONDS)

    def set_up(self, target: str, *, up: bool) -> None:
        """A target's health."""
        self._up.labels(target).set(up)

    def forget_up(self, target: str) -> None:
        """Nobody misses a target that is down."""
        with suppress(KeyError):
            self._up.remove(target)

    def begin(self) -> None:
        """A request came in."""
        self._running += 1

    def count_tokens(self, tier: str, target: str, usage: Usage) -> None:
        """What an answer took, whether or not a client got it."""
        if usage != Usage():
            self._tokens.labels("in", tier, target).inc(usage.prompt_tokens)
            self._tokens.labels("out", tier, target).inc(usage.completion_tokens)

    def count_failure(self, target: str, code: str) -> None:
        """A target brought no answer, or none of a stream's pieces; another one may have answered."""
        self._failures.labels(target, code).inc()

    def failures(self, target: str) -> int:
        """How often it did."""
        samples = (sample for family in self._failures.collect() for sample in family.samples)
        return int(sum(one.value for one in samples if one.name.endswith("_total") and one.labels["target"] == target))

    def tokens(self, tier: str, target: str) -> Usage:
        """What a target read and wrote so far."""
        read, written = (self._tokens.labels(direction, tier, target) for direction in ("in", "out"))
        return Usage(*(int(next(iter(one.collect())).samples[0].value) for one in (read, written)))

    def finish(self, record: RequestRecord) -> None:
        """A request is over: count it, time it, log it."""
        self._running -= 1
        self._tallies.add(record)
        if record.cache not in _STORED:  # else no target read or wrote them
            self.count_tokens(record.tier, record.target, Usage(record.prompt_tokens, record.completion_tokens))
        if record.degraded:
            self._fallbacks.labels(record.target).inc()
        self.log.add(record)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
