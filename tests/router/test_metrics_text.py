"""Several processes' metrics on one page."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from router.processes.metrics_text import join_metrics


def page(requests: int) -> bytes:
    registry = CollectorRegistry()
    counter = Counter("requests", "Answered, with {braces} and\nlines", ["url"], registry=registry)
    counter.labels('/a b{c="d"}').inc(requests)
    Histogram("took_seconds", "How long", buckets=(1.0,), registry=registry).observe(requests)
    return generate_latest(registry)


def test_each_series_says_whose_it_is_and_families_stay_together() -> None:
    joined = join_metrics({0: page(3), 1: page(4), 2: None}).decode()

    families = {family.name: family for family in text_string_to_metric_families(joined)}
    totals = [s for s in families["requests"].samples if s.name == "requests_total"]
    assert {(s.labels["process"], s.value) for s in totals} == {("0", 3.0), ("1", 4.0)}
    assert {s.labels["url"] for s in totals} == {'/a b{c="d"}'}
    sums = [s for s in families["took_seconds"].samples if s.name == "took_seconds_sum"]
    assert {(s.labels["process"], s.value) for s in sums} == {("0", 3.0), ("1", 4.0)}
    up = {s.labels["process"]: s.value for s in families["hybrid_process_up"].samples}
    assert up == {"0": 1.0, "1": 1.0, "2": 0.0}
    assert joined.count("# HELP requests_total") == 1
