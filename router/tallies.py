"""Requests that are over, counted in plain numbers that Prometheus gets when it asks.

Its own counters lock, and look through their labels or buckets in Python, at each step: for the five series that every
request counts in, that was a tenth of what a cache's hit takes. These belong to the event loop alone.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from router.errors import QuotaError
from router.request_log import RequestRecord

SECONDS: Final = (
    *(1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
"""The upper bounds of every histogram of durations."""
_BAD_REQUEST: Final = 400
_PLACE: Final = ("tier", "target")
_ERROR: Final = ("url", "code")


class Count:
    """How many."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Durations:
    """How long, in seconds."""

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Another one."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """How many were at most so long, by Prometheus's name of the bound."""
        names = [*map(floatToGoString, SECONDS), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class Tally:
    """The series that one kind of request counts in: finding each by its labels costs more than counting."""

    __slots__ = ("_answers", "_duration", "_first", "_overhead", "_requests")

    def __init__(
        self, requests: Count, answers: Count | None, duration: Durations, overhead: Durations, first: Durations
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._duration = duration
        self._overhead = overhead
        self._first = first

    def add(self, record: RequestRecord) -> None:
        """Count one."""
        self._requests.value += 1
        if self._answers is not None:
            self._answers.value += 1
        self._duration.add(record.total_ms / 1e3)
        self._overhead.add(record.overhead_ms / 1e3)
        if record.first_ms is not None:
            self._first.add(record.first_ms / 1e3)


Labels = tuple[str, ...]


class RequestTallies(Collector):
    """Counts and durations of all requests, by what they asked and got."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int, str, str, str, str], Tally] = {}
        self._requests: defaultdict[Labels, Count] = defaultdict(Count)
        self._answers: defaultdict[Labels, Count] = defaultdict(Count)
        self._duration: defaultdict[Labels, Durations] = defaultdict(Durations)
        self._overhead: defaultdict[Labels, Durations] = defaultdict(Durations)
        self._first: defaultdict[Labels, Durations] = defaultdict(Durations)
        self._errors: defaultdict[Labels, Count] = defaultdict(Count)
        self._quota_refusals: defaultdict[Labels, Count] = defaultdict(Count)

    def add(self, record: RequestRecord) -> None:
        """Count one."""
        kind = (record.url, record.status, record.tier, record.target, record.reason, record.cache)
        tally = self._tallies.get(kind)
        if tally is None:
            tally = self._tallies[kind] = self._make_tally(record)
        tally.add(record)
        if record.error is not None:
            self._errors[record.url, record.error].value += 1
            if record.error == QuotaError.code:
                self._quota_refusals[record.tenant,].value += 1

    def collect(self) -> Iterator[Metric]:
        """One family for each number."""
        yield _counter("requests", "Requests answered", ("url", "status", *_PLACE, "reason"), self._requests)
        yield _counter("answers", "Answers by what the caches did for them", ("url", "cache"), self._answers)
        yield _counter("errors", "Requests refused or failed, by the code that the client got", _ERROR, self._errors)
        yield _counter("quota_refusals", "Requests over their tenant's quota", ("tenant",), self._quota_refusals)
        yield _histogram("request", "From request to last byte", ("url", *_PLACE), self._duration)
        yield _histogram("overhead", "Time that is not waiting for a target", ("url",), self._overhead)
        yield _histogram("first_byte", "From request to first streamed piece", _PLACE, self._first)

    def _make_tally(self, record: RequestRecord) -> Tally:
        place = (record.tier, record.target)
        return Tally(
            self._requests[record.url, str(record.status), *place, record.reason],
            self._answers[record.url, record.cache] if record.status < _BAD_REQUEST else None,
            self._duration[record.url, *place],
            self._overhead[record.url,],
            self._first[place],
        )


def _counter(name: str, text: str, labels: Labels, counts: dict[Labels, Count]) -> Metric:
    family = CounterMetricFamily(f"hybrid_{name}", text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count.value)
    return family


def _histogram(name: str, text: str, labels: Labels, durations: dict[Labels, Durations]) -> Metric:
    family = HistogramMetricFamily(f"hybrid_{name}_seconds", text, labels=labels)
    for values, one in durations.items():
        family.add_metric(values, one.buckets(), one.sum_s)
    return family
