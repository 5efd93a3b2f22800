"""Two runs side by side."""

import random

import pytest

from loadtests.swarm.charts import draw_run
from loadtests.swarm.comparison import compare_runs, differ, differing_keys
from loadtests.swarm.measures import Measure
from loadtests.swarm.page import render_page
from loadtests.swarm.record import Record
from loadtests.swarm.summary import summarise
from tests.loadtests.runs import make_record, make_run


def make_records(seed: int, factor: float = 1.0, right: float = 0.9) -> list[Record]:
    """Four hundred, latencies around 100 ms times a factor."""
    rng = random.Random(seed)
    return [
        make_record(n, due=n / 10, took=factor * rng.uniform(0.05, 0.15), right=rng.random() < right)
        for n in range(400)
    ]


def test_slower_is_worse_and_equal_is_not() -> None:
    before, slower, equal = make_run(make_records(1)), make_run(make_records(2, factor=1.5)), make_run(make_records(3))
    verdicts = {row[0]: row[4] for row in compare_runs(before, slower)}
    assert verdicts["latency_p50_ms"] == "worse"
    assert verdicts["latency_mean_ms"] == "worse"
    assert verdicts["accuracy"] == "no difference shown"
    assert "gap_mean_ms" not in verdicts
    back = {row[0]: row[4] for row in compare_runs(slower, before)}
    assert back["latency_p50_ms"] == "better"
    same = {row[0]: row[4] for row in compare_runs(before, equal)}
    assert set(same.values()) == {"no difference shown"}


def test_wrong_answers_are_seen() -> None:
    before, after = make_run(make_records(1)), make_run(make_records(2, right=0.6))
    difference = differ(Measure.ACCURACY, before.table, after.table)
    assert difference.value == pytest.approx(-0.3, abs=0.08)
    assert difference.high < 0


def test_differing_scenarios_are_named() -> None:
    assert differing_keys(make_run([]), make_run([])) == []
    assert differing_keys(make_run([], seed=1), make_run([], seed=2)) == ["seed"]


def test_page_stands_alone_and_escapes() -> None:
    run = make_run(make_records(1))
    page = render_page("<b>", ["fact"], [], summarise(run.table), list(draw_run(run.table)), ["it was slow"])
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('<svg class="chart"') == 4
    assert "it was slow" in page
    for outside in ("<script", "http://", "https://", "src="):
        assert outside not in page.replace("default-src", "")


def test_page_of_nothing_is_a_page() -> None:
    assert "</html>" in render_page("none", [], [], summarise(make_run([]).table), list(draw_run(make_run([]).table)))
