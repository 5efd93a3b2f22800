"""Requests counted in plain numbers look to Prometheus as its own counters and histograms would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from router.request_log import RequestRecord
from router.tallies import SECONDS, RequestTallies

PLACES = [("edge", "edge-demo"), ("cloud", "cloud-demo"), ("", "")]
records = st.builds(
    lambda url, status, place, cache, total_ms, first_ms, error: RequestRecord(
        request_id="r",
        url=url,
        status=status,
        tier=place[0],
        target=place[1],
        reason="easy" if place[0] else "",
        cache=cache,
        total_ms=total_ms,
        overhead_ms=total_ms / 2,
        first_ms=first_ms,
        tenant="shop",
        error=error,
    ),
    st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    st.sampled_from([200, 304, 400, 499, 503]),
    st.sampled_from(PLACES),
    st.sampled_from(["hit", "miss"]),
    st.one_of(st.sampled_from([bound * 1e3 for bound in SECONDS]), st.floats(0, 2e5)),
    st.none() | st.floats(0, 2e3),
    st.sampled_from([None, "overloaded", "rate_limit_exceeded"]),
)


def count_with_its_own(registry: CollectorRegistry, asked: list[RequestRecord]) -> None:
    """What the tallies are to be like."""
    place = ("tier", "target")
    requests = Counter("hybrid_requests", "", ("url", "status", *place, "reason"), registry=registry)
    answers = Counter("hybrid_answers", "", ("url", "cache"), registry=registry)
    errors = Counter("hybrid_errors", "", ("url", "code"), registry=registry)
    refusals = Counter("hybrid_quota_refusals", "", ("tenant",), registry=registry)
    durations = {
        name: Histogram(f"hybrid_{name}_seconds", "", labels, registry=registry, buckets=SECONDS)
        for name, labels in (("request", ("url", *place)), ("overhead", ("url",)), ("first_byte", place))
    }
    for one in asked:
        requests.labels(one.url, one.status, one.tier, one.target, one.reason).inc()
        if one.status < 400:
            answers.labels(one.url, one.cache).inc()
        if one.error is not None:
            errors.labels(one.url, one.error).inc()
        if one.error == "rate_limit_exceeded":
            refusals.labels(one.tenant).inc()
        durations["request"].labels(one.url, one.tier, one.target).observe(one.total_ms / 1e3)
        durations["overhead"].labels(one.url).observe(one.overhead_ms / 1e3)
        first = durations["first_byte"].labels(one.tier, one.target)
        if one.first_ms is not None:
            first.observe(one.first_ms / 1e3)


def read_samples(registry: CollectorRegistry) -> list[str]:
    """The lines that carry numbers; when a series was made is of no interest."""
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if not line.startswith("#") and "_created" not in line)


@given(st.lists(records, max_size=40))
def test_prometheus_sees_what_its_own_metrics_would_show(asked: list[RequestRecord]) -> None:
    plain, own = CollectorRegistry(), CollectorRegistry()
    tallies = RequestTallies()
    plain.register(tallies)
    for one in asked:
        tallies.add(one)
    count_with_its_own(own, asked)

    assert read_samples(plain) == read_samples(own)
