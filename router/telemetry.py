"""What operators see: Prometheus metrics and one JSON log line a request. Prompts and keys never enter here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from router.query import Usage
from router.request_log import RequestLog, RequestRecord

_SECONDS = (1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BAD_REQUEST = 400
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
        """A context whose duration counts as waiting for a backend."""
        return BackendWait(self)


class BackendWait:
    """See `Stopwatch.wait_backend`."""

    __slots__ = ("_entered", "_watch")

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._watch.backend_s += time.perf_counter() - self._entered


class Telemetry:
    """The metrics of one router, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        place = ("tier", "target")
        self._requests = self.counter("requests", "Requests answered", "url", "status", *place, "reason")
        self._duration = self.seconds("request", "From request to last byte", "url", *place)
        self._first = self.seconds("first_byte", "From request to first streamed piece", *place)
        self._overhead = self.seconds("overhead", "Time that is not waiting for a target", "url")
        self._tokens = self.counter("tokens", "Tokens read and written", "direction", *place)
        self._answers = self.counter("answers", "Answers by what the caches did for them", "url", "cache")
        self._fallbacks = self.counter("fallbacks", "Answers from a fallback", "target")
        self._up = self.gauge("target_up", "Whether a target is up", "target")
        self._running = 0
        self.gauge("requests_in_flight", "Requests being answered").set_function(lambda: self._running)
        self._tallies: dict[tuple[str, int, str, str, str, str], _Tally] = {}
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
        return self.histogram(f"{name}_seconds", text, *labels, buckets=_SECONDS)

    def set_up(self, target: str, *, up: bool) -> None:
        """A target's health."""
        self._up.labels(target).set(up)

    def begin(self) -> None:
        """A request came in."""
        self._running += 1

    def count_tokens(self, tier: str, target: str, usage: Usage) -> None:
        """What an answer took, whether or not a client got it."""
        if usage != Usage():
            self._tokens.labels("in", tier, target).inc(usage.prompt_tokens)
            self._tokens.labels("out", tier, target).inc(usage.completion_tokens)

    def finish(self, record: RequestRecord) -> None:
        """A request is over: count it, time it, log it."""
        self._running -= 1
        kind = (record.url, record.status, record.tier, record.target, record.reason, record.cache)
        tally = self._tallies.get(kind)
        if tally is None:
            tally = self._tallies[kind] = self._make_tally(record)
        tally.add(record)
        if record.cache not in _STORED:  # else no target read or wrote them
            self.count_tokens(record.tier, record.target, Usage(record.prompt_tokens, record.completion_tokens))
        if record.degraded:
            self._fallbacks.labels(record.target).inc()
        self.log.add(record)

    def _make_tally(self, record: RequestRecord) -> "_Tally":
        place = (record.tier, record.target)
        answers = self._answers.labels(record.url, record.cache) if record.status < _BAD_REQUEST else None
        return _Tally(
            self._requests.labels(record.url, record.status, *place, record.reason),
            self._duration.labels(record.url, *place),
            self._overhead.labels(record.url),
            self._first.labels(*place),
            answers,
        )

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class _Tally:
    """The series of one kind of request: finding each by its labels costs more than counting in it."""

    requests: Counter
    duration: Histogram
    overhead: Histogram
    first: Histogram
    answers: Counter | None

    def add(self, record: RequestRecord) -> None:
        """Count one."""
        self.requests.inc()
        self.duration.observe(record.total_ms / 1e3)
        self.overhead.observe(record.overhead_ms / 1e3)
        if record.first_ms is not None:
            self.first.observe(record.first_ms / 1e3)
        if self.answers is not None:
            self.answers.inc()
