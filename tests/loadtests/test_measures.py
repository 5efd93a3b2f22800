"""Figures of hand-made records, where each is known."""

import math
from pathlib import Path

import msgspec
import pytest

from loadtests.swarm.measures import Measure, Table, measure
from loadtests.swarm.record import Form, read_records, recording
from loadtests.swarm.scenario import Objective, Only
from loadtests.swarm.summary import print_lines, summarise
from loadtests.swarm.verdict import judge_objectives
from router.query import Priority
from tests.loadtests.runs import make_record, make_table

RECORDS = [
    make_record(0, due=0.0, took=0.1),
    make_record(1, due=1.0, took=0.2, right=False, tier="cloud", priority=Priority.INTERACTIVE, deadline_ms=150),
    make_record(2, due=2.0, took=0.3, late=0.5, tier="cloud", deadline_ms=900, degraded="fallback"),
    make_record(3, due=3.0, took=0.4, cache="hit", form=Form.STREAM, first=3.1, gap_ms=20.0, longest_gap_ms=50.0),
    make_record(4, due=4.0, status=429, error="full", right=None, tier=""),
    make_record(5, due=5.0, status=504, error="late", right=None, tier=""),
    make_record(6, due=6.0, took=4.0, status=0, error="gone", right=None, tier="", queue_ms=None, overhead_ms=None),
    make_record(7, due=7.0, took=0.1, right=None, form=Form.EMBEDDING),
]


@pytest.fixture
def table() -> Table:
    return make_table(RECORDS)


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (Measure.REQUESTS, 8),
        (Measure.OFFERED_PER_S, 0.8),
        (Measure.ANSWERED_PER_S, 0.5),
        (Measure.GOODPUT_PER_S, 0.4),
        (Measure.ACCURACY, 3 / 4),
        (Measure.FAILED_SHARE, 1 / 8),
        (Measure.REFUSED_SHARE, 1 / 8),
        (Measure.EXPIRED_SHARE, 1 / 8),
        (Measure.MISSED_SHARE, 1 / 2),
        (Measure.CLOUD_SHARE, 2 / 5),
        (Measure.CACHED_SHARE, 1 / 5),
        (Measure.DEGRADED_SHARE, 1 / 5),
        (Measure.LATENCY_P50_MS, 200),
        (Measure.LATENCY_MEAN_MS, (100 + 200 + 800 + 400 + 100) / 5),
        (Measure.FIRST_TOKEN_P50_MS, 100),
        (Measure.GAP_MEAN_MS, 20),
        (Measure.LONGEST_GAP_P99_MS, 50),
        (Measure.QUEUE_P50_MS, 10),
        (Measure.OVERHEAD_P99_MS, 1),
        (Measure.TARGET_P50_MS, 189),
    ],
)
def test_measure(one: Measure, value: float, table: Table) -> None:
    assert measure(one, table) == pytest.approx(value)


def test_late_requests_count_from_when_they_were_due(table: Table) -> None:
    assert table.latency_ms[2] == pytest.approx(800)
    assert measure(Measure.LATE_P99_MS, table) == pytest.approx(465)


def test_every_measure_of_nothing_is_nan_or_zero() -> None:
    empty = make_table([])
    for one in Measure:
        value = measure(one, empty)
        assert math.isnan(value) or value == 0


def test_drift() -> None:
    slower = make_table([make_record(n, due=n, took=0.1 + 0.1 * (n >= 30)) for n in range(40)])
    assert measure(Measure.DRIFT, slower) == pytest.approx(2)


def test_parts_have_the_rates_of_the_whole_run(table: Table) -> None:
    parts = [measure(Measure.ANSWERED_PER_S, part) for _, part in table.groups("tier")]
    assert sum(parts) == pytest.approx(measure(Measure.ANSWERED_PER_S, table))


def test_file_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    with recording(path) as recorder:
        recorder.write(reversed(RECORDS))
        assert not path.exists()
    assert recorder.count == len(RECORDS)
    again = read_records(path)
    for one, before in zip(again, RECORDS, strict=True):
        assert msgspec.to_builtins(one) == pytest.approx(msgspec.to_builtins(before), abs=1e-6)


def test_objectives(table: Table) -> None:
    rows = judge_objectives(
        [
            Objective(measure=Measure.ACCURACY, least=0.7),
            Objective(measure=Measure.ACCURACY, least=0.8),
            Objective(measure=Measure.ACCURACY, least=0.9, only=Only(tier="edge")),
            Objective(measure=Measure.LATENCY_P50_MS, least=10, most=150),
            Objective(measure=Measure.LATENCY_P50_MS, most=1e9, only=Only(priority=Priority.BATCH)),
        ],
        table,
    )
    assert [row.holds for row in rows] == [True, False, True, False, False]
    assert rows[2].name == "accuracy edge"
    assert rows[3].bar == ">= 10 and <= 150"
    assert rows[4].value == "nan"  # nothing was measured, so nothing was kept


def test_summary_names_each_group_once(table: Table) -> None:
    lines = summarise(table)
    names = [line.name for line in lines]
    assert names[0] == "all"
    assert {"tier edge", "tier cloud", "cache hit", "form stream", "priority interactive"} <= set(names)
    assert not [name for name in names if name.startswith("origin")]  # one only
    assert len({len(line) for line in print_lines(lines)}) == 1
